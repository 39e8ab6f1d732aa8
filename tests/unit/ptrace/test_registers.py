# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Registers, vector state, signal mask and alternate stack of a thread, after stops, calls, and the tool's death."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Callable

import pytest
from patching import Running, compile_program, make_patch
from programs import call_in_each_thread, stop_all
from snapshots import descriptors, states, tracers

from module_utils._engine.activate import Limits
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch, unload_patch
from module_utils._engine.outcome import Report
from module_utils._process.process import Process
from module_utils._process.selection import Selection
from module_utils._ptrace import injected_call
from module_utils._ptrace import x86_64 as arch

# One thread spins with known values in every general, vector, mask and x87 register, the red zone, the flags, MXCSR,
# the x87 control word and the base of gs, and looks at them in each round; it is the leader, so that it is the one
# that makes the calls. Another one answers.
SPINNER = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
static volatile long rounds, wrong;
static volatile int asked;
uint64_t values[64][8], seen[64][8], general[16], masks[8];
long double floats[8], same_floats[8];
uint16_t float_control = 0x0f7f, same_float_control; /* round to zero, extended precision */
static char other_stack[65536];

#if VECTOR == 512
#define MOVE "vmovdqu64"
#define REG "zmm"
#define COUNT 32
#define EACH_MASK(DO) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7)
#define EACH(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11) DO(12) DO(13) DO(14) DO(15) \
    DO(16) DO(17) DO(18) DO(19) DO(20) DO(21) DO(22) DO(23) DO(24) DO(25) DO(26) DO(27) DO(28) DO(29) DO(30) DO(31)
#else
#if VECTOR == 256
#define MOVE "vmovdqu"
#define REG "ymm"
#else
#define MOVE "movdqu"
#define REG "xmm"
#endif
#define COUNT 16
#define EACH_MASK(DO)
#define EACH(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11) DO(12) DO(13) DO(14) DO(15)
#endif
#define TAKE(n) MOVE " values+64*" #n "(%%rip), %%" REG #n "\n"
#define TAKE_MASK(n) "kmovq values+64*" #n "+8(%%rip), %%k" #n "\n"
#define GIVE_MASK(n) "kmovq %%k" #n ", masks+8*" #n "(%%rip)\n"
#define TAKE_FLOAT(n) "fldt floats+16*(7-" #n ")(%%rip)\n"
#define GIVE_FLOAT(n) "fstpt same_floats+16*" #n "(%%rip)\n"
#define EACH_FLOAT(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7)
#define GIVE(n) MOVE " %%" REG #n ", seen+64*" #n "(%%rip)\n"

