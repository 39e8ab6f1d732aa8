# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The patches that this host knows: those of its store, and each one that was loaded here, kept as it was then.

They are what a process's word is measured by. Kept by digest, in a folder that is root's alone; nothing is ever applied
from there.
"""

from __future__ import annotations

import contextlib
import os
import re

from .._errors import LivepatchError
from .._patch.content import Patch
from .._patch.reader import MOST_FILE_BYTES, read_patch
from .files import check_folder, make_folder, read_file, remove_file, write_file
from .places import Places
from .store import Store

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_ENDING = ".lpatch"
# More than a host has loaded in years; then the one that was learnt first is forgotten.
_MOST_KEPT = 256


class KnownPatches:
    """Looks patches up by their SHA-256; each is read once."""

    def __init__(self, places: Places) -> None:
        self._store = Store(places)
        self._folder = places.store + "/known"
        self._found: dict[str, Patch | None] = {}

    def __call__(self, sha256: str) -> Patch | None:
        """The patch with this digest, None where it is not known. The digest may be what some process says it is."""
        if not _SHA256.match(sha256):
            return None
        if sha256 not in self._found:
            self._found[sha256] = self._learnt(sha256) or self._stored(sha256)
        return self._found[sha256]

    def learn(self, raw: bytes, sha256: str) -> None:
        """Keep a patch file that is loaded here. Raises OSError, LivepatchError store_corrupt."""
        if not _SHA256.match(sha256):
            raise ValueError("%s is no digest" % sha256)
        for folder in (os.path.dirname(self._folder), self._folder):
            make_folder(folder)
        path = self._path(sha256)
        if not os.path.exists(path):
            write_file(path, raw)
        kept = [os.path.join(self._folder, name) for name in os.listdir(self._folder) if name.endswith(_ENDING)]
        for old in sorted(kept, key=os.path.getmtime)[:-_MOST_KEPT]:
            remove_file(old)

    def _path(self, sha256: str) -> str:
        return os.path.join(self._folder, sha256 + _ENDING)

    def _learnt(self, sha256: str) -> Patch | None:
        with contextlib.suppress(OSError, LivepatchError):
            check_folder(self._folder)
            patch = read_patch(read_file(self._path(sha256), MOST_FILE_BYTES))
            return patch if patch.sha256 == sha256 else None
        return None

    def _stored(self, sha256: str) -> Patch | None:
        with contextlib.suppress(OSError, LivepatchError):
            entries, _errors = self._store.entries()
            return next((self._store.patch(entry)[0] for entry in entries if entry.sha256 == sha256), None)
        return None
