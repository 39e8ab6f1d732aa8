# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What changes: the files that differ, from a diff or from the new version's tree."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass

from .._errors import LivepatchError
from .request import BuildRequest

_HEADER = re.compile(r"(?:---|\+\+\+) ([^\t\n]+)|(?:rename|copy) (?:from|to) ([^\n]+)|diff --git (\S+) (\S+)")
_NOT_SOURCE = frozenset((".git", ".hg", ".svn", ".pc"))
_BUILD_FILE = re.compile(
    r"(^|/)((GNU)?[mM]akefile[^/]*|CMakeLists\.txt|configure[^/]*|rules|meson\.build|[^/]*\.(mk|cmake|ac|am|in|y|yy|l|ll|m4|pro|gperf|re|def|map|ver|lds|ld))$"
)
# These decide how things are built; of the others, whoever builds knows what is made from them.
_WAY_TO_BUILD = re.compile(
    r"(^|/)((GNU)?[mM]akefile[^/]*|CMakeLists\.txt|configure[^/]*|rules|meson\.build|[^/]*\.(mk|cmake|ac|am|in|m4|pro))$"
)
_COMPILED = re.compile(r"\.(c|cc|cp|cxx|cpp|CPP|c\+\+|C|s|S|sx)$")


@dataclass(frozen=True)
class Change:
    """New content by path relative to the tree; None for a file that is taken away. `added`: the paths that are new."""

    files: dict[str, bytes | None]
    added: frozenset[str]

    def needs_build(self) -> list[str]:
        """The files because of which only the project's own build knows what is compiled, and how."""
        return sorted(
            path
            for path, content in self.files.items()
            if _BUILD_FILE.search(path) or (_COMPILED.search(path) and (path in self.added or content is None))
        )

    def needs_fresh_tree(self) -> bool:
        """True when a build that goes on from the original's would not know all that has to be made again."""
        return any(
            _WAY_TO_BUILD.search(path) or (content is None and _COMPILED.search(path))
            for path, content in self.files.items()
        )


def read_change(request: BuildRequest) -> Change:
    """The change that a request asks for.

    Raises LivepatchError diff_failed when a diff cannot be read or does not apply, or nothing differs.
    """
    files = _from_tree(request.source, request.new_source) if request.new_source else _from_diffs(request)
    if not files:
        raise LivepatchError(
            "diff_failed",
            "the change changes no file",
            "Give a diff with changes, or the tree of another version as new_source.",
        )
    added = frozenset(path for path in files if not os.path.lexists(os.path.join(request.source, path)))
    return Change(files, added)


def _from_diffs(request: BuildRequest) -> dict[str, bytes | None]:
    """Apply the diffs to copies of the files they name, and nothing else."""
    texts = []
    for path in request.diff:
        try:
            with open(path, "rb") as stream:
                texts.append(stream.read())
        except OSError as error:
            raise LivepatchError(
                "diff_failed", "the diff cannot be read: %s" % error, "Give the path of a diff."
            ) from None
    names = sorted({name for text in texts for name in _named_files(text, request.strip)})
    if not names:
        raise LivepatchError(
            "diff_failed",
            "there is no file to change in %s" % ", ".join(request.diff),
            "Give a unified diff (diff -u, git diff).",
        )
    with tempfile.TemporaryDirectory(prefix="livepatch-") as folder:
        for name in names:
            old = os.path.join(request.source, name)
            if os.path.isfile(old):
                os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
                with open(old, "rb") as stream:
                    _write(os.path.join(folder, name), stream.read())
        for path in request.diff:
            _run_patch(folder, os.path.abspath(path), request.strip)
        changed = {name: _content(os.path.join(folder, name)) for name in names}
    return {name: new for name, new in changed.items() if new != _content(os.path.join(request.source, name))}


def _run_patch(folder: str, path: str, strip: int) -> None:
    # No fuzz: a fix is put where its context is, or not at all.
    command = [
        "patch",
        "-p%d" % strip,
        "-F0",
        "-f",
        "-s",
        "-E",
        "--no-backup-if-mismatch",
        "-r",
        "-",
        "-i",
        path,
    ]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
    except FileNotFoundError:
        raise LivepatchError(
            "dependency_missing", "'patch' is not installed", "Install patch on the build host."
        ) from None
    if done.returncode:
        raise LivepatchError(
            "diff_failed",
            "%s does not apply: %s" % (path, done.stdout.decode("utf-8", "replace").strip()[-2000:]),
        )


def _named_files(diff: bytes, strip: int) -> set[str]:
    names = set()
    for line in diff.decode("utf-8", "surrogateescape").splitlines():
        match = _HEADER.match(line)
        if not match:
            continue
        for group, name in enumerate(match.groups()):
            if not name or name == "/dev/null":
                continue
            # rename and copy lines have no a/ and b/ in front.
            parts = name.strip().split("/")[strip if group != 1 else max(strip - 1, 0) :]
            if parts and ".." not in parts and parts[0]:
                names.add("/".join(parts))
    return names


def _from_tree(source: str, new_source: str) -> dict[str, bytes | None]:
    old, new = _regular_files(source), _regular_files(new_source)
    files: dict[str, bytes | None] = dict.fromkeys(sorted(old - new))
    for name in sorted(new):
        content = _content(os.path.join(new_source, name))
        if name not in old or content != _content(os.path.join(source, name)):
            files[name] = content
    return files


def _regular_files(tree: str) -> set[str]:
    found = set()
    for folder, folders, names in os.walk(tree):
        folders[:] = [name for name in folders if name not in _NOT_SOURCE]
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path):
                found.add(os.path.relpath(path, tree))
    return found


def _content(path: str) -> bytes | None:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def _write(path: str, content: bytes) -> None:
    with open(path, "wb") as stream:
        stream.write(content)


def apply_change(change: Change, tree: str, lines: dict[str, bytes]) -> None:
    """Bring a tree into the changed state; `lines` holds other contents for some files (with #line directives).

    Files are replaced, never written into: the tree may share them with another one.
    """
    for name, new in change.files.items():
        path = os.path.join(tree, name)
        mode = os.stat(path).st_mode & 0o7777 if os.path.isfile(path) else 0o644
        if os.path.lexists(path):
            os.unlink(path)
        if new is not None:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            _write(path, lines.get(name, new))
            os.chmod(path, mode)
