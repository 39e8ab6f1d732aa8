# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes of code, function by function: new and removed, inlined, copies that the compiler makes, recursion."""

from __future__ import annotations

from cases import Case
from projects import edited

_OWN = "__attribute__((noinline)) "

_REMOVED = """
static long seen;
__attribute__((noinline)) static long old_way(long x) { seen++; return x * 7 + seen; }
__attribute__((noinline)) static long stays(long x) { return x ^ seen; }
long answer(long x) { return old_way(x) + stays(x); }
"""

_EXPORTED = """
__attribute__((noinline)) long gone(long x) { return x + 5; }
__attribute__((noinline)) long kept(long x) { return x - 5; }
long answer(long x) { return kept(x) * (x & 1 ? gone(x) : 3); }
"""

_SAME_STATIC = """
static long total = START;
__attribute__((noinline)) static long helper(long x) { total += x & 7; return x * 3 + total; }
long NAME(long x) { return helper(x) - 1; }
"""
_SAME_STATIC_USER = """
long one(long x);
long two(long x);
long three(long x);
long answer(long x) { return one(x) * 3 + two(x) * 5 + three(x) * 7; }
"""


def _same(name: str, start: str) -> str:
    return _SAME_STATIC.replace("NAME", name).replace("START", start)


_DEEP_HEADER = """
static inline long innermost(long x) { return x * 3 + 1; }
static inline long middle(long x) { return innermost(x) ^ 5; }
static inline __attribute__((always_inline)) long outer(long x) { return middle(x) + innermost(x + 1); }
"""
_DEEP_ONE = """
#include "deep.h"
long two(long x);
__attribute__((noinline)) static long plain(long x) { return x - 2; }
long answer(long x) { return outer(x) + two(x) + plain(x); }
"""
_DEEP_TWO = """
#include "deep.h"
long three(long x);
long two(long x) { return middle(x) + three(x); }
__attribute__((noinline)) long untouched(long x) { return x; }
"""
_DEEP_THREE = """
#include "deep.h"
long three(long x) { return innermost(x - 9) + outer(x); }
"""

_RECURSION = """
static long depth;
__attribute__((noinline)) static long walk(long n, long x)
{
    depth++;
    if (n <= 0)
        return x;
    return walk(n - 1, x * 3 + n) ^ walk(n - 2, x - n);
}
__attribute__((noinline)) static long is_odd(long n, long x);
__attribute__((noinline)) static long is_even(long n, long x) { return n ? is_odd(n - 1, x + depth) : x; }
__attribute__((noinline)) static long is_odd(long n, long x) { return n ? is_even(n - 1, x - n) : -x; }
long answer(long x) { return walk(x & 7, x) + is_even(x & 15, x) + is_odd(x & 31, x) + depth; }
"""

_ACROSS_ONE = """
long pong(long n, long x);
__attribute__((noinline)) long ping(long n, long x) { return n > 0 ? pong(n - 1, x + 3) : x; }
long answer(long x) { return ping(x & 15, x); }
"""
_ACROSS_TWO = """
long ping(long n, long x);
static long rounds;
__attribute__((noinline)) long pong(long n, long x) { rounds++; return n > 0 ? ping(n - 1, x * 2) : x + rounds; }
"""

_VARIADIC = """
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
struct triple { long a, b, c; };
__attribute__((noinline)) static long sum(int count, const char *kinds, ...)
{
    va_list list, again;
    double total = 0;
    va_start(list, kinds);
    va_copy(again, list);
    for (int i = 0; i < count; i++)
        switch (kinds[i]) {
        case 'd': total += va_arg(list, double); break;
        case 'l': total += va_arg(list, long); break;
        case 'i': total -= va_arg(list, int); break;
        case 's': total += strlen(va_arg(list, const char *)); break;
        case 't': total += va_arg(list, struct triple).b; break;
        }
    if (kinds[0] == 'l')
        total += va_arg(again, long) & 3;
    va_end(again);
    va_end(list);
    return (long)total;
}
__attribute__((noinline, format(printf, 2, 3))) static int text(char *into, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    int length = vsnprintf(into, 60, format, list);
    va_end(list);
    return length;
}
long answer(long x)
{
    char line[64];
    struct triple three = {x, x & 1023, 1};
    int length = text(line, "%ld %s %.2f", x, x & 1 ? "odd" : "even", (double)(x & 255) / 4);
    return sum(7, "ldistdd", x & 65535, 1.5, (int)(x & 255), line, three, 2.25, (double)(x & 7)) * 100 + length
        + atoi(line + 60 - 60);
}
"""

_ISRA = """
struct shape { long width, height, depth; const char *name; };
__attribute__((noinline)) static long area(const struct shape *s, int unused) { return s->width * 31 + 7; }
__attribute__((noinline)) long small(long x) { struct shape s = {x, x + 1, 2, "small"}; return area(&s, 3) + 1; }
long answer(long x)
{
    struct shape s = {x & 255, x, 5, "s"};
    return area(&s, 9) + small(x);
}
"""

