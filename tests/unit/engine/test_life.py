# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that fork, become other programs, or end, and numbers that other processes get after them."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from patching import Running, compile_program, livepatch_mappings, make_patch
from reports import only
from snapshots import descriptors, snapshot, states, tracers

from module_utils._engine.activate import Limits, activate
from module_utils._engine.facts import gather
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch, unload_patch
from module_utils._engine.outcome import Report
from module_utils._errors import LivepatchError
from module_utils._patch.content import Patch
from module_utils._process.process import Process
from module_utils._process.selection import Selection
from module_utils._ptrace import gadgets
from module_utils._ptrace.hold_one_thread import held_thread
from module_utils._ptrace.tracer import as_tracer

# One of our own: facts are about all of the host.
ID = "life-%d" % os.getpid()
WAYS = [pytest.param(("byte", "jump"), "entry", id="byte"), pytest.param(("jump",), "atomic", id="stop")]
FUNCTIONS = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
__attribute__((noinline, noipa)) int first(int x) { return x + (int)getpid() * 0 + 1; }
__attribute__((noinline, noipa)) int second(int x) { return x + (int)getpid() * 0 + 2; }
"""
FIXED = """
#include <unistd.h>
int first(int x) { return x + (int)getpid() * 0 + 100; }
int second(int x) { return x + (int)getpid() * 0 + 200; }
"""


def _made(folder: Path, program: str) -> tuple[Path, Patch]:
    path = compile_program(folder, "program", FUNCTIONS + program, "-w")
    return path, make_patch(folder, path, FIXED, ["first", "second"], ID)


def _limits(consistency: str) -> Limits:
    return Limits(max_stop=5.0, timeout=30.0, consistency=consistency)


def _must(report: Report, *pids: int) -> None:
    """An operation that must change these processes, and no other."""
    assert {outcome.pid for outcome in report.outcomes} == set(pids)
    assert [outcome.error for outcome in report.outcomes] == [None] * len(pids)
    assert all(outcome.changed and outcome.verified for outcome in report.outcomes)


def _patched(exe: Path) -> dict[int, tuple[str, bool]]:
    """What facts say of the processes of a program that have the patch: its state, and whether that is verified."""
    return {
        fact["pid"]: (patch["state"], patch["verified"])
        for fact in gather([ID], "patched")["processes"]
        for patch in fact["patches"]
        if fact["exe"] == str(exe)
    }


# Makes children that answer, each through a socket of its own; "f" makes one, "c<n>..." asks the n-th.
FAMILY = r"""
static int sockets[8], count;
static void make_child(void) {
    int pair[2];
    char line[100];
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    pid_t child = fork();
    if (!child) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        while (read(pair[1], line, sizeof line) > 0) {
            int sum = second(first(0));
            write(pair[1], &sum, sizeof sum);
        }
        _exit(0);
    }
    close(pair[1]);
    sockets[count++] = pair[0];
    printf("%d\n", child);
}
int main(void) {
    char line[100];
    int sum;
    setvbuf(stdout, 0, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        if (*line == 'f') make_child();
        else if (*line == 'c') {
            write(sockets[line[1] - '0'], "?", 1);
            printf("%d\n", read(sockets[line[1] - '0'], &sum, sizeof sum) == sizeof sum ? sum : -1);
        } else printf("%d\n", second(first(0)));
    }
}
"""


@pytest.mark.parametrize(("forms", "consistency"), WAYS)
def test_a_child_has_the_patch(tmp_path: Path, forms: tuple[str, ...], consistency: str) -> None:
    """A child made later has what its parent had, facts show it, and either gets rid of it without the other."""
    program, patch = _made(tmp_path, FAMILY)
    limits = _limits(consistency)
    with Running(program) as parent:
        without = int(parent.ask("fork"))
        _must(load_patch(patch, Selection(pids=(parent.pid,)), forms=forms), parent.pid)
        loaded = int(parent.ask("fork"))
        _must(activate_patch(ID, Selection(pids=(parent.pid,)), limits), parent.pid)
        child, other = int(parent.ask("fork")), int(parent.ask("fork"))
        assert [parent.ask("c%d" % index) for index in range(4)] == ["3", "3", "300", "300"]
        active, inactive = ("active", True), ("loaded", True)
        assert _patched(program) == {parent.pid: active, loaded: inactive, child: active, other: active}
        missing = {fact["pid"] for fact in gather([ID], "affected")["missing"]}
        assert missing == {without, loaded}
        # Out of one child alone, and in again.
        meant = Selection(pids=(child,))
        before = {pid: snapshot(pid).code for pid in (parent.pid, other)}
        _must(deactivate_patch(ID, meant, limits), child)
        assert (parent.ask("c2"), parent.ask("c3"), parent.ask("?")) == ("3", "300", "300")
        _must(unload_patch(ID, meant, 30.0), child)
        assert _patched(program) == {parent.pid: active, loaded: inactive, other: active}
        assert not livepatch_mappings(child)
        assert (parent.ask("c2"), parent.ask("c3"), parent.ask("?")) == ("3", "300", "300")
        assert {pid: snapshot(pid).code for pid in (parent.pid, other)} == before
        _must(load_patch(patch, meant, forms=forms), child)
        _must(activate_patch(ID, Selection(pids=(child, loaded)), limits), child, loaded)
        # Out of the parent alone.
        meant = Selection(pids=(parent.pid,))
        _must(deactivate_patch(ID, meant, limits), parent.pid)
        _must(unload_patch(ID, meant, 30.0), parent.pid)
        assert not livepatch_mappings(parent.pid)
        assert parent.ask("?") == "3"
        assert [parent.ask("c%d" % index) for index in range(4)] == ["3", "300", "300", "300"]
        assert _patched(program) == dict.fromkeys((loaded, child, other), active)
        # Out of all that are left at once, whichever they are.
        _must(deactivate_patch(ID, Selection(exe=str(program)), limits), loaded, child, other)
        _must(unload_patch(ID, Selection(exe=str(program)), 30.0), loaded, child, other)
        assert _patched(program) == {}
        assert [parent.ask("c%d" % index) for index in range(4)] == ["3"] * 4


# One thread forks all the time. Most children end at once, some live on until they are told to end; each says by its
# end whether its functions gave what one of the two versions gives.
FORKS = r"""
#define MOST 6
static atomic_long made, bad;
static atomic_int quiet;
static pid_t living[MOST];
static int good(void) {
    int sum = second(first(0));
    return sum == 3 || sum == 300 || sum == 201 || sum == 102;
}
static void end(int number) { _exit(good() ? 7 : 8); }
static void *forks(void *nothing) {
    int status;
    for (long index = 0;; index++) {
        while (quiet) { if (quiet == 1) quiet = 2; usleep(1000); }
        int lives = index % 5 == 4;
        pid_t *place = &living[index / 5 % MOST];
        if (lives && *place) {
            kill(*place, SIGTERM);
            if (waitpid(*place, &status, 0) != *place || status != 7 << 8) bad = status | 1 << 20;
        }
        pid_t parent = getpid(), child = fork();
        if (!child) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() != parent) _exit(0); /* it was killed before that */
            if (!lives) end(0);
            for (;;) pause();
        }
        if (child < 0) abort();
        if (lives) *place = child;
        else {
            if (waitpid(child, &status, WUNTRACED) != child || status != 7 << 8) bad = status | 1 << 21;
        }
        made++;
    }
}
int main(void) {
    char line[100];
    pthread_t thread;
    setvbuf(stdout, 0, _IOLBF, 0);
    signal(SIGTERM, end); /* inherited: a child may be told to end before it has run at all */
    pthread_create(&thread, 0, forks, 0);
    while (made < 10) usleep(1000);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        if (*line == 'q') { quiet = 1; while (quiet != 2) usleep(1000); }
        if (*line == 'g') quiet = 0;
        printf("%ld %ld\n", (long)made, (long)bad);
    }
}
"""


@pytest.mark.parametrize(("forms", "consistency"), WAYS)
def test_forks_all_the_time(tmp_path: Path, forms: tuple[str, ...], consistency: str) -> None:
    """Children come and go during every operation: none is overlooked, harmed, or counted as failed for its end."""
    program, patch = _made(tmp_path, FORKS)
    chosen, limits = Selection(exe=str(program)), _limits(consistency)
    steps: list[tuple[Callable[[], Report], set[tuple[str, bool]]]] = [
        (lambda: load_patch(patch, chosen, forms=forms), {("loaded", True)}),
        (lambda: activate_patch(ID, chosen, limits), {("active", True)}),
        (lambda: deactivate_patch(ID, chosen, limits), {("loaded", True)}),
        (lambda: unload_patch(ID, chosen, 30.0), set()),
    ]
    with Running(program) as running:
        made = 0
        for _turn in range(3):
            for step, wanted in steps:
                report = step()
                assert [outcome.error for outcome in report.outcomes if outcome.error] == []
                assert running.pid in {outcome.pid for outcome in report.outcomes}
                bad = int(running.ask("quiet").split()[1])
                assert bad == 0
                alive = [pid for pid in _running(program) if states(pid) != {"Z"}]
                assert len(alive) >= 2
                found = _patched(program)
                assert set(found.values()) == wanted
                assert set(found) == (set(alive) if wanted else set())
                assert {tracer for pid in alive for tracer in tracers(pid)} == {"0"}
                assert not [name for pid in alive for name in descriptors(pid).values() if "livepatch" in name]
                made = int(running.ask("go on").split()[0])
                while int(running.ask("?").split()[0]) < made + 5:
                    time.sleep(0.001)


def _running(exe: Path) -> Iterator[int]:
    """The processes that run a program."""
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and os.readlink("/proc/%s/exe" % name) == str(exe):
                yield int(name)
        except OSError:
            continue


# Becomes itself again, or another program, when it is told to; or again and again while a file is there.
BECOMES = r"""
static char **words;
static void again(void) {
    char turn[20];
    snprintf(turn, sizeof turn, "%d", atoi(words[2]) + 1);
    execl("/proc/self/exe", words[0], words[1], turn, NULL);
    abort();
}
static void *idle(void *nothing) { for (;;) pause(); }
static void *busy(void *nothing) { for (;;) { first(1); if (access(words[1], F_OK)) pause(); } }
static void *comes_again(void *nothing) {
    usleep(5000 + atoi(words[2]) * 7919 % 80000);
    if (!access(words[1], F_OK)) again();
    int comm = open("/proc/self/comm", O_WRONLY); /* it stays what it is, until it is told to */
    write(comm, "rests", 5);
    close(comm);
    return 0;
}
int main(int count, char **given) {
    char line[100];
    pthread_t thread;
    words = given;
    setvbuf(stdout, 0, _IOLBF, 0);
    if (!strcmp(words[2], "0")) puts("ready");
    for (int index = 0; index < 4; index++)
        pthread_create(&thread, 0, index == 3 ? comes_again : index ? idle : busy, 0);
    while (fgets(line, sizeof line, stdin)) {
        if (*line == 'a') again();
        if (*line == 'o') execl("/bin/cat", "cat", NULL);
        printf("%d %s\n", second(first(0)), words[2]);
    }
}
"""


@pytest.mark.parametrize(("forms", "consistency"), WAYS)
def test_a_new_program_has_no_patch(tmp_path: Path, forms: tuple[str, ...], consistency: str) -> None:
    """Behind an exec the patch is gone: facts say so, taking it out is no error, and it can be loaded again."""
    program, patch = _made(tmp_path, BECOMES)
    limits = _limits(consistency)
    with Running(program, str(tmp_path / "no"), "0") as running:
        chosen = Selection(pids=(running.pid,))
        open_before = set(descriptors(running.pid))
        _until_named(running.pid, "rests", "0")
        for turn in range(2):
            assert running.ask("?") == "3 %d" % turn
            _must(load_patch(patch, chosen, forms=forms), running.pid)
            _must(activate_patch(ID, chosen, limits), running.pid)
            assert running.ask("?") == "300 %d" % turn
            assert _patched(program) == {running.pid: ("active", True)}
            running.send("again")
            _until_named(running.pid, "rests", str(turn + 1))
            assert running.ask("?") == "3 %d" % (turn + 1)
            assert _patched(program) == {}
            assert gather([ID], "patched")["missing"] == [{"patch": ID, "pid": 0, "exe": "", "state": "absent"}]
            for taken_out in (deactivate_patch(ID, chosen, limits), unload_patch(ID, chosen, 1.0)):
                assert (taken_out.outcomes, taken_out.unreadable) == ([], 0)
            assert _code(activate_patch(ID, chosen, limits)) == "not_loaded"
            assert set(descriptors(running.pid)) == open_before
        _must(load_patch(patch, chosen, forms=forms), running.pid)
        _must(activate_patch(ID, chosen, limits), running.pid)
        running.send("other")
        _until_named(running.pid, "cat", "cat")
        assert running.ask("it echoes") == "it echoes"
        assert _patched(program) == {}
        assert _code(load_patch(patch, chosen)) == "build_id_mismatch"
        assert not livepatch_mappings(running.pid)
        assert running.ask("still") == "still"


def _until_named(pid: int, name: str, word: str) -> None:
    """Wait until a process has this name, and its command line ends so: what it reads before an exec is lost."""
    for _turn in range(2000):
        comm, words = (Path("/proc/%d/%s" % (pid, file)).read_text() for file in ("comm", "cmdline"))
        if comm.strip() == name and words.rstrip("\0").endswith(word):
            return
        time.sleep(0.005)
    raise AssertionError((comm, words))


def _code(report: Report) -> str:
    error = only(report).error
    return error["code"] if error else ""


@pytest.mark.parametrize(("forms", "consistency"), WAYS)
def test_becomes_another_program_all_the_time(tmp_path: Path, forms: tuple[str, ...], consistency: str) -> None:
    """Every some ten milliseconds another thread makes it a new program: it lives, and all that is said is true."""
    program, patch = _made(tmp_path, BECOMES)
    flag = tmp_path / "flag"
    flag.touch()
    limits = Limits(max_stop=0.1, timeout=1.0, consistency=consistency)
    told: Counter[str] = Counter()
    with Running(program, str(flag), "0") as running:
        chosen = Selection(pids=(running.pid,))
        for _turn in range(8):
            for step in (
                lambda: load_patch(patch, chosen, forms=forms),
                lambda: activate_patch(ID, chosen, limits),
                lambda: deactivate_patch(ID, chosen, limits),
                lambda: unload_patch(ID, chosen, 1.0),
            ):
                told.update(outcome.error["code"] if outcome.error else "" for outcome in step().outcomes)
        # There is no patch behind an exec, or it never came to rest; and it was never taken for gone.
        assert set(told) <= {"", "not_loaded", "function_busy", "stop_budget_exceeded"}
        flag.unlink()
        _until_named(running.pid, "rests", "")
        answer = running.ask("?").split()
        assert answer[0] in ("3", "300")
        assert int(answer[1]) > 10
        assert tracers(running.pid) == {"0"}
        assert not states(running.pid) & {"t", "T"}
        deactivate_patch(ID, chosen, limits)
        unload_patch(ID, chosen, 30.0)
        assert running.ask("?").startswith("3 ")
        assert not livepatch_mappings(running.pid)
        _must(load_patch(patch, chosen, forms=forms), running.pid)
        _must(activate_patch(ID, chosen, _limits(consistency)), running.pid)
        assert running.ask("?").startswith("300 ")


# Runs a program under a number that is free (clone3(2), set_tid).
UNDER_A_NUMBER = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
int main(int count, char **words) {
    pid_t number = atoi(words[1]);
    struct clone_args how = {.exit_signal = SIGCHLD, .set_tid = (uintptr_t)&number, .set_tid_size = 1};
    pid_t child;
    for (int turn = 0; turn < 2000 && (child = syscall(SYS_clone3, &how, sizeof how)) < 0 && errno == EEXIST; turn++)
        usleep(5000); /* who had it last may not quite be gone */
    if (child < 0) { perror("clone3"); return 1; }
    if (!child) { prctl(PR_SET_PDEATHSIG, SIGKILL); execv(words[2], words + 2); _exit(9); }
    waitpid(child, 0, 0);
}
"""
OTHER = r"""
#include <stdio.h>
#include <unistd.h>
int main(void) {
    char line[100];
    setvbuf(stdout, 0, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) printf("other %d\n", getpid());
}
"""


