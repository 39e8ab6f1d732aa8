# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that lie, and change while they are looked at: the tool believes none of it, ends in time, and stays small.

Each program does one thing to whoever looks into it. Asked are the facts and loading (as root), in a child whose memory
is bounded, against a clock; what is told of the process must not be that the patch is in it.
"""

from __future__ import annotations

import os
import resource
import stat
import time
from pathlib import Path
from typing import Any, Callable

import pytest
from patching import Running, compile_program, make_patch

from module_utils._elf.build_id import file_build_id
from module_utils._elf.header import NotElf
from module_utils._engine import facts as facts_room
from module_utils._engine import run_operation
from module_utils._engine.activate import Limits
from module_utils._engine.facts import gather
from module_utils._engine.operations import activate_patch, load_patch, unload_patch
from module_utils._engine.outcome import Outcome
from module_utils._patch.content import Patch
from module_utils._process.process import Process
from module_utils._process.selection import Selection
from module_utils._ptrace.watchdog import watched

COMMON = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <link.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
__attribute__((noinline, noipa)) int answer(const char *text) { return (int)strlen(text) * 3 + 7; }
static void hostile(void);
int main(void) {
    char line[64];
    hostile();
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) { printf("%d\n", answer(line)); fflush(stdout); }
    return 0;
}
"""
FIXED = "int answer(const char *text) { return *text * 0 + 300; }"
# A memfd of that name, `size` bytes, mapped.
MAPPED = r"""
static char *mapped(const char *name, size_t size) {
    int file = memfd_create(name, 0);
    if (file < 0 || ftruncate(file, size)) abort();
    return mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
}
struct header { char magic[8]; uint32_t version, size; uint64_t own; unsigned char digest[32];
                uint32_t state, sw; uint64_t sequence, activated, stop, order; };
static void claim(char *at, uint32_t size) {
    struct header h = {.version = 4, .size = size, .own = (uintptr_t)at, .state = 4, .sw = 1, .order = 1};
    memcpy(h.magic, "LIVEPTCH", 8);
    memcpy(at, &h, sizeof h);
}
"""
LIES = {
    # Fifteen hundred mappings named like ours, of which each says that it has 4 MiB of description.
    "look-alikes": MAPPED
    + r"""
static void hostile(void) {
    int file = memfd_create("livepatch:fix", 0);
    if (ftruncate(file, 5 << 20)) abort();
    for (int i = 0; i < 1500; i++) {
        char *at = mmap(0, i % 100 ? 4096 : 5 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
        if (at == MAP_FAILED) abort();
        claim(at, 4 << 20);
    }
}
""",
    "sizes": MAPPED
    + r"""
static void hostile(void) {
    claim(mapped("livepatch:fix", 4096), 0xffffffff);
    claim(mapped("livepatch:fix (deleted)", 4096), 4 << 20);
    claim(mapped("livepatch:a\nb /memfd:livepatch:fix", 4096), 0);
    claim(mapped("livepatch:", 4096), 1);
}
""",
    # Names with all that a line of maps consists of, and a file that is called deleted.
    "names": MAPPED
    + r"""
static void hostile(void) {
    mapped("\n400000-401000 r-xp 00000000 fe:00 1 /usr/bin/x", 4096);
    mapped(" (deleted) (deleted)", 4096);
    mapped("\\012\x1b]0;title\a\xff\xfe", 4096);
}
""",
    # Twelve thousand beginnings of this very program's file.
    "itself, often": r"""
static void hostile(void) {
    int file = open("/proc/self/exe", O_RDONLY);
    for (int i = 0; i < 12000; i++)
        if (mmap(0, 4096, i & 1 ? PROT_READ : PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0) == MAP_FAILED) abort();
}
""",
    # The dynamic linker's list leads back to its beginning.
    "a ring of libraries": r"""
static void hostile(void) {
    struct link_map *last = _r_debug.r_map;
    while (last->l_next) last = last->l_next;
    last->l_next = _r_debug.r_map;
}
""",
    # ... and a very long one, of objects whose tables are as long as can be, and name each other.
    "libraries without end": r"""
static void hostile(void) {
    size_t count = 100000;
    struct link_map *all = calloc(count, sizeof *all);
    ElfW(Dyn) *table = calloc(600, sizeof *table);
    for (int i = 0; i < 599; i++) table[i] = (ElfW(Dyn)){.d_tag = i % 2 ? DT_NEEDED : DT_STRTAB, .d_un.d_val = i};
    struct link_map *last = _r_debug.r_map;
    while (last->l_next) last = last->l_next;
    for (size_t i = 0; i < count; i++) {
        all[i] = (struct link_map){.l_addr = i << 12, .l_name = "x", .l_ld = table, .l_next = &all[i + 1]};
    }
    all[count - 1].l_next = 0;
    last->l_next = all;
}
""",
    # Its own headers say that it has terabytes of code, and notes of gigabytes.
    "headers": r"""
static void hostile(void) {
    extern char __executable_start[];
    ElfW(Ehdr) *head = (void *)__executable_start;
    mprotect(head, 4096, PROT_READ | PROT_WRITE);
    ElfW(Phdr) *row = (void *)(__executable_start + head->e_phoff);
    for (int i = 0; i < head->e_phnum; i++) {
        if (row[i].p_type == PT_LOAD) row[i].p_memsz = 1UL << 62;
        if (row[i].p_type == PT_NOTE) row[i].p_filesz = 0xfffffff0;
    }
}
""",
    # Pages that come when this program likes, which is never.
    "pages that never come": r"""
static void hostile(void) {
    int file = memfd_create("livepatch:fix", 0), faults = syscall(SYS_userfaultfd, O_CLOEXEC);
    struct uffdio_api api = {.api = UFFD_API};
    if (faults < 0 || ftruncate(file, 8192) || ioctl(faults, UFFDIO_API, &api)) abort();
    char *at = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    struct uffdio_register what = {.range = {(uintptr_t)at, 8192}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    if (ioctl(faults, UFFDIO_REGISTER, &what)) abort();
}
""",
    # Threads that come and go, as fast as can be.
    "threads": r"""
static void *nothing(void *x) { return x; }
static void *storm(void *x) {
    for (;;) { pthread_t one; if (!pthread_create(&one, 0, nothing, 0)) pthread_join(one, 0); }
    return x;
}
static void hostile(void) { for (int i = 0; i < 8; i++) { pthread_t one; pthread_create(&one, 0, storm, 0); } }
""",
    # The function's first byte changes all the time.
    "code that changes": r"""
static void *flip(void *x) {
    volatile unsigned char *at = (void *)answer;
    unsigned char was = *at;
    for (;;) { *at = was ^ 1; usleep(100); *at = was; usleep(100); }
    return x;
}
static void hostile(void) {
    mprotect((void *)((uintptr_t)answer & -4096), 8192, PROT_READ | PROT_WRITE | PROT_EXEC);
    pthread_t one;
    pthread_create(&one, 0, flip, 0);
}
""",
    # Mappings that come and go.
    "maps that change": r"""
static void *churn(void *x) {
    for (;;) { char *at = mmap(0, 1 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); munmap(at, 1 << 20); }
    return x;
}
static void hostile(void) { for (int i = 0; i < 2; i++) { pthread_t one; pthread_create(&one, 0, churn, 0); } }
""",
}
MOUNTED = r"""
#include <sched.h>
#include <sys/mount.h>
static void hostile(void) {
    char path[4096] = "";
    if (readlink("/proc/self/exe", path, sizeof path - 8) < 0 || unshare(CLONE_NEWNS)) abort();
    if (mount("none", "/", 0, MS_REC | MS_PRIVATE, 0)) abort();
    *strrchr(path, '/') = 0;
    if (mount("none", path, "tmpfs", 0, 0)) abort();
    strcat(path, "/program");
    if (mkfifo(path, 0600)) abort();
}
"""
# One look may take so long, seconds, and one process may let it wait so long.
MOST_TIME, PATIENCE = 60, 3.0
MOST_MEMORY = 1 << 30


