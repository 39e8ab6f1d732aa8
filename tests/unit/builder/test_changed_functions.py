# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What is found changed in small programs: the functions that differ, what they bring, nothing that only moved."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from cases import CASES
from projects import ASK, addresses, functions, project, reference, replaced


@pytest.mark.parametrize("name", CASES)
def test_replaces_what_changed_and_no_more(name: str, tmp_path: Path) -> None:
    """Each case's functions, and its new names, exactly."""
    case = CASES[name]
    patch = project(tmp_path, {**case.before, "main.c": ASK}, case.after).patch()
    assert functions(patch) == sorted(case.replaces)
    if case.new:
        assert sorted(patch.manifest.new_symbols) == case.new


def test_original_bytes_and_room_at_the_entry(tmp_path: Path) -> None:
    """Offset, size, entry bytes are those of the deployed object; a loop to the second instruction limits the room."""
    loop = """
__attribute__((noinline, naked)) long spin(long x)
{
    __asm__("mov %rdi, %rax\\n1: dec %rax\\n jns 1b\\n ret");
}
long answer(long x) { return spin(x) + 1; }
"""
    after = {"work.c": loop.replace("dec %rax", "sub $2, %rax").replace("spin(x) + 1", "spin(x) + 2")}
    one = project(tmp_path, {"work.c": loop, "main.c": ASK}, after)
    patch = one.patch()
    program = one.built()
    spin = replaced(patch, "spin")
    assert [spin.offset] == addresses(program)["spin"]
    assert spin.overwritable == 3
    assert (spin.entry[:6], len(spin.entry)) == ("4889f8", 32)


def test_registers_in_which_arguments_come(tmp_path: Path) -> None:
    """One for each number or pointer; all six where a structure, or who knows what, is passed or returned."""
    source = """
enum size { SMALL, LARGE };
struct pair { long one, two; };
#define OWN __attribute__((noinline, noipa))
OWN int none(void) { return 10; }
OWN long few(const char *text, enum size size, double weight) { return text[0] + size + (long)weight + 10; }
OWN long nine(int a, int b, int c, int d, int e, int f, int g, int h, int i) { return a+b+c+d+e+f+g+h+i + 10; }
OWN long whole(struct pair pair) { return pair.one + pair.two + 10; }
OWN struct pair gives(long one) { struct pair pair = {one, 10}; return pair; }
OWN long any(int count, ...) { return count + 10; }
long answer(long x)
{
    struct pair pair = gives(x);
    return none() + few("1", LARGE, 2) + nine(1, 2, 3, 4, 5, 6, 7, 8, 9) + whole(pair) + any(1, 2);
}
"""
    patch = project(tmp_path, {"work.c": source, "main.c": ASK}, {"work.c": source.replace("10", "11")}).patch()
    found = {function.name: function.arguments for function in patch.manifest.functions}
    assert found == {"none": 0, "few": 3, "nine": 6, "whole": 6, "gives": 6, "any": 6}


def test_statics_of_one_name_go_to_the_right_file(tmp_path: Path) -> None:
    """Each helper refers to the variable `calls` of its own file."""
    case = CASES["two files changed, static names in both"]
    one = project(tmp_path, {**case.before, "main.c": ASK}, case.after)
    patch = one.patch()
    offsets = {r.offset for r in patch.manifest.references if r.name == "calls"}
    assert sorted(offsets) == sorted(addresses(one.built())["calls"])
    assert len({f.symbol for f in patch.manifest.functions}) == 2


def test_renumbered_static_locals_are_the_same_variables(tmp_path: Path) -> None:
    """With a static local put before `count`, the compiler numbers anew; the reference goes to the old variable."""
    case = CASES["a static local before others: they are renumbered"]
    one = project(tmp_path, {**case.before, "main.c": ASK}, case.after)
    patch = one.patch()
    there = {name: places[0] for name, places in addresses(one.built()).items() if name.startswith("count")}
    (kept,) = [r for r in patch.manifest.references if r.name.startswith("count")]
    assert kept.offset in there.values()
    assert [name for name in patch.manifest.new_symbols if not re.match(r"extra\.\d+$", name)] == []


