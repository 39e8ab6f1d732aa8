# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A program held at its entry point, its libraries mapped, before its own first instruction (execve(2), ld.so(8)).

No breakpoint: the program would die of it if its tracer died first. Instead the entry point that the kernel tells the
dynamic linker (AT_ENTRY, on the stack of the new program, getauxval(3)) is made to be that of a stub, in bytes behind
the end of a text segment that nothing uses. The stub sleeps until a set time and goes on to the true entry. So the
program starts whatever becomes of us: we trace it from its execve until it sleeps, let it go, and only then is it
patched, as any sleeping program is. `release` puts all of that back.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from dataclasses import dataclass
from typing import Callable

from .._elf.header import PF_X, NotElf, parse_header
from .._errors import LivepatchError
from .._process.maps import Mapping
from .._process.process import Process
from . import entry_stub_x86_64 as entry_stub
from . import x86_64 as arch
from .attach import seize_thread
from .hold_one_thread import held_thread
from .ptrace_requests import (
    NT_PRSTATUS,
    PTRACE_O_TRACEEXEC,
    detach,
    get_register_set,
    is_exec_stop,
    is_syscall_stop,
    resume,
    resume_to_syscall,
    set_register_set,
    signal_of,
)
from .tracer import as_tracer, register_buffer, stopped_registers
from .wait import child_signals_held, wait_until
from .watchdog import arm, disarm

_PAGE = 4096
_AT_ENTRY = 9
_MOST_STACK = 8 << 20
# How long one stop of the program may take, seconds: the watchdog ends us after it, and the program runs on. None of
# its own code has run, so only who started it waits for it; on a host that boots, we may have to wait for a processor.
_LONGEST_STOP = 3.0
# How long release waits for one thread to stop, seconds.
_RELEASE = 1.0


@dataclass(frozen=True)
class Held:
    """A program that sleeps in a stub at `stub`, with what was at the places that were changed for it.

    `until`: seconds of CLOCK_MONOTONIC at which it goes on by itself. `entry_at`: where AT_ENTRY lies on its stack.
    """

    pid: int
    entry: int
    stub: int
    before: bytes
    entry_at: int
    until: float


def hold_at_entry(process: Process, begin: Callable[[], None], deadline: float, seconds: float) -> Held | None:
    """Trace `process`, call `begin` (which makes it execve(2)), and let it go once it sleeps in the stub.

    None where the new program has no dynamic linker: it is at its entry when the kernel begins it, and nothing would
    map its libraries before. `deadline`: seconds of CLOCK_MONOTONIC; `seconds`: how long after its execve the program
    goes on by itself. Inside watched().
    Raises LivepatchError process_gone, function_busy (no execve by `deadline`), patch_unsupported; the program then
    runs on as if nobody had been there.
    """
    return as_tracer(lambda: _hold(process, begin, deadline, seconds))


def release(process: Process, held: Held) -> None:
    """Let a held program go on to its entry now, and put back all that was changed; nothing when it went already."""

    def work() -> None:
        with held_thread(process, process.pid, _RELEASE, plainly=True) as thread:
            if thread is None or not is_in_stub(arch.program_counter(thread.registers), held):
                return
            process.memory.write(held.entry_at, struct.pack("<Q", held.entry))
            kept = arch.general_register(thread.registers, "r8")
            registers = arch.set_registers(thread.registers, rip=held.entry, rdx=kept, rax=0, orig_rax=-1)
            set_register_set(process.pid, NT_PRSTATUS, registers)
            process.memory.write(held.stub, held.before)

    as_tracer(work)


def is_in_stub(counter: int, held: Held) -> bool:
    """Whether a program counter is one of a held program: in the call, about to make it again, or just behind it."""
    return held.stub <= counter < held.stub + entry_stub.SIZE


