# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The service: gives each program that begins what the store wants of it, and holds those that the launcher starts.

It sleeps until the kernel tells of a process (connector), a launcher asks, a job of its ends, or a look is due. Where
the kernel tells nothing (in a container), it says so, and serves launchers only.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
from typing import Callable

from .._errors import LivepatchError
from .._process.events import EXEC, EXIT, FORK, EventsLost, ProcessEvents
from .._process.process import Process
from . import guard
from .apply import Applied, apply_to, apply_to_all
from .audit import record_applied
from .exits import Exits
from .jobs import Job, Jobs, Result
from .kill_switch import switched_off
from .launching import asker, launch, refuse
from .looks import Looks
from .places import Places
from .store import Store
from .wanted import Wishes, lacking
from .windows import Window, Windows

_ERROR, _WARNING, _INFO = 3, 4, 6
_BACKLOG = 128


class Daemon:
    """One run of the service. `guard_seconds`: how long after a patch a crash counts against it."""

    def __init__(self, places: Places, guard_seconds: float) -> None:
        self._places = places
        self._store = Store(places)
        self._jobs, self._looks, self._windows = Jobs(), Looks(), Windows(guard_seconds)
        self._wishes, self._read_at = Wishes(self._store, []), -1
        self._off = ""
        self._ended = False
        #: Processes of which was said that something is held back from them.
        self._told: set[int] = set()
        #: How those ended at which a job is still at work.
        self._early: dict[int, int] = {}
        self._exits = Exits()
        self._listener = _listen(places.socket)
        self._events: ProcessEvents | None = None

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        wakeup, self._wakeup = os.pipe()
        os.set_blocking(self._wakeup, False)
        signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        try:
            self._events = ProcessEvents()
        except LivepatchError as error:
            say(
                _WARNING,
                "only programs started through the launcher are patched as they start: %s. %s",
                error,
                error.remedy,
            )
        self._apply_to_all()
        _ready()
        while not self._ended:
            self._wait(wakeup)

    def _wait(self, wakeup: int) -> None:
        # In this order: what a program that begins now is given depends on how the one before it ended.
        wanted: dict[int, Callable[[], None]] = {wakeup: lambda: None}
        for descriptor in self._jobs.descriptors():
            wanted[descriptor] = _bind(self._read_job, descriptor)
        if self._events:
            wanted[self._events.socket.fileno()] = self._read_events
        wanted[self._listener.fileno()] = self._accept
        poll = select.poll()
        for descriptor in self._exits.descriptors():
            poll.register(descriptor, self._exits.events)
        for descriptor in wanted:
            poll.register(descriptor, select.POLLIN)
        for descriptor, _event in poll.poll(self._timeout()):
            wanted.get(descriptor, _bind(self._read_exit, descriptor))()
        now = time.monotonic()
        for pid in self._looks.due(now):
            self._look(pid)
        for window in self._windows.expired(now):
            for patch_id in window.patches:
                self._guarded(guard.note_survival, self._store, patch_id, window.exe)

    def _timeout(self) -> int | None:
        ends = [at for at in (self._looks.next_due(), self._windows.next_end()) if at is not None]
        return max(0, int((min(ends) - time.monotonic()) * 1000) + 1) if ends else None

    def _end(self, _number: int, _frame: object) -> None:
        self._ended = True

    def _current(self) -> Wishes:
        """What is desired now; nothing while the kill switch is on. The store is read again when it has changed."""
        off = switched_off(self._places)
        if off != self._off:
            say(_WARNING, "nothing is applied: %s", off) if off else say(_INFO, "patches are applied again")
            self._off = off
        if off:
            return Wishes(self._store, [])
        try:
            changed_at = os.stat(self._store.desired_folder).st_mtime_ns
        except OSError:
            changed_at = 0
        if changed_at != self._read_at:
            try:
                entries, errors = self._store.entries()
            except LivepatchError as error:
                entries, errors = [], [error]
            for one in errors:
                say(_ERROR, "%s. %s", one, one.remedy)
            self._wishes, self._read_at = Wishes(self._store, entries), changed_at
        return self._wishes

    def _apply_to_all(self) -> None:
        wishes = self._current()
        this = (os.getpid(),)
        if wishes:
            self._jobs.add(
                Job(0, False, lambda: _noted(self._store, apply_to_all(self._store, wishes, this)), lambda: None)
            )

    def _read_events(self) -> None:
        try:
            events = self._events.read() if self._events else []
        except EventsLost:
            say(_WARNING, "the kernel had more to tell than there was room for; all processes are looked at")
            self._apply_to_all()
            return
        now = time.monotonic()
        for event in events:
            if event.kind == EXEC:
                self._windows.leave(event.pid)
                self._looks.begin(event.pid, now)
            elif event.kind == FORK:
                self._looks.fork(event.pid, event.child, now)
                self._windows.fork(event.pid, event.child)
            elif event.kind == EXIT:
                self._looks.forget(event.pid)
                self._told.discard(event.pid)
                if self._jobs.busy_with(event.pid):
                    self._early[event.pid] = event.status
                self._died(event.pid, event.status)

    def _look(self, pid: int) -> None:
        wishes = self._current()
        if not wishes or self._jobs.busy_with(pid):
            return
        try:
            with Process(pid) as process:
                wanted = wishes.of(process)
                if lacking(process, wanted) or (wanted.held and pid not in self._told):
                    self._told.update([pid] if wanted.held else [])
                    self._jobs.add(Job(pid, False, lambda: _applied(self._store, wishes, pid), lambda: None))
        except (LivepatchError, OSError):
            return  # it is gone, or becoming another program: then the kernel tells of that

    def _accept(self) -> None:
        connection, _address = self._listener.accept()
        connection.setblocking(True)
        wishes = self._current()
        if not wishes:
            with contextlib.suppress(OSError):  # it went on already
                connection.sendall(b"go\n")
            connection.close()
            return
        try:
            pid = asker(connection)
            connection.sendall(b"wait\n")
        except (LivepatchError, OSError) as error:
            refuse(connection, str(error))
            return

        def work() -> list[Applied]:
            try:
                done = launch(self._store, wishes, pid, connection)
            except BaseException as error:
                refuse(connection, str(error))
                raise
            return _noted(self._store, [done] if done else [])

        if not self._events:
            self._exits.expect(pid)
        self._jobs.add(Job(pid, True, work, connection.close))

    def _read_job(self, descriptor: int) -> None:
        result = self._jobs.read(descriptor)
        if result is None:
            return
        for done in result.done:
            self._report(done, result)
            if done.pid in self._early:
                self._died(done.pid, self._early[done.pid])
        self._early.pop(result.job.pid, None)
        self._exits.forget(result.job.pid)
        if result.error:
            say(_ERROR, "%s: %s. %s", _about(result.job), result.error["message"], result.error["remedy"])
        if result.job.is_launch and self._events and not any(done.applied for done in result.done):
            self._looks.begin(result.job.pid, time.monotonic())

    def _report(self, done: Applied, result: Result) -> None:
        who = "process %d (%s)" % (done.pid, done.exe)
        if done.applied:
            say(_INFO, "%s has %s, stopped for %d us", who, ", ".join(done.applied), done.stop_us)
            end = time.monotonic() + self._windows.seconds
            window = Window(done.pid, done.exe, tuple(done.applied), end, result.job.is_launch)
            self._windows.open(window)
            if not self._events and not self._exits.watch(done.pid):
                self._windows.leave(done.pid)
        for patch_id in done.held:
            say(
                _ERROR,
                "%s runs without patch %s: it crashed soon after that, %d times. Remedy: livepatch-store release %s",
                who,
                patch_id,
                guard.MOST_DEATHS,
                patch_id,
            )
        unsigned = {name: done.signatures[name]["error"] for name in done.applied if done.signatures[name]["error"]}
        for patch_id, error in unsigned.items():
            say(_WARNING, "%s has patch %s all the same: %s. %s", who, patch_id, error["message"], error["remedy"])
        for patch_id, error in done.failed.items():
            say(_ERROR, "%s runs without patch %s: %s. %s", who, patch_id, error["message"], error["remedy"])

    def _read_exit(self, descriptor: int) -> None:
        pid, status = self._exits.take(descriptor)
        if status is None:
            say(
                _WARNING,
                "process %d ended, and this kernel does not tell how: the crash-loop guard does not count it",
                pid,
            )
            self._windows.leave(pid)
        else:
            self._died(pid, status)

    def _died(self, pid: int, status: int) -> None:
        window = self._windows.take(pid)
        how = guard.death(status, window.is_service) if window else ""
        if window is None or not how:
            return
        for patch_id in window.patches:
            say(_WARNING, "process %d (%s) died of %s soon after patch %s", pid, window.exe, how, patch_id)
            if self._guarded(guard.note_death, self._store, patch_id, window.exe, pid, int(time.time()), how):
                say(_ERROR, "patch %s is held back from %s until somebody lifts that", patch_id, window.exe)

    def _guarded(self, note: Callable[..., bool | None], *what: object) -> bool:
        """Note something for the guard, which must not end the service: the disk may be full."""
        try:
            return bool(note(*what))
        except (LivepatchError, OSError) as error:
            say(_ERROR, "the crash-loop guard cannot note what happened: %s", error)
            return False


