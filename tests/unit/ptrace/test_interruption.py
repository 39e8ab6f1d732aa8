# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A program cannot tell that it was stopped: no blocking call returns early, and none returns EINTR."""

from __future__ import annotations

import ctypes
import errno
import signal
import time
from pathlib import Path

import pytest
from patching import Running, compile_program
from programs import call_in_each_thread, stop_all, wait_for_threads

from module_utils._process.process import Process
from module_utils._ptrace.stop_all_threads import stopped
from module_utils._ptrace.tracer import as_tracer

# Every call of signal(7)'s two lists that a program can be made to block in; each in a thread of its own.
CALLS = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/futex.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CALLS 46
static struct timespec minute = {60, 0};
static char byte[1];
static int pipes[2], full[2], listener, pair[2], filled[2], sets, queue, locked, child;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER, taken = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static volatile int returned[CALLS], reason[CALLS];

static long blocked(int which) {
    struct pollfd polled = {pipes[0], POLLIN, 0};
    struct epoll_event event;
    struct sembuf take = {0, -1, 0};
    struct timeval seconds = {60, 0};
    struct timespec until;
    sigset_t none, some;
    fd_set reading;
    struct { long type; char text[1]; } message;
    struct msghdr header = {0};
    struct mmsghdr many[1] = {{{0}}};
    struct iovec part = {byte, 1};
    aio_context_t context = 0;
    struct io_event finished;
    int one, wide = epoll_create1(0);
    sigemptyset(&none); sigemptyset(&some); sigaddset(&some, SIGUSR2);
    FD_ZERO(&reading); FD_SET(pipes[0], &reading);
    clock_gettime(CLOCK_REALTIME, &until); until.tv_sec += 60;
    header.msg_iov = &part; header.msg_iovlen = 1;
    many[0].msg_hdr = header;
    switch (which) {
    case 0: return epoll_wait(wide, &event, 1, -1);
    case 1: return epoll_wait(wide, &event, 1, 60000);
    case 2: return epoll_pwait(wide, &event, 1, -1, &none);
    case 3: return syscall(441, wide, &event, 1, &minute, &none, 8); /* epoll_pwait2 */
    case 4: return semop(sets, &take, 1);
    case 5: return semtimedop(sets, &take, 1, &minute);
    case 6: return sigtimedwait(&some, 0, &minute);
    case 7: return sigwaitinfo(&some, 0);
    case 8: return recv(pair[0], byte, 1, 0);                  /* SO_RCVTIMEO is set */
    case 9: return recvfrom(pair[0], byte, 1, 0, 0, 0);
    case 10: return recvmsg(pair[0], &header, 0);
    case 11: return recvmmsg(pair[0], many, 1, 0, 0);
    case 12: return read(pair[0], byte, 1);
    case 13: return readv(pair[0], &part, 1);
    case 14: return accept(listener, 0, 0);
    case 15: return accept4(listener, 0, 0, 0);
    case 16: return send(filled[0], byte, 1, 0);               /* SO_SNDTIMEO is set */
    case 17: return sendmsg(filled[0], &header, 0);
    case 18: return write(filled[0], byte, 1);
    case 19: return writev(filled[0], &part, 1);
    case 20: return poll(&polled, 1, -1);
    case 21: return poll(&polled, 1, 60000);
    case 22: return ppoll(&polled, 1, &minute, &none);
    case 23: return select(pipes[0] + 1, &reading, 0, 0, &seconds);
    case 24: return pselect(pipes[0] + 1, &reading, 0, 0, &minute, &none);
    case 25: return nanosleep(&minute, 0);
    case 26: return clock_nanosleep(CLOCK_MONOTONIC, 0, &minute, 0);
    case 27: return clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &until, 0);
    case 28: pthread_mutex_lock(&mutex); return pthread_cond_timedwait(&condition, &mutex, &until);
    case 29: return pthread_mutex_lock(&taken);
    case 30: one = 1; return syscall(SYS_futex, &one, FUTEX_WAIT, 1, 0, 0, 0);
    case 31: one = 1; return syscall(SYS_futex, &one, FUTEX_WAIT, 1, &minute, 0, 0);
    case 32: return pause();
    case 33: return sigsuspend(&none);
    case 34: return msgrcv(queue, &message, 1, 7, 0);
    case 35: return read(pipes[0], byte, 1);
    case 36: return write(full[1], byte, 1);
    case 37: return wait4(child, 0, 0, 0);
    case 38: return waitid(P_PID, child, 0, WEXITED);
    case 39: one = open("/proc/self/exe", O_RDONLY); return flock(one, LOCK_EX);
    case 40:
        syscall(SYS_io_setup, 1, &context);
        return syscall(SYS_io_getevents, context, 1, 1, &finished, 0);
    case 41: one = inotify_init1(0); return read(one, byte, 1);
    case 42: one = eventfd(0, 0); return read(one, &until, 8);
    case 43: one = timerfd_create(CLOCK_MONOTONIC, 0); return read(one, &until, 8);
    case 44:
        one = mq_open("/livepatch-test", O_RDONLY | O_CREAT, 0600, 0);
        mq_unlink("/livepatch-test");
        return mq_receive(one, malloc(8192), 8192, 0);
    case 45: return splice(pipes[0], 0, full[1], 0, 1, 0);
    }
    return -3;
}