def test_a_number_that_is_used_again(tmp_path: Path) -> None:
    """Between two tasks a process ends and another one gets its number: nothing is done to that one."""
    program, patch = _made(tmp_path, FAMILY)
    launcher = compile_program(tmp_path, "under_a_number", UNDER_A_NUMBER, "-w")
    other = compile_program(tmp_path, "other", OTHER)
    limits = _limits("entry")
    with Running(program) as running:
        number = running.pid
        chosen = Selection(pids=(number,))
        _must(load_patch(patch, chosen), number)
        first = only(activate_patch(ID, chosen, limits))
        held = Process(number)
        assert held.memory.read(held.maps()[0].start, 4)
    with held, Running(launcher, str(number), str(other)) as running:
        assert running.ask("?") == "other %d" % number
        before = snapshot(number)
        # The next tasks, which know the number alone.
        assert _code(activate_patch(ID, chosen, limits)) == "not_loaded"
        assert _code(load_patch(patch, chosen)) == "build_id_mismatch"
        assert deactivate_patch(ID, chosen, limits).outcomes == []
        assert unload_patch(ID, chosen, 1.0).outcomes == []
        # A task that began before, and holds the process that is gone.
        looks: list[Callable[[], Any]] = [
            held.maps,
            held.threads,
            lambda: held.memory.read(0x1000, 1),
            lambda: held.memory.write(int(before.maps.split("-")[0], 16), b"!"),
            lambda: activate(held, ID, limits),
        ]
        for look in looks:
            with pytest.raises(LivepatchError) as error:
                look()
            assert error.value.code == "process_gone"
        assert held.has_exited()
        assert snapshot(number) == before
        assert running.ask("?") == "other %d" % number
    # The same program under the number again: another process, told from the first by its start.
    with Running(launcher, str(number), str(program)) as running:
        outcome = only(activate_patch(ID, chosen, limits))
        assert outcome.error is not None
        assert (outcome.error["code"], outcome.pid) == ("not_loaded", first.pid)
        assert outcome.start_time != first.start_time
        assert _patched(program) == {}
        _must(load_patch(patch, chosen), number)
        assert running.ask("?") == "3"


