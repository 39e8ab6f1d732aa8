# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The program ends, becomes another program, or forks, at any point at which the tool touches it.

Not among the unit tests (it is collected only by its name): `make deaths` goes through all points. Named by itself it
takes some of them, each time others.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Callable

import pytest
from deaths import Tool
from patching import Running, compile_program, livepatch_mappings, make_patch
from snapshots import descriptors, states, tracers

from module_utils._engine.activate import Limits
from module_utils._engine.facts import gather
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch, unload_patch
from module_utils._engine.outcome import Report
from module_utils._engine.region import find_regions
from module_utils._patch.content import Patch
from module_utils._process.process import Process
from module_utils._process.selection import Selection

ALL = os.environ.get("LIVEPATCH_DEATHS") == "all"
SEED = int(os.environ.get("LIVEPATCH_SEED", "0")) or random.randrange(1, 1 << 31)
SOME = 2
ID = "points-%d" % os.getpid()
WAYS = {"byte": (("byte", "jump"), "entry"), "stop": (("jump",), "atomic")}
CASES = [("load", "byte"), ("activate", "byte"), ("activate", "stop"), ("deactivate", "stop"), ("unload", "byte")]
ORDER = ["load", "activate", "deactivate", "unload"]
# A thread of its own waits to be told to fork, or to become the program anew: then the name tells that it did.
PROGRAM = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
__attribute__((noinline, noipa)) int first(int x) { return x + (int)getpid() * 0 + 1; }
__attribute__((noinline, noipa)) int second(int x) { return x + (int)getpid() * 0 + 2; }
static pid_t child;
static void end(int number) { _exit(second(first(0)) & 255); }
static void *idle(void *nothing) { for (;;) pause(); }
static void *told(void *mine) {
    int number;
    for (;;) {
        sigwait(mine, &number);
        if (number == SIGUSR2) execl("/proc/self/exe", "anew", "anew", NULL);
        pid_t parent = getpid(), made = fork();
        if (!made) {
            signal(SIGTERM, end);
            pthread_sigmask(SIG_UNBLOCK, mine, 0);
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() != parent) _exit(0); /* it was killed before that */
            for (;;) pause();
        }
        child = made;
    }
}
int main(int count, char **words) {
    char line[100];
    int status;
    pthread_t thread;
    sigset_t mine;
    sigemptyset(&mine); sigaddset(&mine, SIGUSR1); sigaddset(&mine, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &mine, 0);
    setvbuf(stdout, 0, _IOLBF, 0);
    for (int index = 0; index < 3; index++) pthread_create(&thread, 0, index ? idle : told, &mine);
    if (count == 1) puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        if (*line == 'c') printf("%d\n", child);
        else if (*line == 'e') {
            kill(child, SIGTERM);
            waitpid(child, &status, 0);
            printf("%d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
        } else printf("%d %s\n", second(first(0)), words[count - 1]);
    }
}
"""
FIXED = """
#include <unistd.h>
int first(int x) { return x + (int)getpid() * 0 + 100; }
int second(int x) { return x + (int)getpid() * 0 + 200; }
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Patch]:
    folder = tmp_path_factory.mktemp("points")
    program = compile_program(folder, "program", PROGRAM, "-w")
    return program, make_patch(folder, program, FIXED, ["first", "second"], ID)


def _work(patch: Patch, pids: list[int], way: str) -> dict[str, Callable[[], Report]]:
    forms, consistency = WAYS[way]
    chosen, limits = Selection(pids=tuple(pids)), Limits(max_stop=0.3, timeout=10.0, consistency=consistency)
    return {
        "load": lambda: load_patch(patch, chosen, forms=forms),
        "activate": lambda: activate_patch(ID, chosen, limits),
        "deactivate": lambda: deactivate_patch(ID, chosen, limits),
        "unload": lambda: unload_patch(ID, chosen, 10.0),
    }


def _ready(patch: Patch, running: Running, name: str, way: str) -> Callable[[], Report]:
    """The operation, in a program in which all that comes before it was done."""
    work = _work(patch, [running.pid], way)
    for before in ORDER[: ORDER.index(name)]:
        assert [outcome.error for outcome in work[before]().outcomes] == [None]
    return work[name]


def _points(made: tuple[Path, Patch], name: str, way: str) -> list[int]:
    program, patch = made
    with Running(program) as running:
        whole = Tool(_ready(patch, running, name, way), 0)
        assert whole.ended() == "done"
    every = list(range(1, whole.points + 1))
    return every if ALL else sorted(random.Random(SEED).sample(every, min(SOME, len(every))))


def _well(pid: int) -> None:
    """Nobody traces it, and it is not stopped."""
    assert tracers(pid) == {"0"}
    assert not states(pid) & {"t", "T"}


