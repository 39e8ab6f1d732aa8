# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A program that blocks in every call of signal(7)'s lists at once, each in a thread of its own.

One row a call. `none`: it waits without end; `kept`: it has a timeout, and the kernel keeps count of what is left of it
over a stop; `anew`: it has one that begins anew; `held`: as none, and it blocks SIGUSR1 but for the time of the call.
Of the lists only getrandom(2) is missing: it blocks while a machine boots, and never again.
"""

from __future__ import annotations

import re

_ROWS = r"""
    C(none, "epoll_wait", epoll_wait(wide, &event, 1, -1)) \
    C(held, "epoll_pwait", epoll_pwait(wide, &event, 1, -1, &no_signals)) \
    C(held, "epoll_pwait2", syscall(441, wide, &event, 1, 0, &no_signals, 8)) \
    C(anew, "epoll_wait for a time", epoll_wait(wide, &event, 1, seconds * 1000)) \
    C(anew, "epoll_pwait for a time", epoll_pwait(wide, &event, 1, seconds * 1000, 0)) \
    C(anew, "epoll_pwait2 for a time", syscall(441, wide, &event, 1, &limit, 0, 8)) \
    C(none, "poll", poll(&polled, 1, -1)) \
    C(held, "ppoll", ppoll(&polled, 1, 0, &no_signals)) \
    C(none, "select", select(pipes[0] + 1, &reading, 0, 0, 0)) \
    C(held, "pselect", pselect(pipes[0] + 1, &reading, 0, 0, 0, &no_signals)) \
    C(kept, "poll for a time", poll(&polled, 1, seconds * 1000)) \
    C(kept, "ppoll for a time", ppoll(&polled, 1, &limit, 0)) \
    C(kept, "select for a time", select(pipes[0] + 1, &reading, 0, 0, &micro)) \
    C(kept, "pselect for a time", pselect(pipes[0] + 1, &reading, 0, 0, &limit, 0)) \
    C(anew, "select, its time in read-only memory", syscall(SYS_select, pipes[0] + 1, &reading, 0, 0, fixed)) \
    C(anew, "ppoll, its time in read-only memory", syscall(SYS_ppoll, &polled, 1, fixed, 0, 8)) \
    C(none, "semop", semop(sets, &take, 1)) \
    C(anew, "semtimedop", semtimedop(sets, &take, 1, &limit)) \
    C(none, "sigwaitinfo", sigwaitinfo(&some, 0)) \
    C(none, "sigwait", sigwait(&some, &one)) \
    C(anew, "sigtimedwait", sigtimedwait(&some, 0, &limit)) \
    C(none, "pause", pause()) \
    C(held, "sigsuspend", sigsuspend(&no_signals)) \
    C(kept, "nanosleep", nanosleep(&limit, 0)) \
    C(kept, "usleep", usleep(seconds * 1000000)) \
    C(kept, "sleep", sleep(seconds)) \
    C(kept, "clock_nanosleep", clock_nanosleep(CLOCK_MONOTONIC, 0, &limit, 0)) \
    C(kept, "clock_nanosleep until", clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &until, 0)) \
    C(none, "recv", recv(pair[0], byte, 1, 0)) \
    C(none, "recvfrom", recvfrom(pair[0], byte, 1, 0, 0, 0)) \
    C(none, "recvmsg", recvmsg(pair[0], &header, 0)) \
    C(none, "recvmmsg", recvmmsg(pair[0], many, 1, 0, 0)) \
    C(none, "recvmmsg for a time", recvmmsg(pair[0], many, 1, 0, &minute)) \
    C(none, "read of a socket", read(pair[0], byte, 1)) \
    C(none, "readv of a socket", readv(pair[0], &part, 1)) \
    C(anew, "recv, SO_RCVTIMEO", recv(timed[0], byte, 1, 0)) \
    C(anew, "recvfrom, SO_RCVTIMEO", recvfrom(timed[0], byte, 1, 0, 0, 0)) \
    C(anew, "recvmsg, SO_RCVTIMEO", recvmsg(timed[0], &header, 0)) \
    C(anew, "recvmmsg, SO_RCVTIMEO", recvmmsg(timed[0], many, 1, 0, 0)) \
    C(anew, "read, SO_RCVTIMEO", read(timed[0], byte, 1)) \
    C(none, "accept", accept(listener, 0, 0)) \
    C(none, "accept4", accept4(listener, 0, 0, 0)) \
    C(anew, "accept, SO_RCVTIMEO", accept(timed_listener, 0, 0)) \
    C(none, "connect", connect(local_socket(0), (struct sockaddr *)&crowded, crowded_size)) \
    C(anew, "connect, SO_SNDTIMEO", connect(local_socket(1), (struct sockaddr *)&crowded, crowded_size)) \
    C(none, "connect by TCP", connect(tcp_socket(0), (struct sockaddr *)&busy, sizeof busy)) \
    C(anew, "connect by TCP, SO_SNDTIMEO", connect(tcp_socket(1), (struct sockaddr *)&busy, sizeof busy)) \
    C(none, "send", send(filled[0], byte, 1, 0)) \
    C(none, "sendto", sendto(filled[0], byte, 1, 0, 0, 0)) \
    C(none, "sendmsg", sendmsg(filled[0], &header, 0)) \
    C(none, "sendmmsg", sendmmsg(filled[0], many, 1, 0)) \
    C(none, "write to a socket", write(filled[0], byte, 1)) \
    C(none, "writev to a socket", writev(filled[0], &part, 1)) \
    C(anew, "send, SO_SNDTIMEO", send(timed_filled[0], byte, 1, 0)) \
    C(anew, "sendmsg, SO_SNDTIMEO", sendmsg(timed_filled[0], &header, 0)) \
    C(anew, "write, SO_SNDTIMEO", write(timed_filled[0], byte, 1)) \
    C(none, "read of a pipe", read(pipes[0], byte, 1)) \
    C(none, "readv of a pipe", readv(pipes[0], &part, 1)) \
    C(none, "write to a pipe", write(full[1], byte, 1)) \
    C(none, "writev to a pipe", writev(full[1], &part, 1)) \
    C(none, "splice", splice(pipes[0], 0, full[1], 0, 1, 0)) \
    C(none, "open of a FIFO", open(fifo, O_RDONLY)) \
    C(none, "read of a terminal", read(terminal, byte, 1)) \
    C(none, "read of inotify", read(inotify_init1(0), byte, 1)) \
    C(none, "read of an eventfd", read(eventfd(0, 0), &until, 8)) \
    C(none, "read of a signalfd", read(signalfd(-1, &some, 0), block, 8192)) \
    C(none, "read of a timerfd", read(timerfd_create(CLOCK_MONOTONIC, 0), &until, 8)) \
    C(none, "ioctl", ioctl(listen_to_seccomp(), SECCOMP_IOCTL_NOTIF_RECV, &notice)) \
    C(none, "wait", wait(0)) \
    C(none, "wait3", wait3(0, 0, 0)) \
    C(none, "wait4", wait4(child, 0, 0, 0)) \
    C(none, "waitid", waitid(P_PID, child, 0, WEXITED)) \
    C(none, "waitpid", waitpid(child, 0, 0)) \
    C(none, "flock", flock(open("/proc/self/exe", O_RDONLY), LOCK_EX)) \
    C(none, "fcntl F_SETLKW", fcntl(locked, F_SETLKW, &whole)) \
    C(none, "fcntl F_OFD_SETLKW", fcntl(open(lock, O_RDWR), F_OFD_SETLKW, &whole)) \
    C(none, "mq_receive", mq_receive(empty_queue, block, 8192, 0)) \
    C(none, "mq_send", mq_send(full_queue, byte, 1, 0)) \
    C(kept, "mq_timedreceive", mq_timedreceive(empty_queue, block, 8192, 0, &until)) \
    C(kept, "mq_timedsend", mq_timedsend(full_queue, byte, 1, 0, &until)) \
    C(none, "msgrcv", msgrcv(queue, &message, 1, 7, 0)) \
    C(none, "msgsnd", msgsnd(crowd, &message, 8, 0)) \
    C(none, "FUTEX_WAIT", syscall(SYS_futex, &one, FUTEX_WAIT, 1, 0, 0, 0)) \
    C(kept, "FUTEX_WAIT for a time", syscall(SYS_futex, &one, FUTEX_WAIT, 1, &limit, 0, 0)) \
    C(none, "FUTEX_WAIT_BITSET", syscall(SYS_futex, &one, FUTEX_WAIT_BITSET, 1, 0, 0, 1)) \
    C(kept, "FUTEX_WAIT_BITSET until", syscall(SYS_futex, &one, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 1, &until, \
        0, 1)) \
    C(none, "pthread_mutex_lock", pthread_mutex_lock(&taken)) \
    C(none, "pthread_mutex_lock, PTHREAD_PRIO_INHERIT", pthread_mutex_lock(&inherits)) \
    C(kept, "pthread_mutex_timedlock", pthread_mutex_timedlock(&taken, &until)) \
    C(none, "pthread_cond_wait", (pthread_mutex_lock(&mutex), pthread_cond_wait(&condition, &mutex))) \
    C(kept, "pthread_cond_timedwait", (pthread_mutex_lock(&mutex), one = pthread_cond_timedwait(&condition, &mutex, \
        &until), pthread_mutex_unlock(&mutex), one)) \
    C(none, "sem_wait", sem_wait(&semaphore)) \
    C(kept, "sem_timedwait", sem_timedwait(&semaphore, &until)) \
    C(none, "io_getevents", syscall(SYS_io_getevents, context, 1, 1, &finished, 0)) \
    C(anew, "io_getevents for a time", syscall(SYS_io_getevents, context, 1, 1, &finished, &limit)) \
    C(none, "io_uring_enter", syscall(426, ring, 0, 1, 1, 0, 0))