static void *run(void *which) {
    int number = (int)(long)which;
    for (;;) {
        errno = 0;
        blocked(number);
        reason[number] = errno;
        returned[number]++;
    }
}

static void nothing(int number) {}

int main(int count, char **words) {
    static char block[65536];
    char line[100];
    struct timeval seconds = {60, 0};
    struct sockaddr_un here = {AF_UNIX};
    struct sigaction action = {.sa_handler = nothing};
    sigset_t some;
    pthread_t thread[CALLS];
    sigaction(SIGUSR1, &action, 0);
    pipe(pipes); pipe(full);
    fcntl(full[1], F_SETFL, O_NONBLOCK);
    while (write(full[1], block, sizeof block) > 0);
    while (write(full[1], block, 1) > 0);
    fcntl(full[1], F_SETFL, 0);
    listener = socket(AF_UNIX, SOCK_STREAM, 0);
    bind(listener, (struct sockaddr *)&here, sizeof here.sun_family);
    listen(listener, 1);
    setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &seconds, sizeof seconds);
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &seconds, sizeof seconds);
    socketpair(AF_UNIX, SOCK_STREAM, 0, filled);
    setsockopt(filled[0], SOL_SOCKET, SO_SNDTIMEO, &seconds, sizeof seconds);
    while (send(filled[0], block, 4096, MSG_DONTWAIT) > 0);
    while (send(filled[0], block, 1, MSG_DONTWAIT) > 0);
    sets = semget(IPC_PRIVATE, 1, 0600);
    queue = msgget(IPC_PRIVATE, 0600);
    locked = open("/proc/self/exe", O_RDONLY);
    flock(locked, LOCK_EX);
    pthread_mutex_lock(&taken);
    child = fork();
    if (!child) { close(0); close(1); prctl(PR_SET_PDEATHSIG, SIGKILL); for (;;) pause(); }
    sigemptyset(&some); sigaddset(&some, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &some, 0);
    for (long index = 0; index < CALLS; index++) pthread_create(&thread[index], 0, run, (void *)index);
    setvbuf(stdout, 0, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        for (int index = 0; index < CALLS; index++)
            if (returned[index]) printf("%d:%d:%d ", index, reason[index], returned[index]);
        puts(".");
    }
    kill(child, SIGKILL);
    semctl(sets, 0, IPC_RMID);
    msgctl(queue, IPC_RMID, 0);
    _exit(0);
}
"""
CALLS_BLOCKED = 46
_TGKILL = 234


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_program(tmp_path_factory.mktemp("calls"), "calls", CALLS, "-lrt", "-w")


def test_no_call_returns_early(program: Path) -> None:
    """50 stops of all, and ten calls made in every thread: 46 blocking calls go on as if nothing had been."""
    with Running(program) as running, Process(running.pid) as process:
        wait_for_threads(running.pid, CALLS_BLOCKED + 1)
        for _turn in range(50):
            assert stop_all(process) == CALLS_BLOCKED + 1
        assert running.ask("?") == "."
        for _turn in range(10):
            assert call_in_each_thread(process) == CALLS_BLOCKED + 1
        assert running.ask("?") == "."
        assert running.ended() == 0


def test_a_signal_still_interrupts(program: Path) -> None:
    """A signal with a handler ends the same calls with EINTR whether we are there or not: during a stop, and a call."""
    ended = []
    for situation in ("alone", "stopped", "calling"):
        with Running(program) as running, Process(running.pid) as process:
            wait_for_threads(running.pid, CALLS_BLOCKED + 1)
            threads = sorted(process.threads())[1:]
            if situation == "alone":
                _signal_all(running.pid, threads)
            elif situation == "stopped":
                _signal_while_stopped(process, threads)
            else:
                call_in_each_thread(process, lambda tid: _signal_all(process.pid, [tid] * (tid != process.pid)))
            time.sleep(0.3)
            wait_for_threads(running.pid, CALLS_BLOCKED + 1)
            ended.append(running.ask("?"))
    assert ended[0].count(":%d:1 " % errno.EINTR) > 40
    assert ended == [ended[0]] * 3


def _signal_all(pid: int, threads: list[int]) -> None:
    for tid in threads:
        assert ctypes.CDLL(None).syscall(_TGKILL, pid, tid, signal.SIGUSR1) == 0


def _signal_while_stopped(process: Process, threads: list[int]) -> None:
    def once() -> None:
        with stopped(process, 5.0):
            _signal_all(process.pid, threads)

    as_tracer(once)
