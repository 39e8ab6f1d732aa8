# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The redis proof's own options, fixtures and marker."""

from __future__ import annotations

from typing import Iterator

import prepare
import pytest
from server import Benchmark, Server

from debian.archive import ProofError
from debian.cache import default_cache


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--pretend-gone",
        action="append",
        default=[],
        metavar="VERSION",
        help=f"prepare the proof as if the archive no longer had this version (such as {prepare.STOCK})",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "engine: needs the collection's modules, and privilege to patch a process")


@pytest.fixture(scope="session")
def proof(request: pytest.FixtureRequest) -> prepare.Proof:
    """The deployed redis, its source, and the fix."""
    try:
        return prepare.prepare(default_cache(), frozenset(request.config.getoption("--pretend-gone")))
    except ProofError as error:
        # The whole reason is in the text; where in the preparation it came up helps nobody.
        pytest.fail(str(error), pytrace=False)


@pytest.fixture
def server(proof: prepare.Proof, tmp_path: object) -> Iterator[Server]:
    """The deployed program, running."""
    with Server(proof.deployed, str(tmp_path)) as running:
        yield running


@pytest.fixture
def benchmark(proof: prepare.Proof, server: Server, tmp_path: object) -> Iterator[Benchmark]:
    """redis-benchmark at `server` all the time."""
    with Benchmark(proof.benchmark, server.port, str(tmp_path)) as running:
        yield running