__attribute__((noinline, noipa)) int work(int x) { return x + (int)getpid() * 0 + 1; }
__attribute__((noinline)) static void round_of_spinning(void) {
    memset(seen, 0, sizeof seen);
    memset(general, 0, sizeof general);
    memset(masks, 0, sizeof masks);
    memset(same_floats, 0, sizeof same_floats);
    __asm__ volatile(
        EACH(TAKE)
        EACH_MASK(TAKE_MASK)
        "fninit\n fldcw float_control(%%rip)\n"
        EACH_FLOAT(TAKE_FLOAT)
        "push %%rbp\n push %%rbx\n"
        "movabs $0x1111111111111111, %%rbx\n movabs $0x2222222222222222, %%rdx\n movabs $0x3333333333333333, %%rsi\n"
        "movabs $0x4444444444444444, %%rdi\n movabs $0x5555555555555555, %%rbp\n movabs $0x6666666666666666, %%r8\n"
        "movabs $0x7777777777777777, %%r9\n movabs $0x8888888888888888, %%r10\n movabs $0x9999999999999999, %%r11\n"
        "movabs $0xaaaaaaaaaaaaaaaa, %%r12\n movabs $0xbbbbbbbbbbbbbbbb, %%r13\n movabs $0xcccccccccccccccc, %%r14\n"
        "movabs $0xdddddddddddddddd, %%r15\n movabs $0xeeeeeeeeeeeeeeee, %%rax\n mov $200000, %%ecx\n"
        "mov %%rax, -8(%%rsp)\n mov %%rbx, -120(%%rsp)\n stc\n"
        "1: lea -1(%%rcx), %%rcx\n jrcxz 2f\n jmp 1b\n"
        "2: mov %%rax, general(%%rip)\n setc general+120(%%rip)\n"
        "mov %%rbx, general+8(%%rip)\n mov %%rdx, general+16(%%rip)\n mov %%rsi, general+24(%%rip)\n"
        "mov %%rdi, general+32(%%rip)\n mov %%rbp, general+40(%%rip)\n mov %%r8, general+48(%%rip)\n"
        "mov %%r9, general+56(%%rip)\n mov %%r10, general+64(%%rip)\n mov %%r11, general+72(%%rip)\n"
        "mov %%r12, general+80(%%rip)\n mov %%r13, general+88(%%rip)\n mov %%r14, general+96(%%rip)\n"
        "mov %%r15, general+104(%%rip)\n"
        "mov -8(%%rsp), %%rax\n xor %%rax, general(%%rip)\n mov -120(%%rsp), %%rbx\n xor %%rbx, general+8(%%rip)\n"
        "pop %%rbx\n pop %%rbp\n"
        EACH(GIVE)
        EACH_MASK(GIVE_MASK)
        "fnstcw same_float_control(%%rip)\n"
        EACH_FLOAT(GIVE_FLOAT)
        "fninit\n"
        ::: "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");
    static const uint64_t expected[16] = {0, 0, 0x2222222222222222, 0x3333333333333333, 0x4444444444444444,
        0x5555555555555555, 0x6666666666666666, 0x7777777777777777, 0x8888888888888888, 0x9999999999999999,
        0xaaaaaaaaaaaaaaaa, 0xbbbbbbbbbbbbbbbb, 0xcccccccccccccccc, 0xdddddddddddddddd, 0, 1};
    if (memcmp(expected, general, sizeof general)) wrong |= 1;
    for (int index = 0; index < COUNT; index++)
        if (memcmp(values[index], seen[index], VECTOR / 8)) wrong |= 2;
    for (int index = 1; index < 8 && VECTOR == 512; index++) if (masks[index] != values[index][1]) wrong |= 32;
    for (int index = 0; index < 8; index++) if (memcmp(&floats[index], &same_floats[index], 10)) wrong |= 64;
    if (same_float_control != float_control) wrong |= 128;
    rounds++;
}

static void *answer(void *nothing) {
    char line[100];
    while (fgets(line, sizeof line, stdin)) {
        long before = rounds;
        while (rounds < before + 3) usleep(1000);
        asked = 1;
        while (asked) usleep(1000);
        printf("%ld\n", wrong + (work(1) - 2) * 1000);
    }
    _exit(0);
}

