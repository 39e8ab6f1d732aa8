# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What may run before a branch, and how it is undone: what is read here is what the assembler writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from patching import run

from module_utils._engine.branch.first_instructions_x86_64 import branch_sites

# First instructions, and what takes all of them back.
ALLOWED = [
    ("push %rbx", "pop %rbx"),
    ("push %r15; push %r14; push %rbp; push %rbx", "pop %rbx; pop %rbp; pop %r14; pop %r15"),
    ("push %rbp; mov %rsp, %rbp; push %r12", "pop %r12; pop %rbp"),
    ("push %rbx; mov %rdi, %rbx", "pop %rbx"),
    ("push %r12; lea 8(%rdi), %r12", "pop %r12"),
    ("push %rbp; movslq %esi, %rbp", "pop %rbp"),
    ("sub $0x18, %rsp", "lea.d32 0x18(%rsp), %rsp"),
    ("sub $0x418, %rsp", "lea.d32 0x418(%rsp), %rsp"),
    ("add $-128, %rsp", "lea.d32 0x80(%rsp), %rsp"),
    ("push %rbx; sub $0x10, %rsp", "lea.d32 0x10(%rsp), %rsp; pop %rbx"),
    ("push %rax", "pop %rax"),
    ("push %rax; xor %eax, %eax", "pop %rax"),
    ("xor %eax, %eax", "mov $8, %eax"),
    ("mov %edi, %eax", "mov $8, %eax"),
    ("mov 0x1234(%rip), %rax", "mov $8, %eax"),
    ("mov %fs:0x28, %eax; nop", "mov $8, %eax"),
    ("mov 8(%rsp), %eax", "mov $8, %eax"),
    ("lea 8(%rsp), %r10", ""),
    ("movzbl %dil, %r11d", ""),
    ("mov $7, %r10d", ""),
    ("test %edi, %edi", ""),
    ("test $1, %dil", ""),
    ("cmp %rsi, %rdi", ""),
    ("cmp $0x7f, %edi", ""),
    ("cmpl $0, 0x1234(%rip)", ""),
    ("nop", ""),
]
# Whatever reads through a caller's pointer, writes an argument or anything nobody saved, or is simply not known.
REFUSED = [
    "mov (%rdi), %rax",
    "cmpl $0, 8(%rdi)",
    "movzbl (%rdi), %eax",
    "mov (%rsp,%rdi), %rax",
    "mov 8(%rsp,%r12), %eax",
    "mov %fs:(%rdi), %rax",
    "mov %rdi, %rbx",
    "push %rbx; mov %rdi, %rbp",
    "mov $1, %esi",
    "xor %edx, %edx",
    "xor %r8d, %r8d",
    "and $-16, %rsp",
    "sub %rax, %rsp",
    "mov %rsp, %rsi",
    "mov %eax, 8(%rsp)",
    "movl $1, (%rdi)",
    "push %rsp",
    "pop %rax",
    "xchg %rax, %r8",
    "sete %al",
    "mov %dil, %al",
    "movw $1, %ax",
    "call 0x100",
    "ret",
    "jmp 0x10",
    "syscall",
    "pxor %xmm8, %xmm8",
    "cmpxchg %edi, %eax",
    "add $8, %rsp",
    "movzbl %dil, %edi",
    "lock addl $1, 8(%rsp)",
    "rep stosb",
]


def _assembled(folder: Path, text: str) -> bytes:
    source, made, flat = folder / "code.s", folder / "code.o", folder / "code"
    source.write_text(text.replace("; ", "\n") + "\n")
    run("as", "-o", str(made), str(source))
    run("objcopy", "-O", "binary", "-j", ".text", str(made), str(flat))
    return flat.read_bytes()


@pytest.mark.parametrize(("text", "undo"), ALLOWED)
def test_allowed(tmp_path: Path, text: str, undo: str) -> None:
    """Every one of them is passed, and what is undone behind the last is what is said here."""
    code = _assembled(tmp_path, text)
    sites = dict(branch_sites(code + b"\xc3" + bytes(8)))
    assert sites == {**sites, 0: b"", len(code): _assembled(tmp_path, undo)}
    assert max(sites) == len(code)
    assert len(sites) == len(text.split("; ")) + 1


@pytest.mark.parametrize("text", REFUSED)
def test_refused(tmp_path: Path, text: str) -> None:
    """The last instruction is passed by no branch."""
    before = _assembled(tmp_path, "; ".join(text.split("; ")[:-1]))
    code = _assembled(tmp_path, text)
    assert max(at for at, _undo in branch_sites(code + b"\x90" * 16)) == len(before)


def test_registers_without_an_argument(tmp_path: Path) -> None:
    """Only those behind the arguments' registers, in the order of the calling convention."""
    order = ("%edi", "%esi", "%edx", "%ecx", "%r8d", "%r9d")
    for number, register in enumerate(order):
        code = _assembled(tmp_path, "mov $1, %s" % register)
        for arguments in range(7):
            sites = dict(branch_sites(code + bytes(8), arguments))
            assert sites == ({0: b"", len(code): b""} if arguments <= number else {0: b""})


def test_cut_off() -> None:
    """An instruction whose end is not known is no place, and behind the last whole one five bytes must be known."""
    assert list(branch_sites(b"\x55\x48\x89\xe5\x48\x83\xec")) == [(0, b""), (1, b"\x5d")]
    assert list(branch_sites(b"\x55\x48\x89")) == []
    assert list(branch_sites(b"\x90\x90\x90\x90\x81\xff")) == [(0, b""), (1, b"")]


def test_behind_endbr64_first() -> None:
    """The entry itself is the last resort where indirect calls may have to find an endbr64."""
    code = b"\xf3\x0f\x1e\xfa\x53\xc3" + b"\xcc" * 10
    assert list(branch_sites(code)) == [(4, b""), (5, b"\x5b"), (0, b"")]


def test_places_are_where_instructions_end(tmp_path: Path) -> None:
    """Of every function of the C library: a place is the start of an instruction as objdump reads it."""
    library = next(line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libc.so" in line)
    rows = run("objdump", "-d", "-w", "-j", ".text", library).splitlines()
    starts: dict[int, bytes] = {}
    for row in rows:
        fields = row.split("\t")
        if len(fields) > 1:
            starts[int(fields[0].strip(" :"), 16)] = bytes.fromhex(fields[1])
    found = 0
    # From each push and each stack adjustment on, as if a function began there.
    for start, first in starts.items():
        if not (first[0] & 0xF8 == 0x50 or first[0] in (0x41, 0x48)):
            continue
        code, at = b"", start
        while at in starts and len(code) < 16:
            code += starts[at]
            at += len(starts[at])
        for offset, _undo in branch_sites(code[:16]):
            assert start + offset in starts, (hex(start), code.hex())
            found += offset > 0
    assert found > 10000
