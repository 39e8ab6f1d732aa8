# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Types and variables that a running process holds are compared by what both compilations say of them, not by names.

Each edit stands beside its harmless neighbour; both compilers and three versions of the debug information are read.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from module_utils._build.atoms import UnitCode
from module_utils._build.changed_functions import UnitChange
from module_utils._build.compile_command import CompileCommand
from module_utils._build.debug_info import read_debug_info
from module_utils._build.layout_of_types import changed_layouts
from module_utils._build.link_inputs import Unit
from module_utils._elf.object_file import read_object_file

WORK = """
struct other { long o; };
struct bits { unsigned low : 3; unsigned high : 5; int rest; };
struct outer { struct { int x, y; } at; struct bits bits[2]; };
struct hook { int (*call)(struct outer *, int); struct outer *where; void *any; };
typedef struct { short s; char c[6]; } plain, *handle;
typedef struct { int first; int second; } *only_behind;
typedef int number;
struct counted { number n; unsigned flags; const char *text; };
struct __attribute__((aligned(16))) wide { long w[2]; };
enum { IDLE, BUSY, GONE };
enum { LIMIT = 10 };
typedef enum { NORTH, SOUTH } side;
enum state { ONE = 1, TWO };
struct outer outer;
struct hook hook;
struct counted counted;
struct wide wide;
plain kept;
static struct { int a, b; } pair;
static long plain_number;
static only_behind behind;
static const struct { int a, b; } fixed = {1, 2};
long answer(long x, handle h, side s)
{
    static struct { int seen, used; } local;
    struct mine { long p, q; } mine = {x, LIMIT};
    static struct node { struct node *next; int v, w; } *list;
    enum state now = x ? ONE : TWO;
    local.seen += pair.a++ + pair.b-- + fixed.a;
    local.used++;
    plain_number += x;
    for (struct node *n = list; n; n = n->next)
        mine.p += n->v - n->w;
    if (x == BUSY || x == GONE + IDLE)
        outer.at.x++;
    x = mine.p + mine.q + outer.bits[0].low + counted.n + wide.w[0] + (long)hook.where + h->s + kept.s + s + now
        + plain_number + local.used + local.seen + (behind ? behind->first : 0);
    behind = (void *)x;
    list = (void *)x;
    return x;
}
"""

# What is edited: (old, new), and the types or variables refused, with the words that the reason must hold.
EDITS: dict[str, tuple[list[tuple[str, str]], dict[str, str]]] = {
    "nothing": ([("mine.p + mine.q", "mine.q - mine.p")], {}),
    "a bit field wider": ([("high : 5", "high : 6")], {"struct bits": "different: high"}),
    "bit fields swapped": (
        [("unsigned low : 3; unsigned high : 5;", "unsigned high : 5; unsigned low : 3;")],
        {"struct bits": "different: high, low"},
    ),
    "a member of an unnamed structure within": ([("int x, y; } at", "int y, x; } at")], {"struct outer": "at"}),
    "a member pointer to another structure": (
        [("struct outer *where", "struct other *where")],
        {"struct hook": "different: where"},
    ),
    "a parameter of a member function pointer": (
        [("struct outer *, int)", "struct outer *, long)")],
        {"struct hook": "different: call"},
    ),
    "a member's sign": ([("unsigned flags", "int flags")], {"struct counted": "different: flags"}),
    "only a qualifier": ([("const char *text", "char *text")], {}),
    "a type's name only": ([("number n;", "int n;")], {}),
    "what a type name means": (
        [("typedef int number", "typedef unsigned number")],
        {"struct counted": "different: n"},
    ),
    "alignment": ([("aligned(16)", "aligned(8)")], {"struct wide": "different: (alignment)"}),
    "an unnamed structure known by its type names": (
        [("char c[6]", "unsigned char c[6]")],
        {"typedef plain": "different: c", "typedef handle": "c"},
    ),
    "an unnamed structure behind a pointer's name": (
        [("int first; int second;", "int second; int first;")],
        {"typedef only_behind": "different: second, first"},
    ),
    "values of an unnamed enumeration": (
        [("IDLE, BUSY, GONE", "IDLE, GONE, BUSY")],
        {"enumerator BUSY": "different: BUSY", "enumerator GONE": "different: GONE"},
    ),
    "one more in an unnamed enumeration": ([("IDLE, BUSY, GONE", "IDLE, BUSY, GONE, LOST")], {}),
    "a constant": ([("LIMIT = 10", "LIMIT = 12")], {}),
    "values of an enumeration known by its type name": ([("NORTH, SOUTH", "SOUTH, NORTH")], {"typedef side": "NORTH"}),
    "an enumerator put in front": ([("ONE = 1, TWO", "ZERO = 1, ONE, TWO")], {"enum state": "new: ZERO"}),
    "an enumerator behind": ([("ONE = 1, TWO", "ONE = 1, TWO, THREE")], {}),
    "an enumeration that grows": (
        [("ONE = 1, TWO", "ONE = 1, TWO, MUCH = 0x100000000")],
        {"enum state": "from 4 to 8 bytes"},
    ),
    "members of a variable's own type": (
        [("{ int a, b; } pair", "{ int b, a; } pair")],
        {"pair": "is of another type"},
    ),
    "members of a constant's own type": ([("{ int a, b; } fixed", "{ int b, a; } fixed")], {}),
    "a variable's sign": ([("static long plain_number", "static unsigned long plain_number")], {"plain_number": ""}),
    "a variable that points to another type": ([("static only_behind behind", "static handle behind")], {"behind": ""}),
    "members of a static local's type": ([("int seen, used;", "int used, seen;")], {"local": ""}),
    "a type that only a static local reaches": ([("int v, w;", "int w, v;")], {"list": ""}),
    "a type of values that do not outlive a call": ([("{ long p, q; }", "{ long q, p, r; }")], {}),
}
# What the edits of behind->first need to compile still.
ALSO = {"a variable that points to another type": ("behind->first", "behind->s")}

