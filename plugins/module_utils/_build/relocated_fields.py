# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Which bytes of code the linker may have written: the fields of relocations, and the instructions it relaxes.

System V ABI, AMD64 supplement: table 4.10 (relocation types), section B.2 (GOTPCRELX), and for thread-local storage
"ELF Handling For Thread-Local Storage", section 5.
"""

from __future__ import annotations

R_64, R_PC32, R_PLT32, R_GOTPCREL, R_32, R_32S, R_PC64 = 1, 2, 4, 9, 10, 11, 24
R_GOTPCRELX, R_REX_GOTPCRELX = 41, 42
R_TLSGD, R_TLSLD, R_DTPOFF32, R_GOTTPOFF, R_TPOFF32 = 19, 20, 21, 22, 23
R_DTPOFF64, R_TPOFF64, R_GOTPC32_TLSDESC, R_TLSDESC_CALL = 17, 18, 34, 35
R_DTPMOD64, R_TLSDESC, R_IRELATIVE = 16, 36, 37
R_COPY, R_GLOB_DAT, R_JUMP_SLOT, R_RELATIVE = 5, 6, 7, 8

GOT_LOADS = frozenset((R_GOTPCREL, R_GOTPCRELX, R_REX_GOTPCRELX))
PC_RELATIVE = frozenset((R_PC32, R_PLT32, R_PC64)) | GOT_LOADS
TLS = frozenset(
    (
        R_TLSGD,
        R_TLSLD,
        R_DTPOFF32,
        R_DTPOFF64,
        R_GOTTPOFF,
        R_TPOFF32,
        R_TPOFF64,
        R_GOTPC32_TLSDESC,
        R_TLSDESC_CALL,
    )
)

# (bytes before the field, bytes from the field on) that may differ between an object and what was linked from it.
_EXTENT = {
    R_64: (0, 8),
    R_PC64: (0, 8),
    R_DTPOFF64: (0, 8),
    R_TPOFF64: (0, 8),
    # mov foo@GOTPCREL(%rip), reg becomes lea or mov $imm; call *foo@GOTPCREL(%rip) becomes addr32 call foo.
    R_GOTPCRELX: (2, 4),
    R_REX_GOTPCRELX: (3, 4),
    R_GOTTPOFF: (3, 4),
    R_GOTPC32_TLSDESC: (3, 4),
    R_TLSDESC_CALL: (0, 2),
    # data16 lea x@tlsgd(%rip),%rdi; data16 data16 rex.W call __tls_get_addr: 16 bytes, rewritten as a whole.
    R_TLSGD: (4, 12),
    R_TLSLD: (3, 9),
}


def masked(content: bytes, fields: list[tuple[int, int]]) -> bytes:
    """The content with what the linker may have written set to zero; `fields` are (offset, relocation type)."""
    plain = bytearray(content)
    for offset, kind in fields:
        before, after = _EXTENT.get(kind, (0, 4))
        start, end = max(offset - before, 0), min(offset + after, len(plain))
        plain[start:end] = bytes(end - start)
    return bytes(plain)
