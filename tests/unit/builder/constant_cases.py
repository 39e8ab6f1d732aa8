# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes of what code reads: switch tables, labels as values, floating-point and vector constants, strings; and of the
names by which code is found: aliases, weak and hidden symbols, symbol versions."""

from __future__ import annotations

from cases import Case
from projects import edited

_SWITCH = """
static long state;
__attribute__((noinline)) static long step(unsigned op, long x)
{
    switch (op) {
    case 0: return x + 1;
    case 1: state++; return x * 3;
    case 2: return x - state;
    case 3: state ^= x; return x;
    case 4: return -x;
    case 5: return x & 0xff;
    case 6: return x | 0x100;
    case 7: return x >> 1;
    case 9: return 77;
    case 12: return x * x;
    default: return state;
    }
}
__attribute__((noinline)) static const char *color(unsigned n)
{
    switch (n) {
    case 0: return "red";
    case 1: return "green";
    case 2: return "blue";
    case 3: return "amber";
    case 4: return "violet";
    case 5: return "pink";
    default: return "none";
    }
}
__attribute__((noinline)) static int weight(unsigned n)
{
    switch (n) {
    case 0: return 31;
    case 1: return 5;
    case 2: return 77;
    case 3: return 1;
    case 4: return 900;
    case 5: return 12;
    case 6: return 18;
    default: return -1;
    }
}
long answer(long x)
{
    const char *name = color((unsigned)x % 8);
    for (unsigned i = 0; i < 14; i++)
        x = step((i + (unsigned)x) & 15, x & 0xffffff);
    return x * 31 + name[0] * 7 + name[2] + weight((unsigned)x % 9);
}
"""

_GOTO = """
static long spent;
__attribute__((noinline)) static long run(const unsigned char *code, long x)
{
    static const void *const labels[] = {&&stop, &&add, &&twice, &&negate, &&skip, &&spend};
    goto *labels[*code];
add:
    x += code[1]; code += 2;
    goto *labels[*code];
twice:
    x *= 2; code++;
    goto *labels[*code];
negate:
    x = -x; code++;
    goto *labels[*code];
skip:
    code += x & 1 ? 2 : 1;
    goto *labels[*code];
spend:
    spent += x & 3; code++;
    goto *labels[*code];
stop:
    return x + spent;
}
long answer(long x)
{
    unsigned char code[] = {1, (unsigned char)x, 2, 4, 2, 3, 5, 1, 9, 4, 5, 2, 5, 0};
    return run(code, x);
}
"""
_GOTO_DISTANCES = _GOTO.replace("static const void *const labels[]", "static const int labels[]")
for _name in ("stop", "add", "twice", "negate", "skip", "spend"):
    _GOTO_DISTANCES = _GOTO_DISTANCES.replace("&&%s," % _name, "&&%s - &&stop," % _name)
_GOTO_DISTANCES = _GOTO_DISTANCES.replace("&&spend}", "&&spend - &&stop}").replace(
    "goto *labels[*code]", "goto *(&&stop + labels[*code])"
)

_FLOATS = """
#include <math.h>
typedef float four __attribute__((vector_size(16)));
typedef int many __attribute__((vector_size(32)));
static double scale = 1.0;
__attribute__((noinline)) static float narrow(float x) { return x * 1.25f + 0.1f; }
__attribute__((noinline)) static double wide(double x) { return x * 3.7 - 2.5e-3; }
__attribute__((noinline)) static long double widest(long double x) { return x * 1.1L + 3.3L; }
__attribute__((noinline)) static long vector(long x)
{
    four a = {1.5f, 2.5f, -3.5f, (float)(x & 1023)}, b = {2, 4, 8, 16.25f};
    many m = {1, 2, 3, 4, 5, 6, 7, (int)x}, n = {9, 8, 7, 6, 5, 4, 3, 2};
    four c = a * b + (four){0.5f, 0.25f, 0.125f, 1};
    m = m * n + (many){10, 20, 30, 40, 50, 60, 70, 80};
    return (long)(c[0] + c[1] * 2 + c[2] * 3 + c[3]) + m[0] + m[3] * 5 + m[7];
}
__attribute__((noinline)) static long spread(long x)
{
    unsigned short v[64];
    long sum = 0;
    for (int i = 0; i < 64; i++)
        v[i] = (unsigned short)(i * 3 + x);
    for (int i = 0; i < 64; i++)
        sum += v[i] * 17 ^ 0x55;
    return sum;
}
long answer(long x)
{
    double f = (double)(x % 100000);
    scale = -scale * 1.0625;
    if (fabs(scale) > 1e6)
        scale = 1;
    return (long)(narrow((float)f) + wide(f) * scale) + (long)widest(f) + vector(x) + spread(x)
        + (long)((unsigned __int128)x * 0x123456789abcdef1ULL >> 64);
}
"""

_STRINGS = """
#include <stdio.h>
#include <string.h>
#include <wchar.h>
static const char *const names[] = {"alpha", "beta", "gamma", "delta"};
static const struct { const char *name; int code; const char *help[2]; } commands[] = {
    {"get", 1, {"get KEY", 0}}, {"set", 2, {"set KEY", "VALUE"}}, {"del", 3, {"del KEY", "alpha"}}};
