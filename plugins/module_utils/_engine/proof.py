# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What proves that a patch is in a process: not what the process says of itself, but the patch that this host knows.

A process can put anything into its own memory, also a region that describes a patch in it which is not there. So what
is found is compared with what loading the known patch into this very process would make: where its code and constants
lie, every byte of them with every field filled in anew, every branch that leads there, the functions that it replaces,
and what the process says of the patch. That is proof of the bytes that are there, at this instant; a program that means
harm can run other code from other places, and no look from outside tells which of its code a program will run.
"""

from __future__ import annotations

from typing import Callable, Iterator, Optional

from .._errors import LivepatchError
from .._patch.content import Patch
from .._process.maps import Mapping, mapping_at
from .._process.objects import MappedObject, mapped_objects
from .._process.process import Process
from .choose_switch import BYTE, JUMP, candidates
from .image import PAGE, Image
from .inside_object import check_fields, check_places
from .layers import COVERED, ON, Layers
from .region import HEADER_SIZE, MOST_DESCRIPTION, Region, Site, about, find_regions
from .resolve import Resolver
from .sites import check_original

#: The patch with this SHA-256, None where this host does not know it.
Known = Callable[[str], Optional[Patch]]
_SHOWN = 3


def nothing_known(_sha256: str) -> Patch | None:
    """For a host that knows no patch."""
    return None


def doubts(
    process: Process, mappings: list[Mapping], objects: list[MappedObject], regions: list[Region], known: Known
) -> dict[int, tuple[str, ...]]:
    """What speaks against each region that claims to be a patch this host knows, by the region's address.

    An empty tuple is proof. Regions of patches that are not known are left out. Raises LivepatchError process_gone.
    """
    patches = {region.address: patch for region in regions for patch in [known(region.sha256)] if patch}
    found = {
        region.address: _compare(process, mappings, objects, region, patches[region.address])
        for region in regions
        if region.address in patches
    }
    proven = [region for region in regions if found.get(region.address) == ()]
    # What lies on top of what is asked of the proven ones alone: another one's word counts for nothing.
    layers = Layers(process.memory, mappings, proven)
    for region in proven:
        found[region.address] = tuple(_covered(process, layers, region, patches[region.address]))[:_SHOWN]
    return found


def check_claim(process: Process, region: Region, patch: Patch) -> bool:
    """Whether a region claims to be this patch, and is. One whose object was closed claims nothing.

    Raises LivepatchError memory_mismatch where it does and is not, or where there is another one of the same id.
    """
    mappings = process.maps()
    objects = mapped_objects(process.memory, mappings)
    regions = find_regions(process.memory, mappings)
    layers = Layers(process.memory, mappings, regions)
    if layers.lacks(region):
        return False
    if [one for one in layers.regions if one.id == region.id] == [region]:
        why = _compare(process, mappings, objects, region, patch)
    else:
        why = ("there are several of that name",)
    if why:
        raise LivepatchError(
            "memory_mismatch",
            "%s says that it has patch %s, and has not: %s" % (process, region.id, "; ".join(why)),
            "Restart the process: something in it has changed the patch, or what it says of that.",
        )
    return True


def _compare(
    process: Process, mappings: list[Mapping], objects: list[MappedObject], region: Region, patch: Patch
) -> tuple[str, ...]:
    try:
        return tuple(_differences(process, mappings, objects, region, patch))[:_SHOWN]
    except LivepatchError as error:
        if error.code == "process_gone":
            raise
        return ("it cannot be compared with the patch that this host knows: %s" % error.message,)
    except OSError as error:
        return ("it cannot be compared with the patch that this host knows: %s" % error,)


def _differences(
    process: Process, mappings: list[Mapping], objects: list[MappedObject], region: Region, patch: Patch
) -> Iterator[str]:
    """What of a region's code and sites is not what loading the patch would make. Raises LivepatchError, OSError."""
    manifest = patch.manifest
    if (region.id, region.version, region.patch) != (manifest.id, manifest.version, about(manifest)):
        yield "what it says of the patch is not what the patch says"
    target = next((one for one in objects if one.start == region.object_start), None)
    if target is None or target.build_id != manifest.object.build_id:
        yield "its object is not at %#x" % region.object_start
        return
    check_places(target, manifest)
    room = region.digests[0][0] - region.address if region.digests else 0
    if not HEADER_SIZE < room <= MOST_DESCRIPTION + PAGE:
        yield "its code is nowhere"
        return
    image = Image(patch, room)
    check_fields(target, patch, image)
    base = region.address
    expected = image.linked(base, Resolver(process, target, objects).addresses(manifest))
    for part in image.unchanging:
        content = bytes(expected[part.offset : part.offset + part.size])
        if process.memory.read_some(base + part.offset, part.size) != content:
            yield "its bytes at %#x are not those of the patch" % (base + part.offset)
    codes = {function.symbol: base + image.symbol(function.symbol) for function in manifest.functions}
    sites = {site.entry: site for site in region.sites if site.kind != "data"}
    if len(region.sites) != len(manifest.functions) + len(manifest.data):
        yield "it speaks of %d places, the patch has others" % len(region.sites)
    for function in manifest.functions:
        entry, code = target.bias + function.offset, codes[function.symbol]
        site, place = sites.get(entry), mapping_at(mappings, code)
        ways = candidates(function, manifest.functions, entry, code, (BYTE, JUMP))
        made = ((way, Site(function.name, way.form, way.site, way.old, way.new, entry, code)) for way in ways)
        way = next((way for way, meant in made if meant == site), None)
        if way is None or place is None or not place.is_executable():
            yield "%s does not lead to its new code" % function.name
        elif process.memory.read_some(way.place, len(way.branch)) != way.branch:
            yield "the branch of %s at %#x is another" % (function.name, way.place)
    values = [
        Site(value.name, "data", target.bias + value.offset, bytes.fromhex(value.old), bytes.fromhex(value.new))
        for value in manifest.data
    ]
    if [site for site in region.sites if site.kind == "data"] != values:
        yield "the values that it speaks of are not those of the patch"


def _covered(process: Process, layers: Layers, region: Region, patch: Patch) -> Iterator[str]:
    """What is not as it must be where a proven patch meets the program: its functions, and what is on top of them."""
    entries = {site.name: site.entry for site in region.sites if site.kind != "data"}
    for function in patch.manifest.functions:
        try:
            check_original(layers, function, entries[function.name], str(process))
        except (LivepatchError, OSError) as error:
            yield str(error)
    marks = {layers.mark(region, site) for site in region.sites if site.kind != "data"}
    if region.mutable.order and not marks <= {ON, COVERED}:
        yield "what lies over its functions is not known to be a patch"
