# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The region: the layout of what a patch leaves in a process, and which describes itself.

All its mappings are private ones of one memfd named `livepatch:<id>`, so /proc/PID/maps shows them and fork keeps them.
The first page starts with a header; behind it stands, as JSON, everything that later steps must know. Nothing about a
patch in a process is kept anywhere else. The header's state tells how far whoever worked on it got.
"""

from __future__ import annotations

import functools
import hashlib
import json
import struct
from dataclasses import dataclass
from typing import Any

from .._errors import LivepatchError
from .._patch.manifest import CONSISTENCIES, ID_PATTERN, MOST_PLACES, Manifest
from .._patch.reader import MOST_MEMORY_BYTES
from .._patch.strict_json import strict_json
from .._process.maps import Mapping
from .._process.memory import Memory

MAGIC = b"LIVEPTCH"
VERSION = 4
NAME = "livepatch:"
LOADING, LOADED, ACTIVATING, ACTIVE, DEACTIVATING, UNLOADING = range(1, 7)
STATE_NAMES = {
    LOADING: "loading",
    LOADED: "loaded",
    ACTIVATING: "activating",
    ACTIVE: "active",
    DEACTIVATING: "deactivating",
    UNLOADING: "unloading",
}
# magic, version, description size, own address, description digest | state, switch, sequence, activated, stop, order
_FIXED = struct.Struct("<8sIIQ32s")
_MUTABLE = struct.Struct("<IIQQQQ")
_MUTABLE_AT = _FIXED.size
# In these states the region is only half there: what is left of it is to be taken out.
HALF = (LOADING, UNLOADING)
HEADER_SIZE = _FIXED.size + _MUTABLE.size
_SWITCH_NUMBERS = {"none": 0, "byte": 1, "stop": 2}
MOST_DESCRIPTION = 4 << 20
# What a patch file may ask for, twice: a program that invents a region must not make us read all of its memory.
_MOST_SIZE = 2 * MOST_MEMORY_BYTES
# Nor invent many: more patches, places or parts than any program has, or bytes of description in one program.
_MOST_REGIONS, _MOST_PLACES, _MOST_DESCRIPTIONS = 64, MOST_PLACES, 16 << 20
# A branch lies among the first bytes of its function.
_MOST_APART = 64


@dataclass(frozen=True)
class Mutable:
    """The part of the header that changes: `sequence` counts changes, `activated_at` is seconds since 1970 or 0.

    `order`: 0 while not active, else greater than that of every patch of the process that was activated before.
    """

    state: int
    switch: str
    sequence: int
    activated_at: int
    stop_us: int
    order: int = 0


_UNKNOWN = Mutable(LOADING, "none", 0, 0, 0)


@dataclass(frozen=True)
class Site:
    """One place in the program that activation changes. `kind`: byte, jump, or data; run-time address, old and new
    bytes.
    """

    name: str
    kind: str
    address: int
    old: bytes
    new: bytes
    entry: int = 0
    code: int = 0


@dataclass(frozen=True)
class Region:
    """A region found in, or about to be put into, a process.

    `parts`: (start, size, PROT_ bits) of all its mappings. `digests`: (start, size, SHA-256) of what nobody may ever
    write to. `replaced`: (start, end) of the program's own code that the patch replaces: who is there is inside an old
    function. `uses`: (address, what is mapped there) of the other objects that its code leads into.
    `frames`: where what registers its unwind table, that table, the record for it and the unwinder's function are (see
    unwinder.py); empty for a patch without one.
    """

    address: int
    mutable: Mutable
    id: str
    version: str
    sha256: str
    patch: dict[str, Any]
    object_path: str
    object_start: int
    sites: tuple[Site, ...]
    parts: tuple[tuple[int, int, int], ...]
    digests: tuple[tuple[int, int, str], ...]
    replaced: tuple[tuple[int, int], ...] = ()
    uses: tuple[tuple[int, str], ...] = ()
    frames: tuple[int, ...] = ()

    def code_ranges(self) -> list[tuple[int, int]]:
        """The address ranges [start, end) in which the patch has code: its text and its branches."""
        return [(start, start + size) for start, size, protection in self.parts if protection & 4]

    def branches(self) -> list[tuple[int, int]]:
        """The address ranges [start, end) of its branches, where they lie apart from its text: they call nothing."""
        codes = [site.code for site in self.sites if site.kind != "data"]
        return [part for part in self.code_ranges() if not any(part[0] <= code < part[1] for code in codes)]


def about(manifest: Manifest) -> dict[str, Any]:
    """What a region keeps of its patch's manifest, for those who know the process alone."""
    return {
        "description": manifest.description,
        "cves": list(manifest.cves),
        "requires": list(manifest.requires),
        "replaces": list(manifest.replaces),
        "consistency": manifest.consistency,
        "build_id": manifest.object.build_id,
    }


