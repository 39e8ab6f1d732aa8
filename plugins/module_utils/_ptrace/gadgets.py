# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The two pieces of a program's own code through which a thread can make a system call, and come back from it alone."""

from __future__ import annotations

from dataclasses import dataclass

from .._errors import LivepatchError
from .._process.maps import Mapping
from .._process.process import Process
from . import x86_64 as arch

_places: dict[tuple[str, int, int, int], tuple[int, int]] = {}


@dataclass(frozen=True)
class Gadgets:
    """Addresses of code that the program has anyway: `call` is `syscall; ret`, `restorer` calls rt_sigreturn."""

    call: int
    restorer: int


def find_gadgets(process: Process, mappings: list[Mapping]) -> Gadgets:
    """Where the program has the two pieces of code. Raises LivepatchError patch_unsupported where it has not."""
    code = [mapping for mapping in mappings if mapping.is_executable() and mapping.is_file()]
    code.sort(key=lambda mapping: "libc" not in mapping.path.rpartition("/")[2])
    for mapping in code:
        key = (mapping.device, mapping.inode, mapping.offset, mapping.end - mapping.start)
        found = _places.get(key)
        if found is None:
            text = process.memory.read_some(mapping.start, mapping.end - mapping.start)
            found = (text.find(arch.SYSCALL_RETURN), text.find(arch.SIGNAL_RETURN))
            if len(text) == mapping.end - mapping.start:  # else the process has just gone, and others have not
                _places[key] = found
        call, restorer = (mapping.start + place for place in found)
        if min(found) >= 0 and (
            process.memory.read_some(call, len(arch.SYSCALL_RETURN)) == arch.SYSCALL_RETURN
            and process.memory.read_some(restorer, len(arch.SIGNAL_RETURN)) == arch.SIGNAL_RETURN
        ):
            return Gadgets(call, restorer)
    raise LivepatchError(
        "patch_unsupported",
        "%s has no C library through which a system call could be made safely (neither glibc, musl nor Go's)" % process,
        "Restart the process into the fixed version.",
    )
