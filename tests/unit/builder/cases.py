# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes that can be patched, each with what it must replace; test_patched_process.py shows that they also work."""

from __future__ import annotations

from dataclasses import dataclass, field

from projects import edited


@dataclass(frozen=True)
class Case:
    """Files before and after, and the functions that the patch must replace: these, and no others.

    `refused_with`: the refusal that is right for some way to compile.
    """

    before: dict[str, str]
    after: dict[str, str]
    replaces: list[str]
    new: list[str] = field(default_factory=list)
    refused_with: dict[str, str] = field(default_factory=dict)


PLAIN = """
#include <assert.h>
#include <string.h>
static long calls;
static long twice(long x) { return 2 * x; }
__attribute__((noinline)) static long helper(long x) { return x + calls; }
__attribute__((noinline)) long unrelated(long x) { assert(x != 12345); return x - 1; }
long answer(long x)
{
    calls++;
    if (x < 0)
        return -1;
    return twice(x) + helper(x) + unrelated(x);
}
__attribute__((noinline)) long later(long x) { assert(x != 54321); return x; }
"""

TABLES = """
static const char *const words[] = {"zero", "one", "two", "three"};
static const long primes[] = {2, 3, 5, 7, 11, 13, 17, 19};
__attribute__((noinline)) static long pick(long x) { return primes[x & 7]; }
long other(long x);
long answer(long x)
{
    switch (x) {
    case 0: return 17;
    case 1: return other(x);
    case 2: return words[x][1];
    case 3: return pick(x) * 3;
    case 4: return 99;
    case 5: return pick(x + 1);
    case 6: return -x;
    }
    return pick(x) + words[x & 3][0];
}
"""

OTHER = """
static long calls = 7;
__attribute__((noinline)) static long helper(long x) { return x * calls; }
long other(long x) { calls += 1; return helper(x); }
"""

STATICS = """
__attribute__((noinline)) static long first(long x) { static long count; count += x; return count; }
__attribute__((noinline)) static long second(long x) { static long count = 5; count += 2 * x; return count; }
long answer(long x) { return first(x) * 1000 + second(x); }
"""

CALLBACKS = """
#include <stdlib.h>
static int up(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
static int down(const void *a, const void *b) { return *(const int *)b - *(const int *)a; }
__attribute__((noinline)) static int is_up(int (*f)(const void *, const void *)) { return f == up; }
long answer(long x)
{
    int v[4] = {3, (int)x, 9, -4};
    int (*order)(const void *, const void *) = x & 1 ? up : down;
    qsort(v, 4, sizeof *v, order);
    return v[0] * 100 + v[1] + is_up(order);
}
"""

HEADER = """
static inline long scale(long x) { return x * 3; }
"""
USES_HEADER = """
#include "scale.h"
long other(long x);
long answer(long x) { return scale(x) + other(x); }
"""
ALSO_USES_HEADER = """
#include "scale.h"
long other(long x) { return scale(x + 1); }
__attribute__((noinline)) long spare(long x) { return x; }
"""

RARE = """
#include <stdio.h>
#include <stdlib.h>
extern void fail(long) __attribute__((cold, noreturn));
long answer(long x)
{
    if (__builtin_expect(x == 4242, 0)) {
        fprintf(stderr, "bad %ld\\n", x);
        fail(x);
    }
    return x + 1;
}
"""
FAIL = """
#include <stdlib.h>
void fail(long x) { exit((int)x & 127); }
"""

FLOATS = """
__attribute__((noinline)) static double weight(long x) { return x * 1.5; }
long answer(long x) { return (long)(weight(x) + 0.25); }
"""

THREAD_LOCAL = """
static __thread long seen = 40;
__thread long shown;
long answer(long x) { seen++; shown += 2; return x + seen + shown; }
"""

_THIRD = """
__attribute__((noinline)) static long third(long x) { static long count = 9; return count += x; }
"""

_CAPPED = """
static long limit = 3;
static long above;
__attribute__((noinline)) static long capped(long x)
{
    limit += x == 100;
    above += x > limit;
    return x > limit ? limit : x;
}
"""

