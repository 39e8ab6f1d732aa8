# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The log of all that was done on a host: one line of JSON each, which carries the digest of the line before it.

So nobody changes, takes out or puts in a line without that all lines behind it tell. What a chain cannot tell is that
its end is gone, or that all of it was written anew: for that the digest of the last line has to be kept elsewhere (the
journal has it). A line that the end of the machine cut off stays as it is, and the next one says so.

Fields of each line: `seq` (1, 2, ...), `previous` (SHA-256 of the line before, without its end; zeros at first), `at`
(UTC), `action`, and what belongs to that. A line with action "torn" stands behind one that was cut off: that is its
`previous`, and `before` is the digest of the last whole one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import stat
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Iterator

from .desired import corrupt
from .files import check_folder, sync_folder
from .places import Places

GENESIS = "0" * 64
MOST_LINE = 64 << 10
_MOST_BREAKS = 20
_PATIENCE = 10.0


@dataclass
class Chain:
    """What the log is worth: `breaks` are {line, why}; `entries` the last ones; `head` the digest of the last line."""

    exists: bool = False
    count: int = 0
    torn: int = 0
    seq: int = 0
    head: str = GENESIS
    breaks: list[dict[str, Any]] = field(default_factory=list)
    entries: list[dict[str, Any]] = field(default_factory=list)
    found: bool = True

    @property
    def intact(self) -> bool:
        """Whether there is a log, no line of which was changed, taken out or put in, with the one asked for in it."""
        return self.exists and not self.breaks and self.found


def append(places: Places, content: dict[str, Any]) -> tuple[int, str]:
    """Add a line, on the disk when this returns; its number, and its digest. (0, "") where there is no store.

    Raises OSError, and LivepatchError store_corrupt where others may write there.
    """
    try:
        check_folder(places.store)
    except FileNotFoundError:
        return 0, ""
    with _locked(places.audit_log, os.O_RDWR | os.O_APPEND | os.O_CREAT, fcntl.LOCK_EX) as descriptor:
        size = os.fstat(descriptor).st_size
        last = _last(descriptor, size)
        lines = b"\n" if last.torn or last.unended else b""
        if last.torn:
            cut = {"action": "torn", "bytes": len(last.torn), "before": last.digest}
            raw = _line(last.seq + 1, _digest(last.torn), cut)
            last = _Last(last.seq + 1, _digest(raw))
            lines += raw + b"\n"
        raw = _line(last.seq + 1, last.digest, content)
        lines += raw + b"\n"
        try:
            if os.write(descriptor, lines) != len(lines):
                raise OSError(28, "the log could not be written as a whole")
            os.fsync(descriptor)
        except OSError:
            with contextlib.suppress(OSError):  # where the file may only grow (chattr +a), the next line tells
                os.ftruncate(descriptor, size)
            raise
        if not size:
            sync_folder(places.store)
        return last.seq + 1, _digest(raw)


def examine(places: Places, most: int = 0, expected: str = "") -> Chain:
    """Read the whole log, and say what it is worth; the last `most` entries with it.

    `expected`: the digest of a line that must be in it. Raises OSError, LivepatchError store_corrupt.
    """
    chain = Chain(found=not expected)
    try:
        check_folder(places.store)
        with _locked(places.audit_log, os.O_RDONLY, fcntl.LOCK_SH) as log, open(log, "rb", closefd=False) as stream:
            _follow(chain, stream, most, expected)
    except FileNotFoundError:
        return chain
    return chain


