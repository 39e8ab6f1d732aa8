# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines that only move make no function a changed one wherever __LINE__ stands: C, C++, headers, macros, clang."""

from __future__ import annotations

from pathlib import Path

import pytest
from projects import ASK, functions, project

HEADER = """
#ifndef WORK_H
#define WORK_H
extern long reported;
#define REPORT(x) \\
    do { \\
        if (x) \\
            reported = __LINE__; \\
    } while (0)
static inline long halve(long x)
{
    REPORT(x & 1);
    return x / 2;
}
#endif
"""

WORK = """
#include "work.h"
long reported;
#define BOTH(x, y)    \\
    REPORT((x) > 70); \\
    REPORT((y) > 80)
OWN long above(long x)
{
    BOTH(x,
         x + 1);
    return x;
}
OWN long fixed(long x)
{
    REPORT(x > 90);
    return x + 1;
}
#ifdef NEVER
long other(long x)
{
#else
OWN long below(long x)
{
#endif
    /* a comment
       of two lines */
    const char *text = "{ /*";
    BOTH(x + text[0], x);
    REPORT(x + __LINE__ > 60
           && x);
    return halve(x);
}
OWN long last(long x)
{
    switch (x & 3) {
    case 1:
        REPORT(1);
        return 2;
    default:
        REPORT(x > 50);
    }
    return x
        + halve(x);
}
LINK long answer(long x) { return above(x) + fixed(x) + below(x) + last(x) + reported; }
"""

LANGUAGES = {
    "C": ("work.c", "#define OWN __attribute__((noinline, noipa)) static\n#define LINK\n"),
    "C++": ("work.cc", '#define OWN __attribute__((noinline, noipa)) static\n#define LINK extern "C"\n'),
    "clang": ("work.c", "#define OWN __attribute__((noinline)) static\n#define LINK\n"),
}
MAKEFILE = "OWN = -O2 -g\nprog: main.o work.o\n\t$(CC) -o $@ $^\nmain.o work.o: OWN += -I.\n"
RULES = "%.o: %.c\n\t$(CC) $(OWN) -c -o $@ $<\n%.o: %.cc\n\t$(CC) $(OWN) -c -o $@ $<\n"


@pytest.mark.parametrize("language", LANGUAGES)
def test_only_what_changed(language: str, tmp_path: Path) -> None:
    """Lines put into a function and a header, others taken away: the function alone is replaced."""
    name, head = LANGUAGES[language]
    before = {"main.c": ASK, "work.h": HEADER, name: head + WORK, "Makefile": MAKEFILE + RULES}
    work = WORK.replace("    REPORT(x > 90);\n", "    REPORT(x > 90);\n\n    if (x == 44)\n        return 7;\n\n")
    work = work.replace("/* a comment\n       of two lines */", "/* a comment */")
    header = HEADER.replace("extern long", "/* said\n   at length */\nextern long")
    command = "make CC=%s" % ("clang" if language == "clang" else "cc")
    one = project(tmp_path, before, {name: head + work, "work.h": header}, build_command=command)
    assert functions(one.patch()) == [{"C++": "_ZL5fixedl"}.get(language, "fixed")]
