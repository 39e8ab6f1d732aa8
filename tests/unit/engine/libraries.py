# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""For tests of libraries that come and go: a program that opens and closes them as it is told, and libraries for it."""

from __future__ import annotations

from pathlib import Path

from patching import Running, compile_program
from reports import only

from module_utils._engine.operations import Report

# Commands: `open N PATH`, `mopen N PATH` (in a namespace of its own), `close N`, `ask N NUMBER`, `fill ADDRESS SIZE`,
# which maps anonymous memory there. N is one digit.
HOST = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
int main(void) {
    static void *opened[10];
    char line[1000], path[900];
    unsigned long at, size;
    int n, x;
    setvbuf(stdout, 0, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "open %d %899s", &n, path) == 2) {
            opened[n] = dlopen(path, RTLD_NOW);
            puts(opened[n] ? "opened" : dlerror());
        } else if (sscanf(line, "mopen %d %899s", &n, path) == 2) {
            opened[n] = dlmopen(LM_ID_NEWLM, path, RTLD_LAZY);
            puts(opened[n] ? "opened" : dlerror());
        } else if (sscanf(line, "close %d", &n) == 1) {
            printf("%d\n", dlclose(opened[n]));
        } else if (sscanf(line, "ask %d %d", &n, &x) == 2) {
            int (*answer)(int) = (int (*)(int))dlsym(opened[n], "answer");
            printf("%d\n", answer(x));
        } else if (sscanf(line, "fill %lx %lx", &at, &size) == 2) {
            void *got = mmap((void *)at, size, PROT_READ | PROT_WRITE | PROT_EXEC,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
            puts(got == (void *)at ? "filled" : "taken");
        } else puts("?");
    }
}
"""
# Two builds differ in BUILD only, which is data: the code of both is the same, byte for byte.
LIBRARY = r"""
#include <stdlib.h>
static volatile int build = BUILD;
__attribute__((noinline, noipa)) int answer(int x) { return x + abs(build); }
"""
FIXED = """
extern volatile int build;
int answer(int x) { return 1000 * x + build; }
"""


def host(folder: Path) -> Path:
    """The program that opens and closes libraries."""
    return compile_program(folder, "host", HOST)


def library(folder: Path, name: str, build: int, *flags: str) -> Path:
    """One build of the library."""
    return compile_program(folder, name, LIBRARY.replace("BUILD", str(build)), "-shared", "-fPIC", *flags)


def refused(report: Report) -> tuple[str, str]:
    """Code and message of the error of an operation that one process must refuse; it changed nothing."""
    outcome = only(report)
    assert outcome.error is not None
    assert not outcome.changed
    return outcome.error["code"], outcome.error["message"]


def mapped_at(running: Running, path: Path) -> tuple[int, int]:
    """Start and end of all mappings of a file in a program."""
    rows = [
        line.split()[0]
        for line in Path("/proc/%d/maps" % running.pid).read_text().splitlines()
        if line.endswith(" %s" % path)
    ]
    assert rows
    return int(rows[0].partition("-")[0], 16), int(rows[-1].partition("-")[2], 16)