@pytest.fixture(name="impatient", autouse=True)
def fixture_impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is minutes elsewhere is seconds here."""
    monkeypatch.setattr(facts_room, "_PATIENCE", PATIENCE)
    monkeypatch.setattr(run_operation, "_PATIENCE", PATIENCE)


def _bounded(act: Callable[[], Any]) -> Any:
    """What `act` returns, with little memory, in time."""

    def work(tell: Callable[[Any], None]) -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
        tell(act())

    begin = time.monotonic()
    result = watched(work)
    assert (result.died, time.monotonic() - begin < MOST_TIME) == (False, True)
    return result.told[0]


def _patches(pid: int, patch: Patch) -> list[dict[str, Any]] | None:
    """What the facts say of the patches of a process, None where it could not be looked at."""
    facts = _bounded(lambda: gather([], "all", {patch.sha256: patch}.get))
    found = [fact["patches"] for fact in facts["processes"] if fact["pid"] == pid]
    assert found or facts["summary"]["unreadable"]
    return found[0] if found else None


@pytest.mark.skipif(os.geteuid() != 0, reason="userfaultfd(2) for the kernel's faults, and other processes, need root")
@pytest.mark.parametrize("lie", sorted(LIES))
def test_what_a_program_does_to_those_who_look(tmp_path: Path, lie: str) -> None:
    """Facts, loading, activating, unloading: each ends, as asked or with an error, and the program runs on."""
    program = compile_program(tmp_path, "program", COMMON + LIES[lie])
    patch = make_patch(tmp_path, program, FIXED, ["answer"])
    with Running(program) as running:
        chosen = Selection(pids=(running.pid,))
        assert not _patches(running.pid, patch)
        limits = Limits(max_stop=0.1, timeout=2.0)
        codes = []
        for act in (
            lambda: load_patch(patch, chosen),
            lambda: activate_patch("fix", chosen, limits),
            lambda: unload_patch("fix", chosen, 1.0),
        ):
            outcomes: list[Outcome] = _bounded(lambda act=act: act().outcomes)  # type: ignore[misc]
            codes += [outcome.error["code"] if outcome.error else "" for outcome in outcomes]
        assert "internal" not in codes[1:], codes
        assert running.alive()
        for found in _patches(running.pid, patch) or []:
            assert found["proof"] == "store" or not found["verified"]
        if lie != "code that changes":
            assert running.ask("?") in ("13", "300")


def test_a_process_that_took_the_number_of_another(tmp_path: Path) -> None:
    """A process is known by its folder in /proc: the number given anew is another one."""
    program = compile_program(tmp_path, "program", COMMON + "static void hostile(void) {}")
    with Running(program) as running:
        process = Process(running.pid)
        start = process.start_time
    with process:
        assert process.has_exited()
        assert (process.start_time, process.program()) == (start, b"")
        for name in ("maps", "mem", "stat"):
            with pytest.raises(Exception, match="exited"):
                process.open(name) if name == "mem" else process.read_bytes(name)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _sparse(path: Path) -> None:
    with open(path, "wb") as stream:
        stream.write(b"\x7fELF\x02\x01" + bytes(26) + (1 << 62).to_bytes(8, "little") + bytes(14) + b"\x38\0\xff\xff")
        stream.truncate(1 << 40)


def _device(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(5, 2))  # /dev/ptmx: each one who opens it makes a terminal


def _loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="making a device needs root")
@pytest.mark.parametrize("there", [_fifo, _sparse, _device, _loop])
def test_what_lies_on_disk_where_an_object_was(tmp_path: Path, there: Callable[[Path], None]) -> None:
    """A pipe, a file of a terabyte, a device, a link to itself: nobody waits for it or reads it to its end."""
    program = compile_program(tmp_path, "program", COMMON + "static void hostile(void) {}")
    with Running(program) as running:
        program.unlink()
        there(program)
        facts = _bounded(lambda: gather([], "all"))
        (fact,) = [fact for fact in facts["processes"] if fact["pid"] == running.pid]
        (found,) = [one for one in fact["objects"] if one["path"] == str(program)]
        assert (found["disk_build_id"], found["drift"]) == ("", "deleted")
    if there is not _loop:
        with pytest.raises((NotElf, OSError)):
            file_build_id(str(program))


@pytest.mark.skipif(os.geteuid() != 0, reason="a mount namespace needs root")
def test_a_root_of_its_own(tmp_path: Path) -> None:
    """In a mount namespace of its own the program puts a pipe over its file: who looks does not wait for that."""
    program = compile_program(tmp_path, "program", COMMON + MOUNTED)
    with Running(program, str(tmp_path)) as running:
        facts = _bounded(lambda: gather([], "all"))
        (fact,) = [fact for fact in facts["processes"] if fact["pid"] == running.pid]
        (found,) = [one for one in fact["objects"] if one["path"].endswith("/program")]
        assert found["drift"] in ("none", "deleted")
