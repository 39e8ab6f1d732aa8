# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Making a thread of the program do system calls for us, so that it survives our death at any instant.

No code of the program is run: a stopped thread may hold any lock. The thread enters the kernel at a `syscall; ret` that
the program has anyway. Before that, a signal frame with everything the thread was lies below its stack's red zone, and
the return address points to the C library's rt_sigreturn: if nobody is there when the call returns, the thread goes
through that frame back to where it was, signal mask, floating point and vector state included. The call it enters is
that very rt_sigreturn, which becomes another one only in the stop at its entry: if nobody is there then, it is made.

A thread's seccomp filters are suspended while it is held, and judge again if we die. All of them that let the program
take signals allow rt_sigreturn. There remains the instant from the stop at the entry until the thread has woken up and
passed them: who dies in it may leave a call to a filter that kills for it. The kernel has no way around this.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Callable, Iterator

from .._errors import LivepatchError
from .._process.maps import Mapping, mapping_at
from .._process.process import Process, real_time_priority
from . import x86_64 as arch
from .attach import is_confined, let_past_seccomp
from .gadgets import Gadgets, find_gadgets
from .hold_one_thread import LONGEST_HOLD, LOOK, HeldThread, held_thread
from .ptrace_requests import (
    NT_PRSTATUS,
    RegisterBuffer,
    get_register_set,
    get_signal_mask,
    in_restartable_sequence,
    interrupt,
    is_event_stop,
    is_syscall_stop,
    resume,
    resume_to_syscall,
    set_register_set,
    set_signal_mask,
    signal_of,
    suspend_seccomp,
)
from .wait import wait_until
from .watchdog import arm, disarm

# Room that must be free on the stack below the frame, bytes: none of it is used, it only tells a real stack from a
# scrap.
_STACK_ROOM = 8192
# How long one call may take before we give up (and leave the thread to its return frame), seconds.
_CALL_TIME = 5.0
# As far up a stack is looked for signal frames, bytes.
_MOST_LOOKED_AT = 1 << 20
_CALLERS_AT_ONCE = 128
_PATIENCE, _SHORTEST_WAIT = 1.0, 0.02
_ALL_SIGNALS = (1 << 64) - 1
# Extended state may take so many bytes; AMX alone takes 8 KiB.
_MOST_XSTATE = 16384


