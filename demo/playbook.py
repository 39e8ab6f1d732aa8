# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""ansible-playbook as the demonstration runs it: in the fleet's network, its output in a log, ended with us."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from testbed import Fleet

HERE = Path(__file__).parent


class DemoError(Exception):
    """The demonstration cannot go on; the text says why."""


def die_with_us(command: Sequence[str]) -> list[str]:
    """COMMAND made to get a SIGTERM when the thread that started it dies (PR_SET_PDEATHSIG), even by kill -9."""
    return ["setpriv", "--pdeathsig", "TERM", "--", *command]


def end(process: subprocess.Popen[str]) -> None:
    """End a process and its group: asked first, and after five seconds, or when it has gone without others, made to."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def run(fleet: Fleet, name: str, variables: dict[str, Any], work: Path, log: Path, draw: Callable[[], None]) -> None:
    """Run the playbook NAME.yml over the fleet, calling DRAW meanwhile. Raises DemoError when it fails.

    What tasks on this machine leave when they are interrupted is left in WORK.
    """
    command = ["ansible-playbook", str(HERE / f"{name}.yml"), "--extra-vars", json.dumps(variables)]
    with log.open("a", encoding="utf-8") as output:
        output.write(f"\n# ansible-playbook {name}.yml\n")
        output.flush()
        begin = output.tell()
        process = subprocess.Popen(
            die_with_us(fleet.run_command(command)),
            env={**fleet.environment(), "ANSIBLE_NOCOLOR": "1", "HOME": str(work), "TMPDIR": str(work)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                draw()
                time.sleep(0.05)
        finally:
            end(process)
    if process.returncode:
        said = log.read_text(encoding="utf-8")[begin:].strip().splitlines()
        raise DemoError("\n".join([f"ansible-playbook {name}.yml failed; the end of {log}:", *said[-30:]]))