def _facts() -> dict[int, tuple[str, bool]]:
    """What facts say of the patch in each process that has it: its state, and whether that is verified."""
    return {
        fact["pid"]: (one["state"], one["verified"])
        for fact in gather([ID], "patched")["processes"]
        for one in fact["patches"]
    }


def _is_new(pid: int) -> bool:
    """Whether the code of a process leads into the patch, by its bytes alone."""
    with Process(pid) as process:
        (region,) = find_regions(process.memory, process.maps())
        there = [process.memory.read(site.address, len(site.new)) == site.new for site in region.sites]
        assert len(set(there)) == 1
        return there[0]


def _all_of_it_and_back(patch: Patch, pids: list[int], way: str) -> None:
    """Whatever is there: taken out, put in, and taken out again, without an error; nothing of it is left."""
    for name in ["deactivate", "unload", "load", "activate", "deactivate", "unload"]:
        report = _work(patch, pids, way)[name]()
        assert [outcome.error for outcome in report.outcomes if outcome.error] == [], name
        for pid in pids:
            _well(pid)
        if name == "activate":
            assert _facts() == dict.fromkeys(pids, ("active", True))
    for pid in pids:
        assert not livepatch_mappings(pid)
        assert not [one for one in descriptors(pid).values() if "livepatch" in one]


@pytest.mark.parametrize(("name", "way"), CASES)
def test_it_ends(made: tuple[Path, Patch], name: str, way: str) -> None:
    """Told that it is gone, or that it was done, and nothing else; the tool does not wait for it."""
    program, patch = made
    for point in _points(made, name, way):
        with Running(program) as running:
            operation = _ready(patch, running, name, way)
            tool = Tool(operation, point, lambda pid=running.pid: os.kill(pid, signal.SIGKILL))  # type: ignore[misc]
            began = time.monotonic()
            assert tool.ended() in ("gone", "done"), (point, SEED, tool.errors)
            assert time.monotonic() - began < 20, (point, SEED)


@pytest.mark.parametrize(("name", "way"), CASES)
def test_it_becomes_another_program(made: tuple[Path, Patch], name: str, way: str) -> None:
    """It does so, and is well; the new program can be patched like any other."""
    program, patch = made
    for point in _points(made, name, way):
        with Running(program) as running:
            operation = _ready(patch, running, name, way)
            tool = Tool(operation, point, _signalled(running.pid, signal.SIGUSR2))
            # A patch that is not there any more cannot be activated: that is the one error there may be.
            assert tool.ended() in ({"done", "failed"} if name == "activate" else {"done"}), (point, tool.errors)
            assert tool.was_met, (point, SEED)
            _until_anew(running.pid)
            _well(running.pid)
            assert running.ask("?") in ("3 anew", "300 anew"), (point, SEED)
            _all_of_it_and_back(patch, [running.pid], way)
            assert running.ask("?") == "3 anew"


def _signalled(pid: int, number: signal.Signals) -> Callable[[], None]:
    """What sends a process a signal, and gives it the time to begin with what it does then."""

    def strike() -> None:
        os.kill(pid, number)
        time.sleep(0.003)

    return strike


def _until_anew(pid: int) -> None:
    for _turn in range(2000):
        if Path("/proc/%d/cmdline" % pid).read_bytes() == b"anew\0anew\0" and len(_threads(pid)) == 4:
            return
        time.sleep(0.005)
    raise AssertionError(Path("/proc/%d/cmdline" % pid).read_bytes())


def _threads(pid: int) -> list[str]:
    return os.listdir("/proc/%d/task" % pid)


@pytest.mark.parametrize(("name", "way"), CASES)
def test_it_forks(made: tuple[Path, Patch], name: str, way: str) -> None:
    """The child may have half of what its parent was about to get: it lives, facts are true of it, and it is mended."""
    program, patch = made
    points, missed = _points(made, name, way), 0
    for point in points:
        with Running(program) as running:
            operation = _ready(patch, running, name, way)
            tool = Tool(operation, point, _signalled(running.pid, signal.SIGUSR1))
            assert tool.ended() == "done", (point, SEED, tool.errors)
            if not tool.was_met:  # the run that was counted took a step more, as where somebody seems to be inside
                missed += 1
                continue
            while running.ask("child") == "0":
                time.sleep(0.002)
            child = int(running.ask("child"))
            for pid in (running.pid, child):
                _well(pid)
            told = _facts()
            assert told[running.pid][1] if name != "unload" else running.pid not in told
            if child in told and told[child][1]:
                assert told[child][0] == ("active" if _is_new(child) else "loaded")
            for step in ("deactivate", "unload"):
                report = _work(patch, [running.pid], way)[step]()
                assert [outcome.error for outcome in report.outcomes if outcome.error] == []
            _all_of_it_and_back(patch, [child], way)
            assert not livepatch_mappings(running.pid)
            assert running.ask("?").startswith("3 ")
            assert running.ask("end") == "3"
    assert missed <= len(points) // 10, SEED
