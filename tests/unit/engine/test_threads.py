# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Threads by the thousand: born and gone while the tool is at work, many at once, and those that no program made."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import ContextManager, Iterator

import pytest
from patching import Running, compile_program, livepatch_mappings, make_patch, shared
from reports import only, well
from snapshots import descriptors, snapshot, states, tracers

from module_utils._engine import threads_inside
from module_utils._engine.activate import Limits
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch, unload_patch
from module_utils._patch.content import Patch
from module_utils._process.process import Process
from module_utils._process.selection import Selection
from module_utils._ptrace.stop_all_threads import StopWindow

MAIN = r"""
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
__attribute__((noinline, noipa)) int first(int x) { return x + (int)getpid() * 0 + 1; }
__attribute__((noinline, noipa)) int second(int x) { return x + (int)getpid() * 0 + 2; }
static volatile long count;
SETUP
int main(void) {
    char line[100];
    setvbuf(stdout, 0, _IOLBF, 0);
    prepare();
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        if (*line == 'c') printf("%ld\n", count);
        else printf("%d\n", second(first(0)));
    }
}
"""
FIXED = """
#include <unistd.h>
int first(int x) { return x + (int)getpid() * 0 + 100; }
int second(int x) { return x + (int)getpid() * 0 + 200; }
"""
WAYS = [
    pytest.param(("byte", "jump"), "entry", id="byte"),
    pytest.param(("jump",), "atomic", id="stop"),
    pytest.param(("jump",), "quiescent", id="quiescent"),
]


def _made(folder: Path, setup: str, *flags: str) -> tuple[Path, Patch]:
    program = compile_program(folder, "program", MAIN.replace("SETUP", setup), *flags)
    return program, make_patch(folder, program, FIXED, ["first", "second"])


# Makers that end, too: each makes the next of its line. Some threads are waited for, some are not.
CHURN = r"""
static void *short_lived(void *nothing) {
    if (first(1) + second(0) < 0) abort();
    __atomic_fetch_add(&count, 1, __ATOMIC_RELAXED);
    return 0;
}
static void *line(void *nothing) {
    pthread_t some[4], next;
    for (int turn = 0; turn < 4; turn++) {
        for (int index = 0; index < 4; index++)
            if (pthread_create(&some[index], 0, short_lived, 0)) abort();
        for (int index = 0; index < 4; index++)
            if (index % 2) pthread_detach(some[index]);
            else pthread_join(some[index], 0);
    }
    while (pthread_create(&next, 0, line, 0)) usleep(100);
    pthread_detach(next);
    return 0;
}
static void prepare(void) {
    pthread_t thread;
    for (int index = 0; index < 3; index++) { pthread_create(&thread, 0, line, 0); pthread_detach(thread); }
}
"""


@pytest.mark.parametrize(("forms", "consistency"), WAYS)
def test_threads_come_and_go(tmp_path: Path, forms: tuple[str, ...], consistency: str) -> None:
    """Thousands of threads a second come and go during load, both switches and unload: no one is left stopped or lost.

    Only the first thread lives long. Each round makes the program's count go on: nobody waits for what never comes.
    """
    program, patch = _made(tmp_path, CHURN)
    with Running(program) as running:
        chosen, limits = Selection(pids=(running.pid,)), Limits(2.0, 10.0, consistency)
        files = descriptors(running.pid)
        began, born = time.monotonic(), int(running.ask("count"))
        for _turn in range(2):
            assert well(load_patch(patch, chosen, forms=forms)).state == "loaded"
            for _switch in range(2):
                outcome = well(activate_patch("fix", chosen, limits))
                assert (outcome.state, outcome.switch) == ("active", "byte" if consistency == "entry" else "stop")
                assert outcome.stop_us <= 2_000_000
                assert running.ask("?") == "300"
                assert well(deactivate_patch("fix", chosen, limits)).state == "loaded"
                assert running.ask("?") == "3"
            assert well(unload_patch("fix", chosen, 10.0)).state == "absent"
            before, born = born, int(running.ask("count"))
            assert born > before
        assert born / (time.monotonic() - began) > 200  # where nothing else runs: more than 10,000 a second
        assert running.alive()
        assert not livepatch_mappings(running.pid)
        assert descriptors(running.pid) == files


