# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Errors of ptrace(2) keep their number, and say what was asked of whom."""

from __future__ import annotations

import os

import pytest

from module_utils._ptrace.ptrace_requests import RegisterBuffer, get_register_set, seize

_NOBODY = 1 << 22  # no process has such a number (proc(5), pid_max)


def test_a_thread_that_is_not_there() -> None:
    with pytest.raises(ProcessLookupError, match=r"No such process .*0x4204, thread 4194304"):
        get_register_set(_NOBODY, 1, RegisterBuffer(512))


def test_a_thread_that_may_not_be_traced() -> None:
    with pytest.raises(PermissionError, match="0x4206"):
        seize(os.getpid())  # nobody traces itself
