# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The few instructions that make the system calls of a batch, in this process: `loop(first, end)`.

It makes the calls from address `first` up to `end`; it returns the address of the first that did not do what it should,
or `end`. Each has ten words: its number, six arguments, its result, and where a word must be found after it that equals
the last one. (System V ABI AMD64, 3.2.3 and A.2.1: a system call changes rax, rcx and r11 alone; rbx and rbp are kept.)
"""

from __future__ import annotations

LOOP = (
    b"\xf3\x0f\x1e\xfa"  # endbr64
    b"\x53"  # push %rbx
    b"\x55"  # push %rbp
    b"\x48\x89\xfb"  # mov %rdi,%rbx
    b"\x48\x89\xf5"  # mov %rsi,%rbp
    b"\x48\x39\xeb"  # again: cmp %rbp,%rbx
    b"\x73\x34"  # jae done
    b"\x48\x8b\x03"  # mov (%rbx),%rax
    b"\x48\x8b\x7b\x08"  # mov 8(%rbx),%rdi
    b"\x48\x8b\x73\x10"  # mov 16(%rbx),%rsi
    b"\x48\x8b\x53\x18"  # mov 24(%rbx),%rdx
    b"\x4c\x8b\x53\x20"  # mov 32(%rbx),%r10
    b"\x4c\x8b\x43\x28"  # mov 40(%rbx),%r8
    b"\x4c\x8b\x4b\x30"  # mov 48(%rbx),%r9
    b"\x0f\x05"  # syscall
    b"\x48\x89\x43\x38"  # mov %rax,56(%rbx)
    b"\x48\x8b\x43\x40"  # mov 64(%rbx),%rax
    b"\x48\x8b\x00"  # mov (%rax),%rax
    b"\x48\x3b\x43\x48"  # cmp 72(%rbx),%rax
    b"\x75\x06"  # jne done
    b"\x48\x83\xc3\x50"  # add $80,%rbx
    b"\xeb\xc7"  # jmp again
    b"\x48\x89\xd8"  # done: mov %rbx,%rax
    b"\x5d"  # pop %rbp
    b"\x5b"  # pop %rbx
    b"\xc3"  # ret
)
