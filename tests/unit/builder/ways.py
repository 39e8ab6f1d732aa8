# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Ways to make the artifact of a case: compilers, levels, kinds of code, protections, and what it is linked into."""

from __future__ import annotations

from dataclasses import dataclass

# Answers numbers with numbers, and leaves nothing of its calls on the stack: what is there might be a return address.
MAIN = """
#include <stdio.h>
#include <string.h>
long answer(long x);
#define TIDY(name, size) __attribute__((noinline)) static void name(void) \\
    { char stack[size]; memset(stack, 0, size); __asm__ volatile("" : : "r"(stack) : "memory"); }
TIDY(tidy, 16384)
TIDY(tidy_between, 16384 + 40)
int main(void)
{
    long x;
    puts("ready");
    fflush(stdout);
    while (scanf("%ld", &x) == 1) {
        printf("%ld\\n", answer(x));
        fflush(stdout);
        tidy();
        tidy_between();
    }
    return 0;
}
"""

PROGRAM = """
PARTS = $(patsubst %.c,%.o,$(filter-out main.c,$(wildcard *.c)))
prog: main.o $(PARTS)
\t$(CC) $(CFLAGS) $(LDFLAGS) -o $@ main.o $(PARTS) -lm
"""
# The parts reach the program through a static library; some of it no one needs.
ARCHIVE = """
PARTS = $(patsubst %.c,%.o,$(filter-out main.c,$(wildcard *.c)))
prog: main.o libparts.a
\t$(CC) $(CFLAGS) $(LDFLAGS) -o $@ main.o -L. -lparts -lm
libparts.a: $(PARTS)
\t$(AR) rcs $@ $(PARTS)
"""
# What the random programs carry their statics out with is the program's, and new code of the library may be the first
# to use it: so it is exported, or the running program could not be asked for it (symbol_not_found, rightly).
LIBRARY = """
PARTS = $(patsubst %.c,%.o,$(filter-out main.c,$(wildcard *.c)))
prog: main.o libparts.so
\t$(CC) $(CFLAGS) $(LDFLAGS) -o $@ main.o libparts.so -Wl,-rpath,'$$ORIGIN' \
\t\t-Wl,--export-dynamic-symbol=carry -lm
libparts.so: $(PARTS)
\t$(CC) $(CFLAGS) $(LDFLAGS) -shared -Wl,-soname,$@ $(addprefix -Wl$(comma)--version-script=,$(wildcard *.map)) \
\t\t-o $@ $(PARTS) -lm
comma = ,
"""


@dataclass(frozen=True)
class Way:
    """A compiler with its options, and the makefile that says what is made of the objects."""

    compiler: str
    flags: str
    makefile: str = PROGRAM
    artifact: str = "prog"

    @property
    def command(self) -> str:
        """The build command."""
        return "make CC=%s CFLAGS='%s'" % (self.compiler, self.flags)


def _library(compiler: str, flags: str) -> Way:
    return Way(compiler, flags + " -fPIC", LIBRARY, "libparts.so")


_ALL_ON = "-fcf-protection=full -fstack-protector-strong -D_FORTIFY_SOURCE=2"

# Every pair of (compiler, level), (level, kind of code), (compiler, protection) is in here once at least.
WAYS = {
    "gcc -O0 PIE": Way("gcc", "-O0 -g -fPIE -pie"),
    "gcc -O1 fixed, room at entries": Way("gcc", "-O1 -fno-pie -no-pie -fpatchable-function-entry=8"),
    "gcc -O2 as distributions do": Way("gcc", "-O2 -g -fPIE -pie -Wl,-z,now " + _ALL_ON),
    "gcc -O2 archive": Way("gcc", "-O2 -g -ffunction-sections -Wl,--gc-sections", ARCHIVE),
    "gcc -O2 library": _library("gcc", "-O2 -g"),
    "gcc -O3 fixed, protected": Way("gcc", "-O3 -fno-pie -no-pie " + _ALL_ON),
    "gcc -O3 PIC, room before entries": Way("gcc", "-O3 -fPIC -fcf-protection -fpatchable-function-entry=16,6"),
    "gcc -Os PIE": Way("gcc", "-Os -fPIE -pie -fstack-protector-strong -D_FORTIFY_SOURCE=2"),
    "gcc -Os library, hidden, no PLT": _library("gcc", "-Os -fno-plt -fno-semantic-interposition -Wl,-Bsymbolic"),
    "clang -O0 fixed": Way("clang", "-O0 -g -fno-pie -no-pie"),
    "clang -O1 archive": Way("clang", "-O1 -fPIE -pie -fcf-protection", ARCHIVE),
    "clang -O2 PIE, protected": Way("clang", "-O2 -g -fPIE -pie " + _ALL_ON),
    "clang -O2 library": _library("clang", "-O2 -g -fstack-protector-strong"),
    "clang -O3 fixed, room at entries": Way("clang", "-O3 -fno-pie -no-pie -fpatchable-function-entry=12,4"),
    "clang -Os PIC": Way("clang", "-Os -fPIC -D_FORTIFY_SOURCE=2"),
}
PLAIN = "gcc -O2 as distributions do"
