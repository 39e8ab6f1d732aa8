# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later, v3.0 among them (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Take, look at or leave a host's turn to be worked on."""

from __future__ import annotations

DOCUMENTATION = r"""
module: livepatch_turn
short_description: Take, look at or leave a host's turn to be worked on
version_added: 0.1.0
author:
  - cgl.livepatch contributors (@cgl)
description:
  - A run of Ansible that is going to change a host takes the turn of it, and leaves it when the host is as it was asked
    to be. So runs on several controllers do not work on members of one redundancy group at the same time.
  - The roles P(cgl.livepatch.rollout#role) and P(cgl.livepatch.rollback#role) do this for hosts that have the variable
    C(livepatch_redundancy_group).
  - Nothing runs out by time. A turn that was taken by a run which died is taken over by the next run on the same
    controller, which can see that it died, by any run after a reboot of the host, and with O(take_over).
extends_documentation_fragment:
  - cgl.livepatch.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
  platform:
    support: full
    platforms: linux
options:
  state:
    description:
      - V(taken) takes the turn, and fails when another run has it.
      - V(free) leaves it, if it is this run's own.
      - V(look) changes nothing, and says who has it.
    type: str
    choices:
      - taken
      - free
      - look
    default: look
  owner:
    description:
      - Which run it is. RV(cgl.livepatch.livepatch_plan#module:owner) has one.
    type: dict
    default: {}
  take_over:
    description:
      - Take the turn although another run has it. Only when it is certain that the other run is dead.
    type: bool
    default: false
  dead:
    description:
      - Owners that are known to be dead. The controller fills this in.
    type: list
    elements: dict
    default: []
notes:
  - Needs root. The turn is in the file C(/run/cgl-livepatch/turn) of the host.
seealso:
  - module: cgl.livepatch.livepatch_plan
"""

EXAMPLES = r"""
- name: See whether somebody works on this host
  cgl.livepatch.livepatch_turn:
  register: turn

- name: Say who
  ansible.builtin.debug:
    msg: "{{ turn.holder }}"
"""

RETURN = r"""
holder:
  description: Who has the turn now, as it was given with O(owner), and C(since) when; empty when nobody.
  returned: always
  type: dict
  sample:
    controller: admin1
    boot: 6f0c8b1e-6d0a-4f0e-9f0e-0d6f2f1b7c11
    pid_namespace: "pid:[4026531836]"
    pid: 4711
    start_time: 245396
    since: 1795320000
previous:
  description: Who had it before this task, in the same form.
  returned: success
  type: dict
  sample: {}
alive:
  description:
    - Whether the run that has the turn lives, V(unknown) when that cannot be seen from this controller.
  returned: when somebody has it
  type: str
  sample: dead
error:
  description: Why it could not be taken, with code, message and remedy.
  returned: failure
  type: dict
  sample:
    code: turn_taken
    message: another run of cgl.livepatch works on this host, process 4711 on admin1, since 2026-11-22 10:46:53 UTC
    remedy: Let the other run end, then run this again.
"""

import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._errors import LivepatchError
from ..module_utils._module.failure import fail
from ..module_utils._turn import Turn, holder_in_words


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["taken", "free", "look"], "default": "look"},
            "owner": {"type": "dict", "default": {}},
            "take_over": {"type": "bool", "default": False},
            "dead": {"type": "list", "elements": "dict", "default": []},
        },
        required_if=[("state", "taken", ["owner"]), ("state", "free", ["owner"])],
        supports_check_mode=True,
    )
    state, owner = module.params["state"], module.params["owner"]
    try:
        with Turn.opened(writable=state != "look" and not module.check_mode) as turn:
            before = turn.holder
            after = _wanted(state, owner, before, module.params)
            if after != before:
                if after:
                    after = dict(after, since=int(time.time()), host_boot=turn.boot)
                if not module.check_mode:
                    turn.write(after)
    except OSError as problem:
        message = "the turn of this host cannot be taken: %s" % problem
        remedy = "Run the task with 'become: true'." if os.geteuid() else "See what is at /run/cgl-livepatch."
        fail(module, LivepatchError("not_permitted", message, remedy), holder={})
    if state == "taken" and _who(after) != _who(owner):
        message = "another run of cgl.livepatch works on this host, %s" % holder_in_words(after)
        fail(module, LivepatchError("turn_taken", message), holder=after)
    module.exit_json(changed=after != before, holder=after, previous=before)


def _who(holder: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in holder.items() if key not in ("since", "host_boot")}


def _wanted(state: str, owner: dict[str, Any], holder: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Who shall have the turn."""
    own = _who(holder) == _who(owner)
    if state == "free" and own:
        return {}
    mine = state == "taken" and not own
    if mine and (not holder or params["take_over"] or _who(holder) in [_who(dead) for dead in params["dead"]]):
        return owner
    return holder


if __name__ == "__main__":
    main()