CROWD = r"""
static volatile long alive;
static void *short_lived(void *nothing) {
    if (first(1) + second(0) < 0) abort();
    usleep(20000);
    __atomic_fetch_add(&count, 1, __ATOMIC_RELAXED);
    __atomic_fetch_sub(&alive, 1, __ATOMIC_RELAXED);
    return 0;
}
static void *breeds(void *nothing) {
    pthread_t one;
    pthread_attr_t detached;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&detached, 65536);
    for (;;) {
        while (alive >= 300) usleep(100);
        if (!pthread_create(&one, &detached, short_lived, 0)) __atomic_fetch_add(&alive, 1, __ATOMIC_RELAXED);
    }
}
static void prepare(void) { pthread_t one; pthread_create(&one, 0, breeds, 0); }
"""


def test_there_is_always_a_new_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """300 threads, of which none lives long: who looks at one after the other need not come to an end, and stops all.

    Here at once, for on some machines that end comes.
    """
    program, patch = _made(tmp_path, CROWD)
    stops, stopped = shared(1), threads_inside.stopped

    def counted(process: Process, budget: float) -> ContextManager[StopWindow]:
        stops[0] += 1
        return stopped(process, budget)

    monkeypatch.setattr(threads_inside, "_CHASE", 0.0)
    monkeypatch.setattr(threads_inside, "stopped", counted)
    with Running(program) as running:
        chosen, limits = Selection(pids=(running.pid,)), Limits(2.0, 30.0, "quiescent")
        while len(os.listdir("/proc/%d/task" % running.pid)) < 100:
            time.sleep(0.01)
        assert well(load_patch(patch, chosen)).state == "loaded"
        assert well(activate_patch("fix", chosen, limits)).state == "active"
        assert running.ask("?") == "300"
        assert well(deactivate_patch("fix", chosen, limits)).state == "loaded"
        assert running.ask("?") == "3"
        assert stops[0] == 0  # quiescent stops all anyway
        outcome = well(unload_patch("fix", chosen, 60.0))
        assert (outcome.state, stops[0] > 0) == ("absent", True)
        assert 0 < outcome.hold_us < 1_000_000
        assert not livepatch_mappings(running.pid)
        count = int(running.ask("count"))
        while int(running.ask("count")) < count + 100:
            time.sleep(0.01)


THOUSANDS = r"""
#include <sys/resource.h>
static void *idle(void *nothing) { for (;;) pause(); }
static void *works(void *nothing) { for (;;) { usleep(5000); if (first(1) + second(0) < 0) abort(); count++; } }
static void prepare(void) {
    pthread_t thread;
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 65536);
    for (int index = 0; index < 4000; index++)
        if (pthread_create(&thread, &small, index % 100 ? idle : works, 0)) abort();
}
"""


@pytest.fixture(scope="module")
def thousands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, Patch]]:
    program, patch = _made(tmp_path_factory.mktemp("thousands"), THOUSANDS)
    with Running(program) as running:
        yield running, patch


@pytest.mark.parametrize(("forms", "consistency"), WAYS)
def test_4000_threads(thousands: tuple[Running, Patch], forms: tuple[str, ...], consistency: str) -> None:
    """All of them are stopped and go on; the time for it is told and within the budget."""
    running, patch = thousands
    chosen, limits = Selection(pids=(running.pid,)), Limits(3.0, 60.0, consistency)
    before = snapshot(running.pid)
    outcome = well(load_patch(patch, chosen, forms=forms))
    assert (outcome.state, outcome.threads) == ("loaded", 4001)
    for operation, state, answer in ((activate_patch, "active", "300"), (deactivate_patch, "loaded", "3")):
        outcome = well(operation("fix", chosen, limits))
        assert (outcome.state, outcome.threads) == (state, 4001)
        assert (outcome.switch, outcome.stop_us > 0) == (("byte", False) if consistency == "entry" else ("stop", True))
        assert outcome.stop_us < 3_000_000
        assert running.ask("?") == answer
    assert well(unload_patch("fix", chosen, 60.0)).state == "absent"
    assert snapshot(running.pid) == before
    assert tracers(running.pid) == {"0"}
    assert not states(running.pid) & {"t", "T"}


