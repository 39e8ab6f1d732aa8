# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""How code of a patch gets at thread-local variables that the process has already.

Those of an executable lie at a fixed distance from the thread pointer, so every way to ask for them becomes that
number, as the linker does it. All others are asked for through the object's own slots, which the dynamic linker filled
when the object was loaded: whatever the module's number is, or the place of its block, the slot says it. ("ELF Handling
For Thread-Local Storage", sections 4 and 5; "Thread-Local Storage Descriptors for IA32 and AMD64/EM64T")
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from .._elf.object_file import SHF_ALLOC, SHF_TLS, SHT_DYNSYM, SHT_RELA, ObjectFile
from .relocated_fields import (
    R_DTPMOD64,
    R_DTPOFF32,
    R_GOTPC32_TLSDESC,
    R_GOTTPOFF,
    R_TLSDESC,
    R_TLSDESC_CALL,
    R_TLSGD,
    R_TLSLD,
    R_TPOFF32,
    R_TPOFF64,
)

MODULE_BASE = "_TLS_MODULE_BASE_"
_THREAD_POINTER = b"\x64\x48\x8b\x04\x25\x00\x00\x00\x00"  # mov %fs:0,%rax
_ADD_CONSTANT = b"\x48\x8d\x80"  # lea N(%rax),%rax
_ADD_SLOT = b"\x48\x03\x05"  # add N(%rip),%rax
# lea N(%rip),%rdi, padded, and the call of __tls_get_addr: through the PLT, or through a slot (-fno-plt).
_ASK = b"\x66\x48\x8d\x3d"
_CALLS = (b"\x66\x66\x48\xe8", b"\x66\x48\xff\x15", b"\x66\x48\x67\xe8")
_ASK_MODULE = b"\x48\x8d\x3d"
_MODULE_CALLS = (b"\xe8", b"\xff\x15", b"\x67\xe8")
_LOAD, _ADD = 0x8B, 0x03
# lea N(%rip),%rax; call *(%rax); and a no-operation of the call's length.
_DESCRIPTOR, _DESCRIPTOR_CALL, _NOTHING = b"\x48\x8d\x05", b"\xff\x10", b"\x66\x90"


class Unsupported(Exception):
    """Why the code cannot have a thread-local variable."""


@dataclass(frozen=True)
class Access:
    """What becomes of the instructions at a field: `code` is written at `offset` of the function, unless empty.

    `slot`: the object's own slot (link-time address) that the four bytes at `slot_at` are to lead to, 0 for none.
    `also`: the offset of a further field that has no meaning any more, or -1.
    """

    offset: int
    code: bytes = b""
    slot: int = 0
    slot_at: int = 0
    also: int = -1


class ThreadLocalSlots:
    """The slots of a linked object by which it gets at thread-local variables, by name and by offset in its block.

    `kinds`: R_DTPMOD64 for the pair that __tls_get_addr takes, R_TPOFF64, R_TLSDESC.
    """

    def __init__(self, linked: ObjectFile) -> None:
        self._named: dict[tuple[int, str], int] = {}
        self._own: dict[tuple[int, int], int] = {}
        table = linked.symbols(SHT_DYNSYM)
        for section in linked.sections:
            if section.kind != SHT_RELA or not section.flags & SHF_ALLOC:
                continue
            for entry in linked.relocation_table(section):
                if entry.kind not in (R_DTPMOD64, R_TPOFF64, R_TLSDESC):
                    continue
                if entry.symbol:
                    self._named.setdefault((entry.kind, table[entry.symbol].name), entry.offset)
                    continue
                offset = entry.addend
                if entry.kind == R_DTPMOD64:
                    # The second half of the pair needs no relocation: it stands in the file.
                    offset = struct.unpack("<Q", linked.read(entry.offset + 8, 8) or bytes(8))[0]
                self._own.setdefault((entry.kind, offset), entry.offset)
        tls = [section for section in linked.sections if section.flags & SHF_TLS]
        start = min((section.address for section in tls), default=0)
        align = max((section.align for section in tls), default=1)
        size = max((section.address + section.size for section in tls), default=0) - start
        self._block = (start + size + align - 1 & -align) - start

    def slot(self, kind: int, name: str, offset: int | None) -> int:
        """The slot for a variable. `offset` is its place in the object's own block, None for another object's.

        Raises Unsupported.
        """
        found = self._named.get((kind, name), 0)
        if not found and offset is not None:
            found = self._own.get((kind, offset), 0)
        if not found:
            raise Unsupported("no code of the object asks for %s in the way that the new code does" % name)
        return found

    def from_thread_pointer(self, offset: int) -> int:
        """The distance from the thread pointer of a variable of an executable (TLS variant II)."""
        return offset - self._block