def describe(region: Region) -> bytes:
    """The description of a region as it stands behind the header."""
    plain = {
        "id": region.id,
        "version": region.version,
        "sha256": region.sha256,
        "patch": region.patch,
        "object_path": region.object_path,
        "object_start": region.object_start,
        "sites": [
            [site.name, site.kind, site.address, site.old.hex(), site.new.hex(), site.entry, site.code]
            for site in region.sites
        ],
        "parts": region.parts,
        "digests": region.digests,
        "replaced": region.replaced,
        "uses": region.uses,
        "frames": region.frames,
    }
    return json.dumps(plain, sort_keys=True).encode("ascii")


def header(address: int, description: bytes, mutable: Mutable) -> bytes:
    """The header of a region at `address`."""
    digest = hashlib.sha256(description).digest()
    return _FIXED.pack(MAGIC, VERSION, len(description), address, digest) + _pack(mutable)


def write_mutable(memory: Memory, region: Region, mutable: Mutable) -> Region:
    """Write the changing part of the header; the region with it. Raises as Memory.write does."""
    memory.write(region.address + _MUTABLE_AT, _pack(mutable))
    return _with(region, mutable)


def find_regions(memory: Memory, mappings: list[Mapping]) -> list[Region]:
    """Every region in a process, in order of activation (those not active first), then of address.

    Of more than any process has, only the first: they are its own invention.
    """
    found = []
    claims, left = 0, _MOST_DESCRIPTIONS
    for mapping in mappings:
        if mapping.path.startswith("/memfd:" + NAME) and mapping.offset == 0:
            claimed = _claimed_size(memory, mapping.start)
            claims, left = claims + bool(claimed), left - claimed
            if claims > _MOST_REGIONS or left < 0:
                break
            region = read_region(memory, mapping.start) if claimed else None
            if region:
                found.append(region)
    return sorted(found, key=lambda region: (region.mutable.order, region.address))


def find_region(regions: list[Region], patch_id: str) -> Region | None:
    """The whole region of a patch, or None."""
    for region in regions:
        if region.id == patch_id and region.mutable.state not in HALF:
            return region
    return None


def read_region(memory: Memory, address: int) -> Region | None:
    """The region whose header lies at `address`, or None when there is none that is whole."""
    try:
        raw = memory.read(address, HEADER_SIZE)
        magic, version, size, own_address, digest = _FIXED.unpack_from(raw)
        if magic != MAGIC or version != VERSION or own_address != address or size > MOST_DESCRIPTION:
            return None
        region, known = _described(address, memory.read(address + HEADER_SIZE, size))
        return _with(region, _unpack(raw)) if known == digest else None
    except (OSError, ValueError, KeyError, TypeError, struct.error, OverflowError, RecursionError):
        return None


def _claimed_size(memory: Memory, address: int) -> int:
    """How large the description is that a header at `address` announces, 0 where there is no header for this place."""
    raw = memory.read_some(address, HEADER_SIZE)
    if len(raw) < HEADER_SIZE:
        return 0
    magic, version, size, own_address, _digest = _FIXED.unpack_from(raw)
    return int(size) if (magic, version, own_address) == (MAGIC, VERSION, address) and size <= MOST_DESCRIPTION else 0


def foreign_version(memory: Memory, address: int) -> bool:
    """True when a header lies at `address` whose layout is not the one known here."""
    raw = memory.read_some(address, HEADER_SIZE)
    return len(raw) == HEADER_SIZE and raw.startswith(MAGIC) and _FIXED.unpack_from(raw)[1] != VERSION


def file_name(patch_id: str) -> str:
    """The path that a patch's memfd has in /proc/PID/maps and /proc/PID/fd."""
    return "/memfd:%s%s (deleted)" % (NAME, patch_id)


