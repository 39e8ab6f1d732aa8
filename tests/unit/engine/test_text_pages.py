# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that made something of their text pages (writable, locked, huge), or that have no room left near them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Iterator

import pytest
from libraries import refused
from patching import Running, compile_program, livepatch_mappings, make_patch, symbols
from reports import well
from snapshots import snapshot

from module_utils._engine.activate import Limits
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch, unload_patch
from module_utils._patch.content import Patch
from module_utils._process.selection import Selection

# SETUP defines prepare() and ended(line), which the program calls for a line that starts with a letter. The text is
# larger than two huge pages, and what is patched lies in the middle of it.
PROGRAM = r"""
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>
#ifdef LARGE
#define PLACE __attribute__((noinline, noipa, section(".text.place")))
__asm__(".section .text.place,\"ax\",@progbits\n.skip 0x400000, 0xcc\n.text");
#else
#define PLACE __attribute__((noinline, noipa))
#endif
PLACE int answer(int x) { return 3 * x + abs(getpgid(0) * 0 + 1); }
#ifdef LARGE
__asm__(".section .text.place,\"ax\",@progbits\n.skip 0x400000, 0xcc\n.text");
#endif
static void text_range(uintptr_t *start, uintptr_t *end) {
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[600];
    while (fgets(line, sizeof line, maps))
        if (sscanf(line, "%lx-%lx", start, end) == 2 && *start <= (uintptr_t)answer && (uintptr_t)answer < *end) break;
    fclose(maps);
}
SETUP
int main(void) {
    char line[100];
    setvbuf(stdout, 0, _IOLBF, 0);
    prepare();
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        if (line[0] >= 'a') told();
        printf("%d\n", answer(atoi(line)));
    }
}
"""
NOTHING = "static void told(void) {}\n"
NEW = "#include <unistd.h>\nint answer(int x) { return 7 * x + (getpgid(0) > 0); }"
WAYS = [pytest.param(("byte", "jump"), "entry", id="byte"), pytest.param(("jump",), "atomic", id="stop")]


def _made(folder: Path, setup: str, *flags: str) -> tuple[Path, Patch]:
    program = compile_program(folder, "program", PROGRAM.replace("SETUP", setup), *flags)
    return program, make_patch(folder, program, NEW, ["answer"])


def _there_and_back(running: Running, patch: Patch, forms: tuple[str, ...], consistency: str) -> None:
    """Switched twice and taken out; the code is afterwards what it was before."""
    chosen, limits = Selection(pids=(running.pid,)), Limits(max_stop=5.0, timeout=20.0, consistency=consistency)
    assert running.ask("5") == "16"
    before = snapshot(running.pid)
    well(load_patch(patch, chosen, forms=forms))
    for _turn in range(2):
        well(activate_patch("fix", chosen, limits))
        assert running.ask("5") == "36"
        well(deactivate_patch("fix", chosen, limits))
        assert running.ask("5") == "16"
    well(unload_patch("fix", chosen, 20.0))
    assert snapshot(running.pid).code == before.code
    assert livepatch_mappings(running.pid) == []
    assert running.ended() == 0


def _text_flags(running: Running, field: str) -> str:
    """One field of /proc/PID/smaps for the mapping of what is patched: the largest executable one."""
    best, largest, inside = "", 0, False
    for line in Path("/proc/%d/smaps" % running.pid).read_text().splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            start, end = (int(part, 16) for part in words[0].split("-"))
            inside = "x" in words[1] and end - start > largest and not line.endswith(("]", ".so.6", ".so.2"))
            largest = end - start if inside else largest
        elif inside and words[0] == field + ":":
            best = " ".join(words[1:])
    return best


WRITABLE = r"""
static void prepare(void) {
    uintptr_t start, end;
    text_range(&start, &end);
    if (mprotect((void *)start, end - start, PROT_READ | PROT_WRITE | PROT_EXEC)) exit(2);
    volatile char *byte = (volatile char *)(((uintptr_t)answer & -4096) + 8);
    *byte = *byte; /* its own copy already */
}
"""
LOCKED = r"""
static void prepare(void) { if (mlockall(MCL_CURRENT | MCL_FUTURE)) exit(2); }
"""