"""
CALLS = re.findall(r'C\((none|kept|anew|held), "([^"]+)"', _ROWS)

PROGRAM = (
    r"""
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

__attribute__((noinline, noipa)) int work(int x) { return x + (int)getpid() * 0 + 1; }

#define ROWS(C) ROWS_HERE
enum { none, held, kept, anew };
#define NAME(kind, name, call) name,
#define KIND(kind, name, call) kind,
static const char *const names[] = {ROWS(NAME)};
static const int kinds[] = {ROWS(KIND)};
#define COUNT (sizeof names / sizeof *names)

static int seconds;
static long *fixed; /* seconds and microseconds, or nanoseconds, in read-only memory */
static char fifo[100], lock[100];
static int pipes[2], full[2], listener, timed_listener, pair[2], timed[2], filled[2], timed_filled[2];
static int sets, queue, crowd, locked, child, terminal, ring, empty_queue, full_queue;
static struct sockaddr_un crowded = {AF_UNIX};
static socklen_t crowded_size;
static struct sockaddr_in busy = {.sin_family = AF_INET};
static struct timeval micro_limit;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER, taken = PTHREAD_MUTEX_INITIALIZER, inherits;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static sem_t semaphore;
static aio_context_t context;
static sigset_t no_signals, some;
static volatile int returned[COUNT], reason[COUNT], took[COUNT];

