# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The original tree, built once and kept: an entry of the cache, by a digest of all that decides what it becomes.

    src/NAME       the built original tree (the path that debug information and __FILE__ show)
    original/NAME  the same, set aside while the changed tree stands in its place
    watch          wrappers and notes of the last build
    before         units compiled from the original tree
    after          units compiled from changed trees, a folder for each change
    record.json    what the build did, and what it read as it was then; written last, so that a build that did not end
                   is never believed

Whoever comes next after a tool that died puts the original back, or builds again. What the build read outside of the
tree (system headers, the compiler's own programs) is looked at each time: when that has changed, it is built again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from typing import Any, Iterator

from .._errors import LivepatchError
from .cache import PARTS, Entry, cache_folder, entry
from .compile_command import CompileCommand
from .dependencies import files_read
from .link_inputs import Unit, find_link, linked_units
from .read_change import Change, apply_change
from .request import BuildRequest
from .run_compiler import programs_of
from .tree_key import file_state, tree_key
from .watch_build import Progress, require_calls, run_watched


@dataclass
class BuiltTree:
    """A built original tree. `reads[n]`: the files in the tree that units[n] reads, relative to it.

    `calls`: all compiler calls of the build, those for other artifacts too.
    """

    entry: Entry
    tree: str
    request: BuildRequest
    artifact: str
    link: CompileCommand
    units: list[Unit]
    calls: list[CompileCommand]
    reads: list[list[str]] = field(default_factory=list)

    @property
    def folder(self) -> str:
        """The folder of its entry in the cache."""
        return self.entry.folder

    @property
    def before(self) -> str:
        """The folder for units compiled from the original tree."""
        return os.path.join(self.folder, "before")

    @property
    def after(self) -> str:
        """The folder for units compiled from changed trees."""
        return os.path.join(self.folder, PARTS)

    @contextlib.contextmanager
    def changed(
        self, change: Change, lines: dict[str, bytes], rebuild: bool, progress: Progress
    ) -> Iterator[list[CompileCommand]]:
        """The changed tree in place of the original one, built again if asked; gives that build's compiler calls.

        From what the original's build left, as far as make and its like can tell what has to be made again; from
        nothing where the way to build changes.
        """
        holder, aside = os.path.dirname(self.tree), os.path.join(self.folder, "original")
        fresh = os.path.join(self.folder, "changed")
        shutil.rmtree(fresh, ignore_errors=True)
        # Hard links are enough where nothing but the changed files is written.
        if change.needs_fresh_tree():
            os.makedirs(fresh)
            _run(["cp", "-a", os.path.abspath(self.request.source), fresh], self.entry)
        else:
            _run(["cp", "-a" if rebuild else "-al", holder, fresh], self.entry)
        apply_change(change, os.path.join(fresh, os.path.basename(self.tree)), lines)
        os.rename(holder, aside)
        os.rename(fresh, holder)
        try:
            yield _build(self.request, self.tree, self.entry, progress) if rebuild else []
        finally:
            os.rename(holder, fresh)
            os.rename(aside, holder)
            shutil.rmtree(fresh, ignore_errors=True)


@contextlib.contextmanager
def built_tree(request: BuildRequest, progress: Progress) -> Iterator[BuiltTree]:
    """The built original tree of a request, from the cache or built now; nobody else touches it meanwhile.

    Raises LivepatchError build_failed, artifact_missing or cache_unusable.
    """
    with entry(cache_folder(request.cache), tree_key(request), progress) as own:
        tree = os.path.join(own.folder, "src", os.path.basename(os.path.abspath(request.source)))
        _repair(own.folder)
        record = _Record(os.path.join(own.folder, "record.json"))
        changed = record.changed_file()
        if changed:
            progress("%s is not what it was when the tree was built: building again" % changed)
        if changed or not record.calls:
            progress("building the original tree")
            _start(request, own, tree)
            record = _Record(record.path)
            record.calls = _build(request, tree, own, progress)
            record.write()
        else:
            progress("using the built tree in %s" % tree)
        built = _understand(request, own, tree, record.calls)
        record.find_reads(built, progress)
        yield built


class _Record:
    """What is kept of a build: its compiler calls, what its units read, and the state of all files that counted."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.calls: list[CompileCommand] = []
        self._reads: dict[str, list[str]] = {}
        self._states: dict[str, list[int]] = {}
        plain = read_json(path)
        if plain:
            self.calls = [CompileCommand.from_row(row) for row in plain["calls"]]
            self._reads, self._states = plain["reads"], plain["states"]

    def changed_file(self) -> str:
        """The first file that is not what it was, "" when all are."""
        return changed_file(self._states)

    def find_reads(self, built: BuiltTree, progress: Progress) -> None:
        """Tell a built tree what its units read; the compiler is asked where that is not known."""
        names = ["%d %s" % (unit.command.order, unit.word) for unit in built.units]
        unknown = [(name, unit) for name, unit in zip(names, built.units) if name not in self._reads]
        if unknown:
            progress("asking what each of %d units reads" % len(unknown))
            units = [unit for _name, unit in unknown]
            for (name, unit), reads in zip(unknown, files_read(units, built.tree, progress)):
                self._reads[name] = list(reads.inside)
                inside = [os.path.join(built.tree, path) for path in reads.inside]
                programs = programs_of(unit.command.compiler)
                linked = unit.object_name.partition("(")[0]  # of an archive's member, the archive
                for path in (*inside, *reads.outside, *programs, linked):
                    if path not in self._states:
                        self._states[path] = file_state(path)
            self._states[built.artifact] = file_state(built.artifact)
            self.write()
        built.reads = [self._reads[name] for name in names]

    def write(self) -> None:
        """Keep it."""
        rows = [call.as_row() for call in self.calls]
        write_json(self.path, {"calls": rows, "reads": self._reads, "states": self._states})


def changed_file(states: dict[str, list[int]]) -> str:
    """The first file that is not in the state it was in, "" when all are."""
    return next((path for path, state in states.items() if file_state(path) != state), "")


def read_json(path: str) -> Any:
    """A record, None where there is none that can be read."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            return json.load(stream)
    except (FileNotFoundError, ValueError):
        return None


def write_json(path: str, plain: object) -> None:
    """Write a record, whole or not at all."""
    with open(path + ".new", "w", encoding="utf-8", errors="surrogateescape") as stream:
        json.dump(plain, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(path + ".new", path)


def _repair(folder: str) -> None:
    """Put back what a tool that died left aside."""
    aside, holder = os.path.join(folder, "original"), os.path.join(folder, "src")
    if os.path.isdir(aside):
        shutil.rmtree(holder, ignore_errors=True)
        os.rename(aside, holder)
    shutil.rmtree(os.path.join(folder, "changed"), ignore_errors=True)


def _start(request: BuildRequest, own: Entry, tree: str) -> None:
    """Empty the entry, its record first, and copy the source tree into it."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(own.folder, "record.json"))
    for name in os.listdir(own.folder):
        path = os.path.join(own.folder, name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    os.makedirs(os.path.dirname(tree))
    _run(["cp", "-a", "--reflink=auto", os.path.abspath(request.source), tree], own)


def _build(request: BuildRequest, tree: str, own: Entry, progress: Progress) -> list[CompileCommand]:
    command = request.build_command
    if request.configure_command:
        # One shell each: a build command may start with variables of its own.
        command = "( %s\n) && ( %s\n)" % (request.configure_command, request.build_command)
    calls = run_watched(tree, command, request.environment, os.path.join(own.folder, "watch"), own.lock, progress)
    require_calls(calls, request.build_command)
    return calls


def _understand(request: BuildRequest, own: Entry, tree: str, calls: list[CompileCommand]) -> BuiltTree:
    artifact = os.path.normpath(os.path.join(tree, request.artifact))
    if not os.path.isfile(artifact):
        raise LivepatchError("artifact_missing", "the build went well but made no file %s" % request.artifact)
    link = find_link(calls, artifact)
    return BuiltTree(own, tree, request, artifact, link, linked_units(calls, link), calls)


def _run(command: list[str], own: Entry) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, pass_fds=(own.lock,))
    if done.returncode:
        said = done.stdout.decode("utf-8", "replace")[-2000:]
        raise LivepatchError("cache_unusable", "%s into %s failed: %s" % (command[0], own.folder, said))
