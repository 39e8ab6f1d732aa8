# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Signals while a program is patched: none is lost, none is made up; handlers and masks are left as they are."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Callable

import pytest
from blocking_calls import CALLS, PROGRAM
from patching import Running, compile_program, livepatch_mappings, make_patch
from programs import Sender, wait_for_threads
from snapshots import snapshot, states, tracers

from module_utils._engine.activate import Limits
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch, unload_patch
from module_utils._engine.outcome import Report
from module_utils._patch.content import Patch
from module_utils._process.selection import Selection
from module_utils._ptrace import injected_call

WAYS = [pytest.param(("byte", "jump"), "entry", id="byte"), pytest.param(("jump",), "atomic", id="stop")]
FUNCTIONS = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
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
    return path, make_patch(folder, path, FIXED, ["first", "second"])


def _must(report: Report, switch: str = "") -> None:
    (outcome,) = report.outcomes
    assert (outcome.error, outcome.changed, outcome.verified) == (None, True, True)
    assert switch in ("", outcome.switch)


def _there_and_back(patch: Patch, pid: int, forms: tuple[str, ...], consistency: str, times: int) -> None:
    """Load, switch there and back so many times, unload; each must succeed, in the way that was asked for."""
    chosen, limits = Selection(pids=(pid,)), Limits(max_stop=5.0, timeout=30.0, consistency=consistency)
    switch = "byte" if consistency == "entry" else "stop"
    _must(load_patch(patch, chosen, forms=forms))
    for _turn in range(times):
        _must(activate_patch("fix", chosen, limits), switch)
        _must(deactivate_patch("fix", chosen, limits), switch)
    _must(unload_patch("fix", chosen, 30.0))


# A parent that notes whatever it is told of its child, and the child: a timer sends it SIGALRM each millisecond, the
# handler of which runs on an alternate stack and calls what is patched; queued signals come in between.
ALARMS = r"""
#include <sys/mman.h>
static struct { atomic_long signals, stopped, continued; } *parent;
static atomic_long alarms, wrong, queued, out_of_order;
static struct timespec origin;
static void told(int number) { parent->signals++; }
static void watch(pid_t child) {
    struct sigaction action = {.sa_handler = told};
    siginfo_t info = {0};
    sigaction(SIGCHLD, &action, 0);
    for (;;) {
        if (waitid(P_ALL, 0, &info, WEXITED | WSTOPPED | WCONTINUED)) continue;
        if (info.si_code == CLD_CONTINUED) parent->continued++;
        else if (info.si_code == CLD_STOPPED) { parent->stopped++; kill(child, SIGCONT); }
        else exit(0);
    }
}
static void alarmed(int number, siginfo_t *info, void *context) {
    char here;
    stack_t mine;
    int sum = second(first(0));
    sigaltstack(0, &mine);
    if (sum != 3 && sum != 300 && sum != 201 && sum != 102) wrong |= 1;
    if (!(mine.ss_flags & SS_ONSTACK) || &here < (char *)mine.ss_sp || &here > (char *)mine.ss_sp + mine.ss_size)
        wrong |= 2;
    alarms += 1 + info->si_overrun;
}
static void take(int number, siginfo_t *info, void *context) {
    if (info->si_value.sival_int != queued % 1000 + 1) out_of_order++;
    queued++;
}
static void ask_for_stack(void) {
    stack_t mine = {.ss_sp = malloc(65536), .ss_size = 65536};
    sigaltstack(&mine, 0);
}
static void *idle(void *nothing) { ask_for_stack(); for (;;) pause(); }
static void *busy(void *nothing) {
    sigset_t queue;
    sigemptyset(&queue); sigaddset(&queue, SIGRTMIN);
    ask_for_stack();
    pthread_sigmask(SIG_UNBLOCK, &queue, 0);
    for (;;) first(1);
}
/* The alarms that were sent, less those that were taken. At an instant behind a handler none is under way: what is
   missing then, at each of many looks, is lost; fewer than none were made up. */
static long missing(void) {
    struct timespec now;
    long least = 1000000;
    for (int look = 0; look < 100000 && least > 0; look++) {
        long taken = alarms;
        clock_gettime(CLOCK_MONOTONIC, &now);
        long sent = ((now.tv_sec - origin.tv_sec) * 1000000000 + now.tv_nsec - origin.tv_nsec) / 1000000;
        if (sent - taken < least) least = sent - taken;
        usleep(100);
    }
    return least;
}
int main(void) {
    char line[100];
    pthread_t thread;
    sigset_t queue;
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
    struct itimerspec each = {{0, 1000000}};
    struct sigaction action = {.sa_sigaction = alarmed, .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK};
    parent = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t child = fork();
    if (child) watch(child);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigemptyset(&queue); sigaddset(&queue, SIGRTMIN);
    pthread_sigmask(SIG_BLOCK, &queue, 0);
    sigaction(SIGALRM, &action, 0);
    action.sa_sigaction = take;
    sigaction(SIGRTMIN, &action, 0);
    for (int index = 0; index < 3; index++) pthread_create(&thread, 0, index ? idle : busy, 0);
    ask_for_stack();
    usleep(10000);
    timer_create(CLOCK_MONOTONIC, &event, &timer);
    clock_gettime(CLOCK_MONOTONIC, &origin);
    each.it_value.tv_sec = origin.tv_sec;
    each.it_value.tv_nsec = origin.tv_nsec + 1000000;
    if (each.it_value.tv_nsec >= 1000000000) each.it_value.tv_sec++, each.it_value.tv_nsec -= 1000000000;
    timer_settime(timer, TIMER_ABSTIME, &each, 0);
    setvbuf(stdout, 0, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        if (*line == 'i') printf("%d\n", getpid());
        else if (*line == 'q') printf("%ld %ld\n", (long)queued, (long)out_of_order);
        else if (*line == 'p')
            printf("%ld %ld %ld\n", (long)parent->signals, (long)parent->stopped, (long)parent->continued);
        else printf("%ld %ld %ld\n", missing(), (long)wrong, (long)alarms);
    }
    _exit(0);
}
"""


