# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What is particular to x86-64: registers, how a system call is made, restarted, and returned from after our death.

Sources: System V ABI AMD64 appendix A.2 (system calls), Linux arch/x86/kernel/signal.c (arch_do_signal_or_restart),
arch/x86/kernel/signal_64.c and arch/x86/include/uapi/asm/sigcontext.h (the signal frame).
"""

from __future__ import annotations

import ctypes
import errno
import functools
import re
import struct

from .python_ptrace import ptrace_registers_t

REGISTER_BYTES = ctypes.sizeof(ptrace_registers_t)
_PLACE = {name: getattr(ptrace_registers_t, name).offset for name, _kind in getattr(ptrace_registers_t, "_fields_", ())}
PC_AT, SP_AT, RESULT_AT, CALL_AT, THREAD_AT = (
    _PLACE.get(name, 0) for name in ("rip", "rsp", "rax", "orig_rax", "fs_base")
)

SYSCALLS = {"mmap": 9, "munmap": 11, "close": 3, "memfd_create": 319, "ptrace": 101, "waitid": 247, "getpid": 39}
_SIGNAL_RETURN_CALL = 15
# The red zone: a leaf function's data may lie this far below the stack pointer (System V ABI AMD64, 3.2.2).
RED_ZONE = 128
# Vector and x87 state: the register set of a processor with XSAVE, and that of one without; and how long the latter is.
_NT_FPREGS, _NT_XSTATE = 2, 0x202
_FXSAVE_BYTES = 512
SYSCALL_RETURN = b"\x0f\x05\xc3"  # syscall; ret
SIGNAL_RETURN = b"\x48\xc7\xc0\x0f\x00\x00\x00\x0f\x05"  # mov $15,%rax; syscall (rt_sigreturn)

# The order of registers in a signal frame (struct sigcontext_64).
_FRAME_ORDER = tuple("r8 r9 r10 r11 r12 r13 r14 r15 rdi rsi rbp rbx rdx rax rcx rsp rip eflags".split(" "))  # noqa: SIM905

_ERESTARTNOHAND = 514
_RESTARTS = (512, 513, 514)
_ERESTART_RESTARTBLOCK = 516
# Calls that answer -EINTR by themselves when a stop interrupts them, where the kernel could as well have started them
# again (signal(7), "Interruption of system calls ... by stop signals", and SO_RCVTIMEO/SO_SNDTIMEO): the read and write
# family, sendfile, splice, connect, accept, accept4, the send and recv family, sem(timed)op, rt_sigtimedwait, the epoll
# waits, io_(p)getevents, io_uring_enter; and select, pselect6 and ppoll, where the kernel could not note in the
# program's memory how much of the time is left. close is not among them: after -EINTR its descriptor is gone.
_STARTED_AGAIN = frozenset(
    (0, 1, 17, 18, 19, 20, 295, 296, 327, 328, 40, 275, 42, 43, 288, 44, 45, 46, 47, 299, 307)
    + (65, 220, 128, 232, 281, 441, 208, 333, 426, 23, 270, 271)
)
# Calls that go on after a stop as if there had been none, with the time that was left: poll, select, pselect6, ppoll,
# nanosleep, clock_nanosleep, futex, futex_waitv, pause, rt_sigsuspend, wait4, waitid, flock, fcntl, msgsnd, msgrcv.
TAKEN_UP_AGAIN = frozenset((7, 23, 270, 271, 35, 230, 202, 449, 34, 130, 61, 247, 73, 72, 69, 70))
# Calls in which a thread sleeps until something comes from outside: read, readv, poll, ppoll, select, pselect6, the
# epoll waits, accept, accept4, recvfrom, recvmsg, recvmmsg, wait4, waitid, pause, rt_sigsuspend, rt_sigtimedwait.
_WAITS_FOR_OTHERS = frozenset((0, 19, 7, 271, 23, 270, 232, 281, 441, 43, 288, 45, 47, 299, 61, 247, 34, 130, 128))
_SELECTORS = re.compile(re.escape(struct.pack("<4H", 0x33, 0, 0, 0x2B)))
_HIDDEN_FORM = struct.pack("<q", -_ERESTARTNOHAND)
_INTERRUPTED = struct.pack("<q", -errno.EINTR)
_CALLS_AGAIN = frozenset(struct.pack("<q", number) for number in _STARTED_AGAIN)


def program_counter(registers: bytes) -> int:
    """rip, as an unsigned number."""
    return int.from_bytes(registers[PC_AT : PC_AT + 8], "little")


def stack_pointer(registers: bytes) -> int:
    """rsp."""
    return int.from_bytes(registers[SP_AT : SP_AT + 8], "little")


def thread_pointer(registers: bytes) -> int:
    """fs_base: where the C library keeps what it knows of the thread."""
    return int.from_bytes(registers[THREAD_AT : THREAD_AT + 8], "little")


def result(registers: bytes) -> int:
    """rax as a signed number: what a system call returned."""
    return int.from_bytes(registers[RESULT_AT : RESULT_AT + 8], "little", signed=True)


def general_register(registers: bytes, name: str) -> int:
    """One register, by its name in user_regs_struct."""
    return int.from_bytes(registers[_PLACE[name] : _PLACE[name] + 8], "little")


def in_system_call(registers: bytes) -> bool:
    """True when the thread was stopped on its way out of a system call, or is to make the interrupted one again."""
    return int.from_bytes(registers[CALL_AT : CALL_AT + 8], "little", signed=True) >= 0


def slept_for_others(registers: bytes) -> bool:
    """True when the thread was stopped while it slept until something would come from outside of the process."""
    number = int.from_bytes(registers[CALL_AT : CALL_AT + 8], "little", signed=True)
    asleep = -result(registers) in (*_RESTARTS, _ERESTART_RESTARTBLOCK) or shows_interruption(registers)
    return asleep and number in _WAITS_FOR_OTHERS


def shows_interruption(registers: bytes) -> bool:
    """True when the program would see EINTR only because it was stopped."""
    return registers[RESULT_AT : RESULT_AT + 8] == _INTERRUPTED and registers[CALL_AT : CALL_AT + 8] in _CALLS_AGAIN


def may_show_interruption(registers: bytes) -> bool:
    """False when none of the threads whose registers these are would see EINTR only because it was stopped."""
    return _INTERRUPTED in registers


def hide_interruption(registers: bytes) -> bytes:
    """The registers with -EINTR turned into the kernel's own -ERESTARTNOHAND.

    The kernel then decides as it does for pause(2): a signal with a handler that is there when the thread goes on still
    makes the call return EINTR, anything else starts the call again. Setting rip back ourselves would lose such a
    signal.
    """
    return registers[:RESULT_AT] + _HIDDEN_FORM + registers[RESULT_AT + 8 :]


def set_registers(registers: bytes, **values: int) -> bytes:
    """The registers with some of them changed, by their names in user_regs_struct."""
    changed = bytearray(registers)
    for name, value in values.items():
        struct.pack_into("<Q", changed, _PLACE[name], value & (1 << 64) - 1)
    return bytes(changed)


def entry_registers(registers: bytes, gadget: int, stack: int) -> bytes:
    """Registers that make rt_sigreturn at `gadget` (syscall; ret) through the frame at `stack`."""
    # orig_rax = -1: the kernel must not take this for an interrupted call that it should start again.
    return set_registers(registers, rip=gadget, rsp=stack + 8, rax=_SIGNAL_RETURN_CALL, orig_rax=-1)


def call_registers(registers: bytes, gadget: int, stack: int, number: int, arguments: tuple[int, ...]) -> bytes:
    """At the entry to a call from `gadget`: registers that make it system call `number`, returning to what `stack`
    says.
    """
    names = ("rdi", "rsi", "rdx", "r10", "r8", "r9")
    return set_registers(
        registers,
        rip=gadget + 2,
        rsp=stack,
        rax=-errno.ENOSYS,
        orig_rax=number,
        **dict(zip(names, arguments + (0,) * (6 - len(arguments)))),
    )


def function_registers(registers: bytes, function: int, stack: int) -> bytes:
    """Registers that call a function without arguments, which returns to what `stack` says."""
    # Flags as a function may expect them (System V ABI AMD64, 3.2.1): the direction flag clear.
    return set_registers(registers, rip=function, rsp=stack, rax=0, orig_rax=-1, eflags=0x202)


def enters_signal_return(registers: bytes) -> bool:
    """True at the entry to rt_sigreturn."""
    return int.from_bytes(registers[CALL_AT : CALL_AT + 8], "little") == _SIGNAL_RETURN_CALL


def registers_to_go_on(registers: bytes) -> bytes:
    """Registers from which user code goes on as the kernel would have let it: an interrupted call is made again.

    For the return frame only. While we live, the kernel restarts the call itself from the unchanged registers.
    """
    number = int.from_bytes(registers[CALL_AT : CALL_AT + 8], "little", signed=True)
    code = -result(registers)
    if number >= 0 and (code in _RESTARTS or code == _ERESTART_RESTARTBLOCK or shows_interruption(registers)):
        return set_registers(registers, rax=number, rip=program_counter(registers) - 2)
    return registers


def return_frame(at: int, restorer: int, registers: bytes, mask: int, xstate: bytes, xstate_size: int) -> bytes:
    """A signal frame (struct rt_sigframe) for address `at`, through which rt_sigreturn brings back a whole thread.

    `xstate` is the register set `state_set` names, of which the first `xstate_size` bytes belong into a frame here.
    `at` must be 8 below a multiple of 16, as after a call. The alternate stack is left alone: its flags are set to what
    sigaltstack(2) refuses.
    """
    state_at = _state_place(at)
    context = registers_to_go_on(registers)

    def get(name: str) -> int:
        return int.from_bytes(context[_PLACE[name] : _PLACE[name] + 8], "little")

    frame = struct.pack("<Q", restorer)
    extended = xstate_size > _FXSAVE_BYTES
    frame += struct.pack("<QQ", extended | 2 | 4, 0)  # UC_FP_XSTATE, UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS; no link
    frame += struct.pack("<QiiQ", 0, 0x10, 0, 0)  # stack_t that is refused
    frame += struct.pack("<18Q", *(get(name) for name in _FRAME_ORDER))
    frame += struct.pack("<4H", get("cs"), 0, 0, get("ss"))
    frame += struct.pack("<4Q", 0, 0, 0, 0)  # err, trapno, oldmask, cr2
    frame += struct.pack("<Q", state_at) + bytes(64)
    frame += struct.pack("<Q", mask)
    frame += bytes(state_at - at - len(frame))
    state = bytearray(xstate[:xstate_size])
    if not extended:
        state[464:512] = bytes(48)  # "only this much": no magic number
        return frame + bytes(state)
    features = xstate[464:472]
    state[464:512] = (
        struct.pack("<II", 0x46505853, xstate_size + 4) + features + struct.pack("<I", xstate_size) + bytes(28)
    )
    return frame + bytes(state) + struct.pack("<I", 0x46505845)


def interrupted_stacks(stack: bytes) -> list[int]:
    """The stack pointers saved in the signal frames among these bytes of a stack."""
    return [int.from_bytes(stack[at - 24 : at - 16], "little") for at in _signal_frames(stack)]


def has_signal_frame(stacks: bytes | bytearray, end: int) -> bool:
    """True when there may be a signal frame among the first `end` of these bytes."""
    return _SELECTORS.search(stacks, 0, end) is not None


def interrupted_counters(stack: bytes) -> list[tuple[int, int]]:
    """(offset, value) of the program counters saved in the signal frames among these bytes."""
    return [(at - 16, int.from_bytes(stack[at - 16 : at - 8], "little")) for at in _signal_frames(stack)]


def alternate_stacks(stack: bytes) -> list[tuple[int, int]]:
    """The alternate stacks [start, end) that threads had when the signal frames among these bytes were made."""
    return [
        (start, start + size)
        for at in _signal_frames(stack)
        if at >= 168
        for start, _flags, size in [struct.unpack_from("<QQQ", stack, at - 168)]
    ]


def _signal_frames(stack: bytes) -> list[int]:
    """Where the segment selectors of signal frames lie among these bytes.

    A frame is known by them (cs 0x33, ss 0x2b, struct sigcontext), three words behind the saved rsp, and 168 bytes
    behind the stack_t of struct ucontext.
    """
    return [match.start() for match in _SELECTORS.finditer(stack, 24)]


def state_set(xstate_size: int) -> int:
    """The NT_ number of the register set that holds what own_xstate_size() counts."""
    return _NT_XSTATE if xstate_size > _FXSAVE_BYTES else _NT_FPREGS


def return_frame_size(xstate_size: int) -> int:
    """The most bytes a return frame takes."""
    return 512 + 64 + xstate_size + 4


def _state_place(at: int) -> int:
    return at + 512 + 63 & ~63


@functools.lru_cache(maxsize=None)
def own_xstate_size() -> int:
    """How many bytes of vector and x87 state the kernel puts into a signal frame here; 512 without XSAVE.

    The register set may be longer (states a process must ask for), and a frame of another size is refused; so the
    kernel is asked for a frame: a signal to ourselves, whose handler reads the size out of it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    sizes: list[int] = []

    def read_size(_signal: int, _info: int, context: int) -> None:
        state_at = ctypes.c_uint64.from_address(context + 40 + 184).value
        magic, _whole, _features, size = struct.unpack("<IIQI", ctypes.string_at(state_at + 464, 20))
        sizes.append(size if magic == 0x46505853 else _FXSAVE_BYTES)

    handler = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(read_size)

    class Action(ctypes.Structure):
        """struct sigaction of the C library."""

        _fields_ = [
            ("handler", ctypes.c_void_p),
            ("mask", ctypes.c_uint64 * 16),
            ("flags", ctypes.c_int),
            ("restorer", ctypes.c_void_p),
        ]

    wanted, before = Action(), Action()
    wanted.handler = ctypes.cast(handler, ctypes.c_void_p).value
    wanted.flags = 4  # SA_SIGINFO
    number = 34 + 20  # a real-time signal nobody uses here
    libc.sigaction(number, ctypes.byref(wanted), ctypes.byref(before))
    getattr(libc, "raise")(number)
    libc.sigaction(number, ctypes.byref(before), None)
    return sizes[0]
