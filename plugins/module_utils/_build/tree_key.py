# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The digest by which a built tree is kept: of all that decides what a build makes, as far as it is known before."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat

from .compile_command import HEEDED
from .request import BuildRequest
from .watch_build import compilers_on

_FORMAT = 3
# Of the variables that the task itself was started with, those that builds are known to read; PATH besides.
_READ_BY_BUILDS = re.compile(
    r"(.*FLAGS|CC|CXX|CPP|LD|AR|AS|NM|RANLIB|LIBS|LDLIBS|MAKE.*|DEB_.*|PKG_CONFIG.*|CMAKE_.*)$"
)


def tree_key(request: BuildRequest) -> str:
    """Of the tree's files and folders with their permissions, the commands, the environment and the compilers.

    What of the artifact is asked for does not matter: one build serves all of them.
    """
    environment = {**os.environ, **request.environment}
    path = environment.get("PATH", os.defpath)
    programs = sorted([*compilers_on(path).items(), *_binutils(path)])
    settings = [
        _FORMAT,
        os.path.basename(os.path.abspath(request.source)),
        request.configure_command,
        request.build_command,
        sorted(request.environment.items()),
        sorted(row for row in os.environ.items() if row[0] in HEEDED or _READ_BY_BUILDS.match(row[0])),
        path,
        programs,
        [[os.path.realpath(real), file_state(real)] for real in sorted({real for _name, real in programs})],
    ]
    digest = hashlib.sha256(json.dumps(settings).encode())
    for folder, folders, names in os.walk(request.source):
        folders[:] = sorted(name for name in folders if name != ".git")
        for name in sorted([*folders, *names]):
            file = os.path.join(folder, name)
            mode = os.lstat(file).st_mode
            digest.update(b"\0" + os.path.relpath(file, request.source).encode("utf-8", "surrogateescape") + b"\0")
            digest.update(b"%o " % mode)
            if stat.S_ISLNK(mode):
                digest.update(os.readlink(file).encode("utf-8", "surrogateescape"))
            elif stat.S_ISREG(mode):
                with open(file, "rb") as stream:
                    digest.update(hashlib.sha256(stream.read()).digest())
    return digest.hexdigest()[:20]


def file_state(path: str) -> list[int]:
    """What tells that a file is not the one it was: its size in bytes, and when it was written; empty without one."""
    try:
        state = os.stat(path)
    except OSError:
        return []
    return [state.st_size, state.st_mtime_ns]


def _binutils(path: str) -> list[tuple[str, str]]:
    found = ((name, shutil.which(name, path=path)) for name in ("as", "ld", "ar", "objcopy"))
    return [(name, real) for name, real in found if real]