_CONSTPROP = """
__attribute__((noinline)) static long mix(long x, long factor, long limit)
{
    long sum = 0;
    for (long i = 0; i < limit; i++)
        sum = sum * factor + (x ^ i);
    return sum;
}
__attribute__((noinline)) long first(long x) { return mix(x, 31, 4); }
__attribute__((noinline)) long second(long x) { return mix(x + 1, 31, 4); }
long answer(long x) { return first(x) ^ second(x * 3); }
"""

# A further caller with other constants makes GCC number the copies anew.
_RENUMBERED = """
static long log_[4];
__attribute__((noinline)) static long spread(long x, int mode, int step)
{
    long sum = x;
    for (int i = 0; i < step; i++) {
        sum = mode == 1 ? sum * 5 + i : mode == 2 ? sum - i * 3 : mode == 3 ? sum ^ (i + 9) : sum + i;
        log_[i & 3] += sum;
    }
    return sum;
}
__attribute__((noinline)) long one(long x) { return spread(x, 1, 3) + spread(x + 7, 1, 3); }
__attribute__((noinline)) long two(long x) { return spread(x, 2, 5) - spread(x - 7, 2, 5); }
__attribute__((noinline)) long three(long x) { return spread(x, 3, 7); }
long answer(long x) { return one(x) ^ two(x) ^ three(x) ^ log_[x & 3]; }
"""

_PART = """
#include <stdio.h>
static long misses, table[16];
static long lookup(long key)
{
    if (__builtin_expect(key >= 0 && key < 16, 1))
        return table[key];
    for (int i = 0; i < 16; i++) {
        table[i] = table[i] * 3 + (key ^ i) % 1000;
        if (table[i] > 1000000)
            misses += i * table[15 - i] % 7;
        else if (table[i] < -5000)
            misses ^= table[i & 3] / 3;
    }
    if (misses == -1)
        puts("never");
    return ++misses;
}
__attribute__((noinline)) long low(long x) { return lookup(x & 15) + lookup(x & 31); }
__attribute__((noinline)) long high(long x) { return lookup((x >> 3) & 31) * 2; }
long answer(long x) { return low(x) + high(x) + lookup(x); }
"""

