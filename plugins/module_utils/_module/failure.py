# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""How an error ends a task: one clear sentence with the remedy, and {code, message, remedy} for playbooks."""

from __future__ import annotations

from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule

from .._errors import LivepatchError


def fail(module: AnsibleModule, error: LivepatchError, **extra: Any) -> NoReturn:
    """End the task with an error; `extra` goes into the result beside it."""
    module.fail_json(msg=sentence(error.as_dict()), error=error.as_dict(), **extra)
    raise AssertionError("fail_json returned")


def sentence(error: dict[str, str]) -> str:
    """An error as a person reads it."""
    return "%s. %s" % (error["message"].rstrip("."), error["remedy"])