static const char banner[] = "a banner of some length";
__attribute__((noinline)) static long code(const char *name)
{
    for (unsigned i = 0; i < sizeof commands / sizeof *commands; i++)
        if (strcmp(commands[i].name, name) == 0)
            return commands[i].code + (commands[i].help[1] ? (long)strlen(commands[i].help[1]) : 0);
    return -1;
}
__attribute__((noinline)) static long wide(long x)
{
    return (long)wcslen(x & 1 ? L"wide text" : L"short") + __func__[x & 1];
}
__attribute__((noinline)) static long lengths(long x)
{
    return (long)(strlen(banner + (x & 7)) + strlen(names[x & 3]));
}
long answer(long x)
{
    char text[64];
    const char *name = x & 1 ? "get" : x & 2 ? "set" : "none";
    snprintf(text, sizeof text, "<%s:%ld>", names[x >> 4 & 3], x & 4095);
    return code(name) * 1000 + wide(x) * 100 + lengths(x) + text[1] + text[strlen(text) - 2];
}
"""

_ALIASES = """
static long calls;
__attribute__((noinline)) static long real(long x) { calls++; return x * 5 + calls; }
long also(long x) __attribute__((alias("real")));
long weakly(long x) __attribute__((weak, alias("real")));
__attribute__((visibility("hidden"), noinline)) long hidden(long x) { return x * 3 - calls; }
long shown(long x) __attribute__((alias("hidden")));
__attribute__((weak, noinline)) long may_be_other(long x) { return x - 1; }
__attribute__((weak, noinline)) long own(long x) { return x * 19; }
extern long nowhere(long x) __attribute__((weak));
extern const long no_value __attribute__((weak));
long other(long x);
long answer(long x)
{
    long y = nowhere ? nowhere(x) : 17;
    y += &no_value ? no_value : 3;
    return real(x) + also(y) * 3 + weakly(x) * 7 + may_be_other(x) + own(y) + other(x);
}
"""
_ALIASES_OTHER = """
long also(long x);
long hidden(long x) __attribute__((visibility("hidden")));
long shown(long x);
long may_be_other(long x) { return x * 1000; }
__attribute__((visibility("protected"), noinline)) long guarded(long x) { return x ^ 12; }
__attribute__((noinline)) long other(long x)
{
    long (*volatile f)(long) = x & 1 ? hidden : also;
    return f(x) + hidden(x) * 2 + shown(x) + guarded(x);
}
"""

_VERSIONS = """
static long calls;
__attribute__((noinline)) long answer_first(long x) { calls++; return x + calls; }
__attribute__((noinline)) long answer_second(long x) { calls += 2; return x * 3 + calls; }
__attribute__((noinline)) long inside(long x) { return x * 2; }
__asm__(".symver answer_first,answer@PARTS_1");
__asm__(".symver answer_second,answer@@PARTS_2");
long both(long x) { return answer_first(x) + answer_second(x) + inside(x); }
"""
_VERSION_SCRIPT = "PARTS_1 { global: answer; local: *; };\nPARTS_2 { global: answer; both; } PARTS_1;\n"


CONSTANT_CASES = {
    "switch tables: another branch": Case(
        {"work.c": _SWITCH},
        {
            "work.c": edited(
                _SWITCH, ("case 9: return 77;", "case 9: state += 2; return x % 77;\n    case 10: return x ^ 0x55;")
            )
        },
        ["step"],
    ),
    "switch tables: another value, another string": Case(
        {"work.c": _SWITCH},
        {"work.c": edited(_SWITCH, ('"amber"', '"yellow"'), ("case 2: return 77;", "case 2: return 78;"))},
        ["color", "weight"],
    ),
    "labels as values": Case(
        {"work.c": _GOTO},
        {"work.c": edited(_GOTO, ("x *= 2; code++;", "x = x * 3 + (x > 100 ? x % 7 : spent * 5); code++;"))},
        ["run"],
    ),
    "labels as values, one more": Case(
        {"work.c": _GOTO},
        {
            "work.c": edited(
                _GOTO,
                ("&&spend}", "&&again}"),
                ("spend:\n", "again:\n    x ^= 0x33;\n"),
                ("{1, (unsigned char)x,", "{5, 1, (unsigned char)x, 5,"),
            )
        },
        ["answer", "run"],
    ),
    "labels as distances": Case(
        {"work.c": _GOTO_DISTANCES},
        {"work.c": edited(_GOTO_DISTANCES, ("x *= 2; code++;", "x = x * 5 + (x > 100 ? x % 7 : spent); code++;"))},
        ["run"],
    ),
    "labels that stay where they are": Case(
        {"work.c": _GOTO}, {"work.c": edited(_GOTO, ("return x + spent;", "return x - spent;"))}, ["run"]
    ),
    "floating-point and vector constants": Case(
        {"work.c": _FLOATS},
        {
            "work.c": edited(
                _FLOATS,
                ("1.25f", "1.75f"),
                ("3.7 - 2.5e-3", "3.9 - 2.5e-4"),
                ("1.1L", "1.3L"),
                ("{1.5f, 2.5f, -3.5f,", "{1.5f, 2.75f, 3.5f,"),
                ("{9, 8, 7, 6,", "{9, 8, -7, 61,"),
                ("* 17 ^ 0x55", "* 19 ^ 0x56"),
            )
        },
        ["narrow", "spread", "vector", "wide", "widest"],
    ),
    "strings, tables of strings, __func__": Case(
        {"work.c": _STRINGS},
        {
            "work.c": edited(
                _STRINGS,
                ('"gamma"', '"GAMMA RAY"'),
                ('"VALUE"', '"VALUE [EX]"'),
                ("a banner of some", "another banner of some"),
                ('L"wide text"', 'L"wider text"'),
            )
        },
        ["answer", "code", "lengths", "wide"],
    ),
    "aliases, weak, hidden and protected symbols": Case(
        {"work.c": _ALIASES, "other.c": _ALIASES_OTHER},
        {
            "work.c": edited(
                _ALIASES,
                ("x * 5 + calls", "x * 6 - calls"),
                ("x * 3 - calls", "x * 4 + calls"),
                ("x * 19", "x * 20"),
                (": 17;", ": 18;"),
            ),
            "other.c": edited(
                _ALIASES_OTHER, ("x * 1000", "x * 1001"), ("x ^ 12", "x ^ 13"), ("hidden(x) * 2", "hidden(x) * 9")
            ),
        },
        ["also", "answer", "guarded", "hidden", "may_be_other", "other", "own"],
    ),
}
VERSION_CASE = Case(
    {"work.c": _VERSIONS, "work.map": _VERSION_SCRIPT},
    {
        "work.c": edited(
            _VERSIONS, ("x + calls", "x - calls"), ("x * 3 + calls", "x * 5 + calls"), ("x * 2;", "x * 9 + calls;")
        )
    },
    ["answer@@PARTS_2", "answer@PARTS_1", "inside"],
)
