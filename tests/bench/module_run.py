# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""How much memory and time a module run takes on a host, for an object of a real server's size (2 MB of code)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from patching import Running, compile_program, make_patch

FUNCTIONS = 6000
HEADINGS = ["module run", "peak memory, MB", "wall time, s"]


def _source() -> str:
    body = 'int f%d(int x) { for (int i = 0; i < x; i++) { x ^= x * %d + i; printf("%%d\\n", x); } return x; }\n'
    return (
        "#include <stdio.h>\n"
        + "".join(("__attribute__((noinline, used)) " + body) % (number, number + 3) for number in range(FUNCTIONS))
        + "__attribute__((noinline)) int fixed(void) { return 1; }\n"
        + 'int main(void) { setvbuf(stdout, 0, _IOLBF, 0); puts("ready"); getchar(); return fixed(); }\n'
    )


def measure(folder: Path) -> list[list[str]]:
    """The rows of the table: each module once, in the order of use."""
    program = compile_program(folder, "large", _source(), "-O1")
    make_patch(folder, program, "int fixed(void) { return 2; }", ["fixed"], "large-fix")
    steps: list[tuple[str, str, dict[str, object]]] = [
        ("load", "livepatch_load", {"patch": str(folder / "large-fix.lpatch"), "remote_src": True}),
        ("activate", "livepatch_activate", {"patch": "large-fix"}),
        ("facts, affected", "livepatch_facts", {"patch": ["large-fix"]}),
        ("deactivate", "livepatch_activate", {"patch": "large-fix", "state": "inactive"}),
        ("unload", "livepatch_load", {"patch": "large-fix", "state": "absent"}),
    ]
    with Running(program):
        return [[name, *_run(module, arguments)] for name, module, arguments in steps]


def _run(module: str, arguments: dict[str, object]) -> list[str]:
    """Peak resident memory (wait4(2)) and wall time of one run of a module: one fresh Python, as Ansible starts it."""
    command = [sys.executable, "-m", "ansible_collections.cgl.livepatch.plugins.modules." + module]
    began = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin
    assert process.stdout
    process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}))
    process.stdin.close()
    output = process.stdout.read()
    process.stdout.close()
    _pid, _status, usage = os.wait4(process.pid, 0)
    result = json.loads(output)
    if result.get("failed") or not (result["changed"] or module == "livepatch_facts"):
        raise RuntimeError(output)
    return ["%.0f" % (usage.ru_maxrss / 1024), "%.2f" % (time.monotonic() - began)]