@pytest.mark.parametrize(("forms", "consistency"), WAYS)
def test_alarms_through_eighty_switches(tmp_path: Path, forms: tuple[str, ...], consistency: str) -> None:
    """SIGALRM each millisecond: 80 switches succeed, each signal is taken once, and the parent is told nothing."""
    program, patch = _made(tmp_path, ALARMS)
    with Running(program) as running:
        pid = int(running.ask("id"))
        with Sender(pid, numbers=1) as sender:
            _there_and_back(patch, pid, forms, consistency, 40)
        lost, wrong, alarms = (int(word) for word in running.ask("alarms").split())
        assert (lost, wrong) == (0, 0)
        assert alarms > 100
        assert sender.count > 100
        assert _until(lambda: running.ask("queued"), "%d 0" % sender.count)
        assert running.ask("parent") == "0 0 0"
        assert tracers(pid) == {"0"}
        # The parent is one that would have noticed.
        os.kill(pid, signal.SIGSTOP)
        assert _until(lambda: running.ask("parent").split()[1:], ["1", "1"])


def _until(look: Callable[[], object], wanted: object) -> bool:
    """Whether a look comes to show what is wanted, soon."""
    for _turn in range(1000):
        if look() == wanted:
            return True
        time.sleep(0.005)
    return look() == wanted