def test_imports_have_version_and_slot(tmp_path: Path) -> None:
    """What the program imports is found through its own slot, what it does not by name."""
    source = '#include <stdio.h>\n#include <stdlib.h>\nlong answer(long x) { puts("hello"); return x; }\n'
    after = source.replace("return x;", 'return x + labs(x) + atoi("3") + abs(getenv("HOME") != 0);')
    patch = project(tmp_path, {"work.c": source, "main.c": ASK}, {"work.c": after}).patch()
    assert reference(patch, "puts").slot > 0
    assert reference(patch, "puts").version == "GLIBC_2.2.5"
    assert (reference(patch, "getenv").slot, reference(patch, "getenv").version) == (0, "")


def test_same_inputs_same_bytes(tmp_path: Path) -> None:
    """Built twice from nothing, the patch is the same to the byte."""
    case = CASES["a switch table and strings"]
    one = project(tmp_path, {**case.before, "main.c": ASK}, case.after)
    first = one.build().content
    shutil.rmtree(one.request().cache)
    assert one.build().content == first


def test_consistency(tmp_path: Path) -> None:
    """entry for one function, atomic for several, and what is asked for."""
    case = CASES["an inline function in a header, used in two files"]
    one = project(tmp_path, {**case.before, "main.c": ASK}, case.after)
    assert one.patch().manifest.consistency == "atomic"
    assert one.patch(consistency="quiescent").manifest.consistency == "quiescent"
    assert one.patch(consistency="entry").manifest.consistency == "entry"


def test_callers_that_know_registers_need_quiescence(tmp_path: Path) -> None:
    """A caller compiled with -fipa-ra may not meet the new callee half-way; with -fno-ipa-ra it may."""
    source = """
long scale = 3;
__attribute__((noinline)) static long leaf(long x) { return x * scale; }
__attribute__((noinline)) static long caller(long a, long b, long c, long d)
{
    long s = leaf(a) + b;
    s = leaf(s) * c - d;
    return s + a + b + c + d;
}
long answer(long x) { return caller(x, x + 1, x + 2, x + 3); }
"""
    after = source.replace("return x * scale;", "scale += x % 7 + x % 11 + x % 13; return x * scale + x / scale;")
    one = project(tmp_path, {"work.c": source, "main.c": ASK}, {"work.c": after})
    patch = one.patch()
    assert "caller" in functions(patch)
    assert patch.manifest.consistency == "quiescent"
    plain = one.patch(environment={"CFLAGS": "-O2 -g -fno-ipa-ra"}, build_command="make -e")
    assert functions(plain) == ["leaf"]
    assert plain.manifest.consistency == "entry"


def test_jump_tables_limit_the_room(tmp_path: Path) -> None:
    """A second table in a section: its entries are counted from its own start, and the label at the entry is found."""
    source = """
__attribute__((noinline, naked)) long hop(long x)
{
    __asm__("nop\\n"
            ".Lsecond: lea .Lother(%rip), %rax\\n"
            ".Lthird: ret\\n"
            "lea .Ltable(%rip), %rax\\n ret\\n"
            ".section .rodata.hop,\\"a\\"\\n .balign 4\\n"
            ".Lother: .long .Lthird - .Lother, .Lthird - .Lother, .Lthird - .Lother\\n"
            ".Ltable: .long .Lsecond - .Ltable, .Lsecond - .Ltable\\n"
            ".previous");
}
long answer(long x) { return x + (hop(x) != 0); }
"""
    one = project(tmp_path, {"work.c": source, "main.c": ASK}, {"work.c": source.replace('"nop', '"nop\\n nop')})
    assert replaced(one.patch(), "hop").overwritable == 1