int main(void) {
    pthread_t thread;
    stack_t mine = {.ss_sp = other_stack, .ss_size = sizeof other_stack}, now;
    sigset_t mask, blocked;
    uint64_t base = 0;
    unsigned control = 0x9fc0, status; /* round to negative, flush to zero, all exceptions masked */
    setvbuf(stdout, 0, _IOLBF, 0);
    pthread_create(&thread, 0, answer, 0);
    sigaltstack(&mine, 0);
    sigemptyset(&mask); sigaddset(&mask, SIGHUP); sigaddset(&mask, SIGRTMIN + 3);
    pthread_sigmask(SIG_SETMASK, &mask, 0);
    __asm__ volatile("ldmxcsr %0" :: "m"(control));
    for (int index = 0; index < 64; index++)
        for (int part = 0; part < 8; part++) values[index][part] = 0x0123456789abcdefu * (index * 8 + part + 1);
    for (int index = 0; index < 8; index++) floats[index] = 1.0L / (index + 3);
    syscall(SYS_arch_prctl, 0x1001 /* ARCH_SET_GS */, 0x123456789000);
    puts("ready");
    for (;;) {
        round_of_spinning();
        if (!asked) continue;
        __asm__ volatile("stmxcsr %0" : "=m"(status));
        sigaltstack(0, &now);
        pthread_sigmask(SIG_SETMASK, 0, &blocked);
        if ((status & ~0x3fu) != control) wrong |= 4;
        if (now.ss_sp != mine.ss_sp || now.ss_size != mine.ss_size || now.ss_flags) wrong |= 8;
        if (memcmp(&mask, &blocked, 8)) wrong |= 16;
        syscall(SYS_arch_prctl, 0x1004 /* ARCH_GET_GS */, &base);
        if (base != 0x123456789000) wrong |= 256;
        asked = 0;
    }
}
"""


def _widest() -> int:
    flags = Path("/proc/cpuinfo").read_text()
    return 512 if " avx512bw " in flags else 256 if " avx " in flags else 128


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    wide = _widest()
    machine = {512: "-mavx512bw", 256: "-mavx"}.get(wide, "-msse2")
    folder = tmp_path_factory.mktemp("spinner")
    return compile_program(folder, "spinner", SPINNER, "-DVECTOR=%d" % wide, machine, "-w", "-no-pie", "-mno-red-zone")


def test_state_survives_stops_and_calls(program: Path) -> None:
    """100 stops and 100 calls in a thread that spins: nothing that it holds has changed."""
    with Running(program) as running, Process(running.pid) as process:
        assert running.ask("before") == "0"
        for _turn in range(100):
            stop_all(process)
        assert running.ask("stopped") == "0"
        for _turn in range(50):
            call_in_each_thread(process)
        assert running.ask("called") == "0"


@pytest.mark.parametrize(
    ("forms", "consistency"), [(("byte", "jump"), "entry"), (("jump",), "atomic")], ids=["byte", "stop"]
)
def test_state_survives_a_patch(program: Path, tmp_path: Path, forms: tuple[str, ...], consistency: str) -> None:
    """A patch is loaded, switched there and back, and unloaded: nothing that the spinning thread holds has changed."""
    fixed = "#include <unistd.h>\nint work(int x) { return x + (int)getpid() * 0 + 6; }"
    patch = make_patch(tmp_path, program, fixed, ["work"])
    with Running(program) as running:
        chosen, limits = Selection(pids=(running.pid,)), Limits(max_stop=5.0, timeout=30.0, consistency=consistency)
        for _turn in range(3):
            _must(load_patch(patch, chosen, forms=forms))
            for _switch in range(3):
                _must(activate_patch("fix", chosen, limits))
                assert running.ask("active") == "5000"
                _must(deactivate_patch("fix", chosen, limits))
            _must(unload_patch("fix", chosen, 30.0))
            assert running.ask("unloaded") == "0"


def _must(report: Report) -> None:
    (outcome,) = report.outcomes
    assert (outcome.error, outcome.changed, outcome.verified) == (None, True, True)


# Every touch of a thread on the way of a call; each is a point at which we may die.
_POINTS = (
    "set_register_set",
    "set_signal_mask",
    "resume_to_syscall",
    "_wait",
    "get_register_set",
    "interrupt",
    "resume",
)


def _die_at(process: Process, point: int, after: bool) -> int:
    """Make a call in every thread, in a child that is killed before or after its n-th touch; how it ended."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    try:
        left = [point]

        def deadly(work: Callable[..., object]) -> Callable[..., object]:
            def touch(*arguments: object) -> object:
                left[0] -= 1
                if left[0] == 0 and not after:
                    os.kill(os.getpid(), signal.SIGKILL)
                result = work(*arguments)
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            return touch

        for name in _POINTS:
            if hasattr(injected_call, name):
                setattr(injected_call, name, deadly(getattr(injected_call, name)))
        injected_call.InjectedCalls._wait = deadly(injected_call.InjectedCalls._wait)  # type: ignore[method-assign,assignment]
        call_in_each_thread(process)
        os._exit(0)
    except BaseException:
        os._exit(99)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_state_survives_the_death_of_the_tool(program: Path, after: bool) -> None:
    """The tool is killed at each of its touches of a call in turn: the thread goes on with all that it had."""
    _die_everywhere(program, after)


def test_so_it_does_on_a_processor_without_xsave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no more to be kept than x87 and SSE: the frame of such a processor has it all."""
    monkeypatch.setattr(arch, "own_xstate_size", lambda: 512)
    _die_everywhere(compile_program(tmp_path, "plain", SPINNER, "-DVECTOR=128", "-w", "-no-pie", "-mno-red-zone"), True)


def _die_everywhere(program: Path, after: bool) -> None:
    with Running(program) as running, Process(running.pid) as process:
        open_before = descriptors(running.pid)
        deaths = 0
        while True:
            status = _die_at(process, deaths + 1, after)
            if status == 0:
                break
            assert os.WIFSIGNALED(status), status
            assert os.WTERMSIG(status) == signal.SIGKILL
            deaths += 1
            assert running.ask("after death %d" % deaths) == "0", deaths
            assert tracers(running.pid) == {"0"}
            assert "t" not in states(running.pid)
        assert deaths > 30
        assert descriptors(running.pid) == open_before
