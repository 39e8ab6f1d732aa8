# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""demo/run [--plain]: run the demonstration. Status 0: all that it claims is true; 1: it is not; 128 + N: signal N."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from types import FrameType

from testbed import TestbedError

from . import steps
from .playbook import DemoError
from .screen import Screen


class Interrupted(Exception):
    """A signal asked for the end."""


class Signals:
    """Notes signals that ask for the end. They are acted upon where it is safe, so that nothing is left behind."""

    def __init__(self) -> None:
        self.number = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._note)

    def check(self) -> None:
        """Raises Interrupted after a signal."""
        if self.number:
            raise Interrupted

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.number = self.number or number


def main() -> int:
    """Run it; returns the exit status."""
    parser = argparse.ArgumentParser(prog="demo/run", description="Patch a running server on three hosts, under load.")
    parser.add_argument("--plain", action="store_true", help="lines only, even on a terminal")
    screen = Screen(parser.parse_args().plain)
    signals = Signals()
    # Neither the path that found this package nor anybody's Ansible settings are for what is started here.
    for name in [name for name in os.environ if name == "PYTHONPATH" or name.startswith("ANSIBLE_")]:
        del os.environ[name]
    try:
        good = steps.run(screen, signals.check)
        signals.check()
    except (Interrupted, DemoError, TestbedError) as error:
        # A program that was being started when the signal came may have been hit by it, too, and be missed only later.
        if signals.number:
            screen.say(f"\n         Interrupted ({signal.Signals(signals.number).name}); everything is taken down.")
            return 128 + signals.number
        screen.say("")
        screen.detail(f"{screen.paint('It did not work:', 'red')} {error}")
        return 1
    text = "All of it is true." if good else "Not all of it is true."
    screen.step(f"{text} The playbooks' own words are in {steps.LOG.relative_to(steps.BUILD.parent)}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
