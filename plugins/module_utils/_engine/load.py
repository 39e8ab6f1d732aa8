# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Loading: everything about a patch is worked out and put beside the running program, which does not use it yet."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Iterator

from .._errors import LivepatchError
from .._patch.content import Patch
from .._process.link_map import executable_start
from .._process.objects import MappedObject, find_object, mapped_objects
from .._process.process import Process
from .bindings import uses
from .choose_switch import BYTE, JUMP, Switch, choose_switches, place_runs
from .free_space import FreeSpace
from .image import Image
from .inside_object import check_fields, check_places, check_private, check_sites
from .layers import Layers
from .map_region import map_region, unmap
from .region import (
    HEADER_SIZE,
    LOADED,
    LOADING,
    Mutable,
    Region,
    Site,
    about,
    describe,
    file_name,
    find_region,
    find_regions,
    foreign_version,
    header,
    leftovers,
    write_mutable,
)
from .resolve import Resolver
from .sites import check_apart, check_original, holders
from .unwinder import check_unwinder, frames_of

_FRESH = Mutable(LOADING, "none", 0, 0, 0)
_EXECUTE_READ = 5


@dataclass(frozen=True)
class Prepared:
    """A patch as it would lie in one process: the region and the bytes of each of its parts, in the same order."""

    region: Region
    contents: tuple[bytes, ...]


def prepare(process: Process, patch: Patch, forms: tuple[str, ...] = (BYTE, JUMP)) -> Prepared:
    """Work everything out for one process, changing nothing; it runs on meanwhile.

    Raises LivepatchError build_id_mismatch, arch_mismatch, object_modified, symbol_not_found, no_room_near_object,
    function_too_short, patch_corrupt, patch_unsupported, not_permitted, process_gone.
    """
    memory, mappings, manifest = process.memory, process.maps(), patch.manifest
    objects = mapped_objects(memory, mappings)
    target = find_object(objects, manifest.object.build_id, str(process))
    if target.header.machine != manifest.object.arch:
        raise LivepatchError(
            "arch_mismatch", "the patch is for %s, %s runs %s" % (manifest.object.arch, process, target.header.machine)
        )
    layers = Layers(memory, mappings, find_regions(memory, mappings))
    check_places(target, manifest)
    for function in manifest.functions:
        check_original(layers, function, target.bias + function.offset, str(process))
    addresses = Resolver(process, target, objects).addresses(manifest)
    outside = [addresses[part.symbol] for part in manifest.references if part.is_outside]
    used = uses(mappings, [address for address in outside if address])
    heap_from = _executable_end(process, objects)
    there = holders(layers.bound)
    check_unwinder(process, manifest.references, addresses)
    room = HEADER_SIZE + 2048
    while True:
        image = Image(patch, room)
        check_fields(target, patch, image)
        space = FreeSpace(mappings, heap_from)
        base = space.near(target, image.size, image.absolute())
        space.take(base, base + image.size)
        codes = {function.symbol: base + image.symbol(function.symbol) for function in manifest.functions}
        switches = choose_switches(manifest.functions, codes, target.bias, space, forms, there)
        content = image.linked(base, addresses)
        region = replace(
            _region(patch, target, image, base, content, switches),
            uses=used,
            frames=frames_of(image, base, addresses, manifest.references),
        )
        check_sites(target, region.sites, str(process))
        check_apart(layers.bound, region.sites, str(process))
        check_private(mappings, region.sites, str(process))
        first = header(base, describe(region), _FRESH) + describe(region)
        if len(first) <= image.room:
            content[: len(first)] = first
            pieces = [bytes(content[part.offset : part.offset + part.size]) for part in image.segments]
            return Prepared(region, (*pieces, *(run for _start, run in place_runs(switches))))
        room = len(first)


def load(process: Process, prepared: Prepared) -> tuple[Region, int]:
    """Put a prepared patch into its process; the region, and how long one thread was held for it, microseconds.

    Raises LivepatchError; then nothing of it is left there.
    """
    parts = list(zip(prepared.region.parts, prepared.contents))
    held_us = map_region(process, prepared.region.id, parts)
    try:
        _check_parts(process, prepared)
        done = Mutable(LOADED, "none", 1, 0, held_us)
        return write_mutable(process.memory, prepared.region, done), held_us
    except BaseException:
        unmap(process, [(start, size) for start, size, _protection in prepared.region.parts])
        raise


