# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The places in a program that patches change: what is there now, and what the program itself has there."""

from __future__ import annotations

import hashlib

from .._errors import LivepatchError
from .._patch.manifest import ReplacedFunction
from .._process.memory import Memory
from .region import Region, Site

OLD, NEW, FOREIGN, GONE = "old", "new", "foreign", "gone"


def site_states(memory: Memory, region: Region, regions: list[Region] | None = None) -> list[str]:
    """The state of each site of a region, in order: OLD, NEW, FOREIGN when the bytes are neither, GONE where nothing is
    mapped any more.

    `regions`: all of the process. Where another patch has changed a place, what it will put back is looked at.
    """
    return [_site_state(memory, site, regions or []) for site in region.sites]


def _site_state(memory: Memory, site: Site, regions: list[Region]) -> str:
    now = memory.read_some(site.address, len(site.old))
    if len(now) < len(site.old):
        return GONE
    if now == site.new:
        return NEW
    return OLD if site.old in (now, program_bytes(memory, regions, site.address, len(site.old))) else FOREIGN


def program_bytes(memory: Memory, regions: list[Region], address: int, size: int) -> bytes:
    """What the program itself has at an address: the bytes there, less what active patches made of them."""
    content = bytearray(memory.read(address, size))
    for site in [site for region in regions for site in region.sites]:
        overlaps = site.address < address + size and address < site.address + len(site.new)
        if overlaps and memory.read(site.address, len(site.new)) == site.new:
            for index, byte in enumerate(site.old):
                if 0 <= site.address + index - address < size:
                    content[site.address + index - address] = byte
    return bytes(content)


def check_original(memory: Memory, regions: list[Region], function: ReplacedFunction, entry: int, who: str) -> None:
    """Compare a function in memory with the one the patch was built for. Raises LivepatchError object_modified."""
    size = max(function.size, len(function.entry) // 2)
    code = program_bytes(memory, regions, entry, size)
    if hashlib.sha256(code[: function.size]).hexdigest() != function.sha256 or not code.startswith(
        bytes.fromhex(function.entry)
    ):
        raise LivepatchError(
            "object_modified",
            "%s at %#x of %s is not the code that the patch was built for" % (function.name, entry, who),
        )


def rivals(regions: list[Region], region: Region) -> list[Region]:
    """The other regions that change a place, or a function at some place, which `region` changes too."""
    return [
        other
        for other in regions
        if other.id != region.id
        and any(
            (one.entry and one.entry == two.entry)
            or (one.address < two.address + len(two.new) and two.address < one.address + len(one.new))
            for one in region.sites
            for two in other.sites
        )
    ]
