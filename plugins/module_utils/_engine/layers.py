# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What lies on top of what: several patches may change one place, and the active one that came last is seen.

A place is one function (known by its entry, wherever in its first bytes a patch puts its branch) or one value. What
must be there are the program's own bytes, and over them those of one patch alone, the last in order of activation.
The headers say what is active and in which order; the bytes say whether that is so, and how far a tool that died got.
"""

from __future__ import annotations

from .._process.maps import Mapping
from .._process.memory import Memory
from .._process.process import Process
from .bindings import lost_use, object_is_there
from .image import PAGE
from .region import ACTIVATING, ACTIVE, DEACTIVATING, HALF, LOADED, Region, Site, find_regions

# What else than a patch's id may be on top of a place.
PROGRAM, FOREIGN, GONE = "", "?", "-"
# What a patch's site is: seen, not there, hidden by a patch activated later, or holding bytes that nobody knows.
ON, OFF, COVERED, UNKNOWN = "on", "off", "covered", "unknown"
MIXED, UNCLEAR = "mixed", "unclear"


def place_of(site: Site) -> tuple[bool, int]:
    """The place that a site belongs to."""
    return (True, site.address) if site.kind == "data" else (False, site.entry)


class Layers:
    """The patches of one process and what is on top at each place, as it was when it was first asked.

    A patch whose object is not there any more has no place: whatever lies at its addresses now is none of its business.
    """

    def __init__(self, memory: Memory, mappings: list[Mapping], regions: list[Region]) -> None:
        self.memory = memory
        self._mappings = mappings
        #: Whole regions in order of activation; those not active first.
        self.regions = [region for region in regions if region.mutable.state not in HALF]
        self.regions.sort(key=lambda region: (region.mutable.order, region.address))
        self._by_id = {region.id: region for region in self.regions}
        self._sites: dict[tuple[bool, int], dict[str, Site]] = {}
        self._tops: dict[tuple[bool, int], str] = {}
        #: Of these regions, those whose objects are there: only these have places.
        self.bound = [region for region in self.regions if object_is_there(memory, mappings, region)]
        for region in self.bound:
            for site in region.sites:
                self._sites.setdefault(place_of(site), {})[region.id] = site

    @classmethod
    def of(cls, process: Process) -> Layers:
        """The layers of a process now."""
        mappings = process.maps()
        return cls(process.memory, mappings, find_regions(process.memory, mappings))

    def region(self, patch_id: str) -> Region | None:
        """The region of a patch, None when there is none."""
        return self._by_id.get(patch_id)

    def site(self, place: tuple[bool, int], patch_id: str) -> Site | None:
        """The site that a patch has at a place, None when it has none."""
        return self._sites.get(place, {}).get(patch_id)

    def lacks(self, region: Region) -> str:
        """What a region was made for and is not there any more, in words; empty when all of it is."""
        if region not in self.bound:
            return "its object is not mapped at %#x any more" % region.object_start
        lost = lost_use(self._mappings, region)
        return "what its code uses at %#x is not mapped there any more" % lost if lost else ""

    def next_order(self) -> int:
        """The order of a patch activated now."""
        return max([region.mutable.order for region in self.regions], default=0) + 1

    def top(self, place: tuple[bool, int]) -> str:
        """The id of the patch whose bytes are at a place; PROGRAM, FOREIGN, or GONE where nothing of it is mapped.

        GONE also where no whole region has a site: a region is taken out once nothing leads into it.
        """
        if place not in self._sites:
            return GONE
        if place not in self._tops:
            self._tops[place] = self._look(list(self._sites[place].values()), self._candidates(place))
        return self._tops[place]

    def mark(self, region: Region, site: Site) -> str:
        """What one site of a region is: ON, OFF, COVERED or UNKNOWN."""
        top = self.top(place_of(site))
        if top == region.id:
            return ON
        if top in (PROGRAM, GONE) or region not in self.bound:
            return OFF
        if top == FOREIGN:
            return UNKNOWN
        return COVERED if 0 < region.mutable.order < self._by_id[top].mutable.order else OFF

    def standing(self, region: Region) -> str:
        """What the bytes alone say of a region: "active", "loaded", MIXED, or UNCLEAR when others cover all of it.

        A value that nobody knows says nothing: the program may have changed it.
        """
        marks = {(self.mark(region, site), site.kind == "data") for site in region.sites}
        on = bool(marks & {(ON, False), (ON, True), (UNKNOWN, False)})
        off = bool(marks & {(OFF, False), (OFF, True)})
        if (on and off) or (UNKNOWN, False) in marks:
            return MIXED
        return "active" if on else "loaded" if off else UNCLEAR

    def settled(self) -> list[Region]:
        """The patches that are to count as active, in order; what was under way when a tool died is decided.

        An activation that did not get to its end is taken back, with what it replaces; a deactivation that began is
        completed. What else is active at the same places stays so, also where only the program's own bytes are there:
        the way from one patch to another may lead by these.
        """
        states = {region.id: region.mutable.state for region in self.regions}
        standings = {region.id: self.standing(region) for region in self.regions}
        rising = [name for name, state in states.items() if state == ACTIVATING]
        back = any(standings[name] != "active" for name in rising)
        stay = {
            ACTIVATING: set() if back else {"active"},
            DEACTIVATING: ({"active", MIXED, UNCLEAR, "loaded"} if back else set()) if rising else {"active"},
            ACTIVE: {"active", MIXED, UNCLEAR},
            LOADED: {"active"},
        }
        under_way = [region for region in self.bound if region.mutable.state in (ACTIVATING, DEACTIVATING)]
        passed = {place_of(site) for region in under_way for site in region.sites}
        between = [
            region
            for region in self.bound
            if region.mutable.state == ACTIVE and passed.intersection(place_of(site) for site in region.sites)
        ]
        return [
            region for region in self.regions if standings[region.id] in stay[states[region.id]] or region in between
        ]

    def state(self, region: Region) -> str:
        """What a region is: "active", "loaded", or MIXED, in between or with other bytes than known ones."""
        standing = self.standing(region)
        if standing == UNCLEAR:
            return "active" if region in self.settled() else "loaded"
        return standing

    def torn(self, place: tuple[bool, int]) -> Site | None:
        """A site of a value that a switch left half written: across pages it is more than one write for the kernel.

        None where no switch was under way, or where some page of it holds none of the known values: the program's own.
        """
        sites = list(self._sites.get(place, {}).items())
        under_way = [self._by_id[name].mutable.state in (ACTIVATING, DEACTIVATING) for name, _site in sites]
        if not place[0] or not any(under_way) or self.top(place) != FOREIGN:
            return None
        one = sites[0][1]
        known = [one.old, *(site.new for _name, site in sites)]
        now = self.memory.read(one.address, len(one.old))
        ends = [*range(PAGE - one.address % PAGE, len(now), PAGE), len(now)]
        pages = [slice(start, end) for start, end in zip([0, *ends], ends)]
        return one if all(any(now[page] == value[page] for value in known) for page in pages) else None

    def shown(self, place: tuple[bool, int], active: list[Region]) -> str:
        """What is on top of a place when these patches are active, given in their order."""
        here = self._sites.get(place, {})
        return next((region.id for region in reversed(active) if region.id in here), PROGRAM)

    def program_bytes(self, address: int, size: int) -> bytes:
        """What the program itself has at an address: the bytes there, less what patches made of them.

        Raises as Memory.read does.
        """
        content = bytearray(self.memory.read(address, size))
        for place, sites in self._sites.items():
            for site in sites.values():
                overlaps = site.address < address + size and address < site.address + len(site.old)
                if overlaps and self.top(place) not in (FOREIGN, GONE):
                    _overlay(content, address, site.address, site.old)
        return bytes(content)

    def _candidates(self, place: tuple[bool, int]) -> list[str]:
        """Who may be on top, likeliest first: of two with the same value, the one activated later."""
        here = [region for region in reversed(self.regions) if region.id in self._sites[place]]
        active = [region.id for region in here if region.mutable.order]
        return [*active, PROGRAM, *(region.id for region in here if not region.mutable.order)]

    def _look(self, sites: list[Site], candidates: list[str]) -> str:
        there = [(site, self.memory.read_some(site.address, len(site.old))) for site in sites]
        if any(len(now) < len(site.old) for site, now in there):
            return GONE
        for name in candidates:
            over = self._sites[place_of(sites[0])].get(name)
            if all(now == _expected(site, over) for site, now in there):
                return name
        return FOREIGN


def _expected(site: Site, over: Site | None) -> bytes:
    """What is at a site while another one (or itself, or none) is on top of its place."""
    content = bytearray(site.old)
    if over is not None:
        _overlay(content, site.address, over.address, over.new)
    return bytes(content)


def _overlay(content: bytearray, address: int, at: int, piece: bytes) -> None:
    """Lay `piece`, of address `at`, over `content`, of `address`, where they overlap."""
    start, end = max(address, at), min(address + len(content), at + len(piece))
    if start < end:
        content[start - address : end - address] = piece[start - at : end - at]