def _hold(process: Process, begin: Callable[[], None], deadline: float, seconds: float) -> Held | None:
    pid = process.pid
    with child_signals_held():
        # Whatever is raised below, the end of this thread lets go of it.
        if not seize_thread(process, pid, options=PTRACE_O_TRACEEXEC):
            raise LivepatchError("process_gone", "process %d has exited" % pid)
        begin()
        _run_until(process, deadline, resume, is_exec_stop)
        until = time.monotonic() + seconds
        process.as_it_is_now()
        held = None
        try:
            held = _place(process, until)
            if held is not None:
                counter = held.stub + entry_stub.AFTER_CALL
                resume_to_syscall(pid)
                disarm()
                _run_until(
                    process,
                    until,
                    resume_to_syscall,
                    lambda status: is_syscall_stop(status) and _counter(pid) == counter,
                )
        finally:
            with contextlib.suppress(OSError):  # it runs, or was killed
                detach(pid)
            disarm()
    return held


def _run_until(
    process: Process, deadline: float, go_on: Callable[[int, int], None], arrived: Callable[[int], bool]
) -> None:
    """Let the tracee run, giving it its signals, until a stop that has `arrived`; it is stopped then."""
    buffer = register_buffer()
    while True:
        try:
            status = wait_until(process.pid, deadline)
        except ChildProcessError:
            status = 0
        if status is None:
            raise LivepatchError("function_busy", "%s did not begin a program in time" % process)
        if not os.WIFSTOPPED(status):
            raise LivepatchError("process_gone", "process %d exited before its program began" % process.pid)
        arm(_LONGEST_STOP)
        if arrived(status):
            return
        stopped_registers(process.pid, buffer)
        go_on(process.pid, signal_of(status))
        disarm()


def _counter(tid: int) -> int:
    return arch.program_counter(get_register_set(tid, NT_PRSTATUS, register_buffer()))


def _place(process: Process, until: float) -> Held | None:
    """Write the stub of a program that was just begun, and lead its dynamic linker there."""
    registers = get_register_set(process.pid, NT_PRSTATUS, register_buffer())
    entry_at, entry = _entry_on_stack(process, arch.stack_pointer(registers))
    if arch.program_counter(registers) == entry:
        return None
    place = _unused_text(process, process.maps())
    before = process.memory.read(place, entry_stub.SIZE)
    process.memory.write(place, entry_stub.stub(entry, until))
    process.memory.write(entry_at, struct.pack("<Q", place))
    return Held(process.pid, entry, place, before, entry_at, until)


def _entry_on_stack(process: Process, stack: int) -> tuple[int, int]:
    """Where AT_ENTRY lies on the first stack of a program, and its value (ABI, "Initial Stack and Register State")."""
    memory = process.memory
    count = struct.unpack("<Q", memory.read(stack, 8))[0]
    at = stack + 8 * (count + 2)
    end = stack + _MOST_STACK
    while at < end and struct.unpack("<Q", memory.read(at, 8))[0]:
        at += 8
    at += 8
    while at < end:
        kind, value = struct.unpack("<QQ", memory.read(at, 16))
        if kind == _AT_ENTRY:
            return at + 8, int(value)
        if kind == 0:
            break
        at += 16
    raise LivepatchError("patch_unsupported", "%s has no entry point on its stack" % process)


def _unused_text(process: Process, mappings: list[Mapping]) -> int:
    """Where there is room for a stub in executable pages that a file does not fill: nothing runs or reads what is
    there.
    """
    for start in [mapping for mapping in mappings if mapping.offset == 0 and mapping.is_file()]:
        try:
            header = parse_header(process.memory.read, start.start)
        except (NotElf, OSError):
            continue
        bias = start.start - header.lowest_page()
        for segment in header.loads():
            end = bias + segment.address + segment.file_size
            last = end + -end % _PAGE
            if segment.flags & PF_X and segment.size == segment.file_size and last - end >= entry_stub.SIZE + 16:
                return last - entry_stub.SIZE - 8 & ~7
    raise LivepatchError(
        "patch_unsupported",
        "%s has no unused bytes in its text in which it could wait at its entry" % process,
        "It is patched right after it started instead (service cgl-livepatch).",
    )
