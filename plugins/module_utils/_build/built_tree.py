# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The original tree, built once and kept: by a digest of its files, the build command, environment and compilers.

    CACHE/DIGEST/src/NAME       the built original tree (the path that debug information and __FILE__ show)
    CACHE/DIGEST/original/NAME  the same, set aside while the changed tree stands in its place
    CACHE/DIGEST/watch          wrappers and notes of the last build
    CACHE/DIGEST/before         units compiled from the original tree
    CACHE/DIGEST/record.json    what the build did; written last, so that a build that did not end is never believed

Whoever comes next after a tool that died puts the original back, or builds again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import Iterator

from .._errors import LivepatchError
from .compile_command import CompileCommand
from .dependencies import files_read
from .link_inputs import Unit, find_link, linked_units
from .read_change import Change, apply_change
from .request import BuildRequest
from .watch_build import Progress, require_calls, run_watched

_FORMAT = 2


def cache_folder(asked: str) -> str:
    """Where built trees are kept: as asked, else $CGL_LIVEPATCH_CACHE, else below the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.abspath(asked or os.environ.get("CGL_LIVEPATCH_CACHE") or os.path.join(home, "cgl-livepatch"))


@dataclass
class BuiltTree:
    """A built original tree. `reads[n]`: the files in the tree that units[n] reads, relative to it.

    `calls`: all compiler calls of the build, those for other artifacts too.
    """

    folder: str
    tree: str
    request: BuildRequest
    artifact: str
    link: CompileCommand
    units: list[Unit]
    reads: list[list[str]]
    calls: list[CompileCommand]

    @contextlib.contextmanager
    def changed(self, change: Change, lines: dict[str, bytes], rebuild: bool) -> Iterator[list[CompileCommand]]:
        """The changed tree in place of the original one, built again if asked; gives that build's compiler calls."""
        holder, aside = os.path.dirname(self.tree), os.path.join(self.folder, "original")
        fresh = os.path.join(self.folder, "changed")
        shutil.rmtree(fresh, ignore_errors=True)
        # Hard links are enough where nothing but the changed files is written.
        _run(["cp", "-a" if rebuild else "-al", holder, fresh])
        apply_change(change, os.path.join(fresh, os.path.basename(self.tree)), lines)
        os.rename(holder, aside)
        os.rename(fresh, holder)
        try:
            calls: list[CompileCommand] = []
            if rebuild:
                calls = _build(self.request, self.tree, self.folder)
            yield calls
        finally:
            os.rename(holder, fresh)
            os.rename(aside, holder)
            shutil.rmtree(fresh, ignore_errors=True)


@contextlib.contextmanager
def built_tree(request: BuildRequest, progress: Progress) -> Iterator[BuiltTree]:
    """The built original tree of a request, from the cache or built now; nobody else touches it meanwhile.

    Raises LivepatchError build_failed or artifact_missing.
    """
    folder = os.path.join(cache_folder(request.cache), _key(request))
    os.makedirs(folder, exist_ok=True)
    with open(folder + ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        tree = os.path.join(folder, "src", os.path.basename(os.path.abspath(request.source)))
        _repair(folder)
        record = os.path.join(folder, "record.json")
        if not os.path.exists(record):
            progress("building the original tree")
            _start(request, folder, tree)
            calls = _build(request, tree, folder)
            built = _understand(request, folder, tree, calls)
            progress("asking what each of %d units reads" % len(built.units))
            built.reads = files_read(built.units, tree)
            _write_record(record, calls, built.reads)
        else:
            progress("using the built tree in %s" % tree)
            calls, reads = _read_record(record)
            built = _understand(request, folder, tree, calls)
            built.reads = reads
        yield built


def _key(request: BuildRequest) -> str:
    digest = hashlib.sha256()
    settings = [
        _FORMAT,
        request.configure_command,
        request.build_command,
        sorted(request.environment.items()),
        request.artifact,
    ]
    path = request.environment.get("PATH", os.environ.get("PATH", os.defpath))
    for name in ("cc", "gcc", "g++", "clang", "as", "ld"):
        real = shutil.which(name, path=path)
        if real:
            state = os.stat(real)
            settings.append([os.path.realpath(real), state.st_size, state.st_mtime_ns])
    digest.update(json.dumps(settings).encode())
    digest.update(os.path.basename(os.path.abspath(request.source)).encode("utf-8", "surrogateescape"))
    for folder, folders, names in os.walk(request.source):
        folders[:] = sorted(name for name in folders if name != ".git")
        for name in sorted(names):
            file = os.path.join(folder, name)
            digest.update(b"\0" + os.path.relpath(file, request.source).encode("utf-8", "surrogateescape") + b"\0")
            if os.path.islink(file):
                digest.update(os.readlink(file).encode("utf-8", "surrogateescape"))
            elif os.path.isfile(file):
                digest.update(b"x" if os.access(file, os.X_OK) else b"-")
                with open(file, "rb") as stream:
                    digest.update(hashlib.sha256(stream.read()).digest())
    return digest.hexdigest()[:20]


def _repair(folder: str) -> None:
    """Put back what a tool that died left aside."""
    aside, holder = os.path.join(folder, "original"), os.path.join(folder, "src")
    if os.path.isdir(aside):
        shutil.rmtree(holder, ignore_errors=True)
        os.rename(aside, holder)
    shutil.rmtree(os.path.join(folder, "changed"), ignore_errors=True)


def _start(request: BuildRequest, folder: str, tree: str) -> None:
    for name in os.listdir(folder):
        shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
    os.makedirs(os.path.dirname(tree))
    _run(["cp", "-a", "--reflink=auto", os.path.abspath(request.source), tree])


def _build(request: BuildRequest, tree: str, folder: str) -> list[CompileCommand]:
    command = request.build_command
    if request.configure_command:
        # One shell each: a build command may start with variables of its own.
        command = "( %s\n) && ( %s\n)" % (request.configure_command, request.build_command)
    calls = run_watched(tree, command, request.environment, os.path.join(folder, "watch"), "build command")
    require_calls(calls, request.build_command)
    return calls


def _understand(request: BuildRequest, folder: str, tree: str, calls: list[CompileCommand]) -> BuiltTree:
    artifact = os.path.normpath(os.path.join(tree, request.artifact))
    if not os.path.isfile(artifact):
        raise LivepatchError("artifact_missing", "the build went well but made no file %s" % request.artifact)
    link = find_link(calls, artifact)
    return BuiltTree(folder, tree, request, artifact, link, linked_units(calls, link), [], calls)


def _write_record(path: str, calls: list[CompileCommand], reads: list[list[str]]) -> None:
    plain = {"calls": [[c.order, c.folder, c.compiler, c.arguments, c.settings] for c in calls], "reads": reads}
    with open(path + ".new", "w", encoding="utf-8", errors="surrogateescape") as stream:
        json.dump(plain, stream)
    os.replace(path + ".new", path)


def _read_record(path: str) -> tuple[list[CompileCommand], list[list[str]]]:
    with open(path, encoding="utf-8", errors="surrogateescape") as stream:
        plain = json.load(stream)
    calls = [
        CompileCommand(row[0], row[1], row[2], tuple(row[3]), tuple((name, value) for name, value in row[4]))
        for row in plain["calls"]
    ]
    return calls, plain["reads"]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise LivepatchError("build_failed", "%s failed: %s" % (command[0], done.stdout.decode("utf-8", "replace")))
