# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Where in a function, besides its entry, a branch may stand: behind first instructions that can be undone.

What may run before the branch: a push (undone by the pop), a move of the stack pointer (by moving it back), what only
sets flags, and what writes rax, r10, r11, a register pushed before or one in which no argument comes in. None of it
touches memory but the function's own stack, its data and its thread's (no pointer from a caller, which the new code may
want to check first). Of rax, which tells a variadic function how many vector registers carry arguments at most, the
undoing says 8, which is always true (System V ABI AMD64, 3.2.3 and 3.5.7). Flags mean nothing at an entry.
Encodings: Intel SDM vol. 2, 2.1 and appendix A. Whatever is not known here for certain is refused.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Iterator

from .x86_64 import ENDBR64, JUMP_SIZE

_RAX, _RSP = 0, 4
_SCRATCH = frozenset((_RAX, 10, 11))
_ARGUMENTS = (7, 6, 2, 1, 8, 9)  # rdi, rsi, rdx, rcx, r8, r9, in their order
_EIGHT_VECTOR_REGISTERS = b"\xb8\x08\x00\x00\x00"  # mov $8, %eax
# The operand that an instruction writes.
_NOTHING, _REGISTER, _OPERAND = "nothing", "register", "operand"
# Opcodes with a ModRM byte: what they write. 16-bit and 8-bit results are left out but in movzx and movsx.
_FORMS = {
    **dict.fromkeys((b"\x84", b"\x85", b"\x38", b"\x39", b"\x3a", b"\x3b"), _NOTHING),  # test, cmp
    **dict.fromkeys((b"\x03", b"\x0b", b"\x23", b"\x2b", b"\x33"), _REGISTER),  # add, or, and, sub, xor
    **dict.fromkeys((b"\x63", b"\x8b", b"\x8d", b"\x0f\xaf"), _REGISTER),  # movslq, mov, lea, imul
    **dict.fromkeys((b"\x0f\xb6", b"\x0f\xb7", b"\x0f\xbe", b"\x0f\xbf"), _REGISTER),  # movzx, movsx
    **dict.fromkeys((b"\x01", b"\x09", b"\x21", b"\x29", b"\x31", b"\x89"), _OPERAND),  # the same, to the operand
}
# Opcodes whose ModRM byte holds more of the opcode: (opcode, that) -> what they write, bytes of the immediate.
_GROUPS = {
    (b"\x80", 7): (_NOTHING, 1),
    (b"\x81", 7): (_NOTHING, 4),
    (b"\x83", 7): (_NOTHING, 1),  # cmp
    (b"\xf6", 0): (_NOTHING, 1),
    (b"\xf7", 0): (_NOTHING, 4),
    (b"\xc7", 0): (_OPERAND, 4),  # test, mov
    **{(b"\x81", more): (_OPERAND, 4) for more in (0, 1, 4, 5, 6)},  # add, or, and, sub, xor
    **{(b"\x83", more): (_OPERAND, 1) for more in (0, 1, 4, 5, 6)},
    **{(b"\xc1", more): (_OPERAND, 1) for more in (4, 5, 7)},  # shl, shr, sar
}
# Opcodes without one: bytes of the immediate. All only set flags or do nothing.
_PLAIN = {b"\x3c": 1, b"\x3d": 4, b"\xa8": 1, b"\xa9": 4, b"\x90": 0}  # cmp and test with al, eax; nop


class _Unknown(Exception):
    """Not an instruction that may run before the branch."""


def branch_sites(code: bytes, arguments: int = len(_ARGUMENTS)) -> Iterator[tuple[int, bytes]]:
    """(offset, undo) of each place where a branch may stand, best first; `undo`: instructions that take back what ran
    before it, to be run first by whoever comes that way.

    `code`: the first bytes of a function, whose arguments come in no more than the first `arguments` integer registers.
    An endbr64 stays in front if it can: a kernel may one day let indirect calls go nowhere else (Linux does not for
    user programs). Right only where nothing branches to the offset or to in between: that is for the caller to know.
    """
    if not code.startswith(ENDBR64):
        yield from _sites_from(code, 0, arguments)
        return
    yield from _sites_from(code, len(ENDBR64), arguments)
    yield 0, b""


