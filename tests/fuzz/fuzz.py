# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Coverage-guided fuzzing with atheris (libFuzzer): python tests/fuzz/fuzz.py TARGET --seconds N --runs N.

Begins with the kept corpus and seeds made from our own sources; what it finds new stays in .build/fuzz-corpus. A
finding ends it and leaves its input in .build/fuzz-findings: keep that (shrink.py --with FILE) with its repair.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import signal
import sys
import tempfile
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parents[1]
sys.path += [str(_ROOT / "plugins"), str(_HERE)]

import atheris  # noqa: E402

with atheris.instrument_imports(include=["module_utils"]):
    from targets import TARGETS, Finding

from kept_inputs import kept  # noqa: E402
from mutations import MUTATORS  # noqa: E402

# The most memory (MiB), processor time (seconds) and bytes of one input. Processor time, because others may stop us.
_MEMORY, _TIME, _MOST_INPUT = 1024, 10, 4096


def main() -> None:
    """Fuzz one target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=int, default=0, help="0: without end")
    parser.add_argument("--runs", type=int, default=-1, help="-1: without end")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers, 0: another one each time")
    given = parser.parse_args()
    folder = _ROOT / ".build" / "fuzz-corpus" / given.target
    findings = _ROOT / ".build" / "fuzz-findings"
    for place in (folder, findings):
        place.mkdir(parents=True, exist_ok=True)
    _fill(folder, given.target)
    words = ["-rss_limit_mb=%d" % _MEMORY, "-timeout=86400", "-max_len=%d" % _MOST_INPUT, "-use_value_profile=0"]
    words += ["-artifact_prefix=%s/%s-" % (findings, given.target), "-print_final_stats=1", "-seed=%d" % given.seed]
    words += ["-max_total_time=%d" % given.seconds, "-runs=%d" % given.runs, str(folder)]
    options = {}
    mutator = MUTATORS.get(given.target)
    if mutator:
        options["custom_mutator"] = lambda data, most, seed: mutator(data, random.Random(seed), atheris.Mutate)[:most]
    signal.signal(signal.SIGVTALRM, _too_slow)
    target = TARGETS[given.target]

    def one_input(data: bytes) -> None:
        signal.setitimer(signal.ITIMER_VIRTUAL, _TIME)
        target(data)

    atheris.Setup([sys.argv[0], *words], one_input, **options)
    atheris.Fuzz()


def _too_slow(_signal: int, _frame: object) -> None:
    raise Finding("one input takes more than %d seconds" % _TIME)


def _fill(folder: Path, target: str) -> None:
    from seeds import seeds

    with tempfile.TemporaryDirectory() as made:
        for one in [*kept(target), *seeds(Path(made))[target]]:
            (folder / hashlib.sha256(one).hexdigest()[:40]).write_bytes(one)


if __name__ == "__main__":
    main()
