# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Facts: what the processes of this host have in them. Everything is read from the processes; nothing is remembered."""

from __future__ import annotations

import os
import stat
from typing import Any, Dict, List, Tuple

from .._elf.build_id import file_build_id
from .._elf.header import NotElf
from .._errors import LivepatchError
from .._process.objects import MappedObject, mapped_objects
from .._process.process import Process
from .._process.selection import Selection, exe_of
from .._ptrace.attach import is_confined, may_suspend_filters
from .layers import Layers, place_of
from .look_at_each import look_at_each
from .proof import Known, doubts, nothing_known
from .region import NAME, Site, find_regions
from .verify import CLAIM, Verified, verify

SCHEMA = 1
# How long one process may take, seconds.
_PATIENCE = 30.0


def gather(wanted: list[str], scan: str, known: Known = nothing_known) -> dict[str, Any]:
    """The facts of this host: see RETURN of livepatch_facts.

    `wanted`: ids of patches to speak of, all when empty. `scan`: patched (processes that have a patch), affected (and
    those that map an object which a patch found here is bound to), or all. `known`: the patches that this host knows,
    which prove what processes say (see proof.py).
    """
    found: list[tuple[dict[str, Any], list[Verified]]] = []
    others: list[dict[str, Any]] = []
    looks, unreadable = _looked_at(wanted, scan, known)
    for result in looks:
        if result[1]:
            found.append(result)
        else:
            others.append(result[0])
    patches = _patches(found)
    bound = {patch["build_id"] for patch in patches.values()}
    if scan != "all":
        others = [
            fact for fact in others if scan == "affected" and any(part["build_id"] in bound for part in fact["objects"])
        ]
    processes = sorted([fact for fact, _inspected in found] + others, key=lambda fact: int(fact["pid"]))
    missing = _missing(patches, processes, wanted)
    return {
        "schema": SCHEMA,
        "scan": scan,
        "patches": patches,
        "processes": processes,
        "missing": missing,
        "summary": {
            "processes": len(processes),
            "patched": len(found),
            "patches": len(patches),
            "active": sum(patch["active"] for patch in patches.values()),
            "claims": sum(patch["proof"] == CLAIM for fact in processes for patch in fact["patches"]),
            "unverified": sum(not patch["verified"] for fact in processes for patch in fact["patches"]),
            "missing": len(missing),
            "unreadable": unreadable,
        },
    }


_Look = Tuple[Dict[str, Any], List[Verified]]


def _looked_at(wanted: list[str], scan: str, known: Known) -> tuple[list[_Look], int]:
    """What was found in each process, and how many could not be looked at."""
    disk = DiskObjects()

    def look(process: Process) -> list[_Look | None]:
        try:
            return [one for one in (_look(process, wanted, scan, known, disk),) if one]
        except LivepatchError as error:
            return [None] if error.code in ("not_permitted", "patch_unsupported") else []
        except OSError:  # its memory changed while it was looked at
            return [None]

    looks, endless = look_at_each(Selection(), look, _PATIENCE)
    found = [one for one in looks if one is not None]
    return found, endless + len(looks) - len(found)


def _look(process: Process, wanted: list[str], scan: str, known: Known, disk: DiskObjects) -> _Look | None:
    """The facts of one process, None where there is nothing to tell. Raises LivepatchError, OSError."""
    mappings = process.maps()
    has_patch = any(mapping.path.startswith("/memfd:" + NAME) for mapping in mappings)
    if not mappings or (not has_patch and scan == "patched"):
        return None
    objects = mapped_objects(process.memory, mappings)
    regions = find_regions(process.memory, mappings) if has_patch else []
    layers = Layers(process.memory, mappings, regions)
    doubted = doubts(process, mappings, objects, regions, known)
    verified = [
        one.against(doubted[one.region.address]) if one.region.address in doubted else one
        for one in (verify(process, region, layers, objects) for region in regions)
        if not wanted or one.region.id in wanted
    ]
    return _process(process, objects, layers, verified, disk), verified


