# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What is desired of one patch on a host: a small JSON file that people can read, and that is believed in nothing."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from .._errors import LivepatchError
from .._patch.content import Patch
from .._patch.manifest import ID_PATTERN
from .._patch.signature import Signer
from .._process.selection import Selection

FORMAT = 1
MOST_BYTES = 64 << 10
NARROWING = ("exe", "unit", "user", "cgroup")
_HEX = re.compile(r"[0-9a-f]{2,128}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class Desired:
    """One patch that a host should have.

    `object`: the name of what it is for, for people; `paths`: where that was seen on this host; `processes`: what
    narrows the processes, as in Selection; `stored_at`: seconds since 1970; `signer`, `key`: who had signed it
    when it was stored, empty where nobody asked.
    """

    id: str
    version: str
    sha256: str
    build_id: str
    object: str
    enabled: bool
    stored_at: int
    cves: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    processes: dict[str, str] = field(default_factory=dict)
    signer: str = ""
    key: str = ""

    @property
    def file_name(self) -> str:
        """The name of the patch file that belongs to it: another version never overwrites it."""
        return "%s.%s.lpatch" % (self.id, self.sha256[:16])

    def selection(self) -> Selection:
        """The processes that are meant, on this host."""
        return selection_of(self.processes)

    def to_json(self) -> bytes:
        """The bytes of the file."""
        plain = dict(asdict(self), format=FORMAT)
        return (json.dumps(plain, indent=2, sort_keys=True) + "\n").encode("ascii")


def selection_of(processes: dict[str, str]) -> Selection:
    """The selection that `processes` means."""
    return Selection(
        exe=processes.get("exe", ""),
        unit=processes.get("unit", ""),
        user=processes.get("user", ""),
        cgroup=processes.get("cgroup", ""),
    )


def desired_of(
    patch: Patch,
    processes: dict[str, str],
    enabled: bool,
    paths: tuple[str, ...],
    now: int,
    signer: Signer | None = None,
) -> Desired:
    """What is desired when a patch is put into the store."""
    manifest = patch.manifest
    return Desired(
        id=manifest.id,
        version=manifest.version,
        sha256=patch.sha256,
        build_id=manifest.object.build_id,
        object=manifest.object.name,
        enabled=enabled,
        stored_at=now,
        cves=manifest.cves,
        requires=manifest.requires,
        replaces=manifest.replaces,
        paths=paths,
        processes=processes,
        signer=signer.principal if signer else "",
        key=signer.key if signer else "",
    )


def parse_desired(raw: bytes, path: str) -> Desired:
    """The content of the file at `path`, checked field by field. Raises LivepatchError store_corrupt."""
    try:
        plain = json.loads(raw.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise corrupt(path, "it is not JSON: %s" % error) from None
    if not isinstance(plain, dict) or plain.pop("format", None) != FORMAT:
        raise corrupt(path, "it is not of format %d" % FORMAT)
    known = {one.name: one.type for one in fields(Desired)}
    if set(plain) != set(known):
        raise corrupt(path, "it does not have the fields %s" % ", ".join(sorted(known)))
    for name, kind in known.items():
        if not _is_of(plain[name], str(kind)):
            raise corrupt(path, "'%s' is not what it must be" % name)
        if isinstance(plain[name], list):
            plain[name] = tuple(plain[name])
    found = Desired(**plain)
    if not all(ID_PATTERN.match(name) for name in (found.id, *found.requires, *found.replaces)):
        raise corrupt(path, "an id in it is no patch's")
    if not _SHA256.match(found.sha256) or not _HEX.match(found.build_id):
        raise corrupt(path, "its digest or build-id is not hex")
    if not all(one.startswith("/") for one in found.paths) or set(found.processes) - set(NARROWING):
        raise corrupt(path, "'paths' or 'processes' holds something else than it may")
    return found


def corrupt(path: str, why: str) -> LivepatchError:
    """The error for a file of the store that cannot be used."""
    return LivepatchError("store_corrupt", "%s cannot be used: %s" % (path, why))


def _is_of(value: Any, kind: str) -> bool:
    if kind.startswith("tuple"):
        return isinstance(value, list) and all(_is_of(one, "str") for one in value)
    if kind.startswith("dict"):
        return isinstance(value, dict) and all(_is_of(one, "str") for one in value.values())
    if kind == "str":
        return isinstance(value, str) and value.isprintable() and len(value) < 4096
    if kind == "bool":
        return isinstance(value, bool)
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
