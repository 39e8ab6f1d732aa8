# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""One change, several objects: a patch for each that it reaches, all from one build of the tree.

Where the new code of one calls what another patch changes, the first requires the second: it is activated after it, and
keeps it active. What a patch brings is known to that patch alone: a name that is new in one object cannot be used by
the patch of another one.
"""

from __future__ import annotations

import dataclasses
import re

from .._errors import LivepatchError
from .._patch.manifest import check_id
from .build import build, packed
from .request import BuildRefused, BuildRequest, BuildResult, Refusal
from .watch_build import Progress

_NOT_REACHED = ("not_in_object", "nothing_changed")


def patch_name(name: str, artifact: str) -> str:
    """The id of the patch for one of several artifacts: NAME-FILE."""
    return "%s-%s" % (name, re.sub(r"[^A-Za-z0-9._-]", "-", artifact.rsplit("/", 1)[-1]))


def build_several(requests: list[BuildRequest], progress: Progress) -> tuple[list[BuildResult], list[Refusal]]:
    """A patch for each request whose object the change reaches, in their order; and why there is none for the others.

    The requests differ in name, artifact, target, requires and replaces only. Raises BuildRefused with the refusals of
    all objects (each names its artifact) when one of them cannot be patched, or the change reaches none.
    """
    if len({request.name for request in requests}) < len(requests):
        raise LivepatchError("build_failed", "two artifacts have one name", "Give each artifact a 'name' of its own.")
    for request in requests:
        check_id(request.name)
    results: list[BuildResult] = []
    refusals: list[Refusal] = []
    skipped: list[Refusal] = []
    new: dict[str, str] = {}
    for request in requests:
        try:
            result = build(request, progress)
        except BuildRefused as error:
            own = [dataclasses.replace(refusal, artifact=request.artifact) for refusal in error.refusals]
            unreached = all(refusal.code in _NOT_REACHED for refusal in own)
            (skipped if unreached else refusals).extend(own)
            new.update(dict.fromkeys(error.new_names, request.artifact))
            continue
        results.append(result)
        new.update(dict.fromkeys(result.new_names, request.artifact))
    for result in results:
        refusals += _unreachable(result, new)
    if refusals or not results:
        raise BuildRefused(refusals or skipped)
    return _in_order(results), skipped


def _unreachable(result: BuildResult, new: dict[str, str]) -> list[Refusal]:
    """References of a patch to names that are new in the object of another one."""
    manifest, artifact = result.patch.manifest, result.artifact
    return [
        Refusal(
            "construct_unsupported",
            reference.name,
            "",
            "the new code of %s uses %s, which is new in %s: the running process has no such name"
            % (artifact, reference.name, new[reference.name]),
            "Write the fix so that new functions are in the object that uses them, or restart into the new version.",
            artifact,
        )
        for reference in manifest.references
        if reference.is_outside and not reference.slot and new.get(reference.name, artifact) != artifact
    ]


def _in_order(results: list[BuildResult]) -> list[BuildResult]:
    """The same patches, each with the ids of those that it requires; no circles."""
    ids = [result.patch.manifest.id for result in results]
    required: dict[str, set[str]] = {name: set() for name in ids}
    left_out: dict[str, set[str]] = {name: set() for name in ids}
    for result in results:
        own = result.patch.manifest.id
        used = {one.name for one in result.patch.manifest.references if one.is_outside}
        for other in results:
            name = other.patch.manifest.id
            if name != own and used & other.changed_names:
                (left_out if own in _all_required(name, required) else required)[own].add(name)
    finished = []
    for result in results:
        manifest = result.patch.manifest
        requires = (*manifest.requires, *sorted(required[manifest.id] - set(manifest.requires)))
        patch = dataclasses.replace(result.patch, manifest=dataclasses.replace(manifest, requires=requires))
        warnings = list(result.warnings)
        for name in sorted(left_out[manifest.id]):
            warnings.append("its new code also calls what %s changes, which requires this patch: activate both" % name)
        content, summary = packed(patch, warnings)
        finished.append(
            dataclasses.replace(result, patch=patch, content=content, summary=summary, warnings=tuple(warnings))
        )
    return finished


def _all_required(name: str, required: dict[str, set[str]]) -> set[str]:
    found, waiting = {name}, [name]
    while waiting:
        for other in required[waiting.pop()] - found:
            found.add(other)
            waiting.append(other)
    return found