@pytest.mark.parametrize(("forms", "consistency"), WAYS)
@pytest.mark.parametrize(("setup", "flag"), [(WRITABLE, "wr"), (LOCKED, "lo")], ids=["writable", "locked"])
def test_text_pages(tmp_path: Path, setup: str, flag: str, forms: tuple[str, ...], consistency: str) -> None:
    """Patched as any other; locked pages stay locked."""
    program, patch = _made(tmp_path, NOTHING + setup)
    with Running(program) as running:
        assert flag in _text_flags(running, "VmFlags").split()
        _there_and_back(running, patch, forms, consistency)


def test_locked_memory_that_is_limited(tmp_path: Path) -> None:
    """What the program may lock is used up, and what is mapped new would be locked: told with the reason and remedy."""
    setup = r"""
static void prepare(void) {
    struct rlimit none = {0, 0};
    if (mlockall(MCL_CURRENT | MCL_FUTURE) || setrlimit(RLIMIT_MEMLOCK, &none) || setuid(65534)) exit(2);
}
"""
    program, patch = _made(tmp_path, NOTHING + setup)
    with Running(program) as running:
        before = snapshot(running.pid)
        code, message = refused(load_patch(patch, Selection(pids=(running.pid,))))
        assert code == "not_permitted"
        assert "mmap" in message
        assert snapshot(running.pid) == before
        assert running.ask("5") == "16"


# The whole huge pages of the text are copied into memory that is MADE, and that is moved over them.
MOVED = r"""
#define HUGE_PAGE 0x200000ul
static void prepare(void) {
    uintptr_t start, end, room;
    text_range(&start, &end);
    start = (start + HUGE_PAGE - 1) & -HUGE_PAGE;
    end &= -HUGE_PAGE;
    if (start > (uintptr_t)answer || end <= (uintptr_t)answer) exit(2);
    MADE
    memcpy((void *)room, (void *)start, end - start);
    if (mprotect((void *)room, end - start, PROT_READ | PROT_EXEC)) exit(4);
    if (mremap((void *)room, end - start, end - start, MREMAP_MAYMOVE | MREMAP_FIXED, start) != (void *)start) exit(5);
}
"""
TRANSPARENT = r"""
    char *got = mmap(0, end - start + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    room = ((uintptr_t)got + HUGE_PAGE - 1) & -HUGE_PAGE;
    if (got == MAP_FAILED || madvise((void *)room, end - start, MADV_HUGEPAGE)) exit(3);
"""
HUGETLB = r"""
    room = (uintptr_t)mmap(0, end - start, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    if ((void *)room == MAP_FAILED) exit(3);
"""
HUGE_FLAGS = ("-DLARGE", "-fno-toplevel-reorder", "-Wl,-z,max-page-size=0x200000")


@pytest.mark.parametrize(("forms", "consistency"), WAYS)
def test_transparent_huge_pages(tmp_path: Path, forms: tuple[str, ...], consistency: str) -> None:
    """Text in huge pages of anonymous memory, as programs remap themselves for speed."""
    if "[never]" in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text():
        pytest.skip("this kernel has transparent huge pages switched off")
    program, patch = _made(tmp_path, NOTHING + MOVED.replace("MADE", TRANSPARENT), *HUGE_FLAGS)
    with Running(program) as running:
        assert int(_text_flags(running, "AnonHugePages").split()[0]) > 0
        _there_and_back(running, patch, forms, consistency)


@contextlib.contextmanager
def _huge_pages(count: int) -> Iterator[None]:
    """The kernel may make so many huge pages more, when asked for them."""
    setting = Path("/proc/sys/vm/nr_overcommit_hugepages")
    before = setting.read_text()
    try:
        setting.write_text(str(int(before) + count))
    except OSError as error:
        pytest.skip("huge pages cannot be had here: %s" % error)
    try:
        yield
    finally:
        setting.write_text(before)


