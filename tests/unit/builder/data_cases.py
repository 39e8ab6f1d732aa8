# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""One program, and one library, full of data that a patch must find where they are; and the change of their code."""

from __future__ import annotations

# Answers every other question in another thread, so that thread-local variables have two lives.
MAIN = r"""
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
long answer(long x);
extern long exported, plain_table[3];
static sem_t asked, answered;
static long question, result;
static void *other(void *unused)
{
    for (;;) {
        sem_wait(&asked);
        result = answer(question);
        sem_post(&answered);
    }
    return unused;
}
int main(void)
{
    long x, count = 0;
    pthread_t thread;
    sem_init(&asked, 0, 0);
    sem_init(&answered, 0, 0);
    pthread_create(&thread, 0, other, 0);
    puts("ready");
    fflush(stdout);
    while (scanf("%ld", &x) == 1) {
        if (count++ & 1)
            result = answer(x);
        else {
            question = x;
            sem_post(&asked);
            sem_wait(&answered);
        }
        printf("%ld %ld %ld\n", result, exported, plain_table[1]);
        exported += 1;
        fflush(stdout);
    }
    return 0;
}
"""

# Another library, with variables that an executable gets copies of.
FAR = """
__thread long far_local = 5;
long far_copied = 7, far_words[3] = {1, 2, 3};
long far_look(void) { return far_copied * 10 + far_words[1] + far_local; }
"""

WORK = r"""
#include <stdlib.h>
#include <string.h>
extern __thread long far_local;
extern long far_copied, far_words[3], far_look(void);
static __thread long seen = 40;
static __thread struct { char text[10]; long number; } mine = {"abc", 3};
__thread long shown;
__thread long shared[4] = {1, 2, 3, 4};
long exported = 100, plain_table[3] = {1, 2, 3};
static long total = 11, zeros[3], *to_total = &total;
typedef long callback(long);
__attribute__((noinline)) static long up(long x) { return x + total; }
__attribute__((noinline)) static long down(long x) { return x - total; }
static callback *const ways[] = {up, down};
__attribute__((noinline)) static long first(long x) { static long count = 2, more[3] = {4, 5, 6};
    count += x; more[1] += count; return count + more[1]; }
__attribute__((noinline)) static long second(long x) { static long count; count += 2 * x; return count; }
static long half_a(long x) { return x / 2 + seen; }
static callback *choose_half(void) { return half_a; }
long half(long x) __attribute__((ifunc("choose_half")));
static long third(long x) { return x / 3; }
static callback *choose_near(void) { return third; }
__attribute__((visibility("hidden"))) long near(long x) __attribute__((ifunc("choose_near")));
__attribute__((noinline)) static long use_locals(long x)
{
    seen += x & 3;
    mine.number += strlen(mine.text);
    shown += seen;
    shared[x & 3] += 1;
    far_local += 2;
    return seen + mine.number + shown + shared[1] + far_local;
}
__attribute__((noinline)) static long use_data(long x)
{
    total += x & 7;
    zeros[x & 1] += 3;
    far_copied += 1;
    exported += 2;
    plain_table[1] += 1;
    far_words[1] += x & 1;
    return *to_total + zeros[1] + far_look() + ways[x & 1](x) + exported;
}
long answer(long x)
{
    return use_locals(x) + 3 * use_data(x) + 5 * half(x) + 7 * near(x) + first(x & 7) + second(x & 3);
}
"""

_NEW_DATA = r"""
static long bag[5000];
static const struct { const char *name; callback *way; long *where; } table[] = {
    {"up", up, &total}, {"down", down, zeros + 1}, {"fresh", fresh, bag + 3}, {"abs", (callback *)labs, &exported}};
static callback *last = down;
static const char *word = "none";
"""
_USE_NEW_DATA = """bag[4000 + (x & 7)] += total; last = last == down ? table[x & 3].way : down;
    word = table[x & 3].name; *table[x & 3].where += 2; total += last(x & 15) + word[0] + bag[4001] + bag[3];"""

EDITS = (
    ("static callback *const ways", "static long fresh(long x);\nstatic callback *const ways"),
    (
        "__attribute__((noinline)) static long use_locals",
        "static long fresh(long x) { static long times = 3; static long uses[2]; times += x & 1; uses[x & 1]++;\n"
        "    return times + uses[0] * 2; }\n" + _NEW_DATA + "__attribute__((noinline)) static long use_locals",
    ),
    ("seen += x & 3;", "seen += 2 * (x & 3) + 1;"),
    ("mine.number += strlen(mine.text);", "mine.number += strlen(mine.text) * 2; mine.text[2]++;"),
    ("shared[x & 3] += 1;", "shared[x & 3] += 10; mine.number += shared[3];"),
    ("far_local += 2;", "far_local += 5;"),
    ("static long count = 2,", "static long before = 1, count = 2,"),
    ("count += x;", "before += x; count += x + before;"),
    ("x / 2 + seen", "x / 4 + 3 * seen"),
    ("{ return x / 3; }", "{ return x / 5 + 1; }"),
    (
        "total += x & 7;",
        "total += x & 3;" + _USE_NEW_DATA,
    ),
    ("far_copied += 1;", "far_copied += 3;"),
    ("exported += 2;", "exported += 4; plain_table[1] += 2;"),
    ("7 * near(x)", "2 * near(x + 1) + half(x + 2)"),
)

MAKEFILE = """
CFLAGS = -O2 -g
WORK = work.o
prog: main.o $(WORK) libfar.so
\t$(CC) $(CFLAGS) $(LINK) -o $@ main.o $(WORK) -L. -lfar -pthread -Wl,-rpath,'$$ORIGIN'
libfar.so: far.c
\t$(CC) -O1 -g -fPIC -shared -o $@ far.c
libwork.so: work.o libfar.so
\t$(CC) $(CFLAGS) -shared -o $@ work.o -L. -lfar -Wl,-rpath,'$$ORIGIN'
main.o: main.c
\t$(CC) -O2 -g $(MAIN) -c main.c
"""
