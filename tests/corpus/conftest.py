# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The corpus' own options, and the page that it writes."""

from __future__ import annotations

import pytest

from corpus.cycle import Row
from corpus.table import page


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--page", default="", metavar="FILE", help="write what came of all fixes to this file")
    parser.addoption(
        "--pretend-gone",
        action="append",
        default=[],
        metavar="VERSION",
        help="prepare as if the archive no longer had this version",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "quick: of a program that is tried with every change")
    config.stash[ROWS] = []


ROWS = pytest.StashKey[list[Row]]()


@pytest.fixture
def rows(request: pytest.FixtureRequest) -> list[Row]:
    """What came of the fixes so far."""
    return request.config.stash[ROWS]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    path = session.config.getoption("--page")
    if path and exitstatus == 0:
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(page(session.config.stash[ROWS]))