def test_a_thread_of_another_process_is_not_touched(tmp_path: Path) -> None:
    """A thread's number that meanwhile belongs to another process: it is not taken for the thread, and runs on."""
    program, _patch = _made(tmp_path, FAMILY)
    with Running(program) as one, Running(program) as two, Process(one.pid) as process:
        before = snapshot(two.pid)

        def once() -> bool:
            with held_thread(process, two.pid, timeout=2.0, plainly=True) as thread:
                return thread is None

        assert as_tracer(once)
        assert tracers(two.pid) == {"0"}
        assert two.ask("?") == "3"
        assert snapshot(two.pid) == before


def test_one_that_ends_does_not_spoil_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be read in a process that has just ended is not taken for missing in all others of the task."""
    program, _patch = _made(tmp_path, FAMILY)
    monkeypatch.setattr(gadgets, "_places", {})
    with Running(program) as one, Process(one.pid) as process:
        mappings = process.maps()
        assert process.memory.read(mappings[0].start, 4)
        os.kill(one.pid, signal.SIGKILL)
        while not process.has_exited():
            time.sleep(0.005)
        with pytest.raises(LivepatchError):
            gadgets.find_gadgets(process, mappings)
    with Running(program) as two, Process(two.pid) as process:
        assert gadgets.find_gadgets(process, process.maps())
