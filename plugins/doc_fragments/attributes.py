# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What all modules of the collection say of themselves, and the options they share."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragments of cgl.livepatch."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying target.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in C(check_mode)), when in diff
      mode.
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
      - This assumes that the system controlled/queried by the module has not changed in a relevant way.
  platform:
    description: Target OS/families that can be operated against.
"""

    PROCESSES = r"""
options:
  processes:
    description:
      - Narrows the processes that are meant. All that is given must hold.
      - By default, every process of the host that maps the patch's object is meant, whatever is on disk by now.
      - The process that the module runs in is never patched.
    type: dict
    suboptions:
      pids:
        description: Process ids. One that does not exist fails the task.
        type: list
        elements: int
      exe:
        description: Path of the program, as C(/proc/PID/exe) has it.
        type: path
      unit:
        description: Name of a systemd unit; C(.service) may be left out.
        type: str
      user:
        description: Name or number of the user that the process runs as.
        type: str
      cgroup:
        description: Path of a control group, for example V(/system.slice); its children are included.
        type: str
  require_target:
    description: Fail when no process is meant, instead of warning.
    type: bool
    default: false
requirements:
  - python-ptrace
  - pyelftools
attributes:
  platform:
    support: full
    platforms: linux
    details: 64-bit x86 only for now.
"""

    PATCH_FILE = r"""
options:
  _content:
    description: A small patch file, which the action plugin sends along. Not for use in tasks.
    type: str
  _signature:
    description: Its signature, which the action plugin sends along. Not for use in tasks.
    type: str
  remote_src:
    description: The patch file is on the managed host already.
    type: bool
    default: false
"""