# Threads that are in a handler on an alternate stack, asleep or busy, until they are told to leave it.
HANDLERS = r"""
static volatile int leave, wrong;
static atomic_int inside;
static void handler(int number) {
    volatile double kept[64];
    char here;
    stack_t mine;
    for (int index = 0; index < 64; index++) kept[index] = index * 1.25;
    sigaltstack(0, &mine);
    if (mine.ss_flags & SS_ONSTACK && (&here < (char *)mine.ss_sp || &here > (char *)mine.ss_sp + mine.ss_size))
        wrong |= 1;
    inside++;
    while (!leave) if (number == SIGUSR1) usleep(1000); else first(1);
    for (int index = 0; index < 64; index++) if (kept[index] != index * 1.25) wrong |= 2;
}
static void *works(void *how) {
    stack_t mine = {.ss_sp = malloc(65536), .ss_size = 65536, .ss_flags = (long)how & 2 ? 1u << 31 : 0}, now;
    sigset_t before, after;
    volatile double sum = 0.5;
    sigaltstack(&mine, 0);
    sigemptyset(&before); sigaddset(&before, SIGHUP); sigaddset(&before, SIGRTMIN + 2);
    pthread_sigmask(SIG_SETMASK, &before, 0);
    raise((long)how & 1 ? SIGUSR1 : SIGUSR2);
    pthread_sigmask(SIG_SETMASK, 0, &after);
    sigaltstack(0, &now);
    if (memcmp(&before, &after, 8)) wrong |= 4;
    if (now.ss_sp != mine.ss_sp || now.ss_size != mine.ss_size || now.ss_flags != mine.ss_flags) wrong |= 8;
    if (sum != 0.5) wrong |= 16;
    inside--;
    for (;;) pause();
}
int main(void) {
    char line[100];
    pthread_t thread;
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
    sigfillset(&action.sa_mask); sigdelset(&action.sa_mask, SIGTERM);
    sigaction(SIGUSR1, &action, 0);
    sigaction(SIGUSR2, &action, 0);
    for (long index = 0; index < 4; index++) pthread_create(&thread, 0, works, (void *)index);
    while (inside < 4) usleep(1000);
    setvbuf(stdout, 0, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        if (*line == 'l') { leave = 1; while (inside) usleep(1000); }
        printf("%d %d\n", wrong, second(first(0)));
    }
}
"""


@pytest.mark.parametrize(("forms", "consistency"), WAYS)
def test_handlers_on_alternate_stacks(tmp_path: Path, forms: tuple[str, ...], consistency: str) -> None:
    """Four threads are in handlers on alternate stacks all the time: they end as if nothing had been."""
    program, patch = _made(tmp_path, HANDLERS)
    with Running(program) as running:
        for _turn in range(3):
            _there_and_back(patch, running.pid, forms, consistency, 3)
        assert running.ask("leave") == "0 3"
        assert tracers(running.pid) == {"0"}


# An alternate stack that is a part of the thread's own stack: what lies below it is the thread's own data.
NESTED = r"""
static volatile int inside, leave, wrong;
static void handler(int number) { inside = 1; while (!leave) usleep(1000); }
static void *asks(void *nothing) {
    char line[100];
    while (fgets(line, sizeof line, stdin)) {
        leave = *line == 'l';
        while (leave && inside) usleep(1000);
        printf("%d %d\n", wrong, second(first(0)));
    }
}
static void *works(void *nothing) {
    struct { char below[32768], stack[SIZE]; } mine;
    stack_t other = {.ss_sp = mine.stack, .ss_size = sizeof mine.stack};
    memset(&mine, 7, sizeof mine);
    __asm__ volatile("" :: "r"(&mine) : "memory");
    sigaltstack(&other, 0);
    raise(SIGUSR1);
    for (int index = 0; index < sizeof mine.below; index++) if (mine.below[index] != 7) wrong = 1;
    inside = 0;
    for (;;) pause();
}
int main(void) {
    pthread_t thread;
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
    sigaction(SIGUSR1, &action, 0);
    setvbuf(stdout, 0, _IOLBF, 0);
    pthread_create(&thread, 0, LEADER ? asks : works, 0);
    while (!LEADER && !inside) usleep(1000);
    puts("ready");
    (LEADER ? works : asks)(0);
}
"""