def in_executable(code: bytes, at: int, kind: int, distance: int) -> Access:
    """The access to a variable at a fixed distance from the thread pointer. Raises Unsupported.

    `at` is the offset of the field in `code`, the whole function, or its bytes at least; the addend is in `distance`.
    """
    number = struct.pack("<i", distance)
    if kind in (R_TPOFF32, R_DTPOFF32):
        return Access(at, number)
    if kind == R_GOTTPOFF:
        rex, opcode, modrm = code[at - 3 : at] if at >= 3 else b"\0\0\0"
        if rex in (0x48, 0x4C) and opcode in (_LOAD, _ADD) and modrm & 0xC7 == 5:
            register = modrm >> 3 & 7
            wide = 0x48 | (rex >> 2 & 1)
            # mov $N,%reg; add $N,%reg
            return Access(at - 3, bytes([wide, 0xC7 if opcode == _LOAD else 0x81, 0xC0 | register]) + number)
    elif kind == R_TLSGD:
        _require_call(code, at)
        return Access(at - 4, _THREAD_POINTER + _ADD_CONSTANT + number, also=at + 8)
    elif kind == R_TLSLD:
        length = _module_call(code, at)
        padding = b"\x66" * (7 + length - len(_THREAD_POINTER))
        return Access(at - 3, padding + _THREAD_POINTER, also=at + length)
    elif kind == R_GOTPC32_TLSDESC and code[at - 3 : at] == _DESCRIPTOR:
        return Access(at - 3, b"\x48\xc7\xc0" + number)
    elif kind == R_TLSDESC_CALL and code[at : at + 2] == _DESCRIPTOR_CALL:
        return Access(at, _NOTHING)
    raise Unsupported("its instructions (relocation type %d) are of a kind not known" % kind)


def through_slots(code: bytes, at: int, kind: int, name: str, offset: int | None, slots: ThreadLocalSlots) -> Access:
    """The access by the object's own slots. Raises Unsupported.

    `offset`: as in `ThreadLocalSlots.slot`.
    """
    if kind == R_TLSGD:
        _require_call(code, at)
        return Access(at, slot=slots.slot(R_DTPMOD64, name, offset), slot_at=at)
    if kind == R_TLSLD:
        _module_call(code, at)
        return Access(at, slot=slots.slot(R_DTPMOD64, "", 0), slot_at=at)
    if kind == R_GOTTPOFF:
        return Access(at, slot=slots.slot(R_TPOFF64, name, offset), slot_at=at)
    if kind == R_GOTPC32_TLSDESC:
        return Access(at, slot=slots.slot(R_TLSDESC, name, offset), slot_at=at)
    if kind == R_TLSDESC_CALL:
        return Access(at)
    if kind == R_DTPOFF32 and offset is not None:
        return Access(at, struct.pack("<i", offset))
    raise Unsupported("its instructions (relocation type %d) are of a kind not known" % kind)


def of_another_object(code: bytes, at: int, kind: int, name: str, slots: ThreadLocalSlots) -> Access:
    """The access of an executable to another object's variable, by its distance, which the slot says."""
    try:
        slot = slots.slot(R_TPOFF64, name, None)
    except Unsupported:
        return through_slots(code, at, kind, name, None, slots)
    if kind == R_TLSGD:
        _require_call(code, at)
        return Access(at - 4, _THREAD_POINTER + _ADD_SLOT + bytes(4), slot, at + 8, also=at + 8)
    if kind == R_GOTPC32_TLSDESC and code[at - 3 : at] == _DESCRIPTOR:
        return Access(at - 3, b"\x48\x8b\x05" + bytes(4), slot, at)  # mov N(%rip),%rax
    if kind == R_TLSDESC_CALL and code[at : at + 2] == _DESCRIPTOR_CALL:
        return Access(at, _NOTHING)
    return through_slots(code, at, kind, name, None, slots)


def _require_call(code: bytes, at: int) -> None:
    if at < 4 or code[at - 4 : at] != _ASK or code[at + 4 : at + 8] not in _CALLS:
        raise Unsupported("its call of __tls_get_addr is of a form not known")


def _module_call(code: bytes, at: int) -> int:
    """How many bytes behind the field the displacement of the call lies."""
    for call in _MODULE_CALLS:
        if code[at - 3 : at] == _ASK_MODULE and code[at + 4 : at + 4 + len(call)] == call:
            return 4 + len(call)
    raise Unsupported("its call of __tls_get_addr is of a form not known")