def test_4000_threads_and_a_small_budget(thousands: tuple[Running, Patch]) -> None:
    """5 ms are not enough for 4000 threads: told so, with the time that it took; all run on, nothing is changed."""
    running, patch = thousands
    chosen = Selection(pids=(running.pid,))
    well(load_patch(patch, chosen, forms=("jump",)))
    before, count = snapshot(running.pid), int(running.ask("count"))
    outcome = only(activate_patch("fix", chosen, Limits(0.005, 0.0, "atomic")))
    assert outcome.error is not None
    assert (outcome.error["code"], outcome.state) == ("stop_budget_exceeded", "loaded")
    assert 5_000 <= outcome.stop_us < 3_000_000
    assert snapshot(running.pid) == before
    assert (tracers(running.pid), states(running.pid) & {"t", "T"}) == ({"0"}, set())
    assert running.ask("?") == "3"
    while int(running.ask("count")) < count + 1000:
        time.sleep(0.01)
    assert well(unload_patch("fix", chosen, 60.0)).state == "absent"


IO_URING = r"""
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
static unsigned *ended[2];
static long failed;
static long all_ended(void) { return failed + *ended[0] + *ended[1]; }
#define count all_ended()
static int ring(int which, int flags) {
    /* One read from a pipe in which nothing comes, which is to be made by a worker. */
    struct io_uring_params wanted = {.flags = flags, .sq_thread_idle = 3600000};
    int one = syscall(SYS_io_uring_setup, 4, &wanted), ends[2];
    char *queue = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, one, IORING_OFF_SQ_RING);
    struct io_uring_sqe *entry = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, one, IORING_OFF_SQES);
    static char byte;
    if (one < 0 || queue == MAP_FAILED || entry == MAP_FAILED || pipe(ends)) return -1;
    ended[which] = (unsigned *)(queue + wanted.cq_off.tail);
    entry->opcode = IORING_OP_READ;
    entry->flags = IOSQE_ASYNC;
    entry->fd = ends[0];
    entry->addr = (unsigned long)&byte;
    entry->len = 1;
    *(unsigned *)(queue + wanted.sq_off.array) = 0;
    __atomic_store_n((unsigned *)(queue + wanted.sq_off.tail), 1, __ATOMIC_RELEASE);
    return syscall(SYS_io_uring_enter, one, 1, 0, flags & IORING_SETUP_SQPOLL ? IORING_ENTER_SQ_WAKEUP : 0, 0, 0);
}
static void prepare(void) {
    static unsigned none;
    ended[0] = ended[1] = &none;
    failed = ring(0, 0) < 0 || ring(1, IORING_SETUP_SQPOLL) < 0;
}
"""


@pytest.mark.parametrize(("forms", "consistency"), WAYS)
def test_io_uring_workers(tmp_path: Path, forms: tuple[str, ...], consistency: str) -> None:
    """Threads that the kernel made for io_uring, a busy poller among them, are left alone: no request ends for us."""
    program, patch = _made(tmp_path, IO_URING)
    with Running(program) as running:
        if running.ask("count") != "0":
            pytest.skip("io_uring is not allowed here (kernel.io_uring_disabled)")
        names: set[str] = set()
        while {name[:8] for name in names} != {"program", "iou-wrk-", "iou-sqp-"}:
            names = {(task / "comm").read_text().strip() for task in Path("/proc/%d/task" % running.pid).iterdir()}
            time.sleep(0.01)
        chosen, limits = Selection(pids=(running.pid,)), Limits(1.0, 10.0, consistency)
        for _turn in range(2):
            assert well(load_patch(patch, chosen, forms=forms)).state == "loaded"
            assert well(activate_patch("fix", chosen, limits)).state == "active"
            assert running.ask("?") == "300"
            assert well(deactivate_patch("fix", chosen, limits)).state == "loaded"
            assert running.ask("?") == "3"
            assert well(unload_patch("fix", chosen, 10.0)).state == "absent"
        assert running.ask("count") == "0"
        assert not livepatch_mappings(running.pid)


