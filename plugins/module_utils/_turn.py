# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Whose turn it is to work on this host: one file below /run says so, and is locked while it is changed."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from typing import Any, Iterator

FOLDER = "/run/cgl-livepatch"
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Turn:
    """The turn of this host, read and locked. `holder`: who has it, {} for nobody; `boot`: this host's boot id."""

    def __init__(self, descriptor: int, boot: str) -> None:
        self._descriptor = descriptor
        self.boot = boot
        self.holder: dict[str, Any] = {}
        if descriptor >= 0:
            text = os.pread(descriptor, 1 << 16, 0).decode("utf-8", "replace")
            try:
                self.holder = json.loads(text) if text else {}
            except ValueError:  # a run was killed while it wrote; somebody has it, and nobody can tell who
                self.holder = {"controller": "an unknown controller", "host_boot": boot}
            # Whoever was at work before this boot is not any more.
            if self.holder.get("host_boot") != boot:
                self.holder = {}

    @classmethod
    @contextlib.contextmanager
    def opened(cls, writable: bool, folder: str = FOLDER) -> Iterator[Turn]:
        """The turn, while nobody else writes it. Raises OSError."""
        with open(_BOOT_ID, encoding="ascii") as stream:
            boot = stream.read().strip()
        if writable:
            os.makedirs(folder, mode=0o755, exist_ok=True)
        try:
            flags = os.O_RDWR | os.O_CREAT if writable else os.O_RDONLY
            descriptor = os.open(folder + "/turn", flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except FileNotFoundError:
            yield cls(-1, boot)
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if writable else fcntl.LOCK_SH)
            yield cls(descriptor, boot)
        finally:
            os.close(descriptor)

    def write(self, holder: dict[str, Any]) -> None:
        """Let `holder` have the turn; nobody when it is empty."""
        text = json.dumps(holder).encode() if holder else b""
        if text:
            os.pwrite(self._descriptor, text, 0)
        os.ftruncate(self._descriptor, len(text))
        self.holder = holder


def holder_in_words(holder: dict[str, Any]) -> str:
    """Who has a turn, and since when, for people."""
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(int(holder.get("since", 0))))
    return "process %s on %s, since %s" % (holder.get("pid", "?"), holder.get("controller", "?"), since)
