# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The filter cgl.livepatch.query."""

from __future__ import annotations

DOCUMENTATION = r"""
name: query
short_description: Ask the live patch facts a question in JMESPath
version_added: 0.1.0
author:
  - cgl.livepatch contributors (@cgl)
description:
  - Evaluates a JMESPath expression over the facts of a host, or over anything else that JSON can hold.
requirements:
  - jmespath on the controller
positional: expression
options:
  _input:
    description: The facts, for example C(ansible_facts.livepatch).
    type: raw
    required: true
  expression:
    description: The JMESPath expression, see U(https://jmespath.org/specification.html).
    type: str
    required: true
seealso:
  - module: cgl.livepatch.livepatch_facts
"""

EXAMPLES = r"""
- name: Show the processes in which a patch is loaded and not active
  ansible.builtin.debug:
    msg: "{{ ansible_facts.livepatch | cgl.livepatch.query(question) }}"
  vars:
    question: "processes[?patches[?state=='loaded']].{pid: pid, exe: exe}"

- name: Show which programs run code that is no longer on disk
  ansible.builtin.debug:
    msg: "{{ ansible_facts.livepatch | cgl.livepatch.query('processes[?objects[?drift!=`none`]].exe') | unique }}"
"""

RETURN = r"""
_value:
  description: What the expression finds. None when it finds nothing.
  type: raw
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleError

from ..plugin_utils.plain import plain

try:
    import jmespath
    from jmespath.exceptions import JMESPathError
except ImportError as problem:
    IMPORT_ERROR: ImportError | None = problem
else:
    IMPORT_ERROR = None


def query(facts: Any, expression: str) -> Any:
    """See DOCUMENTATION. Raises AnsibleError when jmespath is not there, or cannot make sense of the expression."""
    if IMPORT_ERROR:
        raise AnsibleError(
            "The filter cgl.livepatch.query needs the Python library jmespath, and the Python that runs Ansible on the"
            " controller does not have it. Install it there (pip install jmespath, or python3-jmespath)."
        ) from IMPORT_ERROR
    try:
        return jmespath.search(plain(expression), plain(facts))
    except JMESPathError as error:
        raise AnsibleError(
            "The filter cgl.livepatch.query cannot evaluate %r: %s" % (str(expression), error)
        ) from error


class FilterModule:
    """What Ansible asks of a file of filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters by name."""
        return {"query": query}
