# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What starts without the launcher is patched a moment later; the guard, the kill switch, memory, and the end of it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from bed import NEW, OLD, Bed, Started, until
from patching import make_patch

from module_utils._errors import LivepatchError
from module_utils._process.events import ProcessEvents
from module_utils._store import guard
from module_utils._store.exits import exit_status, open_pid
from module_utils._store.looks import LOOKS, Looks
from module_utils._store.status import status

MOST_MEMORY_KB = 30 << 10


@pytest.fixture(name="bed")
def fixture_bed(tmp_path: Path) -> Bed:
    """A host of its own."""
    return Bed(tmp_path)


@pytest.fixture(name="events", scope="module")
def fixture_events() -> None:
    """The kernel's process events: where they cannot be had, half of what this file proves is not proven."""
    try:
        ProcessEvents().close()
    except LivepatchError as error:
        pytest.fail("NOT PROVEN HERE: patching what starts without the launcher. %s. %s" % (error, error.remedy))


@pytest.mark.usefixtures("events")
class TestEvents:
    """What the kernel tells of."""

    def test_a_program_that_a_shell_starts_is_patched(self, bed: Bed) -> None:
        bed.keep()
        with bed.service(), Started(str(bed.program)) as program:
            began = time.monotonic()
            assert program.begun()[1:] == (OLD, OLD)
            until(lambda: program.ask() == NEW)
            assert time.monotonic() - began < 2.0  # 100 ms on a machine of its own: see the figures

    def test_a_child_forked_at_once_is_patched_though_it_never_calls_exec(self, bed: Bed) -> None:
        bed.keep()
        with bed.service(), Started(str(bed.program), "forking") as program:
            assert program.begun()[0] != program.pid
            until(lambda: program.ask() == NEW)

    def test_what_is_desired_after_the_service_started_is_noticed(self, bed: Bed) -> None:
        with bed.service():
            with Started(str(bed.program)) as program:
                assert program.begun()[1] == OLD
                time.sleep(0.2)
                assert program.ask() == OLD
            bed.keep()
            with Started(str(bed.program)) as program:
                assert program.begun()[1] == OLD
                until(lambda: program.ask() == NEW)

    def test_only_processes_that_are_meant(self, bed: Bed) -> None:
        bed.keep(user="65534")
        with bed.service(), Started(str(bed.program)) as program:
            assert program.begun()[1] == OLD
            time.sleep(0.5)
            assert program.ask() == OLD

    def test_all_that_runs_when_the_service_starts(self, bed: Bed) -> None:
        bed.keep()
        with Started(str(bed.program)) as program:
            assert program.begun()[1] == OLD
            with bed.service():
                until(lambda: program.ask() == NEW)
            assert bed.store.entries()[0][0].paths == (str(bed.program),)

    def test_a_damaged_entry_keeps_no_other_from_being_applied(self, bed: Bed) -> None:
        bed.keep()
        Path(bed.store.desired_folder, "bad.json").write_text("{")
        os.chmod(bed.store.desired_folder + "/bad.json", 0o600)
        with bed.service(), Started(str(bed.program)) as program:
            assert program.begun()[1] == OLD
            until(lambda: program.ask() == NEW)
            assert "bad.json cannot be used" in bed.told()

    def test_it_needs_little_memory_and_sleeps_while_nothing_begins(self, bed: Bed) -> None:
        bed.keep()
        with bed.service() as service:
            for _turn in range(20):
                subprocess.run(["true"], check=True)
            with Started(str(bed.program)) as program:
                program.begun()
                until(lambda: program.ask() == NEW)
            text = Path("/proc/%d/status" % service.pid).read_text()
            assert int(text.split("VmRSS:")[1].split()[0]) < MOST_MEMORY_KB
            assert int(text.split("VmHWM:")[1].split()[0]) < MOST_MEMORY_KB