FROZEN = r"""
#include <fcntl.h>
static const char *path;
static void *writes(void *nothing) {
    int file = open(getenv("FILE"), O_WRONLY | O_CREAT, 0600);
    for (;;) { if (write(file, "x", 1) != 1) abort(); count++; usleep(1000); }
}
static void prepare(void) { pthread_t thread; pthread_create(&thread, 0, writes, 0); }
"""


@contextlib.contextmanager
def _mounted(folder: Path) -> Iterator[Path]:
    """A small file system of its own."""
    image, place = folder / "image", folder / "mounted"
    place.mkdir()
    with image.open("wb") as stream:
        stream.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    if subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=False).returncode:
        pytest.skip("no loop devices, or no ext4, in this kernel")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def _asleep_for_good(pid: int) -> int:
    tasks = [int(task.name) for task in Path("/proc/%d/task" % pid).iterdir()]
    return next(tid for tid in tasks if _state(pid, tid) == "D")


def _state(pid: int, tid: int) -> str:
    return Path("/proc/%d/task/%d/stat" % (pid, tid)).read_text().rpartition(")")[2].split()[0]


def test_a_frozen_file_system(tmp_path: Path) -> None:
    """A thread in uninterruptible sleep: one byte switches all the same; what needs it to stop says so, in time.

    Once it has gone on, the same succeeds.
    """
    if not shutil.which("fsfreeze") or not shutil.which("mkfs.ext4") or os.geteuid():
        pytest.skip("needs root, fsfreeze and mkfs.ext4")
    program, patch = _made(tmp_path, FROZEN)
    with _mounted(tmp_path) as place, Running(program, env={"FILE": str(place / "file")}) as running:
        chosen = Selection(pids=(running.pid,))
        subprocess.run(["fsfreeze", "-f", str(place)], check=True)
        try:
            while states(running.pid) != {"S", "D"}:
                time.sleep(0.01)
            # switched by a byte, it neither stops nor waits
            assert well(load_patch(patch, chosen)).state == "loaded"
            assert well(activate_patch("fix", chosen, Limits(0.1, 0.0))).state == "active"
            assert running.ask("?") == "300"
            outcome = well(deactivate_patch("fix", chosen, Limits(0.1, 0.0)))
            assert (outcome.state, outcome.switch) == ("loaded", "byte")
            assert running.ask("?") == "3"
            # nobody can tell where it will come back to
            outcome = only(unload_patch("fix", chosen, 0.3))
            assert outcome.error is not None
            assert (outcome.error["code"], outcome.state, outcome.verified) == ("function_busy", "loaded", True)
            assert "thread %d" % _asleep_for_good(running.pid) in outcome.error["message"]
            before = snapshot(running.pid)
            outcome = only(activate_patch("fix", chosen, Limits(0.05, 0.3, "atomic")))
            assert outcome.error is not None
            assert (outcome.error["code"], outcome.state) == ("stop_budget_exceeded", "loaded")
            assert 50_000 <= outcome.stop_us < 1_000_000
            assert snapshot(running.pid) == before
            assert running.ask("?") == "3"
            count = running.ask("count")
            while "R" in states(running.pid):  # it has answered, and not yet gone back to sleep
                time.sleep(0.01)
            assert states(running.pid) == {"S", "D"}
        finally:
            subprocess.run(["fsfreeze", "-u", str(place)], check=True)
        while running.ask("count") == count:
            time.sleep(0.01)
        assert tracers(running.pid) == {"0"}
        assert well(activate_patch("fix", chosen, Limits(1.0, 10.0, "atomic"))).state == "active"
        assert running.ask("?") == "300"
        assert well(deactivate_patch("fix", chosen, Limits(1.0, 10.0, "atomic"))).state == "loaded"
        assert well(unload_patch("fix", chosen, 10.0)).state == "absent"
        assert running.ask("?") == "3"
        assert running.alive()