class InjectedCalls:
    """System calls made by one held thread; `held_us` is how long it was held, microseconds, known at the end."""

    held_us = 0

    def __init__(self, thread: HeldThread, gadgets: Gadgets, stack: int, xstate_size: int) -> None:
        self._thread = thread
        self._gadgets = gadgets
        self._stack = stack
        self._confined = let_past_seccomp(thread.process, thread.tid)
        self._mask = get_signal_mask(thread.tid)
        self._entered = False
        self._stop_again = 0
        self._in_gap = self._given_up = False
        xstate = get_register_set(thread.tid, arch.state_set(xstate_size), RegisterBuffer(_MOST_XSTATE))
        frame = arch.return_frame(stack, gadgets.restorer, thread.registers, self._mask, xstate, xstate_size)
        thread.process.memory.write(stack, frame)

    def call(self, name: str, *arguments: int) -> int:
        """What system call `name` returns to the program: a value, or a negative errno.

        Raises LivepatchError process_gone.
        """
        tid = self._thread.tid
        before, gadget, stack = self._thread.registers, self._gadgets.call, self._stack
        try:
            set_register_set(tid, NT_PRSTATUS, arch.entry_registers(before, gadget, stack))
            if not self._entered:
                self._entered = True
                set_signal_mask(tid, _ALL_SIGNALS)
            self._run_to_syscall_stop()
            with self._nobody_may_die():
                registers = arch.call_registers(before, gadget, stack, arch.SYSCALLS[name], arguments)
                set_register_set(tid, NT_PRSTATUS, registers)
                self._run_to_syscall_stop()
            registers = get_register_set(tid, NT_PRSTATUS, RegisterBuffer(arch.REGISTER_BYTES))
        except (OSError, ChildProcessError):
            raise self._gone() from None
        return arch.result(registers)

    def run(self, function: int) -> None:
        """Make the thread run a function without arguments, of the program's own or put there for it, to its end.

        It is the caller's part to know that the function waits for nothing that this thread may hold. If we die, it is
        run to its end all the same, and the thread goes on as it was. Raises LivepatchError process_gone, internal.
        """
        tid = self._thread.tid
        before, gadget, stack = self._thread.registers, self._gadgets.call, self._stack
        try:
            set_register_set(tid, NT_PRSTATUS, arch.function_registers(before, function, stack))
            if not self._entered:
                self._entered = True
                set_signal_mask(tid, _ALL_SIGNALS)
            while True:
                self._run_to_syscall_stop()
                now = get_register_set(tid, NT_PRSTATUS, RegisterBuffer(arch.REGISTER_BYTES))
                if arch.enters_signal_return(now):
                    break
            # It has come back, and is about to go through its return frame: it makes a call that does nothing instead.
            with self._nobody_may_die():
                registers = arch.call_registers(before, gadget, stack, arch.SYSCALLS["close"], (-1,))
                set_register_set(tid, NT_PRSTATUS, registers)
                self._run_to_syscall_stop()
        except (OSError, ChildProcessError):
            raise self._gone() from None

    def place_text(self, text: str) -> int:
        """Put a text where a call can read it, below the stack; its address. It holds for the next call only."""
        raw = text.encode() + b"\0"
        place = self._stack - _STACK_ROOM // 2
        self._thread.process.memory.write(place, raw)
        return place

    def finish(self) -> None:
        """Bring the thread back to where it was, still held: in a stop from which the kernel restarts its own call."""
        if not self._entered:
            return
        tid = self._thread.tid
        try:
            set_signal_mask(tid, self._mask)
            suspend_seccomp(tid, False)
            interrupt(tid)
            resume(tid)
            while not is_event_stop(self._wait()):
                resume(tid)
            set_register_set(tid, NT_PRSTATUS, self._thread.registers)
        except (OSError, ChildProcessError):
            raise self._gone() from None
        if self._stop_again:
            os.kill(self._thread.process.pid, self._stop_again)

    @contextlib.contextmanager
    def _nobody_may_die(self) -> Iterator[None]:
        """Here our death may be that of a confined program: then rather be late than be killed for it."""
        if not self._confined:
            yield
            return
        disarm()
        self._in_gap = True
        try:
            yield
        finally:
            self._in_gap = False
            arm(LONGEST_HOLD)

    def _run_to_syscall_stop(self) -> None:
        while True:
            resume_to_syscall(self._thread.tid)
            status = self._wait()
            if is_syscall_stop(status):
                return
            if self._given_up:
                raise LivepatchError(
                    "function_busy",
                    "thread %d of %s does not run: it is frozen, or gets no processor"
                    % (self._thread.tid, self._thread.process),
                    "Let the process run (a paused container, a frozen control group), and run the task again.",
                )
            if signal_of(status):
                self._stop_again = signal_of(status)  # only SIGSTOP cannot be blocked: it is sent again at the end

    def _wait(self) -> int:
        """Its next stop, for which it is asked when it is long in coming.

        It is not held meanwhile: whatever keeps it from running, to let go of it would not help.
        """
        tid, end = self._thread.tid, time.monotonic() + _CALL_TIME
        while True:
            if not self._in_gap:
                arm(LONGEST_HOLD)
            status = wait_until(tid, time.monotonic() + LOOK)
            if status is not None:
                break
            if time.monotonic() < end or self._in_gap:
                continue
            if self._given_up:
                raise LivepatchError(
                    "internal", "a system call of thread %d of %s does not return" % (tid, self._thread.process)
                )
            self._given_up = True
            interrupt(tid)
            end = time.monotonic() + _CALL_TIME
        if not os.WIFSTOPPED(status):
            raise ChildProcessError(tid)
        return status

    def _gone(self) -> LivepatchError:
        return LivepatchError("process_gone", "%s has exited" % self._thread.process)


@contextlib.contextmanager
def injected_calls(process: Process, may_run: Callable[[HeldThread], bool] | None = None) -> Iterator[InjectedCalls]:
    """A thread of the process, held, that makes system calls; it goes on as it was when the block ends.

    `may_run`: asked of a held thread, false for one that is not to be used. Inside as_tracer(). Raises LivepatchError
    not_permitted, already_traced, process_gone, function_busy (for a second no thread could be stopped that stood on a
    stack of known bounds).
    """
    mappings = process.maps()
    gadgets = find_gadgets(process, mappings)
    xstate_size = arch.own_xstate_size()
    end = time.monotonic() + _PATIENCE
    while True:
        for tid in _callers(process, mappings):
            patience = max(end - time.monotonic(), _SHORTEST_WAIT)
            with held_thread(process, tid, patience, plainly=True) as thread:
                stack = _frame_place(mappings, thread.registers, xstate_size) if thread else 0
                if thread is None or not stack or _may_not_leave(thread) or _is_on_a_part(mappings, thread):
                    continue
                if may_run is not None and not may_run(thread):
                    continue
                try:
                    calls = InjectedCalls(thread, gadgets, stack, xstate_size)
                except ProcessLookupError:  # another thread ends the process, or makes it another program
                    continue
                try:
                    yield calls
                finally:
                    process.changes_maps()
                    calls.finish()
            calls.held_us = thread.held_us
            return
        if process.has_exited():
            raise LivepatchError("process_gone", "%s has exited" % process)
        if time.monotonic() > end:
            raise LivepatchError(
                "function_busy",
                "no thread of %s can be made to map memory now: none could be stopped on a stack that the C library "
                "or the kernel made for it (coroutines, handlers, uninterruptible sleep)" % process,
            )
        time.sleep(_SHORTEST_WAIT)
        mappings = process.maps()  # anew: stacks come and go


