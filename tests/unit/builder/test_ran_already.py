# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes that would have no effect in a running process, or one that nobody can tell: refused with code and place.

One program holds them all; several edits are built at once where their refusals do not depend on each other.
"""

from __future__ import annotations

from pathlib import Path

from projects import ASK, Project, functions, project

WORK = """
#include <stdlib.h>
#define OWN __attribute__((noinline, noipa))
static long table[4], total, queue[8], *head = queue;
OWN static long depth(long x) { return x + 1; }
OWN static void fill(long x) { table[x & 3] = depth(x); }
OWN static long both(long x) { return x - 1; }
static void __attribute__((constructor(101))) early(void) { fill(2); }
static void __attribute__((constructor)) late(void) { total = both(3); }
static void before_all(void) { total = 1; }
__attribute__((section(".preinit_array"), used)) static void (*const first)(void) = before_all;
static void __attribute__((destructor)) end(void) { total = 0; }
OWN static long by_hand(long x) { return x * 2; }
OWN static long by_table(long x) { return x * 3; }
OWN static long level(void) { return table[1]; }
static long (*resolve(void))(long) { return level() > 5 ? by_hand : by_table; }
long chosen(long x) __attribute__((ifunc("resolve")));
__asm__(".text\\n.globl by_asm\\nby_asm: lea 7(%rdi), %rax\\n ret\\n");
long by_asm(long x);
OWN static long one(long x) { return x + total; }
__attribute__((noinline)) void serve(long x)
{
    for (;;) {
        if (x > 1000)
            exit(1);
        switch (*head & 7) {
        case 0: x += one(x); break;
        case 1: x ^= 5; break;
        case 2: x += total; break;
        case 3: x -= 17; break;
        case 4: x *= 3; break;
        case 5: head = queue; break;
        }
    }
}
OWN void thread(long x) { total += one(x); serve(x); }
OWN void give_up(long x) { total = x; abort(); }
OWN long search(long x) { while (x & 1023) x = x * 3 + 1; return x; }
long answer(long x)
{
    if (x == 1L << 40) serve(x);
    if (x == 1L << 41) thread(x);
    if (x == 1L << 42) give_up(x);
    return by_asm(x) + chosen(x) + both(x) + table[1] + (x & 1 ? search(x) : 0);
}
"""


def changed(folder: Path, *edits: tuple[str, str]) -> Project:
    """The program with these edits."""
    after = WORK
    for old, new in edits:
        assert after.count(old) == 1, old
        after = after.replace(old, new)
    return project(folder, {"work.c": WORK, "main.c": ASK}, {"work.c": after})


def test_code_that_ran_when_the_object_was_loaded(tmp_path: Path) -> None:
    """Constructors of each kind, what only they or the choice of an implementation call."""
    one = changed(
        tmp_path,
        ("fill(2)", "fill(3)"),
        ("total = 1;", "total = 2;"),
        ("both(3)", "both(4)"),
        ("return x + 1;", "return x + 2;"),
        ("return table[1];", "return table[2];"),
        ("() > 5", "() > 6"),
    )
    named = {symbol for code, symbol in one.refusals() if code in ("constructor_changed", "construct_unsupported")}
    assert named == {"early", "before_all", "late", "depth", "level", "chosen"}


def test_code_that_also_runs_later(tmp_path: Path) -> None:
    """What a constructor calls and others too, and destructors, are patched."""
    one = changed(tmp_path, ("return x - 1;", "return x - 2;"), ("total = 0;", "total = 9;"))
    assert functions(one.patch()) == ["both", "end"]


def test_functions_that_never_return(tmp_path: Path) -> None:
    """A loop with a switch, and a function that ends with a call of one, as compilers that know make of it."""
    edits = (("> 1000", "> 2000"), ("total += one(x)", "total -= one(x)"))
    for flags, names in (("-O2 -g", ["serve", "thread"]), ("-O0", ["serve"])):
        one = changed(tmp_path / flags[:3], *edits)
        refusals = one.refusals(build_command="make CFLAGS='%s'" % flags, consistency="quiescent")
        assert sorted(refusals) == [("entry_changed", name) for name in names]


def test_functions_that_return_or_end_the_program(tmp_path: Path) -> None:
    """A loop that ends, and a way out of the program, are patched under any consistency."""
    one = changed(tmp_path, ("& 1023", "& 511"), ("total = x;", "total = x + 1;"))
    assert functions(one.patch(consistency="quiescent")) == ["give_up", "search"]


def test_assembler_outside_of_functions(tmp_path: Path) -> None:
    """Also where it defines a name that the compiler does not know."""
    one = changed(tmp_path, ("lea 7(", "lea 8("))
    assert one.refusals() == [("assembler_changed", "by_asm")]


def test_prototype_of_a_function_whose_address_is_taken(tmp_path: Path) -> None:
    """All callers that show are in the patch, but the address was handed out: also with calls through the GOT."""
    text = """
#include <stdlib.h>
#define OWN __attribute__((noinline))
OWN static int order(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
OWN int direct(const int *a, int b) { return *a + b; }
static int (*kept)(const void *, const void *);
long answer(long x)
{
    int v[3] = {3, (int)x, -4};
    kept = order;
    qsort(v, 3, sizeof *v, order);
    return v[0] + direct(v, v[1]) + order(v, v + 1) + (kept != 0);
}
"""
    after = text.replace("order(const void *a, const void *b)", "order(const void *a, const void *b, long c)")
    after = after.replace("- *(const int *)b", "- *(const int *)b * c").replace("order(v, v + 1)", "order(v, v + 1, x)")
    after = after.replace("sizeof *v, order", "sizeof *v, (void *)order").replace(
        "kept = order", "kept = (void *)order"
    )
    command = "make CFLAGS='-O2 -g -fPIC -fno-plt' LDFLAGS=-pie"
    files = {"main.c": ASK, "work.c": text}
    one = project(tmp_path / "taken", files, {"work.c": after}, build_command=command)
    assert one.refusals() == [("signature_changed", "order")]
    after = text.replace("a, int b) { return *a + b;", "a, long b) { return *a + 2 * b;").replace(
        "direct(v, v[1])", "direct(v, 7L)"
    )
    one = project(tmp_path / "called", files, {"work.c": after}, build_command=command)
    assert functions(one.patch()) == ["answer", "direct"]
