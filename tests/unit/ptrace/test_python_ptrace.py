# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Errors of ptrace(2) keep their number, whichever way python-ptrace makes the call."""

from __future__ import annotations

import pytest
from ptrace import PtraceError

from module_utils._ptrace import ptrace_requests
from module_utils._ptrace.ptrace_requests import RegisterBuffer, get_register_set

_NOBODY = 1 << 22  # no process has such a number (proc(5), pid_max)


def test_a_thread_that_is_not_there() -> None:
    with pytest.raises(ProcessLookupError):
        get_register_set(_NOBODY, 1, RegisterBuffer(512))


def test_the_number_is_known_where_the_library_has_lost_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As python-ptrace 0.9.8 tells it when it makes the call in C."""

    def call(*_arguments: int) -> None:
        raise PtraceError(
            "ptrace(request=16900, pid=4194304, 0x1, 0x7f3) error #3: No such process", errno=0, pid=_NOBODY
        )

    monkeypatch.setattr(ptrace_requests, "ptrace", call)
    with pytest.raises(ProcessLookupError, match=r"No such process .*0x4204"):
        get_register_set(_NOBODY, 1, RegisterBuffer(512))
