# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A program made ready: what runs, the source that it was built from, and the diff of each fix."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

from debian import debian_build, diffs
from debian.archive import Archive, ProofError, VanishedError
from debian.cache import made_whole, only_one
from debian.packages import installed_tree, source_tree
from module_utils._build.built_tree import built_tree
from module_utils._build.request import BuildRequest

from .program import Fix, Program


@dataclasses.dataclass(frozen=True)
class Subject:
    """A prepared program; all paths are absolute and lie in the cache."""

    program: Program
    version: str  # of the source package, and what was taken out of it
    source: str  # the tree that `deployed` was built from, not built
    deployed: str  # what runs, stripped as Debian strips it
    patches: str  # debian/patches of the source package that has the fixes
    cache: str

    def request(self, fix: Fix, diff: tuple[str, ...]) -> BuildRequest:
        """The patch of one fix, to be built."""
        return dataclasses.replace(
            _request(self.program, self.source, self.cache),
            name=fix.id,
            cves=tuple(fix.cves.split()),
            diff=diff,
            target=self.deployed,
        )

    def debian_patches(self, fix: Fix) -> list[str]:
        """The paths of the fix's patches as Debian has them."""
        return [os.path.join(self.patches, name) for name in fix.patches]

    def diffs(self, fix: Fix, folder: str) -> tuple[tuple[str, ...], list[str]]:
        """Diffs of the fix for the program's own files, written to `folder`, and which other patches they stand on.

        The fix alone where it applies alone, else after the patches before it that change the same files.
        """
        series = [name for name in _series(self.patches) if name in fix.patches or self._is_out(name, folder)]
        wanted = list(fix.patches)
        while True:
            # A part of a fix may be a test alone.
            written = tuple(filter(None, (self._part(name, folder) for name in series if name in wanted)))
            if _apply_in_turn(written, self.source):
                return written, [name for name in series if name in wanted and name not in fix.patches]
            files = {path for name in wanted for path in diffs.changed_files(self._part(name, folder))}
            last = max(series.index(name) for name in fix.patches)
            more = [
                name
                for name in series[:last]
                if name not in wanted and files & set(diffs.changed_files(self._part(name, folder)))
            ]
            if not more:
                raise ProofError(f"{fix.cves} does not apply to {self.source}, with what it stands on neither.")
            wanted += more

    def _is_out(self, name: str, folder: str) -> bool:
        """Whether a patch of the series changes the program, and is not in the deployed source."""
        if name in _series(os.path.join(self.source, "debian", "patches")):
            return False
        return bool(self._part(name, folder))

    def _part(self, name: str, folder: str) -> str:
        """The program's part of a patch, in a file; "" where it has none."""
        path = os.path.join(folder, name.replace("/", "-"))
        if not os.path.exists(path):
            try:
                diffs.write_part(os.path.join(self.patches, name), path, self.program.sources)
            except diffs.NothingLeft:
                return ""
        return path


def prepare(program: Program, cache: str, gone: frozenset[str] = frozenset()) -> Subject:
    """Fetch, unpack and build what a program needs; `gone` versions count as vanished. Raises ProofError."""
    with only_one(cache):
        archive = Archive(cache, gone)
        debian_build.install(program.runs_with)
        fixed = _fixed_tree(archive, cache, program)
        patches = os.path.join(fixed, "debian", "patches")
        if program.stock:
            try:
                files = installed_tree(archive, cache, program.binaries, program.stock)
                source = source_tree(archive, cache, program.package, program.stock)
                _install_needs(program, source)
                deployed = os.path.join(files, program.deployed)
                return Subject(program, program.stock, source, deployed, patches, cache)
            except VanishedError as vanished:
                print(f"{vanished}\nA build of the current source without its fixes stands in for it.", file=sys.stderr)
        source = _without_fixes(program, fixed)
        _install_needs(program, source)
        version = debian_build.version(fixed) + " without its fixes"
        return Subject(program, version, source, _deployed_build(program, source, cache), patches, cache)


