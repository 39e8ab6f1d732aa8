# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The test cgl.livepatch.applied."""

from __future__ import annotations

DOCUMENTATION = r"""
name: applied
short_description: Whether a live patch is active and verified in every process of a host that needs it
version_added: 0.1.0
author:
  - cgl.livepatch contributors (@cgl)
description:
  - True when, according to the facts of a host, the patch is active and every byte of it is as it must be, in every
    process that maps the patch's object, and in at least one.
  - What a process merely says of itself does not count. The host must know the patch (C(proof) is V(store) in the
    facts), as it does when root loaded it there with M(cgl.livepatch.livepatch_load), or when it is in the store.
  - False when the facts know nothing of the patch.
  - Processes that the facts could not look at (C(summary.unreadable)) do not count. Gather the facts as root.
positional: patch
options:
  _input:
    description:
      - The facts of one host, C(ansible_facts.livepatch), as M(cgl.livepatch.livepatch_facts) gathers them with
        O(cgl.livepatch.livepatch_facts#module:scan=affected) or O(cgl.livepatch.livepatch_facts#module:scan=all).
        Facts of V(patched) do not speak of processes without the patch, and make the test fail with an error.
    type: dict
    required: true
  patch:
    description: Id of the patch.
    type: str
    required: true
  pids:
    description: Ask only about these processes. Those that have exited do not count.
    type: list
    elements: int
seealso:
  - plugin: cgl.livepatch.compliant
    plugin_type: test
  - module: cgl.livepatch.livepatch_facts
"""

EXAMPLES = r"""
- name: Gather the facts
  cgl.livepatch.livepatch_facts:

- name: Fail unless the fix works everywhere on this host
  ansible.builtin.assert:
    that: ansible_facts.livepatch is cgl.livepatch.applied('fix-greeting')

- name: Ask about some processes only
  ansible.builtin.assert:
    that: ansible_facts.livepatch is cgl.livepatch.applied('fix-greeting', pids=[1234])
"""

RETURN = r"""
_value:
  description: Whether the patch is applied.
  type: bool
"""

from collections.abc import Callable, Iterable
from typing import Any

from ansible.errors import AnsibleError

from ..plugin_utils.facts import checked, good_patches, processes_with

_NAME = "The test cgl.livepatch.applied"


def applied(facts: Any, patch: str, pids: Iterable[int] | None = None) -> bool:
    """See DOCUMENTATION. Raises AnsibleError for anything but facts that can answer."""
    known = checked(facts, _NAME)
    if known.get("scan") == "patched":
        raise AnsibleError("%s cannot answer from facts gathered with scan: patched; use scan: affected" % _NAME)
    if patch not in known["patches"]:
        return False
    meant = processes_with(known, [known["patches"][patch]["build_id"]])
    if pids is not None:
        named = {int(pid) for pid in pids}
        meant = [process for process in meant if process["pid"] in named]
    return bool(meant) and all(patch in good_patches(process) for process in meant)


class TestModule:
    """What Ansible asks of a file of tests."""

    def tests(self) -> dict[str, Callable[..., bool]]:
        """The tests by name."""
        return {"applied": applied}
