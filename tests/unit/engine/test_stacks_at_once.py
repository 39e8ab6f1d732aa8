# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The look at all stacks together never says that nobody is inside where a look at each by itself finds somebody."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, TypeVar

import pytest
from patching import Running, compile_program

from module_utils._engine import threads_inside as by_itself
from module_utils._engine.find_addresses import Addresses
from module_utils._engine.stacks_at_once import not_sure
from module_utils._process.maps import Mapping
from module_utils._process.process import Process
from module_utils._ptrace.stop_all_threads import stopped
from module_utils._ptrace.tracer import as_tracer

_Result = TypeVar("_Result")
# No word of any program by chance.
NOWHERE = Addresses(((0x1A2B3C4D5E60, 0x1A2B3C4D5E70),))

# THREADS threads sleep, each under so many calls; with a third word, one of them in a handler on a stack of its own.
PROGRAM = r"""
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static pthread_barrier_t ready;
static int in_handler;
static __attribute__((noinline)) void wait_for_ever(void)
{
    pthread_barrier_wait(&ready);
    for (;;) pause();
}
static void handler(int number) { (void)number; wait_for_ever(); }
static __attribute__((noinline)) int sleep_below(int depth)
{
    volatile char room[200];
    memset((char *)room, 1, sizeof room);
    if (!depth) {
        if (!__sync_bool_compare_and_swap(&in_handler, 1, 0)) wait_for_ever();
        static char other[1 << 16];
        stack_t stack = {.ss_sp = other, .ss_size = sizeof other};
        struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
        sigaltstack(&stack, 0);
        sigaction(SIGUSR1, &action, 0);
        raise(SIGUSR1);
    }
    return sleep_below(depth - 1) + room[depth % 200];
}
static void *run(void *depth) { sleep_below((int)(long)depth); return 0; }
int main(int count, char **words)
{
    int threads = atoi(words[1]), depth = atoi(words[2]);
    in_handler = count > 3;
    pthread_barrier_init(&ready, 0, threads + 1);
    for (int number = 0; number < threads; number++) {
        pthread_t thread;
        pthread_create(&thread, 0, run, (void *)(long)(depth - number % (depth + 1)));
    }
    pthread_barrier_wait(&ready);
    puts("ready");
    fflush(stdout);
    for (;;) pause();
}
"""


@pytest.fixture(name="program", scope="module")
def fixture_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program."""
    return compile_program(tmp_path_factory.mktemp("stacks"), "sleepers", PROGRAM, "-pthread")


def _while_stopped(pid: int, look: Callable[[list[Mapping], dict[int, bytes], Process], _Result]) -> _Result:
    with Process(pid) as process:

        def work() -> _Result:
            mappings = process.maps()
            with stopped(process, 20.0) as window:
                return look(mappings, window.registers, process)

        return as_tracer(work)


def _pages_of_code(mappings: list[Mapping]) -> list[Addresses]:
    return [
        Addresses(((start, start + 256),))
        for mapping in mappings
        if mapping.is_executable()
        for start in range(mapping.start, mapping.end, 256)
    ]


@pytest.mark.parametrize("words", [("40", "9"), ("40", "9", "handler"), ("3", "0")], ids=" ".join)
def test_wherever_somebody_is_it_is_not_sure(
    program: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All code of the program and its libraries, in pieces of 256 bytes: who is found in each, both ways."""

    def look(mappings: list[Mapping], registers: dict[int, bytes], process: Process) -> list[tuple[set[int], set[int]]]:
        unsure = [set(not_sure(mappings, registers, one, lambda: None)) for one in _pages_of_code(mappings)]
        monkeypatch.setattr(by_itself, "not_sure", lambda *_arguments: list(registers))
        inside = [
            {found.tid for found in by_itself.threads_inside(process, mappings, registers, one, lambda: None)}
            for one in _pages_of_code(mappings)
        ]
        return list(zip(unsure, inside))

    with Running(program, *words) as running:
        found = _while_stopped(running.pid, look)
    assert len(found) > 3000
    assert sum(bool(inside) for _unsure, inside in found) >= 4
    assert all(inside <= unsure for unsure, inside in found)
    # It is of use: nearly everywhere it is sure, of all but who is in a handler and was looked at together with that.
    assert sum(not unsure for unsure, _inside in found) > len(found) * 0.99 or "handler" in words


@pytest.mark.parametrize(("threads", "depth"), [(1, 2000), (1200, 3), (300, 40)])
def test_deep_stacks_and_many(program: Path, threads: int, depth: int) -> None:
    """A stack that is too deep to be read with others, and more than one call can read, by number or by size."""

    def look(mappings: list[Mapping], registers: dict[int, bytes], process: Process) -> tuple[int, int, int]:
        everywhere = Addresses(((mappings[0].start, mappings[0].end + (1 << 16)),))
        asked: list[int] = []
        unsure = not_sure(mappings, registers, NOWHERE, lambda: asked.append(1))
        assert not by_itself.threads_inside(process, mappings, registers, NOWHERE, lambda: None)
        assert sorted(not_sure(mappings, registers, everywhere, lambda: None)) == sorted(registers)
        return len(unsure), len(registers), len(asked)

    with Running(program, str(threads), str(depth)) as running:
        unsure, every, asked = _while_stopped(running.pid, look)
    assert every == threads + 1
    assert unsure == (1 if depth == 2000 else 0)
    assert (asked > 3) is (threads > 1)


def test_what_cannot_be_read_is_not_sure(program: Path) -> None:
    """Mappings that are not as they were: a stack that is not there, one that ends elsewhere, none at all."""

    def look(mappings: list[Mapping], registers: dict[int, bytes], _process: Process) -> list[int]:
        longer = [one._replace(end=one.end + (1 << 14)) if one.path == "[stack]" else one for one in mappings]
        without = [one for one in mappings if one.path != "[stack]"]
        given = (mappings, longer, without, [])
        return [len(not_sure(one, registers, NOWHERE, lambda: None)) for one in given]

    with Running(program, "2", "2") as running:
        assert _while_stopped(running.pid, look) == [0, 3, 1, 3]
