# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Entries of odd shapes: across two pages, with pads and marks, too short for a jump, with a loop back into it.

Each is switched both ways while threads call the function all the time: every answer is the old code's or the new's.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from libraries import refused
from patching import Running, compile_program, livepatch_mappings, make_patch, symbols
from reports import well
from snapshots import snapshot

from module_utils._engine import make_switch
from module_utils._engine.activate import Limits, activate
from module_utils._engine.choose_switch import BYTE, JUMP
from module_utils._engine.facts import gather
from module_utils._engine.image import PAGE
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch, unload_patch
from module_utils._engine.region import Site, find_region, find_regions
from module_utils._patch.content import Patch
from module_utils._process.process import Process
from module_utils._process.selection import Selection

# `CODE` defines answer(x), which is 3 * x + 1; the new one is 7 * x + 1010. With an argument "OFFSET:PAGES" the program
# maps that many pages from this distance to its entry on, before it says ready: they are then taken.
PROGRAM = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
extern int answer(int x);
CODE
static atomic_long calls, wrong, seen_new;
static atomic_int ended;
static int asked(int x) {
    int result = x; /* functions that are too short to do anything leave it as it is */
    __asm__ volatile("sub $256, %%rsp\ncall answer\nadd $256, %%rsp" : "+a"(result), "+D"(x) : :
                     "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "cc", "memory");
    return result;
}
static void *calling(void *nothing) {
    while (!ended) {
        int x = 1 + (calls++ & 63), result = asked(x);
        if (!(calls & 1023)) usleep(1000);
        if (result == 7 * x + 1010) seen_new++;
        else if (result != (OLD)) wrong++;
    }
    return 0;
}
int main(int count, char **words) {
    char line[100];
    pthread_t threads[2];
    for (int at = 1; at < count; at++) {
        long offset, pages;
        if (sscanf(words[at], "%ld:%ld", &offset, &pages) != 2) return 2;
        mmap((void *)(((uintptr_t)answer + offset) & -4096), pages * 4096, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    }
    setvbuf(stdout, 0, _IOLBF, 0);
    for (int at = 0; at < 2; at++) pthread_create(threads + at, 0, calling, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        if (line[0] == '?') printf("%ld %d\n", wrong, calls > 0 && seen_new > 0);
        else printf("%d\n", asked(atoi(line)));
    }
    ended = 1;
    for (int at = 0; at < 2; at++) pthread_join(threads[at], 0);
    return wrong != 0;
}
"""
NEW = "int answer(int x) { return 7 * x + 1010; }"
ASSEMBLER = r"""
__asm__(".text\n.p2align 12\n.skip SKIP\n.globl answer\n.type answer,@function\nanswer:\n"
        "BODY\n.size answer,.-answer\n.byte TAIL\n.p2align 4, 0xcc\n.skip 64, 0xcc");
"""
LIMITS = {
    "entry": Limits(max_stop=5.0, timeout=20.0, consistency="entry"),
    "atomic": Limits(max_stop=5.0, timeout=20.0, consistency="atomic"),
}
WAYS = [pytest.param((BYTE, JUMP), "entry", id="byte"), pytest.param((JUMP,), "atomic", id="stop")]
TIMES = 2


def _program(folder: Path, code: str, *flags: str, old: str = "3 * x + 1") -> Path:
    return compile_program(folder, "program", PROGRAM.replace("CODE", code).replace("OLD", old), *flags)


def _assembled(skip: int, body: str, tail: str = "0xcc") -> str:
    """The function `answer` with this body, `skip` bytes behind the start of a page, and bytes behind it."""
    return ASSEMBLER.replace("SKIP", str(skip)).replace("BODY", body).replace("TAIL", tail)


def _site(pid: int, patch_id: str = "fix") -> Site:
    with Process(pid) as process:
        region = find_region(find_regions(process.memory, process.maps()), patch_id)
        assert region is not None
        (site,) = region.sites
        return site


def _changed_pages(site: Site) -> set[int]:
    """The pages in which the bytes of a site change."""
    pairs = enumerate(zip(site.old, site.new))
    return {(site.address + index) // PAGE for index, (one, two) in pairs if one != two}


def _there_and_back(
    running: Running, patch: Patch, forms: tuple[str, ...], consistency: str, old: tuple[int, int] = (3, 1)
) -> Site:
    """Switched some times under calls, and taken out: no wrong answer, nothing left. The site that was changed."""
    chosen, limits = Selection(pids=(running.pid,)), LIMITS[consistency]
    before = snapshot(running.pid)
    well(load_patch(patch, chosen, forms=forms))
    site = _site(running.pid)
    for _turn in range(TIMES):
        outcome = well(activate_patch("fix", chosen, limits))
        # A tool that was killed for being late, on a busy machine, finds the switch made when it tries again.
        expected = "byte" if site.kind == BYTE and consistency == "entry" else "stop"
        assert outcome.switch == expected or outcome.attempts > 1
        assert running.ask("5") == "1045"
        well(deactivate_patch("fix", chosen, limits))
        assert running.ask("5") == str(old[0] * 5 + old[1])
    well(unload_patch("fix", chosen, 20.0))
    assert snapshot(running.pid) == before
    return site


LINE = "lea 1(%rdi,%rdi,2), %eax\nret"  # five bytes


@pytest.mark.parametrize(("forms", "consistency"), WAYS)
@pytest.mark.parametrize("marked", [False, True], ids=["plain", "endbr64"])
def test_across_two_pages(tmp_path: Path, marked: bool, forms: tuple[str, ...], consistency: str) -> None:
    """Wherever the boundary is, the bytes that change lie in one page: one write, before or behind which a tool may
    die, and no half of one in between.
    """
    for first in (3,) if marked else (1, 2, 3, 4):
        body = ("endbr64\n" + LINE if marked else LINE).replace("\n", "\\n")
        program = _program(tmp_path, _assembled(PAGE - first - (4 if marked else 0), body))
        patch = make_patch(tmp_path, program, NEW, ["answer"])
        with Running(program) as running:
            site = _there_and_back(running, patch, forms, consistency)
            assert site.kind == forms[0]
            assert -site.address % PAGE == first
            assert len(_changed_pages(site)) == 1
            assert running.ask("?").split() == ["0", "1"]
            assert running.ended() == 0


def test_across_two_pages_where_the_places_are_taken(tmp_path: Path) -> None:
    """No whole jump is written across the boundary instead: it is refused, and nothing is changed."""
    program = _program(tmp_path, _assembled(PAGE - 2, LINE.replace("\n", "\\n")))
    patch = make_patch(tmp_path, program, NEW, ["answer"])
    entry = bytes.fromhex(patch.manifest.functions[0].entry)
    lowest = 5 + int.from_bytes(b"\0" + entry[2:5], "little", signed=True)
    with Running(program, "%d:2" % lowest) as running:
        before = snapshot(running.pid)
        code, message = refused(load_patch(patch, Selection(pids=(running.pid,)), forms=(JUMP,)))
        assert code == "function_too_short"
        assert "two pages" in message
        assert snapshot(running.pid) == before
    with Running(program, "%d:1" % (lowest + 2 * PAGE)) as running:
        _there_and_back(running, patch, (JUMP,), "entry")


def test_two_patches_on_two_pages(tmp_path: Path) -> None:
    """The sites of two patches of one function lie on two pages: a tool that dies between the two writes of a switch
    leaves the program's own code, which the next run settles.
    """
    body = "push %rbx\\npush %rbx\\npop %rbx\\npop %rbx\\nlea 1(%rdi,%rdi,2), %eax\\nret"
    program = _program(tmp_path, _assembled(PAGE - 1, body), "-Wl,--no-relax")
    patch = make_patch(tmp_path, program, NEW, ["answer"])
    other = tmp_path / "other"
    other.mkdir()
    second = make_patch(other, program, "int answer(int x) { return 3 * x + 1; }", ["answer"], patch_id="second")
    with Running(program) as running:
        chosen, limits = Selection(pids=(running.pid,)), LIMITS["entry"]
        before = snapshot(running.pid)
        well(load_patch(patch, chosen))
        well(activate_patch("fix", chosen, limits))
        well(load_patch(second, chosen))
        pages = [_changed_pages(_site(running.pid, name)) for name in ("fix", "second")]
        assert [len(part) for part in pages] == [1, 1]
        assert pages[0] != pages[1]
        for name, answer in (("second", "1045"), ("fix", "16")):
            # It dies behind the first of two writes.
            child = os.fork()
            if not child:
                try:
                    _die_between(running.pid, name)
                finally:
                    os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
            assert running.ask("5") == "16"
            (fact,) = [fact for fact in gather([], "patched")["processes"] if fact["pid"] == running.pid]
            assert [part["redirected_to"] for patch in fact["patches"] for part in patch["functions"]] == ["", ""]
            # The opposite of what it was at, then the same, then what was below is on top again.
            well(deactivate_patch(name, chosen, limits))
            assert running.ask("5") == answer
            well(activate_patch(name, chosen, limits))
            assert running.ask("5") == {"1045": "16", "16": "1045"}[answer]
            if name == "second":
                well(deactivate_patch("fix", chosen, limits))
                assert running.ask("5") == "16"
        for name in ("fix", "second"):
            well(deactivate_patch(name, chosen, limits))
            well(unload_patch(name, chosen, 20.0))
        assert snapshot(running.pid) == before
        assert running.ask("?").split() == ["0", "1"]
        assert running.ended() == 0


def _die_between(pid: int, patch_id: str) -> None:
    """Activate a patch, and exit with status 9 behind the first of its two writes."""

    def write_first(memory: make_switch.Memory, writes: list[make_switch.Write]) -> None:
        assert len(writes) == 2
        memory.write(writes[0].address, writes[0].new)
        os._exit(9)

    make_switch._write_all = write_first
    with Process(pid) as process:
        activate(process, patch_id, LIMITS["entry"])


C_CODE = "__attribute__((noinline, noipa)) int answer(int x) { return 3 * x + 1; }"
PADS = [
    pytest.param(["-fpatchable-function-entry=5"], "9090909090", 0, id="5"),
    pytest.param(["-fpatchable-function-entry=16,8"], "90" * 8, 8, id="8-before-8-behind"),
    pytest.param(["-fpatchable-function-entry=5,5"], "", 5, id="5-before"),
    pytest.param(
        ["-fpatchable-function-entry=5", "-fcf-protection=full"], "f30f1efa9090909090", 0, id="behind-endbr64"
    ),
    pytest.param(["-fcf-protection=full"], "f30f1efa", 0, id="endbr64"),
]


@pytest.mark.parametrize(("forms", "consistency"), WAYS)
@pytest.mark.parametrize(("flags", "first", "before"), PADS)
def test_pads_and_marks(
    tmp_path: Path, flags: list[str], first: str, before: int, forms: tuple[str, ...], consistency: str
) -> None:
    """Room that the compiler left at an entry is used, before an entry it is left alone, an endbr64 stays in front."""
    program = _program(tmp_path, C_CODE, *flags)
    patch = make_patch(tmp_path, program, NEW, ["answer"])
    assert patch.manifest.functions[0].entry.startswith(first)
    with Running(program) as running:
        site = _there_and_back(running, patch, forms, consistency)
        assert site.address >= site.entry + (4 if first.startswith("f30f1efa") else 0)
        with Process(running.pid) as process:
            assert process.memory.read(site.entry - before, before) == b"\x90" * before
        assert running.ask("?").split() == ["0", "1"]
        assert running.ended() == 0


# Bodies, and what they make of x: no longer than four bytes.
SHORT = [
    pytest.param("ret", "x", (1, 0), 1, id="1"),
    pytest.param("nop\\nret", "x", (1, 0), 2, id="2"),
    pytest.param("mov %edi, %eax\\nret", "x", (1, 0), 3, id="3"),
    pytest.param("lea 1(%rdi), %eax\\nret", "x + 1", (1, 1), 4, id="4"),
]


@pytest.mark.parametrize(("body", "old", "line", "size"), SHORT)
def test_shorter_than_a_jump(tmp_path: Path, body: str, old: str, line: tuple[int, int], size: int) -> None:
    """A whole jump is refused; one byte is enough, and what lies behind the function stays as it is."""
    tail = ",".join(["0"] * (4 - size) + ["0xc0"])
    program = _program(tmp_path, _assembled(64, body, tail), old=old)
    patch = make_patch(tmp_path, program, NEW, ["answer"])
    assert symbols(program)["answer"][1] == size
    with Running(program) as running:
        chosen = Selection(pids=(running.pid,))
        before = snapshot(running.pid)
        assert refused(load_patch(patch, chosen, forms=(JUMP,)))[0] == "function_too_short"
        assert snapshot(running.pid) == before
        for consistency in ("entry", "atomic"):
            assert _there_and_back(running, patch, (BYTE, JUMP), consistency, line).kind == BYTE
        assert running.ask("?").split() == ["0", "1"]
        assert running.ended() == 0


LOOP = "mov $0xc0000001, %eax\\nadd $0x40000000, %eax\\nagain: add $3, %eax\\ndec %edi\\njnz again\\nret"
# Not "add $3": its bytes name a place where the heap may grow, as chance has it.
TIGHT = "xor %eax, %eax\\nagain: sub $-3, %eax\\ndec %edi\\njnz again\\ninc %eax\\nret"


@pytest.mark.parametrize(("body", "into"), [(LOOP, 10), (TIGHT, 2)], ids=["behind-the-jump", "into-the-jump"])
def test_a_loop_back(tmp_path: Path, body: str, into: int) -> None:
    """A thread in the loop comes back to bytes that a jump would have overwritten: refused, where one byte is not."""
    program = _program(tmp_path, _assembled(64, body))
    patch = make_patch(tmp_path, program, NEW, ["answer"], overwritable=into)
    with Running(program) as running:
        chosen = Selection(pids=(running.pid,))
        if into < 5:
            assert refused(load_patch(patch, chosen, forms=(JUMP,)))[0] == "function_too_short"
            assert livepatch_mappings(running.pid) == []
        else:
            assert _there_and_back(running, patch, (JUMP,), "entry").kind == JUMP
        for consistency in ("entry", "atomic"):
            assert _there_and_back(running, patch, (BYTE,), consistency).kind == BYTE
        assert running.ask("?").split() == ["0", "1"]
        assert running.ended() == 0