COMPILERS = {
    "gcc": ["gcc", "-g"],
    "clang": ["clang", "-g"],
    "gcc, DWARF 3": ["gcc", "-gdwarf-3"],
    "clang, DWARF 4": ["clang", "-gdwarf-4"],
}


def compiled(folder: Path, name: str, text: str, compiler: list[str]) -> UnitCode:
    """A unit compiled as the builder compiles it."""
    source = folder / (name + (".cc" if "namespace" in text else ".c"))
    source.write_text(text)
    options = ["-O2", "-w", "-ffunction-sections", "-fdata-sections", "-c", "-o", str(folder / (name + ".o"))]
    subprocess.run([*compiler, *options, str(source)], check=True)
    return UnitCode(read_object_file(str(folder / (name + ".o"))), str(folder / (name + ".o")))


def refused(folder: Path, before: str, after: str, compiler: list[str]) -> dict[str, str]:
    """The reasons by the symbol that is refused, numbers behind the names of static locals left out."""
    old, new = compiled(folder, "before", before, compiler), compiled(folder, "after", after, compiler)
    unit = Unit("work.c", "work.c", CompileCommand(0, str(folder), compiler[0], ()), "work.o", None)
    change = UnitChange(unit, old, new, None)
    found = changed_layouts(change, read_debug_info(old), read_debug_info(new), ["answer"])
    assert {refusal.code for refusal in found} <= {"layout_changed"}
    assert {refusal.file for refusal in found} <= {"work.c"}
    return {refusal.symbol.replace("answer.", "").split(".")[0]: refusal.reason for refusal in found}


def rounds() -> list[list[str]]:
    """The edits in groups that can be made at once: each compilation shows as many as it can."""
    groups: list[list[str]] = []
    for name, (edits, expected) in EDITS.items():
        touched = {*expected, *(edit[0] for edit in edits), name in ALSO}
        for group in groups:
            others = [{*EDITS[one][1], *(edit[0] for edit in EDITS[one][0]), True} for one in group]
            if not any(touched & other for other in others) and bool(expected) == bool(EDITS[group[0]][1]):
                group.append(name)
                break
        else:
            groups.append([name])
    return groups


@pytest.mark.parametrize("compiler", COMPILERS)
def test_what_is_refused(compiler: str, tmp_path: Path) -> None:
    """These types and variables of each group of edits, and no others, with what is different about them."""
    for group in rounds():
        after, wanted = WORK, {}
        for name in group:
            edits, expected = EDITS[name]
            wanted.update(expected)
            for old, new in [*edits, *([ALSO[name]] if name in ALSO else [])]:
                assert after.count(old) == 1, name
                after = after.replace(old, new)
        found = refused(tmp_path, WORK, after, COMPILERS[compiler])
        assert set(found) == set(wanted), group
        for symbol, words in wanted.items():
            assert words in found[symbol], symbol


SCOPES = """
namespace one { struct item { long a, b; }; }
namespace two { struct item { int a, b; }; }
struct base { struct inner { int c, d; }; inner in; virtual long first(long x); virtual long second(long x); };
one::item first_item;
two::item second_item;
base object;
long base::first(long x) { return x + 1; }
long base::second(long x) { return x + 2; }
extern "C" long answer(long x) { return first_item.a + second_item.b + object.in.c + x; }
"""


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_cplusplus_scopes(compiler: str, tmp_path: Path) -> None:
    """Types of one name in two namespaces are two types; nested ones and the order of virtual functions count."""
    command = [compiler, "-g"]
    after = SCOPES.replace("int a, b;", "int b, a;").replace("int c, d;", "int d, c;")
    assert set(refused(tmp_path, SCOPES, after, command)) == {"struct two::item", "struct base::inner"}
    slots = ("virtual long first(long x); virtual long second(long x);",) * 2
    after = SCOPES.replace(slots[0], "virtual long second(long x); virtual long first(long x);")
    assert set(refused(tmp_path, SCOPES, after, command)) == {"struct base"}