def _may_not_leave(thread: HeldThread) -> bool:
    """True for a thread that must not make a call just here: in a restartable sequence none may be made."""
    if arch.in_system_call(thread.registers):
        return False
    try:
        return in_restartable_sequence(thread.tid, thread.process.memory.read)
    except OSError:
        return True


def frame_place(mappings: list[Mapping], stack_pointer: int, xstate_size: int) -> int:
    """The address for a return frame below a stack pointer, 0 where there may be no room: a stack of unknown bounds."""
    mapping = mapping_at(mappings, stack_pointer)
    if mapping is None or not mapping.is_writable() or mapping.is_file():
        return 0
    below = mappings[mappings.index(mapping) - 1]
    guarded = below.end == mapping.start and below.permissions.startswith("---")
    if mapping.path != "[stack]" and not guarded:
        return 0
    place = (stack_pointer - arch.RED_ZONE - arch.return_frame_size(xstate_size) & ~63) - 8
    return place if place - _STACK_ROOM >= mapping.start else 0


def _frame_place(mappings: list[Mapping], registers: bytes, xstate_size: int) -> int:
    """As `frame_place`, and 0 where the thread is not on the stack it was made with, as a coroutine is not.

    glibc and musl keep a thread's descriptor at the upper end of its stack. A stack that was cut out of an allocator's
    arena may have guard pages before the arena, and somebody's data right below it.
    """
    stack_pointer = arch.stack_pointer(registers)
    mapping = mapping_at(mappings, stack_pointer)
    if mapping is None or (
        mapping.path != "[stack]" and not stack_pointer < arch.thread_pointer(registers) < mapping.end
    ):
        return 0
    return frame_place(mappings, stack_pointer, xstate_size)


def _is_on_a_part(mappings: list[Mapping], thread: HeldThread) -> bool:
    """True for a thread in a handler on an alternate stack that lies within its own: data in use are right below it."""
    stack_pointer = arch.stack_pointer(thread.registers)
    mapping = mapping_at(mappings, stack_pointer)
    if mapping is None:
        return True
    above = thread.process.memory.read_some(stack_pointer, min(mapping.end - stack_pointer, _MOST_LOOKED_AT))
    return any(start <= stack_pointer < end for start, end in arch.alternate_stacks(above))


def _callers(process: Process, mappings: list[Mapping]) -> Iterator[int]:
    """Threads to ask, sleeping ones first: to them a moment's hold means least (proc_pid_syscall(5)).

    Of these first those whose call keeps count of the time that is left. But where some have real-time priority the
    highest come first: one that spins may keep the processor from all others. Before all that, those that no seccomp
    filter confines. Last those in uninterruptible sleep, which do not stop. In portions: threads come and go.
    """
    threads = process.threads()
    if len(threads) == 1:
        yield threads[0]
        return
    last: list[int] = []
    for some in range(0, len(threads), _CALLERS_AT_ONCE):
        ranked: list[tuple[bool, int, int, int]] = []
        for tid in threads[some : some + _CALLERS_AT_ONCE]:
            stat = process.thread_stat(tid)
            if stat[:1] == ["D"]:
                last.append(tid)
            elif stat and stat[0] not in "ZX":
                rank = _least_hurt(process, mappings, tid)
                ranked.append((is_confined(process, tid), -real_time_priority(stat), rank, tid))
        yield from (tid for *_ranks, tid in sorted(ranked))
    yield from last


def _least_hurt(process: Process, mappings: list[Mapping], tid: int) -> int:
    """0 for a thread asleep, on a stack with room, in a call that goes on with the time left; 1 in another; else 2."""
    try:
        fields = process.read_text("task/%d/syscall" % tid).split()
    except (LivepatchError, OSError):
        return 2
    if len(fields) != 9 or not frame_place(mappings, int(fields[7], 16), 4096):
        return 2
    return 0 if int(fields[0]) in arch.TAKEN_UP_AGAIN else 1
