# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What new code may refer to: its own data, the object's, and libraries' functions as the process itself has them."""

from __future__ import annotations

from pathlib import Path

import pytest
from patching import Running, compile_program, livepatch_mappings, make_patch

from module_utils._engine.activate import Limits
from module_utils._engine.operations import Outcome, activate_patch, load_patch
from module_utils._engine.resolve import Resolver
from module_utils._patch.content import Patch
from module_utils._patch.manifest import Reference
from module_utils._process.objects import find_object, mapped_objects
from module_utils._process.process import Process
from module_utils._process.selection import Selection

# The program can be asked for the address of any symbol, which is what the dynamic linker itself says it is.
PROGRAM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static volatile int counter = 40;
int table[4] = {1, 2, 3, 4};
__attribute__((noinline, used)) static int twice(int x) { return 2 * x + counter; }
__attribute__((noinline, noipa)) int answer(const char *text) { return twice(atoi(text)); }
int main(void) {
    char line[200], *version;
    setvbuf(stdout, 0, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        if ((version = strchr(line, '@'))) *version++ = 0;
        if (line[0] != '&') printf("%d\n", answer(line));
        else printf("%p\n", version ? dlvsym(RTLD_DEFAULT, line + 1, version) : dlsym(RTLD_DEFAULT, line + 1));
    }
}
"""
NAMES = """
    malloc free qsort getenv printf clock_gettime stderr environ dlsym pthread_create realpath@GLIBC_2.3
    regcomp@GLIBC_2.2.5 glob@GLIBC_2.2.5 glob@GLIBC_2.27 fopen@GLIBC_2.2.5 memcpy@GLIBC_2.14
    memcpy memmove memset strlen strchr memchr strcmp
"""
LINKAGES = {
    "lazy": ["-Wl,-z,lazy"],
    "now": ["-Wl,-z,now"],
    "no-pie": ["-no-pie", "-Wl,-z,lazy"],
    "no-plt": ["-fno-plt"],
}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("references")
    return {name: compile_program(folder, name, PROGRAM, *flags) for name, flags in LINKAGES.items()}


def _activated(patch: Patch, running: Running) -> Outcome:
    chosen = Selection(pids=(running.pid,))
    assert [one.error for one in load_patch(patch, chosen).outcomes] == [None]
    return activate_patch(patch.manifest.id, chosen, Limits(max_stop=1.0)).outcomes[0]


@pytest.mark.parametrize("linkage", LINKAGES)
def test_everything_a_fix_may_use(tmp_path: Path, programs: dict[str, Path], linkage: str) -> None:
    """New data, strings, pointers to them, a switch table, the object's own, and libc's, imported before or not."""
    fixed = r"""
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
extern int counter, table[4];
extern int twice(int);
extern char **environ;
static int calls, zeros[2000];
static const char *const names[] = {"nought", "one", "two"};
static const char *current = "none";
static int compare(const void *one, const void *two) { return *(const int *)one - *(const int *)two; }
int (*way)(int) = twice;
int answer(const char *text) {
    int numbers[5] = {5, 3, 9, 1, 7}, value = atoi(text);
    char copy[100], *end;
    struct timespec now;
    calls++;
    zeros[calls] = calls;
    switch (value) {
    case 0: return (int)strlen(names[0]);
    case 1: qsort(numbers, 5, sizeof *numbers, compare); return numbers[0] * 10 + numbers[4];
    case 2: memset(copy, 'x', 99); copy[99] = 0; return (int)strlen(copy) + (memchr(copy, 'y', 99) != 0);
    case 3: return way(100) - twice(100) + table[3] + counter;
    case 4: current = names[2]; return snprintf(copy, sizeof copy, "%s-%s-%d", current, names[1], zeros[calls]);
    case 5: errno = 0; return clock_gettime(12345, &now) == -1 && errno == EINVAL;
    case 6: return getenv("PATH") != 0 && environ != 0;
    case 7: return (int)strtol("77", &end, 10) + (stdout != 0);
    case 8: fputs("", stderr); return bsearch(&numbers[2], numbers, 5, sizeof *numbers, compare) != 0;
    default: return -calls;
    }
}
"""
    with Running(programs[linkage]) as running:
        assert running.ask("1") == "42"
        patch = make_patch(tmp_path, programs[linkage], fixed, ["answer"])
        assert _activated(patch, running).error is None
        found = [running.ask(str(value)) for value in range(10)]
        assert found == ["6", "19", "99", "44", "9", "1", "1", "78", "1", "-10"]


@pytest.mark.parametrize("linkage", LINKAGES)
def test_addresses_are_those_of_the_dynamic_linker(programs: dict[str, Path], linkage: str) -> None:
    """Names, and versions of names, lead where dlsym and dlvsym lead in the same process."""
    with Running(programs[linkage]) as running, Process(running.pid) as process:
        objects = mapped_objects(process.memory, process.maps())
        target = find_object(objects, next(one.build_id for one in objects if one.path == str(programs[linkage])), "")
        resolver = Resolver(process, target, objects)
        for name in NAMES.split():
            bare, _at, version = name.partition("@")
            reference = Reference(name, "external", bare, version=version)
            assert "%#x" % resolver._address(reference) == running.ask("&" + name), name


@pytest.mark.parametrize(
    ("kind", "name", "why"),
    [("void *inflateEnd", "inflateEnd", "no library"), ("long time", "time", "IFUNC")],
)
def test_what_the_process_does_not_have(
    tmp_path: Path, programs: dict[str, Path], kind: str, name: str, why: str
) -> None:
    """A function of a library that is not there, or one whose variant nobody in the process has chosen yet, is refused
    by its name, and nothing is left in the process.
    """
    fixed = "extern %s(const char *);\nint answer(const char *text) { return %s(text) != 0; }" % (kind, name)
    with Running(programs["now"]) as running:
        patch = make_patch(tmp_path, programs["now"], fixed, ["answer"])
        outcome = load_patch(patch, Selection(pids=(running.pid,))).outcomes[0]
        assert outcome.error is not None
        assert outcome.error["code"] == "symbol_not_found"
        assert name in outcome.error["message"]
        assert why in outcome.error["message"]
        assert not livepatch_mappings(running.pid)
        assert running.ask("1") == "42"


def test_a_file_that_is_only_read_is_no_object(tmp_path: Path) -> None:
    """A program that maps its own file to read it (to look up symbols) is patched as if it did not."""
    source = PROGRAM.replace("int main(void) {", "#include <fcntl.h>\n#include <sys/mman.h>\nint main(void) {").replace(
        'puts("ready");',
        'mmap(0, 4096, PROT_READ, MAP_PRIVATE, open("/proc/self/exe", O_RDONLY), 0);\n'
        'mmap(0, 16000, PROT_READ, MAP_PRIVATE, open("/proc/self/exe", O_RDONLY), 0); puts("ready");',
    )
    program = compile_program(tmp_path, "program", source)
    with Running(program) as running:
        patch = make_patch(tmp_path, program, "int answer(const char *text) { return 5; }", ["answer"])
        assert _activated(patch, running).error is None
        assert running.ask("1") == "5"
