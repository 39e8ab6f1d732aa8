# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The service's jobs: what each did is told at its end, however that comes, and whoever it leaves behind."""

from __future__ import annotations

import os
import select
import signal
import time
from typing import Callable

import pytest

from module_utils._errors import LivepatchError
from module_utils._store.apply import Applied
from module_utils._store.jobs import MOST, Job, Jobs, Result

SECONDS = 20.0


def _results(works: list[Callable[[], list[Applied]]]) -> list[Result]:
    """What came of each of these, in the order in which they came to their end."""
    jobs, results = Jobs(), []
    for index, work in enumerate(works):
        jobs.add(Job(index + 1, False, work, lambda: None))
    end = time.monotonic() + SECONDS
    while jobs.descriptors():
        assert len(jobs.descriptors()) <= MOST
        ready, _writable, _other = select.select(jobs.descriptors(), [], [], max(0.0, end - time.monotonic()))
        assert ready, "a job is not heard of any more"
        results += [result for result in map(jobs.read, ready) if result]
    return results


def test_a_job_that_leaves_a_child_behind() -> None:
    """One that cannot die is left behind; the job is over all the same, and its word is there."""
    told, teller = os.pipe()

    def work() -> list[Applied]:
        if not os.fork():
            os.write(teller, b"%d " % os.getpid())
            signal.alarm(60)  # should the test end without its end
            signal.pause()
        return []

    (result,) = _results([work])
    assert (result.done, result.error) == ([], None)
    left = int(os.read(told, 20))
    os.kill(left, 0)  # it is still there
    os.kill(left, signal.SIGKILL)
    os.close(told)
    os.close(teller)


@pytest.mark.parametrize(
    ("error", "code"), [(LivepatchError("still_active", "it is"), "still_active"), (KeyError("x"), "internal")]
)
def test_what_a_job_raises_is_told(error: Exception, code: str) -> None:
    def work() -> list[Applied]:
        raise error

    (result,) = _results([work])
    assert result.error
    assert result.error["code"] == code


def test_a_job_that_is_killed_is_missed() -> None:
    def work() -> list[Applied]:
        os.kill(os.getpid(), signal.SIGKILL)
        return []

    (result,) = _results([work])
    assert result.error
    assert "killed" in result.error["message"]


def test_more_jobs_than_there_is_room_for() -> None:
    def work() -> list[Applied]:
        time.sleep(0.02)
        return []

    results = _results([work] * (2 * MOST + 1))
    assert sorted(result.job.pid for result in results) == list(range(1, 2 * MOST + 2))
    assert not [result for result in results if result.error]
