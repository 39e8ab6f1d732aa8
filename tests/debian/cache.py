# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The cache directory: where it is, one user at a time, directories there whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from typing import Iterator


def default_cache() -> str:
    """LIVEPATCH_DEBIAN_CACHE, else .cache/debian in the checkout (which git ignores)."""
    checkout = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return os.path.abspath(os.environ.get("LIVEPATCH_DEBIAN_CACHE") or os.path.join(checkout, ".cache", "debian"))


@contextlib.contextmanager
def only_one(cache: str) -> Iterator[None]:
    """Wait until nobody else prepares in this cache."""
    os.makedirs(cache, exist_ok=True)
    with open(os.path.join(cache, "lock"), "w", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def made_whole(home: str) -> Iterator[str]:
    """A scratch directory that becomes `home` when the block ends well, and disappears when it does not."""
    os.makedirs(os.path.dirname(home), exist_ok=True)
    scratch = tempfile.mkdtemp(prefix="unfinished-", dir=os.path.dirname(home))
    try:
        os.chmod(scratch, 0o755)
        yield scratch
        os.rename(scratch, home)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