@pytest.mark.parametrize("leader", [True, False])
def test_an_alternate_stack_within_the_own_one(tmp_path: Path, leader: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that is in a handler there is not made to call: below that stack lies what is in use."""
    size = max(8192, os.sysconf("SC_MINSIGSTKSZ") + 4096)
    program, patch = _made(tmp_path, NESTED.replace("SIZE", str(size)).replace("LEADER", str(int(leader))))
    with Running(program) as running:
        threads = sorted(int(name) for name in os.listdir("/proc/%d/task" % running.pid))
        chosen = Selection(pids=(running.pid,))
        monkeypatch.setattr(injected_call, "_callers", lambda *_: threads[:1] if leader else threads[1:])
        assert _until(lambda: states(running.pid), {"S"})
        (outcome,) = load_patch(patch, chosen).outcomes
        assert outcome.error is not None
        assert (outcome.error["code"], outcome.state) == ("function_busy", "absent")
        assert running.ask("leave") == "0 3"
        _there_and_back(patch, running.pid, ("byte", "jump"), "entry", 1)
        assert running.ask("again") == "0 3"


# Signals that wait behind masks, for the process and for each thread; in the end they are let in.
PENDING = r"""
static atomic_int count[2], started;
static volatile int open_up;
static void take(int number, siginfo_t *info, void *context) {
    count[info->si_value.sival_int != 0] += number == SIGRTMIN + 1 ? 1 : 100;
}
// Before a thread comes here, it has more signals blocked than it will have.
static void *waits(void *nothing) { started++; for (;;) { usleep(1000); if (open_up) {
    sigset_t none;
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, 0);
} } }
int main(void) {
    char line[100];
    pthread_t thread;
    sigset_t all;
    struct sigaction action = {.sa_sigaction = take, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigaction(SIGRTMIN + 1, &action, 0);
    sigaction(SIGUSR1, &action, 0);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, 0);
    setvbuf(stdout, 0, _IOLBF, 0);
    for (int index = 0; index < 3; index++) {
        pthread_create(&thread, 0, waits, 0);
        for (int turn = 0; turn < 5; turn++) {
            pthread_sigqueue(thread, SIGRTMIN + 1, (union sigval){turn});
            sigqueue(getpid(), SIGRTMIN + 1, (union sigval){turn});
        }
        pthread_kill(thread, SIGUSR1);
    }
    while (started < 3) usleep(1000);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        open_up = *line == 'o';
        usleep(20000);
        printf("%d %d\n", count[0], count[1]);
    }
}
"""


@pytest.mark.parametrize(("forms", "consistency"), WAYS)
def test_masks_and_pending_signals(tmp_path: Path, forms: tuple[str, ...], consistency: str) -> None:
    """Masks and what waits behind them are as before; once they are let in, all signals come, with their values."""
    program, patch = _made(tmp_path, PENDING)
    with Running(program) as running:
        assert _until(lambda: _masks(running.pid), 1)  # a thread that begins has one of its own for a moment
        before = _signal_state(running.pid)
        assert len(before) == 4
        assert any(int(line.split()[1], 16) for state in before.values() for line in state if line.startswith("SigPnd"))
        for _turn in range(3):
            _there_and_back(patch, running.pid, forms, consistency, 3)
            assert _signal_state(running.pid) == before
        # Of 3 x 10 queued signals 3 x 2 carry a zero, as do 3 x 1 that are sent plainly and count a hundredfold.
        assert _until(lambda: running.ask("open"), "%d %d" % (3 * 2 + 3 * 100, 3 * 8))


def _signal_state(pid: int) -> dict[str, list[str]]:
    """What /proc/PID/task/*/status says of signals, thread by thread: pending, blocked, ignored, caught.

    Not SigQ, which counts what is queued for all processes of the user.
    """
    names = ("SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt")
    return {
        task.name: [line for line in (task / "status").read_text().splitlines() if line.startswith(names)]
        for task in Path("/proc/%d/task" % pid).iterdir()
    }


def _masks(pid: int) -> int:
    """How many different masks its threads have."""
    return len({line for lines in _signal_state(pid).values() for line in lines if line.startswith("SigBlk")})


@pytest.mark.parametrize(("forms", "consistency"), WAYS)
def test_blocking_calls_go_on(tmp_path: Path, forms: tuple[str, ...], consistency: str) -> None:
    """A program that blocks in every call of signal(7)'s lists is patched time and again: no call returns."""
    program = compile_program(tmp_path, "program", PROGRAM, "-lrt", "-w")
    fixed = "#include <unistd.h>\nint work(int x) { return x + (int)getpid() * 0 + 100; }"
    patch = make_patch(tmp_path, program, fixed, ["work"])
    with Running(program, str(tmp_path), "60") as running:
        wait_for_threads(running.pid, len(CALLS) + 1)
        before = snapshot(running.pid)
        for _turn in range(3):
            _there_and_back(patch, running.pid, forms, consistency, 5)
        assert running.ask("?") == ""
        assert running.ask("work") == "2"
        assert not livepatch_mappings(running.pid)
        assert snapshot(running.pid).descriptors == before.descriptors