def _follow(chain: Chain, stream: Any, most: int, expected: str) -> None:
    chain.exists = True
    kept: deque[dict[str, Any]] = deque(maxlen=max(most, 0))
    torn = ""
    while True:
        raw = stream.readline(MOST_LINE + 1)
        if not raw:
            break
        chain.count += 1
        digest = _digest(raw[:-1] if raw.endswith(b"\n") else raw)
        entry = _parsed(raw)
        if entry is None and not raw.endswith(b"\n") and len(raw) <= MOST_LINE:
            chain.torn += 1  # the last one; the next line to be written will say so
            torn = ""
            break
        if entry is None:
            if torn:
                _break(chain, "line %d is no entry, and none says that it was cut off" % (chain.count - 1), -1)
            torn = digest
            continue
        cut_off = entry["action"] == "torn" and bool(torn)
        before, previous = (entry.get("before"), entry["previous"]) if cut_off else (entry["previous"], torn)
        if torn and previous != torn:
            _break(chain, "the line before it is not the one that it was written behind")
        elif torn and not cut_off:
            _break(chain, "the line before it is no entry")
        elif before != chain.head:
            _break(chain, "the line before it was changed, taken out or put in")
        elif entry["seq"] != chain.seq + 1:
            _break(chain, "it has number %d, and follows %d" % (entry["seq"], chain.seq))
        chain.torn += cut_off
        torn, chain.head, chain.seq = "", digest, entry["seq"]
        chain.found = chain.found or digest == expected
        kept.append(entry)
    if torn:
        _break(chain, "it is no entry")
    chain.entries = list(kept)


def _break(chain: Chain, why: str, at: int = 0) -> None:
    if len(chain.breaks) < _MOST_BREAKS:
        chain.breaks.append({"line": chain.count + at, "why": why})


@dataclass(frozen=True)
class _Last:
    """The last whole line, whether only its end is missing, and what was cut off behind it."""

    seq: int
    digest: str
    torn: bytes = b""
    unended: bool = False


def _last(descriptor: int, size: int) -> _Last:
    start = max(0, size - 2 * MOST_LINE - 2)
    tail = os.pread(descriptor, size - start, start)
    whole, _end, torn = tail.rpartition(b"\n")
    unended = _parsed(torn)
    if unended:
        return _Last(unended["seq"], _digest(torn), unended=True)
    if not whole:
        return _Last(0, GENESIS, torn)
    raw = whole.rpartition(b"\n")[2]
    entry = _parsed(raw)
    if entry is None:  # somebody wrote there: the chain is broken, and stays so; the numbers go on
        return _Last(_count(descriptor), _digest(raw), torn)
    return _Last(entry["seq"], _digest(raw), torn)


def _count(descriptor: int) -> int:
    count = at = 0
    while True:
        piece = os.pread(descriptor, 1 << 20, at)
        if not piece:
            return count
        count, at = count + piece.count(b"\n"), at + len(piece)


def _line(seq: int, previous: str, content: dict[str, Any]) -> bytes:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    plain = dict(content, seq=seq, previous=previous, at=now)
    raw = json.dumps(plain, sort_keys=True, separators=(",", ":")).encode("ascii")
    if len(raw) >= MOST_LINE:
        raise OSError(27, "what is to be logged is larger than %d bytes" % MOST_LINE)
    return raw


def _parsed(raw: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(raw.decode("ascii"))
    except (ValueError, RecursionError):
        return None
    kinds = {"seq": int, "previous": str, "at": str, "action": str}
    right = isinstance(entry, dict) and all(isinstance(entry.get(name), kind) for name, kind in kinds.items())
    return entry if right else None


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


@contextlib.contextmanager
def _locked(path: str, flags: int, lock: int) -> Iterator[int]:
    """The log, opened and locked; the one that is there under its name, should somebody put it away meanwhile."""
    end = time.monotonic() + _PATIENCE
    while True:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
                raise corrupt(path, "it is no plain file, or others than its owner may use it")
            try:
                fcntl.flock(descriptor, lock | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise OSError(11, "another process holds the log, for %g seconds" % _PATIENCE) from None
                time.sleep(0.005)
                continue
            if _is_there(status, path):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _is_there(status: os.stat_result, path: str) -> bool:
    try:
        return os.path.samestat(status, os.lstat(path))
    except FileNotFoundError:
        return False