static long milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int with_timeout(int one, int option) {
    setsockopt(one, SOL_SOCKET, option, &micro_limit, sizeof micro_limit);
    return one;
}

static int local_socket(int with) {
    int one = socket(AF_UNIX, SOCK_STREAM, 0);
    return with ? with_timeout(one, SO_SNDTIMEO) : one;
}

static int tcp_socket(int with) {
    int one = socket(AF_INET, SOCK_STREAM, 0);
    return with ? with_timeout(one, SO_SNDTIMEO) : one;
}

static int listen_to_seccomp(void) {
    struct sock_filter code[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog filter = {1, code};
    static int one; /* a thread may have one only */
    if (!one) one = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &filter);
    return one;
}

static long blocked(int which) {
    struct pollfd polled = {pipes[0], POLLIN, 0};
    struct epoll_event event;
    struct sembuf take = {0, -1, 0};
    struct timespec limit = {seconds, 0}, minute = {60, 0}, until;
    struct timeval micro = {seconds, 0};
    struct flock whole = {.l_type = F_WRLCK};
    struct seccomp_notif notice = {0};
    fd_set reading;
    struct { long type; char text[8]; } message = {1};
    char byte[1], block[8192];
    struct iovec part = {byte, 1};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
    struct mmsghdr many[1] = {{header}};
    struct io_event finished;
    int one = 1, number = 0, wide = epoll_create1(0);
    FD_ZERO(&reading); FD_SET(pipes[0], &reading);
    clock_gettime(CLOCK_REALTIME, &until); until.tv_sec += seconds;
#define TRY(kind, name, call) if (which == number++) return call;
    ROWS(TRY)
    return -3;
}

static void *run(void *which) {
    int number = (int)(long)which;
    sigset_t mine;
    sigemptyset(&mine); sigaddset(&mine, SIGUSR1);
    if (kinds[number] == held) pthread_sigmask(SIG_BLOCK, &mine, 0);
    for (;;) {
        long began = milliseconds();
        errno = 0;
        blocked(number);
        reason[number] = errno;
        if (!returned[number]) took[number] = milliseconds() - began;
        returned[number]++;
    }
}

static void nothing(int number) {}

static void fill(int one) {
    static char zeros[4096];
    fcntl(one, F_SETFL, O_NONBLOCK);
    while (write(one, zeros, sizeof zeros) > 0);
    while (write(one, zeros, 1) > 0);
    fcntl(one, F_SETFL, 0);
}

static int listening(void) {
    struct sockaddr_un here = {AF_UNIX};
    int one = local_socket(0);
    bind(one, (struct sockaddr *)&here, sizeof here.sun_family);
    listen(one, 0);
    return one;
}

static int new_queue(const char *name) {
    struct mq_attr small = {.mq_maxmsg = 1, .mq_msgsize = 8192};
    char whole[100];
    int one;
    snprintf(whole, sizeof whole, "/livepatch-%s-%d", name, getpid());
    one = mq_open(whole, O_RDWR | O_CREAT, 0600, &small);
    mq_unlink(whole);
    return one;
}

