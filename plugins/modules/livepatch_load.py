# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later, v3.0 among them (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Load a live patch into running processes, or take it out of them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: livepatch_load
short_description: Load a live patch into running processes, or unload it
version_added: 0.1.0
author:
  - cgl.livepatch contributors (@cgl)
description:
  - Puts the code of a live patch beside the running code of every process that maps the patch's object. Nothing uses it
    until M(cgl.livepatch.livepatch_activate) switches it on.
  - With O(state=absent), takes an inactive patch out of every process that has it, once no thread is inside it.
  - One thread of the process is held for a moment (about a millisecond) at a time to map memory; all others run on.
  - Before anything is written, the build-id and the bytes of each function to be replaced are compared in the memory of
    the process; afterwards everything is read back. What fails leaves the process as it was.
extends_documentation_fragment:
  - cgl.livepatch.attributes
  - cgl.livepatch.attributes.patch_file
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
    description:
      - With O(state=present), the patch file. A file on the controller is looked up and sent as
        M(ansible.builtin.copy) does.
      - Its signature is looked for beside it (C(NAME.lpatch.sig)), sent along, and checked on the host before a byte of
        the patch is used, by what role P(cgl.livepatch.prepare#role) has put there (C(/etc/cgl-livepatch)).
      - With O(state=absent), the id of the patch.
    type: str
    required: true
  state:
    description: Whether the patch shall be in the processes.
    type: str
    choices:
      - present
      - absent
    default: present
  timeout:
    description: Seconds over which unloading waits until nobody is inside the patch, or keeps an address in it.
    type: float
    default: 10
notes:
  - Unloading looks at each thread by itself, then at all memory that the program may have written to, for addresses in
    the patch, as coroutines that are not running and callbacks leave them. It is refused where it finds one, with the
    place, and also where memory cannot be read. A handler of a signal that the patch installed is not found; then keep
    the patch loaded.
  - Needs root, or C(CAP_SYS_PTRACE) over the processes. A user may patch own processes where the kernel allows it.
seealso:
  - module: cgl.livepatch.livepatch_build
  - module: cgl.livepatch.livepatch_activate
  - module: cgl.livepatch.livepatch_facts
"""

EXAMPLES = r"""
- name: Load a fix into every process that runs the broken code
  cgl.livepatch.livepatch_load:
    patch: fix-greeting.lpatch

- name: Load it into the processes of one unit only, and fail if there are none
  cgl.livepatch.livepatch_load:
    patch: fix-greeting.lpatch
    processes:
      unit: greeter
    require_target: true

- name: Load a patch file that is on the host
  cgl.livepatch.livepatch_load:
    patch: /var/tmp/fix-greeting.lpatch
    remote_src: true

- name: Take it out again
  cgl.livepatch.livepatch_load:
    patch: fix-greeting
    state: absent
"""

RETURN = r"""
signature:
  description:
    - What the signature of the patch file is worth on this host, none when unloading.
    - C(policy) is the host's, V(required), V(warn) or V(off); with V(off) nothing is checked. C(signer) is a principal
      of the host's allowed signers, C(key) the fingerprint of the key. C(error) says why it counts for nothing, with
      policy V(warn).
  returned: always
  type: dict
  sample:
    policy: required
    verified: true
    signer: builder@example.org
    key: SHA256:dwq6l4D6Ut+rMCtv0Ax5s+1dJ3hOAc+vd7eNhbdHyh4
    error: null
patch:
  description: The patch that was meant.
  returned: always
  type: dict
  contains:
    id:
      description: Its id.
      type: str
      sample: fix-greeting
    version:
      description: Its version. Empty when unloading.
      type: str
      sample: "1"
    build_id:
      description: Build-id of the object it fits. Empty when unloading.
      type: str
      sample: 347bda285b7b5c15b56b8fc63bc1668281ffed3c
    sha256:
      description: Digest of the patch file. Empty when unloading.
      type: str
      sample: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
processes:
  description: What happened to each process that was meant.
  returned: always
  type: list
  elements: dict
  contains:
    pid:
      description: Process id.
      type: int
      sample: 1234
    start_time:
      description: Start of the process in clock ticks since boot. With the pid it names the process for good.
      type: int
      sample: 245396
    exe:
      description: Path of its program.
      type: str
      sample: /usr/sbin/greeter
    object:
      description: The object the patch fits, as the process has it mapped.
      type: str
      sample: /usr/sbin/greeter
    build_id:
      description: Build-id of that object, read from memory.
      type: str
      sample: 347bda285b7b5c15b56b8fc63bc1668281ffed3c
    threads:
      description: How many threads the process had.
      type: int
      sample: 9
    before:
      description: State of the patch in the process before the task, V(absent), V(loaded) or V(active).
      type: str
      sample: absent
    state:
      description: State of the patch in the process now. In check mode, the state it would have.
      type: str
      sample: loaded
    changed:
      description: Whether this process was changed, or would be in check mode.
      type: bool
      sample: true
    verified:
      description: Whether every byte of the patch was found in the memory of the process as it must be.
      type: bool
      sample: true
    proof:
      description: What C(verified) rests on, V(store), the patch that this host knows, or V(claim), what the process
        says of itself.
      type: str
      sample: store
    switch:
      description: How functions were switched, V(none), V(byte) (nobody stopped) or V(stop) (all threads stopped).
      type: str
      sample: none
    stop_us:
      description: How long the threads of the process were stopped at most, microseconds.
      type: int
      sample: 0
    hold_us:
      description: How long one thread of the process was held at most for loading or unloading, microseconds.
      type: int
      sample: 412
    attempts:
      description: How often switching was tried.
      type: int
      sample: 0
    error:
      description: Why this process failed, with code, message and remedy; none when it did not.
      type: dict
      sample:
        code: function_busy
        message: thread 1240 of process 1234 (greeter) is, or may come back, inside patch fix-greeting
        remedy: Run the task again at a quieter moment, or give a longer 'timeout'.
summary:
  description: Counts over all processes that were meant.
  returned: always
  type: dict
  contains:
    targets:
      description: How many processes were meant.
      type: int
      sample: 3
    changed:
      description: How many were changed.
      type: int
      sample: 3
    failed:
      description: How many failed.
      type: int
      sample: 0
    max_stop_us:
      description: The longest stop of any of them, microseconds.
      type: int
      sample: 0
error:
  description: The first error, with code, message and remedy.
  returned: failure
  type: dict
  sample:
    code: build_id_mismatch
    message: process 1234 (greeter) does not map the object of patch fix-greeting
    remedy: Build the patch for the object that runs here.
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._engine.operations import load_patch, unload_patch
from ..module_utils._errors import LivepatchError
from ..module_utils._module.audit import note_refusal, note_report
from ..module_utils._module.failure import fail
from ..module_utils._module.patch_file import PATCH_SPEC, checked_patch, warn_of_signature
from ..module_utils._module.processes import PROCESSES_SPEC, selection
from ..module_utils._module.requirements import require_libraries, require_platform
from ..module_utils._module.results import finish
from ..module_utils._patch.manifest import check_id
from ..module_utils._store.known import KnownPatches
from ..module_utils._store.places import Places


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **PATCH_SPEC,
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "processes": PROCESSES_SPEC,
            "timeout": {"type": "float", "default": 10},
            "require_target": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    require_libraries(module)
    require_platform(module)
    meant = selection(module.params["processes"])
    about = {"id": module.params["patch"], "version": "", "build_id": "", "sha256": ""}
    action = "load" if module.params["state"] == "present" else "unload"
    signature = None
    try:
        if action == "load":
            sent = checked_patch(module.params, Places().settings)
            signature = sent.verdict.as_dict()
            warn_of_signature(module, sent.verdict)
            patch = sent.parsed()
            manifest = patch.manifest
            about = {
                "id": manifest.id,
                "version": manifest.version,
                "build_id": manifest.object.build_id,
                "sha256": patch.sha256,
            }
            report = load_patch(patch, meant, pretend=module.check_mode)
            if report.outcomes and not module.check_mode:
                _learn(module, sent.content, patch.sha256)
        else:
            report = unload_patch(check_id(about["id"]), meant, module.params["timeout"], pretend=module.check_mode)
    except LivepatchError as error:
        note_refusal(module, action, about["id"], error, signature)
        fail(module, error, patch=about, signature=signature)
    note_report(module, action, about, report, signature)
    finish(module, report, about["id"], module.params["require_target"], patch=about, signature=signature)


def _learn(module: AnsibleModule, raw: bytes, sha256: str) -> None:
    """Keep the patch, by which facts prove that it is in a process. Only root may: elsewhere there is no such proof."""
    if os.geteuid() == 0:
        try:
            KnownPatches(Places()).learn(raw, sha256)
        except (LivepatchError, OSError) as error:
            module.warn("The patch is not kept on this host, and facts cannot prove it: %s" % error)


if __name__ == "__main__":
    main()