def _sites_from(code: bytes, at: int, arguments: int) -> Iterator[tuple[int, bytes]]:
    undo, written = b"", False
    saved: set[int] = set()
    while at + JUMP_SIZE <= len(code):
        yield at, undo + (_EIGHT_VECTOR_REGISTERS if written else b"")
        try:
            first = _first(code[at:])
        except (_Unknown, IndexError, struct.error):
            return
        if first.writes is not None and first.writes not in saved:
            if first.writes not in _SCRATCH.union(_ARGUMENTS[arguments:]):
                return
            written = written or first.writes == _RAX
        at, undo = at + first.size, first.undo + undo
        if first.pushes is not None:
            saved.add(first.pushes)


@dataclass(frozen=True)
class _Instruction:
    """`undo`: the instruction that takes it back; the registers, by number, that it writes and pushes."""

    size: int
    undo: bytes = b""
    writes: int | None = None
    pushes: int | None = None


def _first(code: bytes) -> _Instruction:
    """The instruction that `code` starts with. Raises _Unknown, or IndexError or struct.error where it is cut off."""
    at = 1 if code[0] == 0x64 else 0  # of the thread: %fs
    rex = code[at] if code[at] & 0xF0 == 0x40 else 0
    at += 1 if rex else 0
    size = 2 if code[at] == 0x0F else 1
    opcode = code[at : at + size]
    of_thread, extended = code[0] == 0x64, (rex & 1) << 3
    at += size
    if not of_thread and size == 1 and rex in (0, 0x41) and opcode[0] & 0xF8 == 0x50:
        return _push((opcode[0] & 7) | extended, at)
    if not of_thread and size == 1 and opcode[0] & 0xF8 == 0xB8:  # mov $number, register
        return _Instruction(at + (8 if rex & 8 else 4), writes=(opcode[0] & 7) | extended)
    if not of_thread and not rex and opcode in _PLAIN:
        return _Instruction(at + _PLAIN[opcode])
    mode, more, operand = code[at] >> 6, code[at] >> 3 & 7, (code[at] & 7) | extended
    register = more | (rex & 4) << 1
    writes, immediate = _GROUPS.get((opcode, more), (_FORMS.get(opcode), 0))
    if writes is None or (mode == 3 and (of_thread or opcode == b"\x8d")):
        raise _Unknown
    end = at + _operand_size(code[at:], rex, of_thread, opcode == b"\x8d")
    if writes == _OPERAND and mode != 3:
        raise _Unknown
    if writes == _OPERAND and operand == _RSP and opcode in (b"\x81", b"\x83") and more in (0, 5) and rex == 0x48:
        (number,) = struct.unpack_from("<i" if immediate == 4 else "<b", code, end)
        back = number if more == 5 else -number
        if back <= 0:
            raise _Unknown
        return _Instruction(end + immediate, b"\x48\x8d\xa4\x24" + struct.pack("<i", back))  # lea back(%rsp), %rsp
    return _Instruction(end + immediate, writes={_NOTHING: None, _REGISTER: register, _OPERAND: operand}[writes])


def _push(register: int, size: int) -> _Instruction:
    if register == _RSP:
        raise _Unknown
    pop = (b"\x41" if register > 7 else b"") + bytes((0x58 | register & 7,))
    return _Instruction(size, pop, pushes=register)


def _operand_size(code: bytes, rex: int, of_thread: bool, only_address: bool) -> int:
    """Bytes of the ModRM byte and what belongs to it. Raises _Unknown for memory that may not be there.

    What may be read: an address relative to rip or rsp, or a fixed one of the thread's own data.
    """
    mode, low = code[0] >> 6, code[0] & 7
    if mode == 3:
        return 1
    displacement = (0, 1, 4)[mode]
    if low != 4:
        of_object = mode == 0 and low == 5
        if of_thread or not (of_object or only_address):
            raise _Unknown
        return 1 + (4 if of_object else displacement)
    if mode == 0 and code[1] & 7 == 5:
        fixed = code[1] == 0x25 and not rex & 2
        if not (only_address or (fixed and of_thread)):
            raise _Unknown
        return 2 + 4
    if of_thread or not (only_address or (code[1] == 0x24 and not rex & 3)):
        raise _Unknown
    return 2 + displacement
