# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may come back into code, or uses data, and is no thread: coroutines that sleep, and pointers that are kept.

They are found, named, and waited for; what calls that returned and threads that ended have left behind is not taken
for them.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
from patching import Running, compile_program, livepatch_mappings, make_patch

from module_utils._engine import make_switch, memory_inside
from module_utils._engine.activate import Limits
from module_utils._engine.memory_inside import MemoryScan
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch, unload_patch
from module_utils._engine.outcome import Outcome
from module_utils._engine.region import find_region, find_regions
from module_utils._engine.threads_inside import anyone_inside
from module_utils._patch.content import Patch
from module_utils._process.memory import Memory
from module_utils._process.process import Process
from module_utils._process.selection import Selection
from module_utils._ptrace.tracer import as_tracer

# One letter a line: (s)leep inside `work` as a coroutine on a stack of the kind named, (r)esume and end it, (w)ork,
# (k)eep what `choose` returns, (f)orget it, run `work` in a (t)hread that ends, (j)umping coroutine: sleeps and resumes
# all the time, until (e)nd.
PROGRAM = r"""
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
enum { SIZE = 1 << 16 };
static ucontext_t outside, sleeper;
static char fixed[SIZE] __attribute__((aligned(64)));
static int in_coroutine;
static volatile int jumping, turns;
static void **kept;
__attribute__((noinline, noipa)) void rest(void)
{
    if (in_coroutine) {
        in_coroutine = 0;
        swapcontext(&sleeper, &outside);
        __asm__ volatile("");
    }
}
__attribute__((noinline, noipa)) int work(int times) { while (times--) rest(); return 1; }
__attribute__((noinline, noipa)) void *choose(void) { return 0; }
static void *no_function(void) { return 0; }
static void entry(void) { work(1); __asm__ volatile(""); }
static void *jumper(void *stack)
{
    getcontext(&sleeper);
    sleeper.uc_stack.ss_sp = stack;
    sleeper.uc_stack.ss_size = SIZE;
    sleeper.uc_link = &outside;
    makecontext(&sleeper, (void (*)(void))work, 1, 1 << 30);
    while (jumping) { in_coroutine = 1; turns++; swapcontext(&outside, &sleeper); }
    return 0;
}
static void *once(void *nothing)
{
    char deep[3000];
    memset(deep, 1, sizeof deep);
    __asm__ volatile("" :: "r"(deep) : "memory");
    work(0);
    return 0;
}
static void *secret(void)
{
    int file = syscall(447 /* memfd_secret */, 0);
    if (file < 0 || ftruncate(file, SIZE)) return 0;
    return mmap(0, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
}
static void *ring(void)
{
    unsigned parameters[30] = {0};
    int file = syscall(425 /* io_uring_setup */, 8, parameters);
    return file < 0 ? 0 : mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file, 0);
}
static void *stack_of(char kind)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    void *stack = kind == 'h' ? malloc(SIZE)          /* in the heap */
        : kind == 'l' ? malloc(SIZE << 8)             /* so large that malloc maps it */
        : kind == 'f' ? fixed
        : kind == 'x' ? secret()
        : mmap(0, SIZE, PROT_READ | PROT_WRITE, kind == 's' ? flags ^ MAP_PRIVATE ^ MAP_SHARED : flags, -1, 0);
    if (stack) memset(stack, 0, SIZE);
    return stack;
}
int main(int count, char **words)
{
    char line[64], *stack = 0;
    pthread_t thread;
    size_t heap = count > 1 ? strtoul(words[1], 0, 0) << 20 : 0;
    if (heap) {
        unsigned long *words = malloc(heap);
        for (size_t at = 0; at < heap / sizeof *words; at++) words[at] = at % 3 ? (unsigned long)&words[at] : at;
    }
    kept = calloc(4, sizeof *kept);
    setvbuf(stdout, 0, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) switch (line[0]) {
    case 's':
        stack = stack_of(line[1]);
        if (!stack) {
            puts("0");
            break;
        }
        getcontext(&sleeper);
        sleeper.uc_stack.ss_sp = stack;
        sleeper.uc_stack.ss_size = SIZE;
        sleeper.uc_link = &outside;
        makecontext(&sleeper, entry, 0);
        in_coroutine = 1;
        swapcontext(&outside, &sleeper);
        if (line[1] == 'p') mprotect(stack, SIZE, PROT_READ);
        printf("%p\n", stack);
        break;
    case 'r':
        mprotect((void *)((unsigned long)stack & -4096), SIZE, PROT_READ | PROT_WRITE);
        swapcontext(&outside, &sleeper);
        memset(stack, 0, SIZE);
        memset(&sleeper, 0, sizeof sleeper);
        puts("resumed");
        break;
    case 'k':
        kept[2] = choose();
        printf("%p\n", (void *)&kept[2]);
        break;
    case 'f':
        kept[2] = (void *)no_function;
        puts("forgotten");
        break;
    case 't':
        pthread_create(&thread, 0, once, 0);
        pthread_join(thread, 0);
        puts("ended");
        break;
    case 'i':
        printf("%p\n", ring());
        break;
    case 'h':
        puts(munmap(stack + 3 * 4096, 4096) ? "whole" : "holed");
        break;
    case 'u':
        puts(munmap(stack, SIZE) ? "mapped" : "unmapped");
        break;
    case 'j':
        jumping = 1;
        pthread_create(&thread, 0, jumper, stack = stack_of('m'));
        while (turns < 1000) usleep(100);
        puts("jumping");
        break;
    case 'e':
        jumping = 0;
        pthread_join(thread, 0);
        memset(stack, 0, SIZE);
        memset(&sleeper, 0, sizeof sleeper);
        puts("ended");
        break;
    default:
        printf("%d\n", work(0));
    }
    return 0;
}
"""
NEW_WORK = r"""
extern void rest(void);
int work(int times) { while (times--) rest(); return 2; }
"""
CALLBACK = r"""
static int number(void) { return 5; }
void *choose(void) { return (void *)number; }
"""
CONSTANT = r"""
void *choose(void) { return "a text of the patch"; }
"""
VALUE = r"""
static int counted;
void *choose(void) { counted++; return &counted; }
"""
AT = re.compile(r"at (0x[0-9a-f]+) \((.*?)\) that leads into")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_program(tmp_path_factory.mktemp("program"), "program", PROGRAM)


