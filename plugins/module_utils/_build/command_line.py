# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Building a patch without Ansible: PYTHONPATH=plugins python3 -m module_utils._build.command_line --help."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from typing import TextIO

from .._errors import LivepatchError
from .request import BuildRefused, BuildRequest
from .several import build_several, patch_name


def main() -> int:
    """Build patches; 0 when they were written, 1 when it was refused or failed (the reasons are printed as JSON)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--source", required=True, help="the original tree")
    parser.add_argument("--diff", action="append", default=[], help="may be given several times")
    parser.add_argument("--strip", type=int, default=1)
    parser.add_argument("--new-source", default="")
    parser.add_argument("--configure-command", default="")
    parser.add_argument("--build-command", required=True)
    parser.add_argument("--environment", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--artifact", action="append", required=True, help="may be given several times")
    parser.add_argument("--target", action="append", default=[], help="the deployed object, one for each artifact")
    parser.add_argument("--consistency", default="", choices=["", "entry", "atomic", "quiescent"])
    parser.add_argument("--data-change", action="append", default=[], metavar="SYMBOL")
    parser.add_argument("--cache", default="")
    parser.add_argument("--dest", required=True, help="the patch file to write; with several artifacts, a folder")
    given = parser.parse_args()
    several = len(given.artifact) > 1
    if len(given.target) not in (0, len(given.artifact)) or several != os.path.isdir(given.dest):
        parser.error("give no --target or one for each --artifact, and a folder as --dest for several of them")
    request = BuildRequest(
        name=given.name,
        source=os.path.abspath(given.source),
        build_command=given.build_command,
        configure_command=given.configure_command,
        artifact=given.artifact[0],
        diff=tuple(os.path.abspath(path) for path in given.diff),
        strip=given.strip,
        new_source=os.path.abspath(given.new_source) if given.new_source else "",
        environment=dict(pair.split("=", 1) for pair in given.environment),
        target=os.path.abspath(given.target[0]) if given.target else "",
        consistency=given.consistency,
        data_changes=tuple(given.data_change),
        cache=given.cache,
    )
    requests = [
        dataclasses.replace(
            request,
            name=patch_name(given.name, artifact) if several else given.name,
            artifact=artifact,
            target=os.path.abspath(target) if target else "",
        )
        for artifact, target in zip(given.artifact, given.target or [""] * len(given.artifact))
    ]
    try:
        results, _unreached = build_several(requests, lambda text: _tell(sys.stderr, text))
    except BuildRefused as error:
        _tell(sys.stdout, json.dumps({"refusals": [refusal.as_dict() for refusal in error.refusals]}, indent=2))
        return 1
    except LivepatchError as error:
        _tell(sys.stdout, json.dumps({"error": error.as_dict()}, indent=2))
        return 1
    for result in results:
        path = os.path.join(given.dest, result.patch.manifest.id + ".lpatch") if several else given.dest
        with open(path, "wb") as stream:
            stream.write(result.content)
        _tell(sys.stdout, json.dumps(result.summary, indent=2))
    return 0


def _tell(stream: TextIO, text: str) -> None:
    stream.write(text + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
