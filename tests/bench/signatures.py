# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What checking the signature of a patch file costs a host, beside one bare run of ssh-keygen on the same file.

As a host does it the first time (who signed is found first) and from the second time on, when it is known.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from pathlib import Path
from typing import Callable

from signing import NAMESPACE, Settings, line, make_key, sign_file

from module_utils._patch.trust import read_trust

_SIGNER = "builder@example.org"
_SIZES_KIB = (16, 1024)
HEADINGS = ["patch file, KiB", "ssh-keygen alone, ms", "signer known, ms", "/ alone", "signer unknown, ms", "/ alone"]


def measure(folder: Path, rounds: int) -> list[list[str]]:
    """The rows of the table: medians over rounds, in which the three take turns."""
    key, settings = make_key(folder / "builder"), Settings(folder / "host")
    settings.allow(line(_SIGNER, key))
    return [_row(folder, settings, key, size, rounds) for size in _SIZES_KIB]


def _row(folder: Path, settings: Settings, key: Path, size: int, rounds: int) -> list[str]:
    file = folder / ("%d.lpatch" % size)
    file.write_bytes(os.urandom(size << 10))
    signature, raw = sign_file(file, key), file.read_bytes()
    signed = signature.read_bytes()
    signers = str(settings.folder / "allowed_signers")
    alone = ["ssh-keygen", "-Y", "verify", "-n", NAMESPACE, "-I", _SIGNER, "-f", signers, "-s", str(signature)]

    def check(likely: str) -> None:
        verdict = read_trust(str(settings.folder)).check(raw, signed, str(file), likely)
        if verdict.signer is None or verdict.signer.principal != _SIGNER:
            raise SystemExit("the signature does not count: %s" % verdict.error)

    taken: list[list[float]] = [[], [], []]
    for _round in range(rounds):
        taken[0].append(_timed(lambda: subprocess.run(alone, input=raw, check=True, capture_output=True)))
        taken[1].append(_timed(lambda: check(_SIGNER)))
        taken[2].append(_timed(lambda: check("")))
    ratios = [statistics.median(each / bare for each, bare in zip(taken[way], taken[0])) for way in (1, 2)]
    bare, known, unknown = ("%.1f" % statistics.median(times) for times in taken)
    return [str(size), bare, known, "%.2f" % ratios[0], unknown, "%.2f" % ratios[1]]


def _timed(act: Callable[[], object]) -> float:
    begin = time.perf_counter()
    act()
    return (time.perf_counter() - begin) * 1e3
