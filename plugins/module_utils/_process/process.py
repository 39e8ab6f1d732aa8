# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""One process of this host, held so that it cannot be mistaken for another that gets its PID later."""

from __future__ import annotations

import contextlib
import errno
import os
from types import TracebackType
from typing import Callable, TypeVar

from .._errors import LivepatchError
from .denied import denied
from .maps import Mapping, parse_maps
from .memory import Memory

# What a thread gives back when it exits, the first one, whose files those in /proc/PID are, like any other.
_GIVEN_BACK = frozenset(("auxv", "exe", "fd", "maps", "mem", "root"))
# Of these, what can be opened afterwards, too, and then is empty for ever: here it is asked first who lives.
_OPENED_IN_VAIN = frozenset(("fd", "mem"))
# What the kernel gives as one piece: a read that leaves room for more has got all of it.
_ONE_PIECE = frozenset(("auxv", "comm", "stat", "status"))
_AT_ONCE = 1 << 16
# SIGKILL in a set of signals, and a thread that exits (the flags in proc_pid_stat(5)).
_KILLED, _PF_EXITING = 1 << 8, 0x4
_TRIES = 100
# A folder's own two links, and one for each folder in it: here for each thread.
_LINKS_OF_ONE_THREAD = 3
_Result = TypeVar("_Result")


