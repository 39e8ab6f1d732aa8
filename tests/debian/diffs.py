# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Diffs as a source package's patches are: applied with -p1, without fuzz, forwards and backwards; or a part of one."""

from __future__ import annotations

import re
import subprocess

from .archive import ProofError


class NothingLeft(ProofError):
    """A patch changes none of the files that are wanted of it."""


def applies(diff: str, tree: str) -> bool:
    """Whether `diff` applies to `tree`; changes nothing."""
    return _patch(diff, tree, "--dry-run").returncode == 0


def check_applies(diff: str, tree: str) -> None:
    """Raises ProofError unless `diff` applies to `tree`; changes nothing."""
    _demand(diff, tree, "--dry-run")


def put_in(diff: str, tree: str) -> None:
    """Apply `diff` to `tree`."""
    _demand(diff, tree, "--forward")


def take_out(diff: str, tree: str) -> None:
    """Apply `diff` backwards to `tree`."""
    _demand(diff, tree, "--reverse")


def write_part(patch: str, diff: str, wanted: str) -> None:
    """Write to `diff` what `patch` does to files whose path in the tree matches the expression `wanted` from its begin.

    Raises NothingLeft when that is nothing.
    """
    kept = [part for part in _parts(patch) if re.match(wanted, _path(part))]
    if not kept:
        raise NothingLeft(f"{patch} changes nothing that matches {wanted}.")
    with open(diff, "w", encoding="utf-8", errors="surrogateescape") as stream:
        stream.write("".join(kept))


def changed_files(diff: str) -> list[str]:
    """The paths in the tree of the files that `diff` changes; none for the file name ""."""
    return [_path(part) for part in _parts(diff)] if diff else []


def _parts(patch: str) -> list[str]:
    with open(patch, encoding="utf-8", errors="surrogateescape") as stream:
        text = stream.read()
    # A file's part begins at its "---" line; what git writes before that is for readers.
    parts = re.split(r"^(?=--- \S+.*\n\+\+\+ )", text, flags=re.MULTILINE)[1:]
    return [re.split(r"^(?=diff --git |Index: |=====)", part, flags=re.MULTILINE)[0] for part in parts]


def _path(part: str) -> str:
    """The path in the tree of the file that one part changes; of a new or removed one, the name that is none."""
    old, new = (line.split()[1].split("/", 1)[-1] for line in part.splitlines()[:2])
    return old if new == "null" or new.endswith("dev/null") else new


def _demand(diff: str, tree: str, option: str) -> None:
    done = _patch(diff, tree, option)
    if done.returncode:
        raise ProofError(f"{diff} does not apply to {tree} ({option}):\n{done.stdout}{done.stderr}")


def _patch(diff: str, tree: str, option: str) -> subprocess.CompletedProcess[str]:
    command = ["patch", "--batch", "--fuzz=0", "-p1", "--no-backup-if-mismatch", option, "-d", tree, "-i", diff]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
