# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A server under load, and a tool that something happens to at the n-th point at which it touches the server.

A point is the instant before, and that after, each ptrace request and each write to the server's memory or to a
memfd, and the instant after each wait that found something. What counts them is put around the primitives in a child
of the test's own; the product knows nothing of it. Calls made in a batch are made one by one for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterator

from patching import Running, compile_program, shared
from snapshots import descriptors

from module_utils._engine.outcome import Report
from module_utils._ptrace import call_batch, ptrace_requests
from module_utils._ptrace import x86_64 as arch

CLIENTS = 4
# How long a tool that is halted stands still, seconds.
HALT = 4
SERVER = r"""
#include <arpa/inet.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
__attribute__((noinline, noipa)) int first(int x) { return x + (int)getpid() * 0 + 1; }
__attribute__((noinline, noipa)) int second(int x) { return x + (int)getpid() * 0 + 2; }
static atomic_long longest, requests, wrong;
static int listener, port;
static long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000 + t.tv_nsec / 1000;
}
static void *serve(void *nothing) {
    int one = accept(listener, 0, 0), x;
    while (read(one, &x, sizeof x) == sizeof x) { x = second(first(x)); write(one, &x, sizeof x); }
    return 0;
}
static void *tick(void *nothing) {
    for (long last = now();; last = now()) {
        usleep(500);
        if (now() - last > longest) longest = now() - last;
    }
}
static void *ask(void *nothing) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = socket(AF_INET, SOCK_STREAM, 0), x;
    if (connect(one, (void *)&to, sizeof to)) abort();
    for (int y = 0;; y++) {
        x = y;
        if (write(one, &x, sizeof x) != sizeof x || read(one, &x, sizeof x) != sizeof x) { wrong += 1000; return 0; }
        if (x - y != 3 && x - y != 300 && x - y != 201 && x - y != 102) wrong++;
        requests++;
        usleep(300);
    }
}
int main(int count, char **words) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    char line[100];
    pthread_t thread;
    int client = count > 1;
    setvbuf(stdout, 0, _IOLBF, 0);
    if (client) port = atoi(words[1]);
    else {
        listener = socket(AF_INET, SOCK_STREAM, 0);
        if (bind(listener, (void *)&at, size) || listen(listener, 9)) abort();
        getsockname(listener, (void *)&at, &size);
        pthread_create(&thread, 0, tick, 0);
    }
    for (int index = 0; index < CLIENTS; index++) pthread_create(&thread, 0, client ? ask : serve, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        if (client) printf("%ld %ld\n", requests, wrong);
        else if (*line == 'p') printf("%d\n", ntohs(at.sin_port));
        else if (*line == 'l') printf("%ld\n", atomic_exchange(&longest, 0));
        else printf("%d %d\n", first(0), second(0));
    }
}
"""
FIXED = r"""
#include <unistd.h>
static int calls;
int first(int x) { calls++; return x + (int)getpid() * 0 + 100; }
int second(int x) { return x + (int)getpid() * 0 + 200; }
"""


class Served:
    """The server with clients that ask it all the time."""

    def __init__(self, server: Running, clients: Running) -> None:
        self.server, self.clients, self.pid = server, clients, server.pid

    def answers(self) -> list[int]:
        """What its two functions answer to 0."""
        return [int(word) for word in self.server.ask("?").split()]

    def longest_pause(self) -> float:
        """How long one of its threads did not run at most since this was asked last, seconds."""
        return int(self.server.ask("longest")) / 1e6

    def is_serving(self) -> bool:
        """True when requests are being answered now, and none was ever answered wrong or not at all."""
        before, wrong = self._counts()
        end = time.monotonic() + 5
        while time.monotonic() < end and not wrong:
            requests, wrong = self._counts()
            if requests >= before + 4:
                return not wrong
            time.sleep(0.001)
        return False

    def _counts(self) -> tuple[int, int]:
        requests, wrong = self.clients.ask("?").split()
        return int(requests), int(wrong)


def compile_server(folder: Path) -> Path:
    """The server, which with a port for an argument is its clients."""
    return compile_program(folder, "server", SERVER, "-Wno-unused-result", "-DCLIENTS=%d" % CLIENTS)