def _only(outcomes: list[Outcome]) -> Outcome:
    (outcome,) = outcomes
    return outcome


def _refused(outcome: Outcome, state: str) -> str:
    """The message of an outcome that is a refusal for someone inside."""
    assert outcome.error is not None
    assert outcome.error["code"] == "function_busy"
    assert (outcome.state, outcome.changed, outcome.stop_us) == (state, False, 0)
    return outcome.error["message"]


def _loaded(running: Running, patch: Patch) -> Selection:
    meant = Selection(pids=(running.pid,))
    assert load_patch(patch, meant).summary()["failed"] == 0
    return meant


def _place_named(message: str) -> tuple[int, str]:
    match = AT.search(message)
    assert match, message
    return int(match.group(1), 16), match.group(2)


# kind of stack, what the error calls the memory: malloc'ed, mapped, in the program's own data, shared, protected
STACKS = {"h": r"\[heap\]", "l": "anonymous", "m": "anonymous", "f": "program|anonymous", "s": "/dev/zero", "p": "anon"}


@pytest.mark.parametrize("kind", sorted(STACKS))
def test_a_coroutine_asleep_in_the_old_code(tmp_path: Path, program: Path, kind: str) -> None:
    """Quiescent refuses for it, stops nobody for it, and says where it lies; once it is through, the switch is made."""
    patch = make_patch(tmp_path, program, NEW_WORK, ["work"], consistency="quiescent")
    with Running(program) as running:
        meant = _loaded(running, patch)
        stack = int(running.ask("s" + kind), 16)
        refused = _only(activate_patch("fix", meant, Limits(timeout=0.2)).outcomes)
        message = _refused(refused, "loaded")
        place, area = _place_named(message)
        assert stack <= place < stack + (1 << 16)
        assert re.search(STACKS[kind], area), area
        assert ", work+0x" in message
        assert "suspended coroutine" in message
        assert "scanned" in message
        assert re.search(r"From there up: work\+0x.* < entry\+0x", message), message
        assert refused.attempts >= 2
        assert running.ask("w") == "1"
        assert running.ask("r") == "resumed"
        assert _only(activate_patch("fix", meant, Limits()).outcomes).error is None
        assert running.ask("w") == "2"
        # the other way round: asleep in the new code
        assert running.ask("s" + kind)
        message = _refused(_only(deactivate_patch("fix", meant, Limits(timeout=0.2)).outcomes), "active")
        assert "work of patch fix+0x" in message
        assert running.ask("r") == "resumed"
        assert _only(deactivate_patch("fix", meant, Limits()).outcomes).error is None
        assert unload_patch("fix", meant, 5).summary()["failed"] == 0
        assert running.ask("w") == "1"