def _fixed_tree(archive: Archive, cache: str, program: Program) -> str:
    """The tree of the source package that has the fixes: `fixed`, or the newest that has them all."""
    versions = [program.fixed]
    while versions:
        version = versions.pop(0)
        try:
            tree = source_tree(archive, cache, program.package, version)
        except VanishedError:
            if version == program.fixed:
                versions = archive.source_versions(program.package)
            continue
        held = set(_series(os.path.join(tree, "debian", "patches")))
        if all(name in held for fix in program.fixes for name in fix.patches):
            return tree
    raise ProofError(
        f"No source package of {program.package} in this machine's archive carries all the fixes that {program.fixed}"
        " did. Point LIVEPATCH_DEBIAN_CACHE to a cache that still holds it, or take the list up again."
    )


def _without_fixes(program: Program, fixed: str) -> str:
    """The same tree with its series of patches taken out down to the first of the fixes."""
    series = _series(os.path.join(fixed, "debian", "patches"))
    first = min(series.index(name) for fix in program.fixes for name in fix.patches)
    home = os.path.join(os.path.dirname(fixed), f"without-{first}")
    tree = os.path.join(home, os.path.basename(fixed))
    if not os.path.exists(home):
        with made_whole(home) as scratch:
            copy = os.path.join(scratch, os.path.basename(fixed))
            shutil.copytree(fixed, copy, symlinks=True)
            for name in reversed(series[first:]):
                diffs.take_out(os.path.join(fixed, "debian", "patches", name), copy)
            with open(os.path.join(copy, "debian", "patches", "series"), "w", encoding="utf-8") as stream:
                stream.write("".join(name + "\n" for name in series[:first]))
    return tree


def _deployed_build(program: Program, source: str, cache: str) -> str:
    """What the builder's own build of the original made, stripped, with a link for the name that a library goes by."""
    request = _request(program, source, cache)
    settings = json.dumps([request.build_command, request.artifact, sorted(request.environment.items())])
    home = os.path.dirname(source) + "-" + hashlib.sha256(settings.encode()).hexdigest()[:16]
    deployed = os.path.join(home, os.path.basename(program.deployed))
    if not os.path.exists(home):
        with built_tree(request, lambda text: print(text, file=sys.stderr)) as tree, made_whole(home) as scratch:
            stripped = os.path.join(scratch, os.path.basename(program.deployed))
            # As dh_strip does it.
            kind = ["--strip-unneeded"] if program.library else []
            strip = ["strip", *kind, "--remove-section=.comment", "--remove-section=.note"]
            subprocess.run([*strip, "-o", stripped, tree.artifact], check=True)
            shown = subprocess.run(["objdump", "-p", stripped], check=True, capture_output=True, text=True).stdout
            for soname in re.findall(r"SONAME\s+(\S+)", shown):
                if soname != os.path.basename(stripped):
                    os.symlink(os.path.basename(stripped), os.path.join(scratch, soname))
    return deployed


def _request(program: Program, source: str, cache: str) -> BuildRequest:
    return BuildRequest(
        name=program.name,
        source=source,
        build_command=program.build_command or debian_build.COMMAND,
        artifact=program.artifact,
        environment={**debian_build.environment(), **program.environment},
        cache=os.path.join(cache, "builder"),
    )


def _install_needs(program: Program, source: str) -> None:
    if program.build_needs:
        debian_build.install(program.build_needs)
    else:
        debian_build.install_dependencies(source)


def _series(patches: str) -> list[str]:
    try:
        with open(os.path.join(patches, "series"), encoding="utf-8") as stream:
            return [line.split()[0] for line in stream if line.strip() and not line.startswith("#")]
    except FileNotFoundError:
        return []


def _apply_in_turn(written: tuple[str, ...], tree: str) -> bool:
    """Whether the diffs apply to the tree one after the other; tried on copies of the files they change."""
    with tempfile.TemporaryDirectory() as scratch:
        for diff in written:
            for path in diffs.changed_files(diff):
                copy = os.path.join(scratch, path)
                if os.path.exists(os.path.join(tree, path)) and not os.path.exists(copy):
                    os.makedirs(os.path.dirname(copy), exist_ok=True)
                    shutil.copy2(os.path.join(tree, path), copy)
            if not diffs.applies(diff, scratch):
                return False
            diffs.put_in(diff, scratch)
    return True