def leftovers(mappings: list[Mapping], regions: list[Region], patch_id: str) -> list[Mapping]:
    """Mappings named for a patch that no whole region accounts for: what a tool that died left, header last."""
    parts = [part for region in regions if region.mutable.state not in HALF for part in region.parts]
    return [
        mapping
        for mapping in mappings
        if mapping.path == file_name(patch_id)
        and not any(start <= mapping.start < start + size for start, size, _protection in parts)
    ]


def _with(region: Region, mutable: Mutable) -> Region:
    """The region with another changing part; as dataclasses.replace, in a tenth of its time."""
    return Region(**{**vars(region), "mutable": mutable})


@functools.lru_cache(maxsize=8)
def _described(address: int, description: bytes) -> tuple[Region, bytes]:
    """The region of a description, its changing part not yet known, and the digest of the description.

    Kept, for it is read time and again while a process is worked on. Raises as `_parse`.
    """
    return _parse(address, _UNKNOWN, strict_json(description)), hashlib.sha256(description).digest()


def _parse(address: int, mutable: Mutable, plain: dict[str, Any]) -> Region:
    """The region of a description, which any program may have written. Raises ValueError, KeyError or TypeError."""
    about = plain["patch"]
    for name in ("description", "consistency", "build_id"):
        if not isinstance(about[name], str):
            raise ValueError("%s is no text" % name)
    for name in ("cves", "requires", "replaces"):
        if not isinstance(about[name], list) or not all(isinstance(item, str) for item in about[name]):
            raise ValueError("%s is no list of texts" % name)
    if about["consistency"] not in CONSISTENCIES:
        raise ValueError("consistency %s" % about["consistency"])
    if not ID_PATTERN.match(plain["id"]):
        raise ValueError("%s is no patch id" % plain["id"])
    if any(len(plain[name]) > _MOST_PLACES for name in ("sites", "parts", "digests", "replaced", "uses")):
        raise ValueError("more places than any patch has")
    region = Region(
        address=address,
        mutable=mutable,
        id=str(plain["id"]),
        version=str(plain["version"]),
        sha256=str(plain["sha256"]),
        patch=dict(about),
        object_path=str(plain["object_path"]),
        object_start=int(plain["object_start"]),
        sites=tuple(
            Site(str(name), str(kind), int(at), bytes.fromhex(old), bytes.fromhex(new), int(entry), int(code))
            for name, kind, at, old, new, entry, code in plain["sites"]
        ),
        parts=tuple((int(start), int(size), int(protection)) for start, size, protection in plain["parts"]),
        digests=tuple((int(start), int(size), str(digest)) for start, size, digest in plain["digests"]),
        replaced=tuple((int(start), int(end)) for start, end in plain["replaced"]),
        uses=tuple((int(address), str(identity)) for address, identity in plain["uses"]),
        frames=tuple(int(address) for address in plain["frames"]),
    )
    if len(region.frames) not in (0, 4):
        raise ValueError("frames that no patch has")
    for sizes in (
        [size for _start, size, _protection in region.parts],
        [size for _start, size, _digest in region.digests],
        [end - start for start, end in region.replaced],
    ):
        if min(sizes, default=0) < 0 or sum(sizes) > _MOST_SIZE:
            raise ValueError("sizes that no patch has")
    for site in region.sites:
        if len(site.old) != len(site.new) or (site.kind != "data" and not 0 <= site.address - site.entry < _MOST_APART):
            raise ValueError("a site that no patch has")
    return region


def _pack(mutable: Mutable) -> bytes:
    return _MUTABLE.pack(
        mutable.state,
        _SWITCH_NUMBERS[mutable.switch],
        mutable.sequence,
        mutable.activated_at,
        mutable.stop_us,
        mutable.order,
    )


def _unpack(raw: bytes) -> Mutable:
    state, switch, sequence, activated_at, stop_us, order = _MUTABLE.unpack_from(raw, _MUTABLE_AT)
    if state not in STATE_NAMES:
        raise ValueError("state %d" % state)
    names = {number: name for name, number in _SWITCH_NUMBERS.items()}
    return Mutable(state, names[switch], sequence, activated_at, stop_us, order)


def missing_patch(patch_id: str, who: str) -> LivepatchError:
    """The error for a patch that is not in a process."""
    return LivepatchError("not_loaded", "patch %s is not loaded in %s" % (patch_id, who))
