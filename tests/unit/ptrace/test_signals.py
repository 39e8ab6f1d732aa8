# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Signals that arrive while a program is stopped: each is delivered once, with its value; also when the tool dies."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
from patching import Running, compile_program
from programs import Sender, call_in_each_thread, stop_all
from snapshots import states, tracers

from module_utils._errors import LivepatchError
from module_utils._process.process import Process
from module_utils._ptrace.ptrace_requests import seize
from module_utils._ptrace.stop_all_threads import StopWindow
from module_utils._ptrace.tracer import as_tracer
from module_utils._ptrace.wait import child_signals_held

# Real-time signals are queued, so they can be counted: handlers add up how many came and what values they carried.
COUNTER = r"""
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
static atomic_long count, sum;
static void take(int number, siginfo_t *info, void *context) { count++; sum += info->si_value.sival_int; }
static void *spin(void *nothing) { for (;;) __asm__ volatile("pause"); }
static void *sleeps(void *nothing) { for (;;) pause(); }
int main(void) {
    char line[100];
    pthread_t thread;
    sigset_t mine;
    struct sigaction action = {.sa_sigaction = take, .sa_flags = SA_SIGINFO | SA_RESTART};
    for (int number = SIGRTMIN; number < SIGRTMIN + 4; number++) sigaction(number, &action, 0);
    pthread_create(&thread, 0, spin, 0);
    for (int index = 0; index < 6; index++) pthread_create(&thread, 0, sleeps, 0);
    sigemptyset(&mine);
    for (int number = SIGRTMIN; number < SIGRTMIN + 4; number++) sigaddset(&mine, number);
    pthread_sigmask(SIG_BLOCK, &mine, 0);
    setvbuf(stdout, 0, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) { usleep(20000); printf("%ld %ld\n", (long)count, (long)sum); }
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_program(tmp_path_factory.mktemp("counter"), "counter", COUNTER)


def test_no_signal_is_lost(program: Path) -> None:
    """Thousands of queued signals through 200 stops and 100 calls: every one is counted once, with its value."""
    with Running(program) as running, Process(running.pid) as process:
        with Sender(running.pid) as sender:
            for _turn in range(200):
                stop_all(process)
            for _turn in range(12):
                call_in_each_thread(process)
        assert sender.count > 500
        assert running.ask("?") == "%d %d" % (sender.count, sender.sum)


def test_no_signal_is_lost_when_the_tool_dies(program: Path) -> None:
    """The tool is killed with all threads stopped, some of them about to take a signal: every signal is still taken."""
    with Running(program) as running, Process(running.pid) as process:
        with Sender(running.pid) as sender:
            for _turn in range(40):
                child = os.fork()
                if not child:
                    try:
                        as_tracer(lambda: _die_while_stopped(process))
                    finally:
                        os._exit(99)
                assert os.waitpid(child, 0)[1] == signal.SIGKILL
        assert tracers(running.pid) == {"0"}
        assert "t" not in states(running.pid)
        assert running.ask("?") == "%d %d" % (sender.count, sender.sum)


def _die_while_stopped(process: Process) -> None:
    with child_signals_held():
        window = StopWindow(process, 5.0)
        window.seize()
        window.stop()
        os.kill(os.getpid(), signal.SIGKILL)


def test_no_signal_is_lost_where_another_tracer_is_in_the_way(program: Path) -> None:
    """One thread is somebody else's: the others, seized by then, are let go with what they were about to take."""
    with Running(program) as running, Process(running.pid) as process:
        incoming, outgoing = os.pipe()
        other = os.fork()
        if not other:
            try:
                seize(max(process.threads()))
                os.write(outgoing, b"!")
                signal.pause()
            finally:
                os._exit(99)
        assert os.read(incoming, 1) == b"!"
        with Sender(running.pid) as sender:
            for _turn in range(200):
                with pytest.raises(LivepatchError, match="is being traced"):
                    stop_all(process)
        os.kill(other, signal.SIGKILL)
        os.waitpid(other, 0)
        os.close(incoming)
        os.close(outgoing)
        assert sender.count > 500
        assert running.ask("?") == "%d %d" % (sender.count, sender.sum)


def test_a_stopped_program_stays_stopped(program: Path) -> None:
    """A program in SIGSTOP is stopped, called in, and let go: it is still in SIGSTOP, and SIGCONT starts it again."""
    with Running(program) as running, Process(running.pid) as process:
        os.kill(running.pid, signal.SIGSTOP)
        _until(running.pid, {"T"})
        for _turn in range(10):
            stop_all(process)
            call_in_each_thread(process)
            _until(running.pid, {"T"})
        os.kill(running.pid, signal.SIGCONT)
        assert running.ask("?") == "0 0"


def test_a_stop_signal_between_two_calls(program: Path) -> None:
    """SIGSTOP that arrives while a thread is held and makes calls stops the program once it is let go."""
    with Running(program) as running, Process(running.pid) as process:
        call_in_each_thread(process, lambda tid: tid == process.pid and os.kill(process.pid, signal.SIGSTOP))
        _until(running.pid, {"T"})
        os.kill(running.pid, signal.SIGCONT)
        assert running.ask("?") == "0 0"


def test_the_parent_is_not_told(program: Path) -> None:
    """The parent of a program gets no SIGCHLD and no wait status while the program is stopped and let go."""
    with Running(program) as running, Process(running.pid) as process:
        told: list[int] = []
        before = signal.signal(signal.SIGCHLD, lambda number, frame: told.append(number))
        child = os.fork()
        try:
            if not child:
                stop_all(process)
                os._exit(0)
            found = os.waitid(os.P_PID, running.pid, os.WSTOPPED | os.WCONTINUED | os.WEXITED | os.WNOHANG)
            os.waitpid(child, 0)
        finally:
            signal.signal(signal.SIGCHLD, before)
        again = os.waitid(os.P_PID, running.pid, os.WSTOPPED | os.WCONTINUED | os.WEXITED | os.WNOHANG)
        assert (found, again) == (None, None)
        assert told == [signal.SIGCHLD]  # the end of the tool, and nothing else


def _until(pid: int, wanted: set[str]) -> None:
    for _turn in range(200):
        if states(pid) == wanted:
            return
        threading.Event().wait(0.005)
    assert states(pid) == wanted