CASES = {
    "a changed function, the rest only moves": Case(
        {"work.c": PLAIN},
        {"work.c": edited(PLAIN, ("    calls++;\n", "    calls++;\n    calls += x > 3;\n"))},
        ["answer"],
    ),
    "lines taken away": Case(
        {"work.c": PLAIN},
        {"work.c": edited(PLAIN, ("    if (x < 0)\n        return -1;\n", ""))},
        ["answer"],
    ),
    "an inlined static function: its caller": Case(
        {"work.c": PLAIN}, {"work.c": edited(PLAIN, ("return 2 * x", "return 5 * x"))}, ["answer"]
    ),
    "a new static variable and a new function": Case(
        {"work.c": PLAIN},
        {
            "work.c": edited(
                PLAIN,
                (
                    "long answer(long x)\n{\n",
                    _CAPPED + "long answer(long x)\n{\n    x = capped(x) + above;\n",
                ),
            )
        },
        ["answer"],
        ["above", "capped", "limit"],
    ),
    "a library call that the program did not make": Case(
        {"work.c": PLAIN},
        {
            "work.c": edited(
                PLAIN, ("    calls++;\n", '    calls += strtol("20", 0, 10) + labs(x);\n'), ("<string.h>", "<stdlib.h>")
            )
        },
        ["answer"],
    ),
    "another library's variable that the program did not use": Case(
        {"work.c": PLAIN},
        {
            "work.c": edited(
                PLAIN, ("    calls++;\n", "    calls += optind;\n    optind += 1;\n"), ("<string.h>", "<unistd.h>")
            )
        },
        ["answer"],
    ),
    "a switch table and strings": Case(
        {"work.c": TABLES, "other.c": OTHER},
        {"work.c": edited(TABLES, ("case 4: return 99;", "case 4: return words[x & 1][0] + 1;"))},
        ["answer"],
    ),
    "a constant, with everyone who reads it": Case(
        {"work.c": TABLES, "other.c": OTHER},
        {"work.c": edited(TABLES, ("11, 13, 17", "11, 23, 17"))},
        ["pick"],
        ["primes"],
    ),
    "constant pointers to strings": Case(
        {"work.c": TABLES, "other.c": OTHER},
        {"work.c": edited(TABLES, ('"two"', '"TWO!"'), ("case 6: return -x;", "case 6: return x;"))},
        ["answer"],
        ["words"],
    ),
    "two files changed, static names in both": Case(
        {"work.c": PLAIN, "other.c": OTHER},
        {
            "work.c": edited(PLAIN, ("return x + calls;", "return x * 3 + calls;")),
            "other.c": edited(OTHER, ("return x * calls;", "return x * 3 - calls;")),
        },
        ["helper", "helper"],
    ),
    "a static local before others: they are renumbered": Case(
        {"work.c": STATICS},
        {
            "work.c": edited(
                STATICS,
                (
                    "static long count; count += x;",
                    "static long extra; static long count; extra++; count += x + extra;",
                ),
            )
        },
        ["first"],
    ),
    "a static local of the same name in a new function": Case(
        {"work.c": STATICS},
        {
            "work.c": edited(
                STATICS,
                (
                    "long answer(long x) {",
                    _THIRD + "long answer(long x) { x = third(x);",
                ),
            )
        },
        ["answer"],
    ),
    "function pointers keep their value": Case(
        {"work.c": CALLBACKS},
        {
            "work.c": edited(
                CALLBACKS,
                (
                    "{ return *(const int *)a - *(const int *)b; }",
                    "{ return (*(const int *)a - *(const int *)b) * 2; }",
                ),
                ("v[0] * 100", "v[0] * 10"),
            )
        },
        ["answer", "up"],
    ),
    "an inline function in a header, used in two files": Case(
        {"work.c": USES_HEADER, "other.c": ALSO_USES_HEADER, "scale.h": HEADER},
        {"scale.h": HEADER.replace("x * 3", "x * 4")},
        ["answer", "other"],
    ),
    "a function with a cold part": Case(
        {"work.c": RARE, "fail.c": FAIL},
        {"work.c": edited(RARE, ("return x + 1", "return x + 2"), ("bad %ld", "very bad %ld"))},
        ["answer"],
    ),
    "floating-point constants": Case(
        {"work.c": FLOATS}, {"work.c": edited(FLOATS, ("x * 1.5", "x * 2.75 + 0.125"))}, ["weight"]
    ),
    "existing thread-local variables of a program": Case(
        {"work.c": THREAD_LOCAL},
        {"work.c": edited(THREAD_LOCAL, ("seen++;", "seen += 3;"))},
        ["answer"],
    ),
    "a new source file": Case(
        {"work.c": PLAIN},
        {
            "work.c": edited(
                PLAIN,
                ("    calls++;\n", "    calls += extra(x);\n"),
                ("static long calls;\n", "static long calls;\nlong extra(long);\n"),
            ),
            "extra.c": "static long times;\nlong extra(long x) { times++; return x & times; }\n",
        },
        ["answer"],
        ["extra", "times"],
    ),
}
