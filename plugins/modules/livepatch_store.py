# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later, v3.0 among them (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Keep a live patch in the store of a host: what is there is applied when a program starts again."""

from __future__ import annotations

DOCUMENTATION = r"""
module: livepatch_store
short_description: Keep the live patches that a host should have, over restarts
version_added: 0.1.0
author:
  - cgl.livepatch contributors (@cgl)
description:
  - Puts a patch into the store of the host, C(/var/lib/cgl-livepatch), with what is desired of it in a small file
    beside it that people can read; or takes it out. Both are root's alone, and whole at any time.
  - What is in the store is given to each process that maps the patch's object as it starts, by the service and the
    launcher that role P(cgl.livepatch.persist#role) installs. Processes that run already are left as they are; use
    M(cgl.livepatch.livepatch_load) and M(cgl.livepatch.livepatch_activate) for these, or C(livepatch-store apply).
extends_documentation_fragment:
  - cgl.livepatch.attributes
  - cgl.livepatch.attributes.patch_file
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
  platform:
    support: full
    platforms: linux
    details: 64-bit x86 only for now.
options:
  patch:
    description:
      - With O(state=present), the patch file. A file on the controller is looked up and sent as
        M(ansible.builtin.copy) does.
      - Its signature is looked for beside it (C(NAME.lpatch.sig)), sent along, and checked on the host before a byte of
        the patch is used. The store keeps it, and checks it again each time before it gives a process the patch.
      - With O(state=absent), the id of the patch.
    type: str
    required: true
  state:
    description: Whether the host should have the patch.
    type: str
    choices:
      - present
      - absent
    default: present
  processes:
    description: Narrows the processes that should have it. All that is given must hold.
    type: dict
    suboptions:
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
        description: Path of a control group; its children are included.
        type: str
  enabled:
    description:
      - Whether the patch is applied as programs start. V(false) keeps it in the store and applies it no more.
      - V(true) also lifts what the crash-loop guard holds back.
      - By default, what it was; a new one is enabled.
    type: bool
requirements:
  - pyelftools
notes:
  - Needs root.
seealso:
  - module: cgl.livepatch.livepatch_facts
  - module: cgl.livepatch.livepatch_load
"""

EXAMPLES = r"""
- name: Never let the greeter come back without its fix
  cgl.livepatch.livepatch_store:
    patch: fix-greeting.lpatch
    processes:
      unit: greeter

- name: Apply it again after the crash-loop guard held it back
  cgl.livepatch.livepatch_store:
    patch: fix-greeting.lpatch
    enabled: true

- name: The fixed package is there, so the patch is not wanted any more
  cgl.livepatch.livepatch_store:
    patch: fix-greeting
    state: absent
"""

RETURN = r"""
patch:
  description: Id of the patch.
  returned: always
  type: str
  sample: fix-greeting
desired:
  description: What is desired of it now, none when nothing is.
  returned: success
  type: dict
  sample:
    version: "1"
    sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    build_id: 347bda285b7b5c15b56b8fc63bc1668281ffed3c
    object: greeter
    cves:
      - CVE-2026-0001
    enabled: true
    signer: builder@example.org
    key: SHA256:dwq6l4D6Ut+rMCtv0Ax5s+1dJ3hOAc+vd7eNhbdHyh4
    stored_at: 1795320000
    paths:
      - /usr/sbin/greeter
    processes:
      unit: greeter
    requires: []
    replaces: []
signature:
  description: What its signature is worth on this host, as M(cgl.livepatch.livepatch_load) returns it.
  returned: success
  type: dict
  sample:
    policy: required
    verified: true
    signer: builder@example.org
    key: SHA256:dwq6l4D6Ut+rMCtv0Ax5s+1dJ3hOAc+vd7eNhbdHyh4
    error: null
held:
  description: The programs that the crash-loop guard holds it back from, with their deaths.
  returned: success
  type: dict
  sample: {}
error:
  description: What failed, with code, message and remedy.
  returned: failure
  type: dict
  sample:
    code: store_corrupt
    message: "/var/lib/cgl-livepatch/desired/fix.json cannot be used: it is not JSON"
    remedy: Put the patch into the store again (livepatch_store), or take it out.
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._errors import LivepatchError
from ..module_utils._module.audit import note_refusal, note_stored
from ..module_utils._module.failure import fail
from ..module_utils._module.patch_file import PATCH_SPEC, checked_patch, warn_of_signature
from ..module_utils._module.requirements import require_libraries, require_platform
from ..module_utils._module.store import keep, take_out
from ..module_utils._store.desired import NARROWING
from ..module_utils._store.places import Places
from ..module_utils._store.store import Store


def main() -> None:
    kinds = {name: {"type": "path" if name == "exe" else "str"} for name in NARROWING}
    module = AnsibleModule(
        argument_spec={
            **PATCH_SPEC,
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "processes": {"type": "dict", "options": kinds},
            "enabled": {"type": "bool"},
        },
        supports_check_mode=True,
    )
    require_libraries(module)
    require_platform(module)
    store, patch = Store(Places()), module.params["patch"]
    action = "store_put" if module.params["state"] == "present" else "store_remove"
    signature = None
    try:
        if action == "store_put":
            given = {name: value for name, value in (module.params["processes"] or {}).items() if value}
            sent = checked_patch(module.params, store.places.settings)
            signature = sent.verdict.as_dict()
            warn_of_signature(module, sent.verdict)
            result = keep(store, sent, given, module.params["enabled"], module.check_mode)
        else:
            result = take_out(store, patch, module.check_mode)
    except LivepatchError as error:
        note_refusal(module, action, patch, error, signature)
        fail(module, error, patch=patch)
    except OSError as problem:
        module.fail_json(msg="the store cannot be read or written: %s" % problem, patch=patch)
    note_stored(module, action, result, signature)
    if result["held"]:
        module.warn("The crash-loop guard holds patch %s back from %s." % (result["patch"], ", ".join(result["held"])))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
