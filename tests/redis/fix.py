# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's patch for CVE-2026-25243 in redis: src/rdb.c, src/sds.c, src/zipmap.c, and upstream's tests."""

from __future__ import annotations

import os
import re
import subprocess

from archive import ProofError

NAME = "CVE-2026-25243"


def debian_patch(tree: str) -> str:
    """Where the patch lies in an unpacked source package."""
    return os.path.join(tree, "debian", "patches", NAME + ".patch")


def check_applies(diff: str, tree: str) -> None:
    """Raises ProofError unless `diff` applies to `tree` with -p1, without fuzz; changes nothing."""
    _patch(diff, tree, "--dry-run")


def take_out(diff: str, tree: str) -> None:
    """Apply `diff` backwards to `tree`."""
    _patch(diff, tree, "--reverse")


def write_program_part(patch: str, diff: str) -> None:
    """Write to `diff` what `patch` changes under src/: the program without the tests."""
    with open(patch, encoding="utf-8") as stream:
        files = re.split(r"^(?=diff --git )", stream.read(), flags=re.MULTILINE)[1:]
    program = [text for text in files if text.startswith("diff --git a/src/")]
    if not program:
        raise ProofError(f"{patch} changes nothing under src/.")
    with open(diff, "w", encoding="utf-8") as stream:
        stream.write("".join(program))


def _patch(diff: str, tree: str, option: str) -> None:
    command = ["patch", "--batch", "--fuzz=0", "-p1", option, "-d", tree, "-i", diff]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ProofError(f"{diff} does not apply to {tree} ({option}):\n{done.stdout}{done.stderr}")
