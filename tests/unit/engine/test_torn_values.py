# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A value across pages is several writes for the kernel: a tool that is killed between them leaves half of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Callable

import pytest
from libraries import refused
from patching import Running, compile_program, make_patch, symbols
from reports import well
from snapshots import snapshot

from module_utils._engine import make_switch
from module_utils._engine.activate import Limits, activate, deactivate
from module_utils._engine.image import PAGE
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch, unload_patch
from module_utils._patch.content import Patch
from module_utils._patch.manifest import ChangedValue
from module_utils._process.process import Process
from module_utils._process.selection import Selection

# A table that begins 100 bytes before the end of a page and ends in the third one, all of it 'o' for old.
SIZE = 100 + PAGE + 50
PROGRAM = r"""
#include <stdio.h>
__asm__(".data\n.p2align 12\n.skip 3996\n.globl table\n.type table,@object\ntable: .fill SIZE, 1, 'o'\n"
        ".size table,.-table\n.p2align 12\n.text");
extern volatile char table[SIZE];
__attribute__((noinline, noipa)) int answer(int x) { return x + 1; }
int main(void) {
    char line[100];
    setvbuf(stdout, 0, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        if (line[0] == '!') table[50] = '!';
        printf("%d %c%c%c\n", answer(0), table[0], table[100], table[SIZE - 1]);
    }
}
""".replace("SIZE", str(SIZE))
LIMITS = Limits(max_stop=5.0, timeout=20.0)
OLD, NEW = "1 ooo", "1000 nnn"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Patch]:
    folder = tmp_path_factory.mktemp("torn")
    program = compile_program(folder, "program", PROGRAM)
    value = ChangedValue("table", symbols(program)["table"][0], (b"o" * SIZE).hex(), (b"n" * SIZE).hex())
    fixed = "int answer(int x) { return x + 1000; }"
    return program, make_patch(folder, program, fixed, ["answer"], data=(value,), consistency="atomic")


def _die(pid: int, pages: int, change: Callable[..., object]) -> None:
    """In a child: switch, and die when so many pages of the table are written, and nothing else."""

    def write_some(memory: make_switch.Memory, writes: list[make_switch.Write]) -> None:
        (write,) = [write for write in writes if write.site.kind == "data"]
        memory.write(write.address, write.new[: (0, 100, 100 + PAGE)[pages]])
        os._exit(9)

    child = os.fork()
    if not child:
        try:
            make_switch._write_all = write_some
            with Process(pid) as process:
                change(process, "fix", LIMITS)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.parametrize("pages", [1, 2])
def test_the_next_run_makes_it_whole(made: tuple[Path, Patch], pages: int) -> None:
    """Both ways, and whether the next run is to do the same or the opposite."""
    program, patch = made
    with Running(program) as running:
        chosen = Selection(pids=(running.pid,))
        assert running.ask("?") == OLD
        before = snapshot(running.pid)
        well(load_patch(patch, chosen))
        for change, there, half in ((activate, OLD, "n" * pages + "o" * (3 - pages)), (deactivate, NEW, "")):
            for next_run, answer in ((activate_patch, NEW), (deactivate_patch, OLD)):
                well((deactivate_patch if there == OLD else activate_patch)("fix", chosen, LIMITS))
                assert running.ask("?") == there
                _die(running.pid, pages, change)
                half = half or "o" * pages + "n" * (3 - pages)
                assert running.ask("?").split()[1] == half
                well(next_run("fix", chosen, LIMITS))
                assert running.ask("?") == answer
        well(deactivate_patch("fix", chosen, LIMITS))
        well(unload_patch("fix", chosen, 20.0))
        assert running.ask("?") == OLD
        assert snapshot(running.pid) == before


def test_what_the_program_wrote_is_not_taken_for_it(made: tuple[Path, Patch]) -> None:
    """A value that the program itself has changed meanwhile is nobody else's to mend."""
    program, patch = made
    with Running(program) as running:
        chosen = Selection(pids=(running.pid,))
        well(load_patch(patch, chosen))
        _die(running.pid, 1, activate)
        assert running.ask("!") == "1 noo"
        assert refused(activate_patch("fix", chosen, LIMITS))[0] == "object_modified"
        assert refused(deactivate_patch("fix", chosen, LIMITS))[0] == "object_modified"
        assert running.ask("?") == "1 noo"
