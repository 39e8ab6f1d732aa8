# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The cache of the builder: folders by digest, each used by one build at a time, the least recently used taken away.

    CACHE/DIGEST       one entry
    CACHE/DIGEST.lock  locked (flock(2)) while the entry is in use; its time says when that was last, its text how many
                       bytes the entry took then

What lies in the folder PARTS of an entry can be made again piece by piece, and goes when that is enough.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from typing import Iterator

from .._errors import LivepatchError
from .watch_build import Progress

PARTS = "after"
_ENTRY = re.compile(r"[0-9a-f]{20}$")
_GONE = ".gone"
_SIZE_IN_MB = "CGL_LIVEPATCH_CACHE_SIZE"
_DEFAULT_MB = 10 << 10


@dataclass(frozen=True)
class Entry:
    """An entry that is ours alone. `lock` is a file descriptor: whoever inherits it keeps the entry locked."""

    folder: str
    lock: int


def cache_folder(asked: str) -> str:
    """Where built trees are kept: as asked, else $CGL_LIVEPATCH_CACHE, else below the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.abspath(asked or os.environ.get("CGL_LIVEPATCH_CACHE") or os.path.join(home, "cgl-livepatch"))


def most_bytes() -> int:
    """How much the cache may hold, from $CGL_LIVEPATCH_CACHE_SIZE in MB (10 GB). Raises LivepatchError."""
    text = os.environ.get(_SIZE_IN_MB, "") or str(_DEFAULT_MB)
    if not text.isdigit():
        raise LivepatchError(
            "cache_unusable",
            "%s is '%s', which is no number of megabytes" % (_SIZE_IN_MB, text),
            "Set it to a number, such as %d." % _DEFAULT_MB,
        )
    return int(text) << 20


@contextlib.contextmanager
def entry(cache: str, key: str, progress: Progress) -> Iterator[Entry]:
    """The entry of this key, made if it is not there; nobody else has it meanwhile. Afterwards the cache is pruned.

    Raises LivepatchError cache_unusable when the cache cannot be written, or is full.
    """
    most = most_bytes()
    folder = os.path.join(cache, key)
    with _explained(cache):
        os.makedirs(cache, mode=0o700, exist_ok=True)
        lock = _locked(folder + ".lock", progress)
        try:
            os.makedirs(folder, exist_ok=True)
            yield Entry(folder, lock)
        finally:
            with contextlib.suppress(OSError):
                size = _bytes_in(folder)
                os.ftruncate(lock, 0)
                os.pwrite(lock, b"%d" % size, 0)
                os.utime(lock)
                _prune(cache, folder, size, most)
            # Not by closing alone: a daemon that the build started may have inherited it.
            fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)


def _locked(path: str, progress: Progress) -> int:
    """The lock file at `path`, locked. One that was taken away while we waited for it is no lock."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another build of the same tree, or what is left of one: it holds %s" % path)
            fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_at(lock, path):
            return lock
        os.close(lock)


def _is_at(lock: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), os.stat(path))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _explained(cache: str) -> Iterator[None]:
    """What goes wrong with the files of the cache, in words."""
    try:
        yield
    except LivepatchError as error:
        # A build command says of itself why it failed, when it still can.
        if error.code == "build_failed" and (os.strerror(errno.ENOSPC) in error.message or _megabytes_left(cache) < 1):
            raise LivepatchError("cache_unusable", "%s\n%s" % (_full(cache), error.message)) from error
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise LivepatchError("cache_unusable", "%s (%s)" % (_full(cache), error)) from error
        if str(error.filename or "").startswith(cache):
            raise LivepatchError("cache_unusable", "the cache %s cannot be used: %s" % (cache, error)) from error
        raise


def _full(cache: str) -> str:
    folders = (cache, tempfile.gettempdir())
    left = " and ".join("%s (%.1f MB left)" % (folder, _megabytes_left(folder)) for folder in folders)
    return "%s: %s" % (os.strerror(errno.ENOSPC), left)


def _megabytes_left(folder: str) -> float:
    state = os.statvfs(folder)
    # Some file systems count no files.
    return 0.0 if state.f_files and not state.f_favail else state.f_bavail * state.f_frsize / (1 << 20)


def _prune(cache: str, own: str, own_size: int, most: int) -> None:
    """Take away the least recently used entries, and at last old parts of our own, until `most` bytes are left."""
    others = []
    for name in os.listdir(cache):
        path = os.path.join(cache, name)
        if name.endswith(_GONE):
            shutil.rmtree(path, ignore_errors=True)
        if _ENTRY.match(name) and path != own and os.path.isdir(path):
            used, size = _last_use(path)
            others.append((used, path, size))
    total = own_size + sum(size for _used, _path, size in others)
    for _used, path, size in sorted(others):
        if total > most and _remove(path):
            total -= size
    folder = os.path.join(own, PARTS)
    names = os.listdir(folder) if total > most and os.path.isdir(folder) else []
    # The newest one was used just now.
    for path in sorted((os.path.join(folder, name) for name in names), key=os.path.getmtime)[:-1]:
        if total > most:
            total -= _bytes_in(path)
            shutil.rmtree(path, ignore_errors=True)


def _last_use(path: str) -> tuple[float, int]:
    """When an entry was used last, and how many bytes it takes."""
    try:
        with open(path + ".lock", encoding="ascii") as stream:
            text = stream.read()
            return os.fstat(stream.fileno()).st_mtime, int(text) if text.isdigit() else _bytes_in(path)
    except FileNotFoundError:
        return 0.0, _bytes_in(path)


def _remove(path: str) -> bool:
    """Take away an entry, unless it is in use."""
    lock = os.open(path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_at(lock, path + ".lock"):
            return False
        # Renamed first: what is left of a removal that is cut short is no entry.
        gone = path + _GONE
        shutil.rmtree(gone, ignore_errors=True)
        os.rename(path, gone)
        os.unlink(path + ".lock")
        shutil.rmtree(gone, ignore_errors=True)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(lock)


def _bytes_in(folder: str) -> int:
    """What the files of a folder take on the disk."""
    total = 0
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as rows:
            for row in rows:
                if row.is_dir(follow_symlinks=False):
                    waiting.append(row.path)
                else:
                    total += row.stat(follow_symlinks=False).st_blocks * 512
    return total