@pytest.mark.parametrize("kind", sorted(STACKS))
def test_a_coroutine_asleep_in_the_patch(tmp_path: Path, program: Path, kind: str) -> None:
    """The patch is not unloaded under it, and what it comes back to is still there."""
    patch = make_patch(tmp_path, program, NEW_WORK, ["work"])
    with Running(program) as running:
        meant = _loaded(running, patch)
        activate_patch("fix", meant, Limits())
        stack = int(running.ask("s" + kind), 16)
        assert _only(deactivate_patch("fix", meant, Limits()).outcomes).error is None
        message = _refused(_only(unload_patch("fix", meant, 0.2).outcomes), "loaded")
        place, _area = _place_named(message)
        assert stack <= place < stack + (1 << 16)
        assert "leads into patch fix" in message
        assert running.ask("w") == "1"
        assert running.ask("r") == "resumed"
        done = _only(unload_patch("fix", meant, 5).outcomes)
        assert (done.error, done.state) == (None, "absent")
        assert done.hold_us > 0
        assert livepatch_mappings(running.pid) == []
        assert running.ask("w") == "1"


def test_memory_that_cannot_be_read(tmp_path: Path, program: Path) -> None:
    """Memory that is hidden even from the kernel, with a coroutine in it: not knowing counts as busy."""
    patch = make_patch(tmp_path, program, NEW_WORK, ["work"])
    with Running(program) as running:
        meant = _loaded(running, patch)
        activate_patch("fix", meant, Limits())
        stack = int(running.ask("sx"), 0)
        if not stack:
            pytest.skip("the kernel has no memfd_secret, or it is not enabled")
        deactivate_patch("fix", meant, Limits())
        message = _refused(_only(unload_patch("fix", meant, 0.2).outcomes), "loaded")
        assert "at %#x (/secretmem" % stack in message
        assert "cannot be read" in message
        assert running.ask("r") == "resumed"
        assert running.ask("u") == "unmapped"
        assert unload_patch("fix", meant, 5).summary()["failed"] == 0


