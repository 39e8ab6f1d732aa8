// Copyright (c) 2026 cgl.livepatch contributors
// GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
// SPDX-License-Identifier: GPL-2.0-or-later
// A program of many threads that each wake up at fixed times and note how late they were: the worst pause of any thread,
// seen from inside. Each beat also calls beat_value(), which a patch can replace.
//
// heartbeat THREADS PERIOD_US DEPTH HEAP_MIB; on standard input "reset" and "report" (answers: worst lateness in us, median
// of the threads' worst latenesses in us, beats, new values seen). DEPTH: calls on each thread's stack below the one that
// waits (0); HEAP_MIB: what is kept on the heap (0).
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MOST 8192

static long period;
static _Atomic long worst[MOST];
static _Atomic long beats, changed;

__attribute__((noinline, noclone)) int beat_value(int number)
{
    __asm__ volatile("" ::: "memory");
    return number * 3 + 1;
}

static long now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000L + time.tv_nsec;
}

static void beat(long self)
{
    long next = now() + period * (self % 97) / 97;
    for (;;) {
        struct timespec until = {next / 1000000000L, next % 1000000000L};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
        long late = now() - next;
        if (late > worst[self])
            worst[self] = late;
        beats++;
        if (beat_value((int)self) != (int)self * 3 + 1)
            changed++;
        next += period;
        if (next < now())
            next = now() + period;
    }
}

static int depth;

__attribute__((noinline, noclone)) static void deeper(long self, int calls)
{
    char room[200];
    __asm__ volatile("" : : "r"(room) : "memory");
    if (calls)
        deeper(self, calls - 1);
    else
        beat(self);
    __asm__ volatile("" : : "r"(room) : "memory");
}

static void *run(void *argument)
{
    deeper((long)argument, depth);
    return NULL;
}

static int ascending(const void *one, const void *two)
{
    long difference = *(const long *)one - *(const long *)two;
    return difference < 0 ? -1 : difference > 0;
}

int main(int count, char **words)
{
    int threads = count > 1 ? atoi(words[1]) : 1;
    period = (count > 2 ? atol(words[2]) : 1000) * 1000;
    depth = count > 3 ? atoi(words[3]) : 0;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 64 << 10);
    for (long index = 0; index < threads && index < MOST; index++) {
        pthread_t thread;
        if (pthread_create(&thread, &attributes, run, (void *)index)) {
            perror("pthread_create");
            return 1;
        }
    }
    size_t heap = count > 4 ? strtoul(words[4], NULL, 0) << 20 : 0;
    unsigned long *filled = malloc(heap + 1);
    for (size_t at = 0; at < heap / sizeof *filled; at++) // numbers, and pointers into itself
        filled[at] = at % 3 ? (unsigned long)&filled[at] : at;
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        if (!strncmp(line, "reset", 5)) {
            for (int index = 0; index < threads; index++)
                worst[index] = 0;
            beats = changed = 0;
            puts("ok");
        } else {
            static long sorted[MOST];
            for (int index = 0; index < threads; index++)
                sorted[index] = worst[index];
            qsort(sorted, threads, sizeof *sorted, ascending);
            printf("%ld %ld %ld %ld\n", sorted[threads - 1] / 1000, sorted[threads / 2] / 1000, (long)beats, (long)changed);
        }
    }
    return 0;
}
