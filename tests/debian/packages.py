# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Source and binary packages, fetched and unpacked in the cache once."""

from __future__ import annotations

import os
import subprocess

from .archive import BINARY, SOURCE, Archive
from .cache import made_whole
from .debian_build import unpack


def source_tree(archive: Archive, cache: str, package: str, version: str) -> str:
    """The source tree of a version, with Debian's patches applied. Raises VanishedError, ProofError."""
    files = archive.fetch(SOURCE, package, version)
    (dsc,) = [path for path in files if path.endswith(".dsc")]
    home = os.path.join(cache, "source", os.path.basename(os.path.dirname(dsc)))
    if not os.path.exists(home):
        with made_whole(home) as scratch:
            for path in files:
                os.symlink(path, os.path.join(scratch, os.path.basename(path)))
            unpack(os.path.join(scratch, os.path.basename(dsc)), os.path.join(scratch, package))
    return os.path.join(home, package)


def installed_tree(archive: Archive, cache: str, packages: tuple[str, ...], version: str) -> str:
    """A directory with the files of binary packages of one version. Raises VanishedError, ProofError."""
    files = [path for name in packages for path in archive.fetch(BINARY, name, version)]
    home = os.path.join(cache, "stock", "-".join(os.path.basename(os.path.dirname(path))[:16] for path in files))
    if not os.path.exists(home):
        with made_whole(home) as scratch:
            for path in files:
                subprocess.run(["dpkg-deb", "-x", path, scratch], check=True)
    return home