_COLD = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static long failures;
static char last[64];
__attribute__((cold, noinline)) static void complain(const char *what, long x)
{
    failures++;
    snprintf(last, sizeof last, "%s %ld", what, x);
}
__attribute__((noinline)) long check(long x)
{
    if (__builtin_expect(x < -50000, 0)) {
        complain("too small", x);
        if (strlen(last) > 14)
            complain("and long", x / 3);
        return -1;
    }
    if (__builtin_expect(x > 50000, 0)) {
        complain("too large", x);
        return last[4];
    }
    return x * 2;
}
long answer(long x) { return check(x) + failures * 1000; }
"""

_TAIL = """
struct pair { long a, b; };
__attribute__((noinline)) static struct pair make(long x) { struct pair p = {x / 3, x % 3}; return p; }
__attribute__((noinline)) static long finish(struct pair p) { return p.a * 10 + p.b; }
__attribute__((noinline)) static long forward(long x) { return finish(make(x)); }
__attribute__((noinline)) static long many(long a, long b, long c, long d, long e, long f, long g, double h)
{
    return a + b * 2 + c * 3 + d * 4 + e * 5 + f * 6 + g * 7 + (long)(h * 2);
}
long answer(long x) { return forward(x) + many(x, 1, 2, x, 4, 5, x & 63, (x & 15) + 0.5); }
"""

_NESTED = """
#include <setjmp.h>
static jmp_buf back;
__attribute__((noinline)) static void leave(long x) { longjmp(back, (int)(x & 7) + 1); }
__attribute__((noinline)) static long guarded(long x)
{
    volatile long kept = x;
    int code = setjmp(back);
    if (code == 0) {
        leave(x);
        return -1;
    }
    return kept + code;
}
long answer(long x)
{
    char room[(x & 63) + 1];
    room[x & 31 & (sizeof room - 1)] = 3;
    return guarded(x) + room[x & 31 & (sizeof room - 1)];
}
"""


CODE_CASES = {
    "a function is removed, another takes its place": Case(
        {"work.c": _REMOVED},
        {
            "work.c": edited(
                _REMOVED,
                (
                    "static long old_way(long x) { seen++; return x * 7 + seen; }",
                    "static long new_way(int times, long x) { seen += times; return x * 11 - seen; }",
                ),
                ("old_way(x) +", "new_way(3, x) +"),
            )
        },
        ["answer"],
        ["new_way.constprop.0"],
    ),
    "a global function is removed": Case(
        {"work.c": _EXPORTED},
        {"work.c": edited(_EXPORTED, (_OWN + "long gone(long x) { return x + 5; }\n", ""), ("gone(x)", "kept(x + 1)"))},
        ["answer"],
    ),
    "one of three equal static functions": Case(
        {
            "answer.c": _SAME_STATIC_USER,
            "one.c": _same("one", "1"),
            "two.c": _same("two", "2"),
            "three.c": _same("three", "3"),
        },
        {"two.c": edited(_same("two", "2"), ("x * 3", "x * 4"))},
        ["helper"],
    ),
    "inlined through two others, in three files": Case(
        {"work.c": _DEEP_ONE, "two.c": _DEEP_TWO, "three.c": _DEEP_THREE, "deep.h": _DEEP_HEADER},
        {"deep.h": edited(_DEEP_HEADER, ("x * 3 + 1", "x * 5 - 1"))},
        ["answer", "three", "two"],
    ),
    "recursion": Case(
        {"work.c": _RECURSION},
        {"work.c": edited(_RECURSION, ("x * 3 + n", "x * 5 + n"), ("return x;\n", "return x + 1;\n"))},
        ["walk"],
    ),
    "mutual recursion": Case({"work.c": _RECURSION}, {"work.c": edited(_RECURSION, (": -x;", ": 1 - x;"))}, ["is_odd"]),
    "mutual recursion across files": Case(
        {"work.c": _ACROSS_ONE, "other.c": _ACROSS_TWO},
        {"work.c": edited(_ACROSS_ONE, (": x; }", ": x * 9; }")), "other.c": edited(_ACROSS_TWO, ("x * 2", "x * 7"))},
        ["ping", "pong"],
    ),
    "variadic functions": Case(
        {"work.c": _VARIADIC},
        {
            "work.c": edited(
                _VARIADIC,
                (
                    "case 't': total += va_arg(list, struct triple).b;",
                    "case 't': total -= va_arg(list, struct triple).a;",
                ),
                ("into, 60, format", "into, 50, format"),
            )
        },
        ["sum.constprop.0", "text.constprop.0"],
    ),
    "a copy with other parameters (.isra)": Case(
        {"work.c": _ISRA},
        {"work.c": edited(_ISRA, ("s->width * 31 + 7", "s->width * 31 + s->height"))},
        ["answer", "small"],
        ["area.constprop.0.isra.0"],
    ),
    "a copy for constants (.constprop)": Case(
        {"work.c": _CONSTPROP},
        {"work.c": edited(_CONSTPROP, ("(x ^ i)", "(x + i * 3)"))},
        ["answer", "mix.constprop.0"],
    ),
    "copies that are numbered anew": Case(
        {"work.c": _RENUMBERED},
        {
            "work.c": edited(
                _RENUMBERED,
                (
                    "long answer(long x) {",
                    _OWN + "long four(long x) { return spread(x, 2, 9) + spread(x, 4, 2); }\nlong answer(long x) {",
                ),
                ("one(x) ^ two", "one(x) ^ four(x) ^ two"),
            )
        },
        ["answer", "spread"],
    ),
    "a part that is not inlined (.part)": Case(
        {"work.c": _PART}, {"work.c": edited(_PART, ("table[i] * 3 +", "table[i] * 5 -"))}, ["lookup.part.0"]
    ),
    "cold parts and cold functions": Case(
        {"work.c": _COLD}, {"work.c": edited(_COLD, ('"too large"', '"far too large"'), ("x / 3", "x / 7"))}, ["check"]
    ),
    "a cold part is gone": Case(
        {"work.c": _COLD},
        {
            "work.c": edited(
                _COLD, ("(cold, noinline)", "(noinline)"), ("__builtin_expect(x < -50000, 0)", "x < -40000")
            )
        },
        ["check", "complain"],
    ),
    "structures, tail calls, arguments on the stack": Case(
        {"work.c": _TAIL},
        {"work.c": edited(_TAIL, ("x / 3, x % 3", "x / 7, x % 7"), ("g * 7", "g * 9"), ("p.a * 10", "p.a * 12"))},
        ["finish", "make", "many.constprop.0"],
    ),
    "setjmp, longjmp, arrays of variable length": Case(
        {"work.c": _NESTED},
        {"work.c": edited(_NESTED, ("kept + code", "kept - code"), ("(x & 7) + 1", "(x & 15) + 2"))},
        ["guarded", "leave"],
    ),
}

# Cases whose copies GCC makes only when it is asked to: the way, and the copies.
COPIES = {
    "variadic functions": ("gcc -O2 as distributions do", ["sum.constprop.0", "text.constprop.0"]),
    "a copy with other parameters (.isra)": ("gcc -O2 as distributions do", ["area.constprop.0.isra.0"]),
    "a copy for constants (.constprop)": ("gcc -O2 as distributions do", ["mix.constprop.0"]),
    "copies that are numbered anew": ("gcc -O3 fixed, protected", ["spread.constprop.0", "spread.constprop.1"]),
    "a part that is not inlined (.part)": ("gcc -O2 as distributions do", ["lookup.part.0"]),
    "cold parts and cold functions": ("gcc -O2 as distributions do", ["check.cold"]),
    "a cold part is gone": ("gcc -O2 as distributions do", ["check.cold"]),
}
