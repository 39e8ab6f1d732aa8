# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The test cgl.livepatch.compliant."""

from __future__ import annotations

DOCUMENTATION = r"""
name: compliant
short_description: Whether a CVE is proven to be fixed by live patches in every affected process of a host
version_added: 0.1.0
author:
  - cgl.livepatch contributors (@cgl)
description:
  - True when, according to the facts of a host, no process that maps an affected object lacks an active, verified
    patch for the CVE, and at least one process has such a patch. One whose functions are covered by a later patch that
    does not name the CVE is no such patch.
  - An object is known to be affected when a patch that names the CVE, and is in some process of this host, is bound to
    it. The facts know of no other objects. A vulnerable object that no patch on this host was built for is not noticed.
  - Never true without proof. What a process merely says of itself is none. The host must know the patch (C(proof) is
    V(store) in the facts), as it does when root loaded it there with M(cgl.livepatch.livepatch_load), or when it is in
    the store.
  - It is false when no process has a patch for the CVE, when processes could not be looked at
    (C(summary.unreadable)), and when the facts were gathered with
    O(cgl.livepatch.livepatch_facts#module:scan=patched). So a host that does not run the program at all is not
    compliant by this test either; select such hosts beforehand.
positional: cve
options:
  _input:
    description:
      - The facts of one host, C(ansible_facts.livepatch), as M(cgl.livepatch.livepatch_facts) gathers them.
      - Leave O(cgl.livepatch.livepatch_facts#module:patch) away, so that they tell of all patches.
    type: dict
    required: true
  cve:
    description: The CVE id. Case does not matter.
    type: str
    required: true
seealso:
  - plugin: cgl.livepatch.applied
    plugin_type: test
  - module: cgl.livepatch.livepatch_facts
"""

EXAMPLES = r"""
- name: Gather the facts
  cgl.livepatch.livepatch_facts:
  become: true

- name: Fail unless the CVE is fixed in memory
  ansible.builtin.assert:
    that: ansible_facts.livepatch is cgl.livepatch.compliant('CVE-2026-0001')
"""

RETURN = r"""
_value:
  description: Whether the CVE is proven to be fixed in memory.
  type: bool
"""

from collections.abc import Callable
from typing import Any

from ..plugin_utils.facts import checked, covered, good_patches, processes_with


def compliant(facts: Any, cve: str) -> bool:
    """See DOCUMENTATION. Raises AnsibleError for anything but facts."""
    known = checked(facts, "The test cgl.livepatch.compliant")
    if known["summary"]["unreadable"] or known.get("scan") == "patched":
        return False
    # Which patches fix the CVE on which object: one object's patch is no proof for another object.
    fixes: dict[str, set[str]] = {}
    for name, patch in known["patches"].items():
        if cve.upper() in {fixed.upper() for fixed in patch["cves"]}:
            fixes.setdefault(patch["build_id"], set()).add(name)
    return bool(processes_with(known, fixes)) and all(
        any(patch["id"] in good_patches(process) & names and not covered(patch, names) for patch in process["patches"])
        for build_id, names in fixes.items()
        for process in processes_with(known, [build_id])
    )


class TestModule:
    """What Ansible asks of a file of tests."""

    def tests(self) -> dict[str, Callable[..., bool]]:
        """The tests by name."""
        return {"compliant": compliant}