def loaded_before(process: Process, patch: Patch) -> Region | None:
    """The region of this very patch if the process has it already, else None.

    Raises LivepatchError already_loaded when another patch of the same id is there.
    """
    region = find_region(find_regions(process.memory, process.last_maps()), patch.manifest.id)
    if region is not None and region.sha256 != patch.sha256:
        raise LivepatchError(
            "already_loaded",
            "%s has another patch %s loaded (version %s, sha256 %s...)"
            % (process, region.id, region.version, region.sha256[:12]),
        )
    return region


def clear_remains(process: Process, patch_id: str, pretend: bool = False) -> bool:
    """Take out what a tool that died while loading or unloading this patch left behind; True when there was something.

    `pretend`: only look. Raises LivepatchError.
    """
    mappings = process.last_maps()
    left = leftovers(mappings, find_regions(process.memory, mappings), patch_id)
    if any(foreign_version(process.memory, mapping.start) for mapping in left):
        raise LivepatchError(
            "patch_unsupported",
            "patch %s was loaded into %s by another version of cgl.livepatch" % (patch_id, process),
            "Use that version to take it out.",
        )
    files = left_open(process, patch_id)
    if (left or files) and not pretend:
        unmap(process, [(mapping.start, mapping.end - mapping.start) for mapping in left], files)
    return bool(left or files)


def left_open(process: Process, patch_id: str) -> tuple[int, ...]:
    """Descriptors of a patch's memfd that a tool that died while loading it left open in the process."""
    name = file_name(patch_id)
    return tuple(number for number in process.descriptors() if process.link("fd/%d" % number) == name)


def _region(
    patch: Patch, target: MappedObject, image: Image, base: int, content: bytearray, switches: list[Switch]
) -> Region:
    manifest, runs = patch.manifest, place_runs(switches)
    parts = [(base + part.offset, part.size, part.protection) for part in image.segments]
    parts += [(start, len(run), _EXECUTE_READ) for start, run in runs]
    kept = [
        (base + part.offset, part.size, bytes(content[part.offset : part.offset + part.size]))
        for part in image.unchanging
    ]
    kept += [(start, len(run), run) for start, run in runs]
    return Region(
        address=base,
        mutable=_FRESH,
        id=manifest.id,
        version=manifest.version,
        sha256=patch.sha256,
        patch=about(manifest),
        object_path=target.path,
        object_start=target.start,
        sites=tuple(_sites(switches, target, patch)),
        parts=tuple(parts),
        digests=tuple((start, size, hashlib.sha256(body).hexdigest()) for start, size, body in kept),
        replaced=tuple(_replaced(patch, target.bias)),
    )


def _replaced(patch: Patch, bias: int) -> Iterator[tuple[int, int]]:
    """Where a thread is inside a replaced function: behind the start of its first instruction, or in a cold part."""
    for function in patch.manifest.functions:
        yield bias + function.offset + 1, bias + function.offset + function.size
    for cold in patch.manifest.cold:
        yield bias + cold.offset, bias + cold.offset + cold.size


def _sites(switches: list[Switch], target: MappedObject, patch: Patch) -> list[Site]:
    sites = [
        Site(
            part.function.name, part.form, part.site, part.old, part.new, target.bias + part.function.offset, part.code
        )
        for part in switches
    ]
    for value in patch.manifest.data:
        address = target.bias + value.offset
        sites.append(Site(value.name, "data", address, bytes.fromhex(value.old), bytes.fromhex(value.new)))
    return sites


def _executable_end(process: Process, objects: list[MappedObject]) -> int:
    start = executable_start(process)
    return max([found.end for found in objects if found.start == start] + [start])


def _check_parts(process: Process, prepared: Prepared) -> None:
    for (start, size, _protection), content in zip(prepared.region.parts, prepared.contents):
        if process.memory.read(start, size) != content:
            raise LivepatchError("memory_mismatch", "what was put at %#x of %s is not what is there" % (start, process))