@contextlib.contextmanager
def served(program: Path) -> Iterator[Served]:
    """A server that runs under load while the block runs."""
    with Running(program) as server, Running(program, server.ask("port")) as clients:
        found = Served(server, clients)
        while sum(name.startswith("socket:") for name in descriptors(server.pid).values()) < 1 + CLIENTS:
            time.sleep(0.001)
        assert found.is_serving()
        yield found


def _is_over(pid: int) -> bool:
    """True when a process, whoever's child it is, has no thread any more that could trace."""
    try:
        tasks = os.listdir("/proc/%d/task" % pid)
        return tasks == [str(pid)] and Path("/proc/%d/stat" % pid).read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


class Tool:
    """One run of the tool, in a process of its own, to which something happens at one point.

    `fate`: "die" (the whole tool is killed), "lose" (the child that does the work is killed), "halt" (that child is
    stopped for some seconds), or what it does itself at that point. `points`: how many were passed, known at the end.
    """

    def __init__(self, work: Callable[[], Report], point: int, fate: str | Callable[[], None] = "die") -> None:
        self._seen = shared(2)
        self._said = mmap.mmap(-1, mmap.PAGESIZE)
        self._point, self._fate = point, fate
        self._pid = os.fork()
        if not self._pid:
            self._run(work)

    def ended(self) -> str:
        """How it ended: "killed", "done", or what went wrong. One that was halted goes on after HALT seconds."""
        halted_until = time.monotonic() + HALT
        while True:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                break
            if self._fate == "halt" and self._seen[1] and time.monotonic() > halted_until:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._seen[1], signal.SIGCONT)
            time.sleep(0.002)
        while self._seen[1] and not _is_over(self._seen[1]):
            time.sleep(0.001)
        if os.WIFSIGNALED(status):
            return "killed" if os.WTERMSIG(status) == signal.SIGKILL else "signal %d" % os.WTERMSIG(status)
        return {0: "done", 96: "gone", 97: "failed"}.get(os.WEXITSTATUS(status), "raised")

    @property
    def errors(self) -> str:
        """The errors that it reported, if it came to its end."""
        return bytes(self._said).rstrip(b"\0").decode("utf-8", "replace")

    @property
    def points(self) -> int:
        """How many points were passed."""
        return int(self._seen[0])

    @property
    def was_met(self) -> bool:
        """True when it came to the point."""
        return self._point and self.points >= self._point

    def _run(self, work: Callable[[], Report]) -> None:
        watcher = os.getpid()

        def touch() -> None:
            if os.getpid() == watcher:
                return
            self._seen[0] += 1
            if self._seen[0] != self._point:
                return
            if callable(self._fate):
                self._fate()
                return
            self._seen[1] = os.getpid()
            if self._fate == "die":
                os.kill(watcher, signal.SIGKILL)
            # To this very thread: sent to the process, another one may take it while this one goes on for a while.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP if self._fate == "halt" else signal.SIGKILL)

        def touching(primitive: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any) -> Any:
                touch()
                result = primitive(*arguments)
                touch()
                return result

            return call

        def waiting(primitive: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any) -> Any:
                result = primitive(*arguments)
                if result is not None:
                    touch()
                return result

            return call

        def one_of_a_batch(number: int, *arguments: int) -> int:
            if number == arch.SYSCALLS["ptrace"]:
                return int(touching(make_call)(number, *arguments))
            result = make_call(number, *arguments)
            if number == arch.SYSCALLS["waitid"] and ctypes.c_int.from_address(arguments[2]).value:
                touch()
            return result

        make_call = call_batch.make_call
        try:
            call_batch.make_call, call_batch._loop = one_of_a_batch, lambda: None
            ptrace_requests.ptrace = touching(ptrace_requests.ptrace)
            os.pwrite = touching(os.pwrite)
            os.waitid, os.waitpid = waiting(os.waitid), waiting(os.waitpid)
            report = work()
            errors = [outcome.error for outcome in report.outcomes if outcome.error]
            self._said[:] = repr(errors).encode()[: len(self._said)].ljust(len(self._said), b"\0")
            codes = {error["code"] for error in errors}
            os._exit(96 if codes == {"process_gone"} else 97 if codes else 0)
        except BaseException:
            os._exit(98)