class Process:
    """A running process, known by PID and start time.

    Everything is opened relative to a descriptor of /proc/PID, which stays bound to this very process: once it has
    exited, nothing can be read or written through it, whoever has the PID then. The process lives while any thread of
    it does: when its first one has ended (pthread_exit(3) in main), /proc/PID has no memory and no files any more, and
    those of another thread, /proc/PID/task/TID, are used.
    """

    def __init__(self, pid: int) -> None:
        """Raises LivepatchError process_gone when there is no such process."""
        self.pid = pid
        try:
            self._folder = os.open("/proc/%d" % pid, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            raise LivepatchError("process_gone", "there is no process %d" % pid) from None
        self._memory: Memory | None = None
        self._priority: int | None = None
        self._maps: tuple[bytes, list[Mapping]] = (b"", [])
        self._maps_hold = False
        self._memory_descriptor = -1
        self._name = ""
        try:
            self.start_time = int(self._stat_and_name()[19])
        except LivepatchError:
            self.close()
            raise

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the process go."""
        for descriptor in (self._memory_descriptor, self._folder):
            if descriptor >= 0:
                os.close(descriptor)
        self._memory_descriptor = self._folder = -1

    def __str__(self) -> str:
        return "process %d (%s)" % (self.pid, self._name)

    def open(self, name: str, flags: int = os.O_RDONLY) -> int:
        """A descriptor of /proc/PID/`name`. Raises LivepatchError process_gone or not_permitted, and OSError."""
        return self._reach(name, lambda path: os.open(path, flags | os.O_CLOEXEC, dir_fd=self._folder))

    def read_bytes(self, name: str) -> bytes:
        """The content of /proc/PID/`name`. Raises as `open` does."""
        return self._reach(name, self._read)

    def read_text(self, name: str) -> str:
        """The content of /proc/PID/`name` as text; bytes that are not UTF-8 are kept as surrogates."""
        return self.read_bytes(name).decode("utf-8", "surrogateescape")

    def link(self, name: str) -> str:
        """Where the link /proc/PID/`name` points, or an empty text when that may not be known."""
        try:
            return self._reach(name, lambda path: os.readlink(path, dir_fd=self._folder))
        except (LivepatchError, OSError):
            return ""

    def stat(self) -> list[str]:
        """The fields of /proc/PID/stat from the third (state) on: [0] state, [19] start time in clock ticks since
        boot.
        """
        return self.read_text("stat").rpartition(")")[2].split()

    def thread_count(self) -> int:
        """How many threads there are now, for use while they are stopped: a fifth of the time of /proc/PID/stat.

        The links of their folder are counted (linux/fs/proc/base.c, proc_task_getattr): two, and one a thread.
        """
        try:
            return os.stat("task", dir_fd=self._folder).st_nlink - 2
        except OSError as error:
            raise self._explain(error, "task") from None

    def status(self, field: str, folder: str = "") -> str:
        """One line's value from /proc/PID/status, for example `Seccomp`; empty when the kernel has no such line.

        `folder`: "task/TID/" for one thread's.
        """
        for line in self.read_text(folder + "status").splitlines():
            if line.startswith(field + ":"):
                return line.partition(":")[2].strip()
        return ""

    def maps(self) -> list[Mapping]:
        """All mappings as they are now; nobody may change the list, which is the same while they are."""
        raw = self.read_bytes("maps")
        if raw != self._maps[0]:
            self._maps = raw, parse_maps(raw.decode("utf-8", "surrogateescape"))
        self._maps_hold = True
        return self._maps[1]

    def last_maps(self) -> list[Mapping]:
        """All mappings as they were when they were last read, unless we have changed some since: then as they are now.

        For looking at what only we change. Raises as `maps`.
        """
        return self._maps[1] if self._maps_hold else self.maps()

    def changes_maps(self) -> None:
        """From now on other mappings may be there: it is being made to change them."""
        self._maps_hold = False

    def threads(self) -> list[int]:
        """The thread ids as they are now, the leader among them. Raises LivepatchError process_gone."""
        try:
            links = os.stat("task", dir_fd=self._folder).st_nlink
        except OSError as error:
            raise self._explain(error, "task") from None
        # The kernel counts one link a thread. The first one is there as long as any, if only as a zombie (execve(2)).
        return [self.pid] if links == _LINKS_OF_ONE_THREAD else self._numbers("task")

    def descriptors(self) -> list[int]:
        """The numbers of its open files. Raises LivepatchError process_gone or not_permitted."""
        return self._numbers("fd")

    def thread_stat(self, tid: int) -> list[str]:
        """As `stat`, of one thread; empty when it is gone."""
        try:
            return self.read_text("task/%d/stat" % tid).rpartition(")")[2].split()
        except (LivepatchError, OSError):
            return []

    @property
    def real_time_priority(self) -> int:
        """The highest real-time priority that any of its threads had when this was first asked, 0 for none."""
        if self._priority is None:
            self._priority = max([real_time_priority(self.thread_stat(tid)) for tid in self.threads()], default=0)
        return self._priority

    def living_thread(self) -> int:
        """A thread that has not begun to exit, the first one where it has not; 0 when there is none left."""
        if self._lives(self.pid):
            return self.pid
        try:
            living = next((tid for tid in self.threads() if self._lives(tid)), 0)
        except LivepatchError:
            return 0
        # A thread that calls execve(2) takes the first one's number, whatever number it was just found under.
        return self.pid if not living and self._lives(self.pid) else living

    def has_exited(self) -> bool:
        """True when no thread of it is left that has not begun to exit."""
        return not self.living_thread()

    def is_ending(self) -> bool:
        """True when it was killed, or its leader ends, and when it has exited."""
        try:
            pending = int(self.status("SigPnd"), 16) | int(self.status("ShdPnd"), 16)
            return bool(pending & _KILLED or int(self.stat()[6]) & _PF_EXITING)
        except (LivepatchError, OSError, ValueError):
            return True

    def program(self) -> bytes:
        """What tells the program that it runs from those it ran before (execve(2)): its auxiliary vector.

        Empty while it has none, between two programs, and where it may not be known.
        """
        try:
            return b"" if self.has_exited() else self.read_bytes("auxv").strip(b"\0")
        except (LivepatchError, OSError):
            return b""

    def as_it_is_now(self) -> None:
        """From now on `memory` is that of the program that it may have become, and so is its name."""
        if self._memory_descriptor >= 0:
            os.close(self._memory_descriptor)
        self._memory, self._memory_descriptor, self._maps_hold = None, -1, False
        with contextlib.suppress(LivepatchError, OSError):
            self._stat_and_name()

    @property
    def memory(self) -> Memory:
        """The address space. Raises LivepatchError process_gone or not_permitted."""
        if self._memory is None:
            self._memory_descriptor = self.open("mem", os.O_RDWR)
            self._memory = Memory(self._memory_descriptor, str(self))
        return self._memory

    def _lives(self, tid: int) -> bool:
        fields = self.thread_stat(tid)
        return bool(fields) and not int(fields[6]) & _PF_EXITING

    def _read(self, path: str) -> bytes:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._folder)
        try:
            parts: list[bytes] = []
            in_one_piece = path.rpartition("/")[2] in _ONE_PIECE
            while True:
                part = os.read(descriptor, _AT_ONCE)
                parts.append(part)
                if not part or (in_one_piece and len(part) < _AT_ONCE):
                    return b"".join(parts)
        finally:
            os.close(descriptor)

    def _stat_and_name(self) -> list[str]:
        """As `stat`, which tells the program's name, too; that is kept."""
        before, _bracket, after = self.read_text("stat").rpartition(")")
        self._name = before.partition("(")[2]
        return after.split()

    def _numbers(self, folder: str) -> list[int]:
        descriptor = self.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return [int(name) for name in os.listdir(descriptor)]
        except OSError as error:
            raise self._explain(error, folder) from None
        finally:
            os.close(descriptor)

    def _reach(self, name: str, act: Callable[[str], _Result]) -> _Result:
        """What `act` returns for the path of `name` below /proc/PID; again where the thread that led there exited."""
        # Where nobody was asked who lives, the same path is worth a second try: the one who lives may have just taken
        # the first one's place (execve(2) from another thread).
        asked = name in _OPENED_IN_VAIN or name.partition("/")[0] not in _GIVEN_BACK
        path = self._path(name) if asked else name
        for _try in range(_TRIES):
            failure: OSError | None = None
            try:
                result = act(path)
                # Of a thread that has given its memory back, maps is empty, and no error.
                if result != b"":
                    return result
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ESRCH):
                    raise self._explain(error, name) from None
                failure = error
            following = self._path(name)
            if asked and following == path:
                break
            path, asked = following, True
        if failure is not None:
            raise self._explain(failure, name) from None
        return result

    def _path(self, name: str) -> str:
        if name.partition("/")[0] in _GIVEN_BACK:
            tid = self.living_thread()
            if tid not in (0, self.pid):
                return "task/%d/%s" % (tid, name)
        return name

    def _users(self) -> list[str]:
        """Its real, effective, saved and file system user, empty where they may not be known (proc(5), hidepid)."""
        try:
            descriptor = os.open("status", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._folder)
            with open(descriptor, encoding="utf-8", errors="replace") as stream:
                return next((line.split()[1:] for line in stream if line.startswith("Uid:")), [])
        except OSError:
            return []

    def _explain(self, error: OSError, name: str) -> LivepatchError | OSError:
        if error.errno in (errno.EPERM, errno.EACCES):
            return denied("not allowed to read or write /proc/%d/%s" % (self.pid, name), self._users())
        if error.errno in (errno.ENOENT, errno.ESRCH):
            return LivepatchError("process_gone", "process %d has exited" % self.pid)
        return error


def real_time_priority(fields: list[str]) -> int:
    """The real-time priority in what Process.thread_stat() returned, 0 for none: the 40th field in proc_pid_stat(5)."""
    return int(fields[37]) if len(fields) > 37 else 0
