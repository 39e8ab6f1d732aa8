# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later, v3.0 among them (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Activate or deactivate a loaded live patch in running processes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: livepatch_activate
short_description: Activate or deactivate a loaded live patch in running processes
version_added: 0.1.0
author:
  - cgl.livepatch contributors (@cgl)
description:
  - Switches the functions that a patch replaces over to their new code, or back, in every process that maps the patch's
    object.
  - Where one byte per function is enough, nobody is stopped. Where it is not, and where several functions must
    change at one instant, all threads of the process are stopped for a moment. The result says which was used.
  - The stop never exceeds O(max_stop_ms) because of slow threads. Past it, everything runs again with nothing
    changed, and once the process has run ten times as long it is tried again, until O(timeout).
  - A process that maps the object and does not have the patch loaded is a failure, after the others were tried.
extends_documentation_fragment:
  - cgl.livepatch.attributes
  - cgl.livepatch.attributes.processes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  patch:
    description: Id of the patch.
    type: str
    required: true
  state:
    description: Whether the new code of the patch shall be used.
    type: str
    choices:
      - active
      - inactive
    default: active
  max_stop_ms:
    description: The longest time, in milliseconds, that the threads of a process may be stopped.
    type: float
    default: 100
  consistency:
    description:
      - V(entry) lets each function switch by itself, without a stop where that can be.
      - V(atomic) switches all functions of the patch in one stop.
      - V(quiescent) does so at a moment when no thread is inside any of them, or due to return into one. Who is inside
        is found from registers, from every word of the threads' stacks and of the memory that the program may have
        written to, where coroutines sleep; not knowing counts as inside. No thread is kept stopped for others.
      - By default, what the patch was built for, which is the least it needs. Asking for less is refused.
    type: str
    choices:
      - entry
      - atomic
      - quiescent
  timeout:
    description: Seconds over which a busy function or an exceeded budget is tried again.
    type: float
    default: 10
  facts:
    description:
      - Look at the processes anew afterwards, as M(cgl.livepatch.livepatch_facts) with this patch does, and return what
        is found as facts. This saves a task where there are many hosts.
      - The facts speak of this patch only, of its object and whatever else lies at that path, and of the processes that
        map one of these or have the patch. V(objects) in the facts says which objects they are.
    type: bool
    default: false
notes:
  - Needs root, or C(CAP_SYS_PTRACE) over the processes. A user may patch own processes where the kernel allows it.
seealso:
  - module: cgl.livepatch.livepatch_load
  - module: cgl.livepatch.livepatch_facts
"""

EXAMPLES = r"""
- name: Switch the fix on
  cgl.livepatch.livepatch_activate:
    patch: fix-greeting

- name: Switch it on in one process, all functions in one stop of at most 20 ms
  cgl.livepatch.livepatch_activate:
    patch: fix-greeting
    processes:
      pids:
        - 1234
    consistency: atomic
    max_stop_ms: 20

- name: Switch it off again
  cgl.livepatch.livepatch_activate:
    patch: fix-greeting
    state: inactive
"""

RETURN = r"""
patch:
  description: Id of the patch.
  returned: always
  type: str
  sample: fix-greeting
processes:
  description: What happened to each process that was meant, as M(cgl.livepatch.livepatch_load) returns it.
  returned: always
  type: list
  elements: dict
  sample:
    - pid: 1234
      start_time: 245396
      exe: /usr/sbin/greeter
      object: /usr/sbin/greeter
      build_id: 347bda285b7b5c15b56b8fc63bc1668281ffed3c
      threads: 9
      before: loaded
      state: active
      changed: true
      verified: true
      proof: store
      switch: byte
      stop_us: 0
      hold_us: 0
      attempts: 1
      error: null
summary:
  description: Counts over all processes that were meant, and the longest stop of any of them in microseconds.
  returned: always
  type: dict
  sample:
    targets: 1
    changed: 1
    failed: 0
    max_stop_us: 0
ansible_facts:
  description: The facts of this patch, as M(cgl.livepatch.livepatch_facts) returns them.
  returned: with O(facts)
  type: dict
  contains:
    livepatch:
      description: The live patches of this host.
      type: dict
error:
  description: The first error, with code, message and remedy.
  returned: failure
  type: dict
  sample:
    code: not_loaded
    message: patch fix-greeting is not loaded in process 1234 (greeter)
    remedy: "Load the patch first (livepatch_load with state: present)."
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._engine.activate import Limits
from ..module_utils._engine.facts import gather
from ..module_utils._engine.narrow_facts import narrow
from ..module_utils._engine.operations import activate_patch, deactivate_patch
from ..module_utils._errors import LivepatchError
from ..module_utils._module.audit import note_refusal, note_report
from ..module_utils._module.failure import fail
from ..module_utils._module.processes import PROCESSES_SPEC, selection
from ..module_utils._module.requirements import require_libraries, require_platform
from ..module_utils._module.results import finish
from ..module_utils._patch.manifest import check_id
from ..module_utils._store.known import KnownPatches
from ..module_utils._store.places import Places


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "patch": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["active", "inactive"], "default": "active"},
            "processes": PROCESSES_SPEC,
            "max_stop_ms": {"type": "float", "default": 100},
            "consistency": {"type": "str", "choices": ["entry", "atomic", "quiescent"]},
            "timeout": {"type": "float", "default": 10},
            "require_target": {"type": "bool", "default": False},
            "facts": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    require_libraries(module)
    require_platform(module)
    params = module.params
    limits = Limits(params["max_stop_ms"] / 1e3, params["timeout"], params["consistency"] or "")
    activating, known = params["state"] == "active", KnownPatches(Places())
    action = "activate" if activating else "deactivate"
    try:
        meant = check_id(params["patch"]), selection(params["processes"]), limits, module.check_mode
        report = activate_patch(*meant, known=known) if activating else deactivate_patch(*meant)
    except LivepatchError as error:
        note_refusal(module, action, params["patch"], error)
        fail(module, error, patch=params["patch"])
    note_report(module, action, {"id": params["patch"]}, report)
    result = {}
    if params["facts"]:
        try:
            facts = gather([params["patch"]], "affected", known)
        except LivepatchError as error:
            fail(module, error, patch=params["patch"])
        narrow(facts, ())
        result["ansible_facts"] = {"livepatch": facts}
    finish(module, report, params["patch"], params["require_target"], patch=params["patch"], **result)


if __name__ == "__main__":
    main()
