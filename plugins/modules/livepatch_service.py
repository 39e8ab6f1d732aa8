# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later, v3.0 among them (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Install the part of the collection that works on a host without Ansible."""

from __future__ import annotations

DOCUMENTATION = r"""
module: livepatch_service
short_description: Install what gives programs their live patches as they start
version_added: 0.1.0
author:
  - cgl.livepatch contributors (@cgl)
description:
  - Puts the engine, as the code that runs this task has it, below C(/usr/lib/cgl-livepatch), with the command
    C(livepatch-store), the service C(cgl-livepatch), the launcher, and a generator of systemd drop-ins. Role
    P(cgl.livepatch.persist#role) does the rest.
  - The store of patches is left alone, also with O(state=absent).
extends_documentation_fragment:
  - cgl.livepatch.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
    details: The files are named in RV(files).
  idempotent:
    support: full
  platform:
    support: full
    platforms: linux
    details: 64-bit x86 only for now.
options:
  state:
    description: Whether it shall be installed.
    type: str
    choices:
      - present
      - absent
    default: present
  guard_seconds:
    description: How long after its patch, in seconds, the death of a process counts for the crash-loop guard.
    type: float
    default: 10
requirements:
  - python-ptrace
  - pyelftools
notes:
  - Needs root.
  - The service runs with the Python that runs this module.
seealso:
  - module: cgl.livepatch.livepatch_store
"""

EXAMPLES = r"""
- name: Install the service
  cgl.livepatch.livepatch_service:

- name: Take it away; the store stays
  cgl.livepatch.livepatch_service:
    state: absent
"""

RETURN = r"""
files:
  description: The files that changed.
  returned: success
  type: list
  elements: str
  sample:
    - /usr/lib/cgl-livepatch/launch
"""

import sys

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._module.requirements import require_libraries, require_platform
from ..module_utils._store.install import install, uninstall
from ..module_utils._store.places import Places


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "guard_seconds": {"type": "float", "default": 10},
        },
        supports_check_mode=True,
    )
    require_libraries(module)
    require_platform(module)
    try:
        if module.params["state"] == "present":
            changed = install(Places(), sys.executable, module.params["guard_seconds"], module.check_mode)
        else:
            changed = uninstall(Places(), module.check_mode)
    except OSError as problem:
        module.fail_json(msg="the service could not be installed: %s" % problem)
    module.exit_json(changed=bool(changed), files=changed)


if __name__ == "__main__":
    main()