static void prepare(const char *folder) {
    static char parameters[120];
    struct { long type; char text[8]; } message = {1};
    struct sigaction action = {.sa_handler = nothing};
    struct rlimit files = {4096, 4096};
    pthread_mutexattr_t inheriting;
    struct flock whole = {.l_type = F_WRLCK};
    socklen_t size = sizeof busy;
    int one, ready[2];
    setrlimit(RLIMIT_NOFILE, &files);
    sigaction(SIGUSR1, &action, 0);
    sigemptyset(&no_signals); sigemptyset(&some); sigaddset(&some, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &some, 0);
    micro_limit.tv_sec = seconds;
    fixed = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *fixed = seconds;
    mprotect(fixed, 4096, PROT_READ);
    snprintf(fifo, sizeof fifo, "%s/fifo", folder);
    mkfifo(fifo, 0600);
    snprintf(lock, sizeof lock, "%s/lock", folder);
    locked = open(lock, O_RDWR | O_CREAT, 0600);
    pipe(pipes); pipe(full);
    fill(full[1]);
    listener = listening();
    timed_listener = with_timeout(listening(), SO_RCVTIMEO);
    one = listening();
    crowded_size = sizeof crowded;
    getsockname(one, (struct sockaddr *)&crowded, &crowded_size);
    connect(local_socket(0), (struct sockaddr *)&crowded, crowded_size);
    busy.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    one = tcp_socket(0);
    bind(one, (struct sockaddr *)&busy, sizeof busy);
    listen(one, 0);
    getsockname(one, (struct sockaddr *)&busy, &size);
    for (int index = 0; index < 3; index++) {
        one = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        connect(one, (struct sockaddr *)&busy, sizeof busy);
    }
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    socketpair(AF_UNIX, SOCK_STREAM, 0, timed);
    with_timeout(timed[0], SO_RCVTIMEO);
    socketpair(AF_UNIX, SOCK_STREAM, 0, filled);
    fill(filled[0]);
    socketpair(AF_UNIX, SOCK_STREAM, 0, timed_filled);
    fill(timed_filled[0]);
    with_timeout(timed_filled[0], SO_SNDTIMEO);
    sets = semget(IPC_PRIVATE, 1, 0600);
    queue = msgget(IPC_PRIVATE, 0600);
    crowd = msgget(IPC_PRIVATE, 0600);
    while (!msgsnd(crowd, &message, 8, IPC_NOWAIT));
    empty_queue = new_queue("empty");
    full_queue = new_queue("full");
    mq_send(full_queue, "", 1, 0);
    flock(open("/proc/self/exe", O_RDONLY), LOCK_EX);
    one = open(lock, O_RDWR);
    whole.l_start = 0; whole.l_len = 0;
    terminal = posix_openpt(O_RDWR | O_NOCTTY);
    grantpt(terminal); unlockpt(terminal);
    open(ptsname(terminal), O_RDWR | O_NOCTTY);
    sem_init(&semaphore, 0, 0);
    pthread_mutex_lock(&taken);
    pthread_mutexattr_init(&inheriting);
    pthread_mutexattr_setprotocol(&inheriting, PTHREAD_PRIO_INHERIT);
    pthread_mutex_init(&inherits, &inheriting);
    pthread_mutex_lock(&inherits);
    syscall(SYS_io_setup, 1, &context);
    ring = syscall(425, 1, parameters);
    pipe(ready);
    child = fork();
    if (!child) {
        close(0); close(1);
        /* What outlives a process is taken away once the program has ended, however it does. */
        sigaddset(&some, SIGTERM);
        sigprocmask(SIG_BLOCK, &some, 0);
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        fcntl(locked, F_SETLKW, &whole);
        write(ready[1], "", 1);
        sigwait(&some, &one);
        semctl(sets, 0, IPC_RMID);
        msgctl(queue, IPC_RMID, 0);
        msgctl(crowd, IPC_RMID, 0);
        _exit(0);
    }
    read(ready[0], parameters, 1);
    close(ready[0]); close(ready[1]);
}

int main(int count, char **words) {
    char line[100];
    pthread_t thread;
    seconds = atoi(words[2]);
    prepare(words[1]);
    for (long index = 0; index < COUNT; index++)
        if (seconds == 60 || kinds[index] >= kept) pthread_create(&thread, 0, run, (void *)index);
    setvbuf(stdout, 0, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        if (*line == 'w') { printf("%d\n", work(1)); continue; }
        for (int index = 0; index < COUNT; index++)
            if (returned[index])
                printf("%s:%d:%d:%d|", names[index], reason[index], returned[index], took[index]);
        puts("");
    }
    _exit(0);
}
"""
).replace("ROWS_HERE", _ROWS.strip().replace(" \\\n", " "))
