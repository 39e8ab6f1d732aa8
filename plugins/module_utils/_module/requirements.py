# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The one gate for what a module needs on its host: the libraries, the platform."""

from __future__ import annotations

import os
import sys
import traceback

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from .._errors import LivepatchError
from .._ptrace.python_ptrace import LIBRARY_ERROR as PTRACE_ERROR
from .failure import fail

ELFTOOLS_ERROR = ""
try:
    __import__("elftools")
except ImportError:
    ELFTOOLS_ERROR = traceback.format_exc()

ARCHITECTURES = ("x86_64",)


def require_libraries(module: AnsibleModule) -> None:
    """Fail the task with dependency_missing when python-ptrace or pyelftools is not there for the module's Python."""
    for library, error in (("python-ptrace", PTRACE_ERROR), ("pyelftools", ELFTOOLS_ERROR)):
        if error:
            fail(module, LivepatchError("dependency_missing", missing_required_lib(library)), exception=error)


def require_platform(module: AnsibleModule) -> None:
    """Fail the task with arch_mismatch where the engine cannot work: it patches 64-bit x86 processes on Linux."""
    system, machine = sys.platform, os.uname().machine
    if system != "linux" or machine not in ARCHITECTURES:
        fail(
            module,
            LivepatchError(
                "arch_mismatch",
                "this host is %s on %s; processes can be patched on Linux on %s"
                % (machine, system, ", ".join(ARCHITECTURES)),
                "Leave this host out, or restart its processes into the fixed version.",
            ),
        )
