# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole way of a patch through one process, by both kinds of switch, and the tool as another user."""

from __future__ import annotations

import contextlib
import os
import pickle
import tempfile
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from reports import only

from module_utils._engine.activate import Limits
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch, unload_patch
from module_utils._engine.outcome import Report
from module_utils._patch.content import Patch
from module_utils._process.selection import Selection

WAYS = [pytest.param(("byte", "jump"), "entry", id="byte"), pytest.param(("jump",), "atomic", id="stop")]
NOBODY = 65534


def error_of(report: Report) -> dict[str, str]:
    """The error of the one process of a report, which has one."""
    error = only(report).error
    assert error is not None
    return error


def load_and_activate(patch: Patch, pid: int, forms: tuple[str, ...], consistency: str) -> None:
    """Each must succeed."""
    chosen = Selection(pids=(pid,))
    assert only(load_patch(patch, chosen, forms=forms)).error is None
    limits = Limits(max_stop=2.0, timeout=5.0, consistency=consistency)
    assert only(activate_patch(patch.manifest.id, chosen, limits)).error is None


def take_out(patch: Patch, pid: int) -> None:
    """Deactivate and unload; each must succeed."""
    chosen, name = Selection(pids=(pid,)), patch.manifest.id
    assert only(deactivate_patch(name, chosen, Limits(max_stop=2.0, timeout=5.0))).error is None
    assert only(unload_patch(name, chosen, 5.0)).error is None


def as_user(user: int, work: Callable[[], Any]) -> Any:
    """What `work` returns in a child that has this user's rights and no others."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            with os.fdopen(writing, "wb") as stream:
                pickle.dump(work(), stream)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        told = stream.read()
    os.waitpid(child, 0)
    assert told, "it failed"
    return pickle.loads(told)


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """A folder for the block that every user may read, as those of pytest may not be."""
    with tempfile.TemporaryDirectory(prefix="livepatch-") as name:
        os.chmod(name, 0o755)
        yield Path(name)
