# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Through the launcher, a program has its patches before its own first instruction; and it starts in any case."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Iterator

import pytest
from bed import NEW, OLD, Bed, Started

from module_utils._process.process import Process
from module_utils._ptrace.hold_at_entry import Held, hold_at_entry, release
from module_utils._ptrace.watchdog import watched


# One for each test: ansible-test runs each in a process of its own, which ends what is made for one test, and no more.
@pytest.fixture(name="bed")
def fixture_bed(tmp_path: Path) -> Bed:
    """A host that wants the patch in every process."""
    bed = Bed(tmp_path)
    bed.keep()
    return bed


@pytest.fixture(name="service")
def fixture_service(bed: Bed) -> Iterator[subprocess.Popen[bytes]]:
    """The service of that host."""
    with bed.service() as service:
        yield service


@pytest.mark.usefixtures("service")
class TestLauncher:
    """What starts through the launcher."""

    def test_a_simple_service_keeps_its_process_id_and_is_patched_in_its_constructors(self, bed: Bed) -> None:
        with Started(bed.places.launcher, str(bed.program)) as program:
            assert program.begun() == (program.pid, NEW, NEW)
            assert program.ask() == NEW

    def test_what_forks_twice_has_it_in_the_process_that_stays(self, bed: Bed) -> None:
        with Started(bed.places.launcher, str(bed.program), "forking") as program:
            pid, first, now = program.begun()
            assert (first, now) == (NEW, NEW)
            assert pid != program.pid

    def test_readiness_is_told_by_the_same_process(self, bed: Bed, tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.bind(str(tmp_path / "notify"))
            systemd.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            environment = dict(os.environ, NOTIFY_SOCKET=str(tmp_path / "notify"))
            with Started(bed.places.launcher, str(bed.program), "notify", env=environment) as program:
                message, ancillary, _flags, _address = systemd.recvmsg(64, socket.CMSG_SPACE(12))
                assert message == b"READY=1"
                assert int.from_bytes(ancillary[0][2][:4], "little") == program.pid
                assert program.begun() == (program.pid, NEW, NEW)

    def test_the_program_sees_its_own_entry_point_and_nothing_stays_in_its_text(self, bed: Bed) -> None:
        with Started(bed.places.launcher, str(bed.program), "entry") as program:
            assert program.line() == ["1"]
            assert program.begun()[1:] == (NEW, NEW)
            assert not _differences(program.pid, str(bed.program)) - {_entry_page(program.pid, bed)}

    def test_what_does_not_exist_fails_as_it_does_without_the_launcher(self, bed: Bed) -> None:
        ended = subprocess.run([bed.places.launcher, "/nonexistent"], check=False, capture_output=True, timeout=30)
        assert ended.returncode == 127
        assert b"/nonexistent" in ended.stderr

    def test_another_users_service_is_held_too(self, bed: Bed) -> None:
        _let_everybody_in(bed.folder)
        command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--no-new-privs"]
        with Started(*command, bed.places.launcher, str(bed.program)) as program:
            assert program.begun()[1:] == (NEW, NEW)

    def test_nobody_has_another_users_process_held(self, bed: Bed) -> None:
        """A process that asks for its parent, which is somebody else: refused, and nothing of it is traced."""
        _let_everybody_in(bed.folder)
        ask = [bed.places.program + "/cgl_livepatch/_store/ask.py", bed.places.socket]
        command = ["setpriv", "--reuid", "65534", "--clear-groups", "/usr/bin/python3", "-I", "-S", *ask]
        ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
        assert ended.returncode == 1
        assert "is another user than that" in ended.stderr


def _let_everybody_in(place: Path) -> None:
    """Other users may use what is below a folder of ours."""
    os.chmod(place, 0o755)
    for folder in place.parents:
        if folder.stat().st_uid == os.getuid() and str(folder).startswith("/tmp/"):
            os.chmod(folder, folder.stat().st_mode | 0o011)


def test_without_the_service_the_program_starts_and_the_journal_says_so(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    bed.keep()
    with Started(bed.places.launcher, str(bed.program), stderr=subprocess.PIPE) as program:
        assert program.begun() == (program.pid, OLD, OLD)
        os.set_blocking(program.process.stderr.fileno(), False)
        told = program.process.stderr.read().decode()
        assert re.search(r"<3>.*process %d starts without live patches: service" % program.pid, told)


def test_a_stopped_service_keeps_no_program_waiting(tmp_path: Path) -> None:
    """The service hangs altogether; the launcher gives it ten seconds."""
    bed = Bed(tmp_path)
    bed.keep()
    with bed.service() as service:
        os.kill(service.pid, signal.SIGSTOP)
        try:
            with Started(bed.places.launcher, str(bed.program), stderr=subprocess.DEVNULL) as program:
                assert program.begun() == (program.pid, OLD, OLD)
        finally:
            os.kill(service.pid, signal.SIGCONT)


@pytest.mark.parametrize("turn", range(6))
def test_the_holder_dies_at_any_time_and_the_program_starts(tmp_path: Path, turn: int) -> None:
    """Killed with all its children after a growing time: the program runs, patched or not, by its own means."""
    bed = Bed(tmp_path)
    bed.keep()
    command = [bed.places.launcher, str(bed.program)]
    with bed.service() as service, Started(*command, stderr=subprocess.DEVNULL) as program:
        time.sleep(0.02 * turn)
        os.killpg(service.pid, signal.SIGKILL)
        for child in _children_of_group(service.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        _pid, first, now = program.begun()
        assert (first, now) in ((OLD, OLD), (NEW, NEW))
        assert program.ask() == now
        assert Path("/proc/%d/status" % program.pid).read_text().split("TracerPid:")[1].split()[0] == "0"


def test_many_services_that_start_at_once_as_at_boot_all_have_it(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    bed.keep()
    with bed.service(), contextlib.ExitStack() as stack:
        programs = [stack.enter_context(Started(bed.places.launcher, str(bed.program))) for _number in range(40)]
        for program in programs:
            assert program.begun() == (program.pid, NEW, NEW), bed.told()


def test_a_held_program_goes_on_by_itself_when_its_time_is_over(tmp_path: Path) -> None:
    """Nobody releases it: it starts at the end of its time, at its true entry point; no tracer is there."""
    bed = Bed(tmp_path)
    began = time.monotonic()
    with _about_to_exec(str(bed.program)) as (program, begin):
        held = _hold(program.pid, begin, 1.0)
        assert held is not None
        assert program.begun() == (program.pid, OLD, OLD)
        assert time.monotonic() >= began + 1.0


def test_release_puts_back_what_was_changed(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    with _about_to_exec(str(bed.program)) as (program, begin):
        held = _hold(program.pid, begin, 60.0)
        assert held is not None
        with Process(program.pid) as process:
            assert process.memory.read(held.stub, len(held.before)) != held.before
            release(process, held)
            assert process.memory.read(held.stub, len(held.before)) == held.before
            assert int.from_bytes(process.memory.read(held.entry_at, 8), "little") == held.entry
        assert program.begun() == (program.pid, OLD, OLD)


def test_a_static_program_is_not_held_and_starts(tmp_path: Path) -> None:
    source = tmp_path / "static.c"
    source.write_text('#include <stdio.h>\nint main(void) { puts("ready"); fflush(stdout); getchar(); }\n')
    program_path = tmp_path / "static"
    subprocess.run(["gcc", "-static", "-o", str(program_path), str(source)], check=True)
    with _about_to_exec(str(program_path)) as (program, begin):
        assert _hold(program.pid, begin, 60.0) is None
        assert program.line()[0] == "ready"


def _hold(pid: int, begin: object, seconds: float) -> Held | None:
    def work(tell: object) -> None:
        with Process(pid) as process:
            tell(hold_at_entry(process, begin, time.monotonic() + 10, seconds))  # type: ignore[operator,arg-type]

    result = watched(work)
    assert not result.died
    return next((thing for thing in result.told if isinstance(thing, Held)), None)


@contextlib.contextmanager
def _about_to_exec(path: str) -> Iterator[tuple[Started, object]]:
    """A process that becomes the program once it is told to."""
    reading, writing = os.pipe()
    code = "import os; os.read(%d, 1); os.execv(%r, [%r])" % (reading, path, path)
    with Started("/usr/bin/python3", "-c", code, pass_fds=[reading]) as program:
        try:
            yield program, lambda: os.write(writing, b"go\n")
        finally:
            os.close(reading)
            os.close(writing)


def _children_of_group(session: int) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit() and os.getsid(int(name)) == session:
                found.append(int(name))
    return found


def _differences(pid: int, path: str) -> set[int]:
    """The pages of a program's text that are not those of its file."""
    found = set()
    with Process(pid) as process:
        raw = Path(path).read_bytes()
        for mapping in process.maps():
            if mapping.path == path and mapping.is_executable():
                for start in range(mapping.start, mapping.end, 4096):
                    at = start - mapping.start + mapping.offset
                    if process.memory.read(start, 4096) != raw[at : at + 4096].ljust(4096, b"\0"):
                        found.add(start)
    return found


def _entry_page(pid: int, bed: Bed) -> int:
    """The page that holds the function which the patch switched."""
    from module_utils._store.wanted import states

    with Process(pid) as process:
        return states(process)["fix"].region.sites[0].address & ~0xFFF