def say(level: int, text: str, *values: object) -> None:
    """One line for the journal, with its level as sd-daemon(3) has it."""
    sys.stderr.write("<%d>cgl.livepatch: %s\n" % (level, text % values if values else text))
    sys.stderr.flush()


def _applied(store: Store, wishes: Wishes, pid: int) -> list[Applied]:
    with Process(pid) as process:
        return _noted(store, [done for done in [apply_to(store, process, wishes.of(process))] if not done.empty])


def _noted(store: Store, done: list[Applied]) -> list[Applied]:
    """The same, written down. The processes run by now, so a slow disk keeps none of them waiting."""
    for problem in record_applied(store.places, done, "service"):
        say(_ERROR, "%s", problem)
    return done


def _about(job: Job) -> str:
    if not job.pid:
        return "not all processes were looked at"
    return "process %d %s" % (job.pid, "was not held at its entry" if job.is_launch else "was not patched")


def _bind(act: Callable[[int], None], descriptor: int) -> Callable[[], None]:
    return lambda: act(descriptor)


def _listen(path: str) -> socket.socket:
    """A socket in the file system that everybody may connect to."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    if os.path.lexists(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    os.chmod(path, 0o666)  # noqa: S103 (services of every user ask)
    listener.listen(_BACKLOG)
    return listener


def _ready() -> None:
    """Tell systemd that launchers are served from now on (sd_notify(3))."""
    path = os.environ.pop("NOTIFY_SOCKET", "")
    if path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
            notifier.connect("\0" + path[1:] if path.startswith("@") else path)
            notifier.sendall(b"READY=1")