class TestGuard:
    """A program that dies soon after its patch, twice."""

    def test_a_service_that_crashes_twice_is_started_without_it_until_somebody_lifts_that(self, bed: Bed) -> None:
        bed.keep()
        with bed.service():
            for number in (1, 2):
                with Started(bed.places.launcher, str(bed.program), "crash") as program:
                    assert program.begun()[1] == NEW, bed.told()
                    program.process.wait(timeout=20)
                until(lambda: bed.told().count("died of signal 6 (SIGABRT)") == number)  # noqa: B023
            until(lambda: guard.is_held(bed.store, "fix", str(bed.program)))
            with Started(bed.places.launcher, str(bed.program)) as program:
                assert program.begun()[1] == OLD
            until(lambda: "runs without patch fix: it crashed soon after that, 2 times" in bed.told())
            deaths = status(bed.store)["patches"]["fix"]["held"][str(bed.program)]
            assert [one["how"] for one in deaths] == ["signal 6 (SIGABRT)"] * 2
            command = [bed.places.root + "/usr/sbin/livepatch-store", "release", "fix", "--root", bed.places.root]
            subprocess.run(command, check=True)
            with Started(bed.places.launcher, str(bed.program)) as program:
                assert program.begun()[1] == NEW, bed.told()

    def test_in_a_container_a_program_that_crashes_at_once_counts_where_the_kernel_tells_how(self, bed: Bed) -> None:
        """No process events in a network namespace of its own: each crash may be over before the service looks."""
        bed.keep()
        newer = tuple(int(part) for part in os.uname().release.split(".")[:2]) >= (6, 15)
        told = "died of signal 6 (SIGABRT)" if newer else "this kernel does not tell how"
        with bed.service(through=("unshare", "--net")):
            for number in (1, 2):
                with Started(bed.places.launcher, str(bed.program), "crash") as program:
                    assert program.begun()[1] == NEW, bed.told()
                    # How it ended is told when its parent has waited for it: some take their time.
                    until(lambda: _state(program.pid) == "Z")
                    time.sleep(0.1 * number)
                    program.process.wait(timeout=20)
                until(lambda: bed.told().count(told) == number)  # noqa: B023
            assert "only programs started through the launcher are patched" in bed.told()
            with Started(bed.places.launcher, str(bed.program)) as program:
                assert program.begun()[1] == (OLD if newer else NEW), bed.told()

    def test_a_service_that_ends_with_a_failure_counts_and_one_that_somebody_ends_does_not(self, bed: Bed) -> None:
        bed.keep()
        with bed.service():
            for _turn in range(3):
                with Started(bed.places.launcher, str(bed.program)) as program:
                    assert program.begun()[1] == NEW, bed.told()
            for _turn in range(2):
                with Started(bed.places.launcher, str(bed.program), "fail") as program:
                    assert program.begun()[1] == NEW, bed.told()
                    assert program.process.wait(timeout=20) == 3
            until(lambda: guard.is_held(bed.store, "fix", str(bed.program)))
            assert bed.told().count("died of exit status 3") == 2

    def test_who_outlives_the_window_takes_the_deaths_back(self, bed: Bed) -> None:
        bed.keep()
        with bed.service("--guard-seconds", "0.3"):
            for _turn in range(2):
                with Started(bed.places.launcher, str(bed.program), "crash") as program:
                    assert program.begun()[1] == NEW, bed.told()
                    program.process.wait(timeout=20)
                until(lambda: os.path.exists(bed.store.held_folder + "/fix.json"))
                with Started(bed.places.launcher, str(bed.program)) as program:
                    assert program.begun()[1] == NEW, bed.told()
                    until(lambda: "greeter" not in Path(bed.store.held_folder, "fix.json").read_text())
            assert not guard.is_held(bed.store, "fix", str(bed.program))

    def test_a_damaged_record_holds_nothing_back_and_is_told(self, bed: Bed) -> None:
        bed.keep()
        guard.note_death(bed.store, "fix", "/x", 1, 1, "signal 6 (SIGABRT)")
        Path(bed.store.held_folder, "fix.json").write_bytes(b"[]")
        with bed.service(), Started(bed.places.launcher, str(bed.program)) as program:
            assert program.begun()[1] == NEW, bed.told()
        assert [error["code"] for error in status(bed.store)["errors"]] == ["store_corrupt"]

    def test_how_a_process_ended_is_known_without_events_where_the_kernel_tells(self) -> None:
        process = subprocess.Popen(["sh", "-c", "exit 7"])
        descriptor = open_pid(process.pid)
        process.wait()
        known = exit_status(descriptor)
        os.close(descriptor)
        newer = tuple(int(part) for part in os.uname().release.split(".")[:2]) >= (6, 15)
        assert known == (7 << 8 if newer else None)


