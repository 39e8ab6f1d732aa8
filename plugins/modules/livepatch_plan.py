# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later, v3.0 among them (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Plan in which order the hosts of a play are worked on."""

from __future__ import annotations

DOCUMENTATION = r"""
module: livepatch_plan
short_description: Plan in which order the hosts of a play are worked on
version_added: 0.1.0
author:
  - cgl.livepatch contributors (@cgl)
description:
  - Cuts the hosts of the play's current batch into waves, as C(serial) does, and each wave into turns. No turn has more
    members of a redundancy group in it than may be worked on at once.
  - Members of a group share the variable C(livepatch_redundancy_group), its name. C(livepatch_at_once) says how many
    of them may be worked on at once, 1 by default, and never all. Both belong into the inventory.
  - Fails where hosts do not wait for each other after each task (another strategy than V(linear)), for a group that has
    only one member in the inventory, and when a host is being worked on by another run.
  - Runs on the controller, once for all hosts, and contacts none of them.
  - The roles P(cgl.livepatch.rollout#role) and P(cgl.livepatch.rollback#role) use it.
extends_documentation_fragment:
  - cgl.livepatch.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
    details: It changes nothing.
  idempotent:
    support: full
  platform:
    support: full
    platforms: all
options:
  waves:
    description:
      - Sizes of the waves, as numbers of hosts or percentages of them. The last size is used until no hosts are left.
    type: list
    elements: str
    default: ['1', 10%, 100%]
  take_over:
    description:
      - Go on although runs that cannot be seen to be dead are at work on some of the hosts.
    type: bool
    default: false
  guarded:
    description:
      - Whether the role asks something before or after it works on hosts. Turns with members of redundancy groups, and
        with hosts that have C(livepatch_health) or C(livepatch_health_tasks), are guarded in any case.
    type: bool
    default: false
  looks:
    description: The name of the variable in which each host has the result of M(cgl.livepatch.livepatch_turn), if any.
    type: str
    default: rollout_look
seealso:
  - module: cgl.livepatch.livepatch_turn
"""

EXAMPLES = r"""
- name: Plan the rollout
  cgl.livepatch.livepatch_plan:
    waves: [1, 10%, 100%]
  run_once: true
  register: plan
"""

RETURN = r"""
turns:
  description: The turns, in order, each with the number of its wave, its hosts, and whether it is guarded.
  returned: success
  type: list
  elements: dict
  sample:
    - wave: 1
      hosts:
        - db1a
      guarded: true
    - wave: 2
      hosts:
        - db1b
        - web1
      guarded: true
turn_of:
  description: For each host, the index of its turn.
  returned: success
  type: dict
  sample:
    db1a: 0
    db1b: 1
    web1: 1
others:
  description: For each host that is in a redundancy group, the members of it that have another turn, or none.
  returned: success
  type: dict
  sample:
    db1a:
      - db1b
    db1b:
      - db1a
spare:
  description: For each host that is in a redundancy group, how many of RV(others) may be unwell when it has its turn.
  returned: success
  type: dict
  sample:
    db1a: 0
    db1b: 0
owner:
  description: Which run this is, for O(cgl.livepatch.livepatch_turn#module:owner).
  returned: success
  type: dict
  sample:
    controller: admin1
    boot: 6f0c8b1e-6d0a-4f0e-9f0e-0d6f2f1b7c11
    pid_namespace: "pid:[4026531836]"
    pid: 4711
    start_time: 245396
"""