class DiskObjects:
    """The build-ids of files as processes would find them on disk now, each read once."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, int, int], str] = {}

    def build_id(self, process: Process, found: MappedObject) -> str:
        """The build-id of the file where a mapped object was; empty when there is no such object."""
        try:
            descriptor = _open_file(process, found)
        except (OSError, LivepatchError):
            return ""
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return ""
            key = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
            if key not in self._known:
                self._known[key] = file_build_id("/proc/self/fd/%d" % descriptor) or ""
            return self._known[key]
        except (OSError, NotElf):
            return ""
        finally:
            os.close(descriptor)


def _open_file(process: Process, found: MappedObject) -> int:
    """What lies now where an object was mapped from, with O_PATH: to open a device (a watchdog, a tape) is an act.

    Its path in /proc/PID/maps begins at the root of the mount namespace, in our own at ours; a process may have another
    root (chroot(2)), and have mapped files from outside it before. Where there is no way to such a file by its path, it
    is the file that is mapped, unless that was deleted. Raises OSError, LivepatchError.
    """
    flags, root = os.O_PATH | os.O_CLOEXEC, process.link("root").rstrip("/")
    if found.path.startswith(root + "/"):
        folder = process.open("root", os.O_PATH)
        try:
            return os.open(found.path[len(root) :].lstrip("/"), flags, dir_fd=folder)
        finally:
            os.close(folder)
    if process.link("ns/mnt") == os.readlink("/proc/self/ns/mnt"):
        return os.open(found.path, flags)
    if found.deleted:
        raise FileNotFoundError(found.path)
    last = next(mapping.end for mapping in process.maps() if mapping.start == found.start)
    return process.open("map_files/%x-%x" % (found.start, last), flags)


def _process(
    process: Process, objects: list[MappedObject], layers: Layers, verified: list[Verified], disk: DiskObjects
) -> dict[str, Any]:
    reasons = _obstacles(process, objects)
    return {
        "pid": process.pid,
        "start_time": process.start_time,
        "exe": exe_of(process),
        "threads": len(process.threads()),
        "objects": [_object(process, found, disk) for found in objects],
        "patches": [_patch(layers, one) for one in verified],
        "patchable": not reasons,
        "reasons": reasons,
    }


def _object(process: Process, found: MappedObject, disk: DiskObjects) -> dict[str, str]:
    on_disk = disk.build_id(process, found)
    drift = "none" if on_disk == found.build_id else "replaced" if on_disk else "deleted"
    return {"path": found.path, "build_id": found.build_id, "disk_build_id": on_disk, "drift": drift}


def _patch(layers: Layers, one: Verified) -> dict[str, Any]:
    functions = [_function(layers, site) for site in one.region.sites if site.kind != "data"]
    return {
        "id": one.region.id,
        "version": one.region.version,
        "state": one.state,
        "verified": one.verified,
        "proof": one.proof,
        "reasons": list(one.reasons),
        "functions": functions,
        "switch": one.region.mutable.switch,
        "stop_us": one.region.mutable.stop_us,
        "activated_at": one.region.mutable.activated_at,
        "sha256": one.region.sha256,
        "cves": list(one.region.patch["cves"]),
    }


def _function(layers: Layers, site: Site) -> dict[str, str]:
    """A function and where its calls go now, to whichever patch is on top of it; empty when to no patch."""
    top = layers.top(place_of(site))
    over = layers.site(place_of(site), top)
    return {
        "name": site.name,
        "address": "%#x" % site.entry,
        "redirected_to": "%#x" % over.code if over else "",
        "redirected_by": top if over else "",
    }


def _obstacles(process: Process, objects: list[MappedObject]) -> list[str]:
    """Why a patch could not be loaded into this process now, in words; empty when nothing speaks against it."""
    reasons = []
    if not objects:
        reasons.append("no object in it has a build-id")
    thread = process.living_thread()
    tracer = process.status("TracerPid", "task/%d/" % thread)
    if tracer not in ("", "0"):
        reasons.append("it is being traced by process %s" % tracer)
    if is_confined(process, thread) and not may_suspend_filters():
        reasons.append("it confines itself with seccomp filters, which may not be suspended here")
    if any(found.header.machine != os.uname().machine for found in objects):
        reasons.append("it runs another architecture than this host's")
    return reasons


def _patches(found: list[tuple[dict[str, Any], list[Verified]]]) -> dict[str, dict[str, Any]]:
    patches: dict[str, dict[str, Any]] = {}
    everything = [one for _fact, verified in found for one in verified]
    # What is proven says first what a patch is: a process may call anything by its id.
    for one in sorted(everything, key=lambda one: one.proof == CLAIM):
        entry = patches.setdefault(
            one.region.id,
            {
                "version": one.region.version,
                "description": one.region.patch["description"],
                "cves": list(one.region.patch["cves"]),
                "object": one.region.object_path,
                "build_id": one.region.patch["build_id"],
                "processes": 0,
                "active": 0,
                "verified": True,
                "proof": one.proof,
            },
        )
        entry["processes"] += 1
        entry["active"] += one.state == "active"
        entry["verified"] = entry["verified"] and one.verified
        entry["proof"] = min(entry["proof"], one.proof)  # "claim" as soon as one is
    return patches


def _missing(
    patches: dict[str, dict[str, Any]], processes: list[dict[str, Any]], wanted: list[str]
) -> list[dict[str, Any]]:
    """Where a patch that was asked for is not active: processes that map its object, and patches found nowhere."""
    missing: list[dict[str, Any]] = []
    for name in wanted:
        if name not in patches:
            missing.append({"patch": name, "pid": 0, "exe": "", "state": "absent"})
            continue
        for fact in processes:
            states = [patch["state"] for patch in fact["patches"] if patch["id"] == name]
            maps_it = any(part["build_id"] == patches[name]["build_id"] for part in fact["objects"])
            if (maps_it or states) and states != ["active"]:
                missing.append(
                    {"patch": name, "pid": fact["pid"], "exe": fact["exe"], "state": (states or ["absent"])[0]}
                )
    return missing