def test_memory_that_is_given_back_meanwhile(tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page in the middle of what is being read goes away: what lies behind it is read all the same."""
    patch = make_patch(tmp_path, program, NEW_WORK, ["work"])
    with Running(program) as running:
        meant = _loaded(running, patch)
        activate_patch("fix", meant, Limits())
        stack = int(running.ask("sm"), 16)
        deactivate_patch("fix", meant, Limits())
        read = Memory.read_some

        def meddling(memory: Memory, address: int, size: int) -> bytes:
            if address <= stack + 3 * 4096 < address + size and holes.count("holed") == 0:
                holes.append(running.ask("h"))
            return read(memory, address, size)

        holes: list[str] = []
        monkeypatch.setattr(Memory, "read_some", meddling)
        place, _area = _place_named(_refused(_only(unload_patch("fix", meant, 0.0).outcomes), "loaded"))
        assert stack + 4 * 4096 < place < stack + (1 << 16)
        assert _mapping_count(running.pid, stack) == 2


def _mapping_count(pid: int, start: int) -> int:
    """How many mappings there are of a stack that was one."""
    lines = Path("/proc/%d/maps" % pid).read_text().splitlines()
    return sum(start <= int(line.split("-")[0], 16) < start + (1 << 16) for line in lines)


def test_memory_shared_with_the_kernel(tmp_path: Path, program: Path) -> None:
    """The rings of io_uring do not keep a patch from being unloaded."""
    patch = make_patch(tmp_path, program, NEW_WORK, ["work"])
    with Running(program) as running:
        meant = _loaded(running, patch)
        if int(running.ask("i"), 0) in (0, (1 << 64) - 1):
            pytest.skip("the kernel has no io_uring, or it is not allowed")
        assert "[io_uring]" in Path("/proc/%d/maps" % running.pid).read_text()
        assert unload_patch("fix", meant, 0.2).summary()["failed"] == 0


def test_one_that_falls_asleep_at_the_last_moment(
    tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quiescent looks again when nobody can move any more: between its look and the stop, one went to sleep inside."""
    patch = make_patch(tmp_path, program, NEW_WORK, ["work"], consistency="quiescent")
    limits = Limits(max_stop=5.0, timeout=0.0)
    with Running(program) as running:
        meant = _loaded(running, patch)
        stop = make_switch.stopped

        def late(process: Process, budget: float) -> Any:
            running.ask("sm")
            return stop(process, budget)

        with monkeypatch.context() as meddling:
            meddling.setattr(make_switch, "stopped", late)
            refused = _only(activate_patch("fix", meant, limits).outcomes)
        assert refused.error is not None
        assert "From there up: work+0x" in refused.error["message"]
        assert refused.stop_us > 0
        assert running.ask("w") == "1"
        assert running.ask("r") == "resumed"
        assert _only(activate_patch("fix", meant, limits).outcomes).error is None


def test_a_coroutine_that_never_rests(tmp_path: Path, program: Path) -> None:
    """One that goes in and out of sleep inside the patch, as fast as it can, is found each time it is asked for."""
    patch = make_patch(tmp_path, program, NEW_WORK, ["work"])
    with Running(program) as running:
        meant = _loaded(running, patch)
        activate_patch("fix", meant, Limits())
        assert running.ask("j") == "jumping"
        # quiescent does not find a moment without it, either
        for _turn in range(10):
            refused = _only(deactivate_patch("fix", meant, Limits(0.1, 0.0, "quiescent")).outcomes)
            assert refused.error is not None
            assert refused.error["code"] == "function_busy"
        assert _only(deactivate_patch("fix", meant, Limits()).outcomes).error is None
        for _turn in range(30):
            _refused(_only(unload_patch("fix", meant, 0.0).outcomes), "loaded")
        assert running.alive()
        assert running.ask("e") == "ended"
        assert unload_patch("fix", meant, 5).summary()["failed"] == 0
        assert running.ask("w") == "1"


@pytest.mark.parametrize("source", [CALLBACK, CONSTANT, VALUE], ids=["callback", "constant", "value"])
def test_what_the_program_keeps_of_the_patch(tmp_path: Path, program: Path, source: str) -> None:
    """A pointer to its code, its constants or its data, in the heap: unloading waits until it is given up."""
    patch = make_patch(tmp_path, program, source, ["choose"])
    with Running(program) as running:
        meant = _loaded(running, patch)
        activate_patch("fix", meant, Limits())
        kept_at = int(running.ask("k"), 16)
        assert _only(deactivate_patch("fix", meant, Limits()).outcomes).error is None
        message = _refused(_only(unload_patch("fix", meant, 0.2).outcomes), "loaded")
        assert _place_named(message) == (kept_at, "[heap]")
        assert "a pointer that it keeps" in message
        assert len(livepatch_mappings(running.pid)) > 0
        assert running.ask("f") == "forgotten"
        assert unload_patch("fix", meant, 5).summary()["failed"] == 0
        assert livepatch_mappings(running.pid) == []
        assert running.ask("w") == "1"


def test_the_end_of_what_lies_below_the_patch(tmp_path: Path, program: Path) -> None:
    """Allocators keep where a mapping of theirs ends, which is where the patch begins: that leads to nothing of it."""
    patch = make_patch(tmp_path, program, CONSTANT, ["choose"])
    with Running(program) as running, Process(running.pid) as process:
        meant = _loaded(running, patch)
        place = int(running.ask("k"), 16)
        region = find_region(find_regions(process.memory, process.maps()), "fix")
        assert region is not None
        process.memory.write(place, (region.address + 1).to_bytes(8, "little"))
        assert _place_named(_refused(_only(unload_patch("fix", meant, 0.0).outcomes), "loaded"))[0] == place
        process.memory.write(place, region.address.to_bytes(8, "little"))
        assert unload_patch("fix", meant, 0.0).summary()["failed"] == 0


def test_a_counter_saved_by_a_signal(tmp_path: Path, program: Path) -> None:
    """The branches of a patch call nothing: who was interrupted in one is known by the frame of the signal alone."""
    patch = make_patch(tmp_path, program, NEW_WORK, ["work"])
    with Running(program) as running, Process(running.pid) as process:
        meant = _loaded(running, patch)
        area = int(running.ask("sf"), 16) + 4096
        assert running.ask("r") == "resumed"
        region = find_region(find_regions(process.memory, process.maps()), "fix")
        assert region is not None
        (branch,) = region.branches()
        assert branch != region.code_ranges()[0]
        selectors = b"\x33\0\0\0\0\0\x2b\0"
        process.memory.write(area, (branch[0] + 16).to_bytes(8, "little") + bytes(8) + selectors)
        assert _place_named(_refused(_only(unload_patch("fix", meant, 0.0).outcomes), "loaded"))[0] == area
        process.memory.write(area, bytes(24))
        assert unload_patch("fix", meant, 0.0).summary()["failed"] == 0


def test_a_thread_that_has_ended_is_not_inside(tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its stack, which the C library keeps, still leads into the patch. That keeps nothing from being unloaded."""
    patch = make_patch(tmp_path, program, NEW_WORK.replace("while (times--)", ""), ["work"])
    with Running(program) as running, Process(running.pid) as process:
        meant = _loaded(running, patch)
        activate_patch("fix", meant, Limits())
        assert running.ask("t") == "ended"
        assert _only(deactivate_patch("fix", meant, Limits()).outcomes).error is None
        region = find_region(find_regions(process.memory, process.maps()), "fix")
        assert region is not None
        everything = [(start, start + size) for start, size, _protection in region.parts]
        looks = as_tracer(lambda: anyone_inside(process, everything, 1.0))
        with monkeypatch.context() as without:
            # The counter-check: there is something to be taken for a coroutine.
            without.setattr(memory_inside, "ended_stack", lambda *_: None)
            assert MemoryScan(process, everything, [], everything).find(looks.tops) is not None
        assert unload_patch("fix", meant, 0.0).summary()["failed"] == 0
        assert running.ask("w") == "1"


def test_a_large_heap_is_looked_through_in_seconds(tmp_path: Path, program: Path) -> None:
    """A word in it is found, in the course of one unloading; nobody is held while it is read."""
    patch = make_patch(tmp_path, program, CALLBACK, ["choose"])
    with Running(program, "256") as running:
        meant = _loaded(running, patch)
        activate_patch("fix", meant, Limits())
        running.ask("k")
        deactivate_patch("fix", meant, Limits())
        _refused(_only(unload_patch("fix", meant, 0.0).outcomes), "loaded")
        running.ask("f")
        began = time.monotonic()
        done = _only(unload_patch("fix", meant, 5).outcomes)
        assert done.error is None
        assert time.monotonic() - began < 30  # 0.5 s on an idle machine
        assert done.hold_us < 100_000
