# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The places in a program that a patch is to change: they must be what it was built for, and not another's half."""

from __future__ import annotations

import hashlib

from .._errors import LivepatchError
from .._patch.manifest import ReplacedFunction
from .layers import Layers, place_of
from .region import Region, Site


def check_original(layers: Layers, function: ReplacedFunction, entry: int, who: str) -> None:
    """Compare a function in memory with the one the patch was built for. Raises LivepatchError object_modified."""
    size = max(function.size, len(function.entry) // 2)
    code = layers.program_bytes(entry, size)
    if hashlib.sha256(code[: function.size]).hexdigest() != function.sha256 or not code.startswith(
        bytes.fromhex(function.entry)
    ):
        raise LivepatchError(
            "object_modified",
            "%s at %#x of %s is not the code that the patch was built for" % (function.name, entry, who),
        )


def check_apart(regions: list[Region], sites: tuple[Site, ...], who: str) -> None:
    """Patches may be stacked on one place, and not reach into another one's.

    Raises LivepatchError function_too_short for a function next to another patch's, patch_unsupported for a value that
    only overlaps.
    """
    for site in sites:
        for region in regions:
            for other in region.sites:
                overlap = site.address < other.address + len(other.old) and other.address < site.address + len(site.old)
                same = place_of(site) == place_of(other)
                if overlap and (not same or (site.kind == "data" and len(site.old) != len(other.old))):
                    raise LivepatchError(
                        "patch_unsupported" if site.kind == "data" else "function_too_short",
                        "the bytes of %s that would change overlap those of %s, which patch %s in %s changes"
                        % (site.name, other.name, region.id, who),
                        "Take patch %s out first, or build one patch of both." % region.id,
                    )


def holders(regions: list[Region]) -> dict[int, str]:
    """The patches loaded for functions, by the entries of these."""
    return {site.entry: region.id for region in regions for site in region.sites if site.kind != "data"}