class TestKillSwitch:
    """One file, or one word, and nothing is applied."""

    def test_the_file_stops_the_launcher_and_the_service_and_its_end_starts_them_again(self, bed: Bed) -> None:
        bed.keep()
        os.makedirs(bed.places.settings)
        with bed.service():
            Path(bed.places.disable).touch()
            for command in ([bed.places.launcher, str(bed.program)], [str(bed.program)]):
                with Started(*command) as program:
                    assert program.begun()[1] == OLD
                    time.sleep(0.3)
                    assert program.ask() == OLD
            os.unlink(bed.places.disable)
            with Started(bed.places.launcher, str(bed.program)) as program:
                assert program.begun()[1] == NEW

    def test_the_word_on_the_kernels_command_line(self, bed: Bed) -> None:
        bed.keep()
        Path(bed.places.kernel_words).write_text("root=/dev/vda cgl_livepatch=off quiet\n")
        with bed.service(), Started(bed.places.launcher, str(bed.program)) as program:
            assert program.begun()[1] == OLD
        assert "cgl_livepatch=off" in status(bed.store)["switched_off"]

    def test_apply_says_that_it_is_switched_off(self, bed: Bed) -> None:
        bed.keep()
        os.makedirs(bed.places.settings)
        Path(bed.places.disable).touch()
        command = [bed.places.root + "/usr/sbin/livepatch-store", "apply", "--root", bed.places.root]
        ended = subprocess.run(command, check=False, capture_output=True, text=True)
        assert ended.returncode == 1
        assert "nothing is applied: the file" in ended.stderr


def test_two_patches_of_which_one_needs_the_other_come_in_that_order(bed: Bed) -> None:
    bed.keep()
    more = make_patch(
        bed.folder, bed.program, "int answer(int x) { return x + 200; }", ["answer"], "afix", requires=("fix",)
    )
    bed.keep(more)
    with bed.service(), Started(bed.places.launcher, str(bed.program)) as program:
        assert program.begun()[1] == 201, bed.told()


def test_what_another_one_replaces_is_left_out(bed: Bed) -> None:
    bed.keep()
    bed.keep(
        make_patch(bed.folder, bed.program, "int answer(int x) { return x + 200; }", ["answer"], "b", replaces=("fix",))
    )
    with bed.service(), Started(bed.places.launcher, str(bed.program)) as program:
        assert program.begun()[1] == 201
        assert "livepatch:fix" not in Path("/proc/%d/maps" % program.pid).read_text()


def test_launchers_that_ask_and_go_away_keep_nobody_else_waiting(bed: Bed) -> None:
    bed.keep()
    with bed.service(), contextlib.ExitStack() as stack:
        for _turn in range(4):
            idle = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            idle.connect(bed.places.socket)
        with Started(bed.places.launcher, str(bed.program)) as program:
            assert program.begun()[1] == NEW


@pytest.mark.parametrize("is_kept", [False, True])
def test_who_asks_and_is_gone_at_once_does_not_end_the_service(bed: Bed, is_kept: bool) -> None:
    if is_kept:
        bed.keep()
    with bed.service() as service:
        os.kill(service.pid, signal.SIGSTOP)
        for _turn in range(4):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as gone:
                gone.connect(bed.places.socket)
        os.kill(service.pid, signal.SIGCONT)
        with Started(bed.places.launcher, str(bed.program)) as program:
            assert program.begun()[1] == (NEW if is_kept else OLD), bed.told()
        assert service.poll() is None


def test_looks_are_three_a_program_and_its_children_get_what_is_left() -> None:
    looks = Looks()
    looks.begin(1, 100.0)
    looks.fork(1, 2, 100.005)
    assert looks.due(100.0 + LOOKS[0]) == [1]
    assert looks.due(100.02) == [2]
    assert looks.due(101.0) == [1, 2]
    assert (looks.next_due(), looks.due(200.0)) == (None, [])
    looks.begin(3, 300.0)
    looks.forget(3)
    assert looks.due(400.0) == []


def _state(pid: int) -> str:
    return Path("/proc/%d/stat" % pid).read_text().rpartition(")")[2].split()[0]
