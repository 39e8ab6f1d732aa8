# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Modules out of the archive that Ansible sends are compiled once; imported by the packages that modules use first.

To learn a module's file name, Python's zipimport compiles it, and then compiles it again to run it (zipimporter.
get_filename, as of Python 3.11). With a hundred modules, that was a sixth of the time of a task.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import zipimport
from typing import Sequence


class _Source(importlib.abc.ExecutionLoader):
    """Runs one module of an archive from its source."""

    def __init__(self, archive: zipimport.zipimporter) -> None:
        self._archive = archive

    def get_source(self, fullname: str) -> str | None:
        return self._archive.get_source(fullname)

    def is_package(self, fullname: str) -> bool:
        return self._archive.is_package(fullname)

    def get_data(self, path: str) -> bytes:
        return self._archive.get_data(path)

    def get_filename(self, fullname: str) -> str:
        name = fullname.rpartition(".")[2] + (os.sep + "__init__" if self.is_package(fullname) else "")
        return os.path.join(self._archive.archive, self._archive.prefix, name + ".py")


class _Finder(importlib.abc.MetaPathFinder):
    """Finds what is in the package of this module, where that lies in an archive."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, _target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if path and fullname.startswith("%s." % __package__):
            with contextlib.suppress(ImportError):  # not an archive, or not in it: whoever comes next may find it
                source = _Source(zipimport.zipimporter(path[0]))
                return importlib.util.spec_from_loader(fullname, source, is_package=source.is_package(fullname))
        return None


if isinstance(globals().get("__loader__"), zipimport.zipimporter):
    sys.meta_path.insert(0, _Finder())
