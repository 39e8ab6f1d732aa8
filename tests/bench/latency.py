# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What the clients of a loaded, stock redis-server notice while it is patched: latencies, beside a run without it.

The server and the fix are those of the redis proof, which fetches and builds them where that was not done yet.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from patching import compile_program
from prepare import Proof, prepare
from server import Server
from succeeded import succeeded

from debian.cache import default_cache
from module_utils._engine.activate import Limits
from module_utils._engine.operations import (
    activate_patch,
    deactivate_patch,
    load_patch,
    unload_patch,
)
from module_utils._patch.reader import read_patch_file
from module_utils._process.selection import Selection

ID = "redis-cve-2026-25243"
CLIENTS, SECONDS = 16, 3.0
WAYS = {"nothing": None, "entry": Limits(consistency="entry"), "atomic": Limits(consistency="atomic")}
HEADINGS = ["meanwhile", "requests", "p50, us", "p99, us", "p99.9, us", "max, us"]


def measure(folder: Path, rounds: int) -> list[list[str]]:
    """A row for nothing, and for a patch loaded, activated, deactivated and unloaded with each consistency: medians."""
    proof = prepare(default_cache())
    patch = read_patch_file(_build(folder, proof))
    requests = compile_program(folder, "requests", (Path(__file__).parent / "requests.c").read_text())
    found: dict[str, list[list[int]]] = {way: [] for way in WAYS}
    with Server(proof.deployed, str(folder)) as server:
        meant = Selection(pids=(server.pid,))
        for _round in range(rounds):
            for way, limits in WAYS.items():
                command = [str(requests), str(server.port), str(CLIENTS), str(SECONDS)]
                load = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
                time.sleep(SECONDS / 5)
                if limits:
                    succeeded(load_patch(patch, meant))
                    time.sleep(SECONDS / 5)
                    succeeded(activate_patch(ID, meant, limits))
                    time.sleep(SECONDS / 5)
                    succeeded(deactivate_patch(ID, meant, limits))
                    succeeded(unload_patch(ID, meant, 10))
                said = load.communicate()[0]
                if load.returncode:
                    raise RuntimeError("a request failed while the server was patched (%s)" % way)
                found[way].append([int(float(word)) for word in said.split()])
    return [[way, *("%d" % statistics.median(column) for column in zip(*figures))] for way, figures in found.items()]


def _build(folder: Path, proof: Proof) -> str:
    """The patch file for the fix, made by the module as a playbook would."""
    arguments = {
        "name": ID,
        "version": "1",
        "source": proof.source,
        "diff": [proof.fix],
        "strip": 1,
        "build_command": proof.build_command,
        "environment": proof.environment,
        "artifact": proof.artifact,
        "target": proof.deployed,
        "consistency": "entry",
        "dest": "%s/" % folder,
    }
    command = [sys.executable, "-m", "ansible_collections.cgl.livepatch.plugins.modules.livepatch_build"]
    done = subprocess.run(
        command, input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}), stdout=subprocess.PIPE, text=True, check=False
    )
    result = json.loads(done.stdout)
    if result.get("failed"):
        raise RuntimeError(result["msg"])
    return str(result["patch"]["path"])