@pytest.mark.parametrize(("forms", "consistency"), WAYS)
def test_pages_of_hugetlbfs(tmp_path: Path, forms: tuple[str, ...], consistency: str) -> None:
    """Pages that only huge ones replace: patched where the kernel writes to them, else refused and left as they are."""
    program, patch = _made(tmp_path, NOTHING + MOVED.replace("MADE", HUGETLB), *HUGE_FLAGS)
    with _huge_pages(8), Running(program) as running:
        assert "ht" in _text_flags(running, "VmFlags").split()
        if _kernel_writes_to(running, program):
            _there_and_back(running, patch, forms, consistency)
            return
        before = snapshot(running.pid)
        chosen = Selection(pids=(running.pid,))
        well(load_patch(patch, chosen, forms=forms))
        limits = Limits(max_stop=2.0, timeout=0.1, consistency=consistency)
        assert refused(activate_patch("fix", chosen, limits))[0] == "not_permitted"
        assert running.ask("5") == "16"
        well(unload_patch("fix", chosen, 20.0))
        assert snapshot(running.pid) == before


def _kernel_writes_to(running: Running, program: Path) -> bool:
    """Whether this kernel lets anybody write to text in huge pages (older ones do not)."""
    base = min(
        int(line.partition("-")[0], 16)
        for line in Path("/proc/%d/maps" % running.pid).read_text().splitlines()
        if line.endswith(" %s" % program)
    )
    with open("/proc/%d/mem" % running.pid, "r+b", 0) as memory:
        memory.seek(base + symbols(program)["answer"][0])
        byte = memory.read(1)
        memory.seek(-1, os.SEEK_CUR)
        try:
            return memory.write(byte) == 1
        except OSError:
            return False


SHARED = r"""
#include <fcntl.h>
static void prepare(void) {
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[600];
    uintptr_t start, end, offset = 0;
    int file = open("/proc/self/exe", O_RDONLY);
    while (fgets(line, sizeof line, maps))
        if (sscanf(line, "%lx-%lx %*s %lx", &start, &end, &offset) == 3 && start <= (uintptr_t)answer &&
            (uintptr_t)answer < end) break;
    if (mmap((void *)start, end - start, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, file, offset) == MAP_FAILED)
        exit(2);
}
"""


def test_text_that_is_shared_with_its_file(tmp_path: Path) -> None:
    """A change would be one of the file, and of every process that runs it: refused."""
    program, patch = _made(tmp_path, NOTHING + SHARED)
    with Running(program) as running:
        before = snapshot(running.pid)
        code, message = refused(load_patch(patch, Selection(pids=(running.pid,))))
        assert code == "patch_unsupported"
        assert "shared with %s" % program in message
        assert snapshot(running.pid) == before


FULL = r"""
static uintptr_t last;
static void take(uintptr_t from, uintptr_t to) {
    if (from < to && mmap((void *)from, to - from, PROT_NONE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0) != (void *)from) exit(3);
    if (!last && to > from + (1 << 24)) last = to - (1 << 24); /* right below the program */
}
static void prepare(void) {
    uintptr_t low = ((uintptr_t)answer & -4096) - (2ul << 30), high = low + (4ul << 30), at = low, start, end;
    static char taken[1 << 16];
    FILE *maps = fopen("/proc/self/maps", "r");
    size_t size = fread(taken, 1, sizeof taken - 1, maps);
    fclose(maps);
    taken[size] = 0;
    for (char *row = strtok(taken, "\n"); row; row = strtok(0, "\n")) {
        if (sscanf(row, "%lx-%lx", &start, &end) != 2 || end <= low || start >= high) continue;
        take(at, start);
        at = end;
    }
    take(at, high);
}
static void told(void) { munmap((void *)last, 1 << 24); }
"""


def test_no_room_within_reach(tmp_path: Path) -> None:
    """All addresses within 2 GiB are taken: nothing is changed. As soon as some are free, the patch is loaded there."""
    program, patch = _made(tmp_path, FULL)
    with Running(program) as running:
        chosen = Selection(pids=(running.pid,))
        assert running.ask("5") == "16"
        before = snapshot(running.pid)
        for forms in (("byte", "jump"), ("jump",)):
            code, message = refused(load_patch(patch, chosen, forms=forms))
            assert code == "no_room_near_object"
            assert str(program) in message
            assert snapshot(running.pid) == before
        assert running.ask("5") == "16"
        assert running.ask("free") == "1"
        _there_and_back(running, patch, ("byte", "jump"), "entry")
