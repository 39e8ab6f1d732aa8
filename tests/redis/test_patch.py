# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The fix goes into the stock redis-server under load and out of it again, through ansible-playbook."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import pytest
from prepare import Proof
from server import Benchmark, Server

from debian import snapshot

HERE = os.path.dirname(os.path.abspath(__file__))


@pytest.mark.engine
def test_fix_goes_in_and_out(proof: Proof, server: Server, benchmark: Benchmark, tmp_path: object) -> None:
    """patch_redis.yml asserts what the server and the modules say; this, what clients and kernel say."""
    before = snapshot.take(server.pid)
    variables = {"redis_" + name: value for name, value in dataclasses.asdict(proof).items()}
    variables.update(
        redis_pid=server.pid,
        redis_port=server.port,
        redis_patches=str(tmp_path),
        redis_probe=f"{sys.executable} {HERE}/probe.py",
    )
    command = [
        os.path.join(os.path.dirname(sys.executable), "ansible-playbook"),
        *("--extra-vars", json.dumps(variables)),
        os.path.join(HERE, "patch_redis.yml"),
    ]
    done = subprocess.run(command, cwd=str(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert benchmark.disturbances() == []
    assert snapshot.differences(before, snapshot.take(server.pid)) == []
