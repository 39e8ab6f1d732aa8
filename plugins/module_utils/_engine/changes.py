# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""From the layers that are there to those that shall be: the bytes to write, and where nobody may stand meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .._errors import LivepatchError
from .choose_switch import BYTE
from .image import PAGE
from .layers import FOREIGN, GONE, Layers, place_of
from .make_switch import CodeLeft, Write
from .region import Region, Site


@dataclass(frozen=True)
class Change:
    """One place that is switched over, in one write: a tool that dies before or after it leaves a whole function.

    `leaves`: the patch that was on top, or PROGRAM. `alone`: the write may be made while everybody runs. In the ranges
    `forbidden` nobody may stand: inside the bytes that become, or were, one branch.
    """

    write: Write
    leaves: str
    alone: bool
    forbidden: tuple[tuple[int, int], ...]


def changes(layers: Layers, concerned: list[Region], before: list[Region] | None, after: list[Region]) -> list[Change]:
    """What to write at the places of the `concerned` patches so that those active are the ones of `after`, in order.

    `before`: those active now, whose tops are left alone where they stay (also where the program has changed a value);
    None when that is not certain. What is not mapped any more is left out. Raises LivepatchError object_modified.
    """
    found = []
    concerned = [region for region in concerned if region in layers.bound]
    for place in dict.fromkeys(place_of(site) for region in concerned for site in region.sites):
        top, wanted = layers.top(place), layers.shown(place, after)
        if top in (wanted, GONE) or (before is not None and wanted == layers.shown(place, before)):
            continue
        torn = layers.torn(place)
        if torn is not None:
            found += _mended(layers, torn, layers.site(place, wanted))
            continue
        if top == FOREIGN:
            site = next(site for region in concerned for site in region.sites if place_of(site) == place)
            raise modified(site, "has neither its own bytes nor those of a patch")
        found += _changes(layers, top, layers.site(place, top), layers.site(place, wanted))
    return found


def modified(site: Site, how: str) -> LivepatchError:
    """The error for a site with bytes that are not ours to change."""
    return LivepatchError("object_modified", "%s at %#x %s" % (site.name, site.address, how))


def code_left(layers: Layers, switched: list[Change], subject: Region) -> CodeLeft:
    """The code that a switch leads away from; `subject` is the patch that it is about."""
    left = CodeLeft([], [])
    for name in dict.fromkeys(change.leaves for change in switched):
        region = layers.region(name)
        branches = [] if region is None else region.branches()
        code = list(subject.replaced) if region is None else region.code_ranges()
        left.functions.extend(part for part in code if part not in branches)
        left.branches.extend(branches)
    return left


def _changes(layers: Layers, leaves: str, from_site: Site | None, to_site: Site | None) -> list[Change]:
    """The changes from one site, or the program's own bytes, to another; none where both have the same bytes.

    One, but for sites on two pages, which no write changes at one instant: then by way of the program's own bytes.
    """
    if from_site and to_site and _page_changed(from_site) != _page_changed(to_site) and from_site.kind != "data":
        back = _between(leaves, [from_site], from_site.address, from_site.new, from_site.old)
        on = _between(leaves, [to_site], to_site.address, to_site.old, to_site.new)
        return [replace(change, alone=False) for change in (back, on) if change is not None]
    change = _change(layers, leaves, from_site, to_site)
    return [] if change is None else [change]


def _mended(layers: Layers, torn: Site, to_site: Site | None) -> list[Change]:
    """The change of a value that was left half written to one that is whole."""
    now, whole = layers.memory.read(torn.address, len(torn.old)), to_site.new if to_site else torn.old
    change = _between(FOREIGN, [torn], torn.address, now, whole)
    return [] if change is None else [change]


def _page_changed(site: Site) -> int:
    """The page of the bytes in which a site's old and new content differ: choose_switch sees to it that it is one."""
    first = next((index for index, (one, two) in enumerate(zip(site.old, site.new)) if one != two), 0)
    return (site.address + first) // PAGE


def _change(layers: Layers, leaves: str, from_site: Site | None, to_site: Site | None) -> Change | None:
    """One change from one site, or the program's own bytes, to another; None where both have the same bytes."""
    sites = [site for site in (to_site, from_site) if site is not None]
    start = min(site.address for site in sites)
    old = layers.memory.read(start, max(site.address + len(site.old) for site in sites) - start)
    new = bytearray(old)
    if from_site is not None:
        new[from_site.address - start : from_site.address - start + len(from_site.old)] = from_site.old
    if to_site is not None:
        new[to_site.address - start : to_site.address - start + len(to_site.new)] = to_site.new
    return _between(leaves, sites, start, old, bytes(new))


def _between(leaves: str, sites: list[Site], start: int, old: bytes, new: bytes) -> Change | None:
    """The change from `old` to `new` bytes at `start`, for these sites; None where both are the same."""
    differ = [index for index, (one, two) in enumerate(zip(old, new)) if one != two]
    if not differ:
        return None
    first, end = differ[0], differ[-1] + 1
    write = Write(sites[0], start + first, old[first:end], new[first:end])
    alone = end - first == 1 and len(sites) == 1 and sites[0].kind == BYTE
    forbidden = [
        (site.address + 1, min(site.address + len(site.old), start + end)) for site in sites if site.kind != "data"
    ]
    return Change(write, leaves, alone, () if alone else tuple(part for part in forbidden if part[0] < part[1]))
