# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that only root may write or read, and that are whole whenever anybody looks."""

from __future__ import annotations

import contextlib
import os
import stat

from .desired import corrupt


def make_folder(path: str) -> None:
    """A folder that is its owner's alone (0700), made if need be. Raises OSError, LivepatchError store_corrupt."""
    os.makedirs(path, mode=0o700, exist_ok=True)
    check_folder(path)


def check_folder(path: str) -> None:
    """Raises LivepatchError store_corrupt for what is no folder, or somebody else's; FileNotFoundError."""
    _check(path, os.lstat(path), stat.S_ISDIR, "folder")


def read_file(path: str, most: int) -> bytes:
    """The content of a file of the store.

    Raises LivepatchError store_corrupt where it is larger than `most` bytes, no plain file, or others may have written
    it; OSError.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise corrupt(path, os.strerror(error.errno or 0)) from None
    try:
        _check(path, os.fstat(descriptor), stat.S_ISREG, "plain file")
        raw = b""
        while len(raw) <= most:
            piece = os.read(descriptor, most + 1 - len(raw))
            if not piece:
                break
            raw += piece
    finally:
        os.close(descriptor)
    if len(raw) > most:
        raise corrupt(path, "it is larger than %d bytes" % most)
    return raw


def write_file(path: str, raw: bytes, mode: int = 0o600) -> None:
    """Put a file in place at once: written beside it, brought to the disk, renamed. Raises OSError."""
    beside = "%s.%d.new" % (path, os.getpid())
    with contextlib.suppress(FileNotFoundError):
        os.unlink(beside)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, "wb") as stream:
            os.fchmod(descriptor, mode)
            stream.write(raw)
            stream.flush()
            os.fsync(descriptor)
        os.rename(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise
    sync_folder(os.path.dirname(path))


def remove_file(path: str) -> bool:
    """Take a file away, for good; True when there was one."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    sync_folder(os.path.dirname(path))
    return True


def sync_folder(path: str) -> None:
    """Bring a rename or removal to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check(path: str, status: os.stat_result, is_kind: object, kind: str) -> None:
    if not callable(is_kind) or not is_kind(status.st_mode):
        raise corrupt(path, "it is no %s" % kind)
    if status.st_uid != os.geteuid():
        raise corrupt(path, "it belongs to user %d" % status.st_uid)
    if status.st_mode & 0o077:
        raise corrupt(path, "others than its owner may use it (mode %o)" % (status.st_mode & 0o777))
