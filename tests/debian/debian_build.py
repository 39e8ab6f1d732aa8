# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's own build of a source package: its dependencies, its command, and a built tree kept in the cache."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess

from .archive import ProofError
from .cache import made_whole

# The part of dpkg-buildpackage that compiles: what follows it installs, strips and packs.
COMMAND = "debian/rules build"


def environment() -> dict[str, str]:
    """What the build needs besides PATH."""
    return {
        "DEB_BUILD_OPTIONS": f"nocheck parallel={os.cpu_count() or 1}",
        # Some builds write the commit of a git checkout around the tree into the program.
        "GIT_DIR": "/nonexistent",
    }


def unpack(dsc: str, tree: str) -> None:
    """`dpkg-source -x` into `tree`: the sources with Debian's patches applied."""
    _run(["dpkg-source", "--no-check", "-x", dsc, tree])


def version(tree: str) -> str:
    """The version of the source package in `tree`."""
    with open(os.path.join(tree, "debian", "changelog"), encoding="utf-8") as stream:
        return stream.readline().split("(")[1].split(")")[0]


def install(packages: tuple[str, ...]) -> None:
    """Install binary packages that are missing: by apt as root, else say which lack."""
    shown = subprocess.run(
        ["dpkg-query", "--show", "--showformat", "${db:Status-Status} ${Package}\n", *packages],
        env=_clean({}),
        capture_output=True,
        text=True,
        check=False,
    )
    present = {line.split()[1] for line in shown.stdout.splitlines() if line.startswith("installed ")}
    missing = [package for package in packages if package not in present]
    if missing and os.geteuid() != 0:
        raise ProofError(f"These packages are missing: {' '.join(missing)}. Install them, or run this once as root.")
    if missing:
        noninteractive = _clean({"DEBIAN_FRONTEND": "noninteractive"})
        _run(["apt-get", "update", "-q"], noninteractive)
        _run(["apt-get", "-y", "-q", "--no-install-recommends", "install", *missing], noninteractive)


def install_dependencies(tree: str) -> None:
    """Install what the source package in `tree` needs to be built: by apt as root, else say what lacks."""
    check = ["dpkg-checkbuilddeps", "-P", "nocheck", os.path.join(tree, "debian", "control")]
    missing = subprocess.run(check, env=_clean({}), capture_output=True, text=True, check=False)
    if missing.returncode == 0:
        return
    if os.geteuid() != 0:
        raise ProofError(f"{missing.stderr.strip()}. Install these packages, or run this once as root.")
    noninteractive = _clean({"DEBIAN_FRONTEND": "noninteractive"})
    _run(["apt-get", "update", "-q"], noninteractive)
    _run(["apt-get", "-y", "-q", "--no-install-recommends", "-P", "nocheck", "build-dep", tree], noninteractive)


def build(source: str, cache: str, purpose: str) -> str:
    """A built copy of the tree `source`, cached; `purpose` tells two builds of one tree apart."""
    key = _digest(source, purpose)
    home = os.path.join(cache, "built", f"{purpose}-{key[:16]}")
    if not os.path.exists(home):
        install_dependencies(source)
        with made_whole(home) as scratch:
            tree = os.path.join(scratch, os.path.basename(source))
            shutil.copytree(source, tree, symlinks=True)
            _run(["sh", "-c", COMMAND], _clean(environment()), tree)
    return os.path.join(home, os.path.basename(source))


def _digest(source: str, purpose: str) -> str:
    """Of all that decides what the build makes: every file of the tree, the command, the compiler."""
    compiler = subprocess.run(["cc", "--version"], capture_output=True, text=True, check=False).stdout
    digest = hashlib.sha256(json.dumps([purpose, COMMAND, compiler]).encode())
    for directory, subdirectories, names in os.walk(source):
        subdirectories.sort()
        for name in sorted(names):
            path = os.path.join(directory, name)
            digest.update(os.path.relpath(path, source).encode() + b"\0")
            if not os.path.islink(path):
                with open(path, "rb") as stream:
                    digest.update(hashlib.sha256(stream.read()).digest())
    return digest.hexdigest()


def _clean(additions: dict[str, str]) -> dict[str, str]:
    """An environment without what would change the build (CFLAGS, DEB_*, MAKEFLAGS, ...)."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "TMPDIR")}
    return {**kept, "LC_ALL": "C.UTF-8", **additions}


def _run(command: list[str], environ: dict[str, str] | None = None, directory: str | None = None) -> None:
    done = subprocess.run(
        command,
        env=environ or _clean({}),
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        last = "\n".join(done.stdout.splitlines()[-20:])
        raise ProofError(f"{' '.join(command)} failed with status {done.returncode}; its last lines:\n{last}")
