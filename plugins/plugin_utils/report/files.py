# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The files of a report on the controller: what they hold, what would change, and writing them whole or not at all."""

from __future__ import annotations

import calendar
import contextlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .metrics import metrics
from .page import page
from .words import STATES

_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Places:
    """Where the files of a report are."""

    page: str
    json: str
    metrics: str


def now() -> str:
    """The time, UTC, as a report has it."""
    return time.strftime(_TIME, time.gmtime())


def texts(report: Mapping[str, Any], places: Places) -> dict[str, str]:
    """What each file of a report holds."""
    made = calendar.timegm(time.strptime(report["made_at"], _TIME))
    made_texts = {
        places.page: page(report),
        places.json: json.dumps(report, indent=1, ensure_ascii=False) + "\n",
        places.metrics: metrics(report, made),
    }
    # A program may be called what is no text: JSON brings that here as halves of characters, which cannot be written.
    return {path: text.encode("utf-8", "backslashreplace").decode() for path, text in made_texts.items()}


def earlier(places: Places) -> dict[str, Any]:
    """The report that is there; empty when there is none that can be read."""
    try:
        with open(places.json, encoding="utf-8") as stream:
            report = json.load(stream)
        time.strptime(report["made_at"], _TIME)
    except (OSError, ValueError, TypeError, KeyError):
        return {}
    return dict(report)


def differs(report: Mapping[str, Any], before: Mapping[str, Any], places: Places) -> bool:
    """Whether anything but the time would be another in the files."""
    if not before:
        return True
    try:
        return any(_read(path) != text for path, text in texts(dict(report, made_at=before["made_at"]), places).items())
    except (OSError, UnicodeDecodeError):
        return True


def write(report: Mapping[str, Any], places: Places) -> None:
    """Write the files, each as a whole: whoever reads one meanwhile has the old or the new one. Raises OSError.

    The page and the JSON name what is vulnerable, and are not for everyone to read; the metrics are for node_exporter,
    which shows them to whoever asks. Files that exist keep their mode.
    """
    for path, text in texts(report, places).items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _replace(path, text, 0o644 if path == places.metrics else 0o640)


def lines(report: Mapping[str, Any]) -> str:
    """How each host stands to each CVE, a line each, for a diff."""
    told = []
    for host, one in report.get("hosts", {}).items():
        states = ["%s: %s %s" % (host, cve, STATES[state].name) for cve, state in one["states"].items()]
        told += states or ["%s: %s" % (host, "no CVE is known" if one["known"] else "unknown")]
    return "".join(line + "\n" for line in told)


def _read(path: str) -> str:
    with open(path, encoding="utf-8", newline="") as stream:
        return stream.read()


def _replace(path: str, text: str, mode: int) -> None:
    """The textfile collector reads what is called *.prom, so that the file has another name until it is whole."""
    with contextlib.suppress(FileNotFoundError):
        mode = stat.S_IMODE(os.stat(path).st_mode)
    descriptor, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=os.path.dirname(path))
    try:
        with open(descriptor, "w", encoding="utf-8", newline="") as stream:
            stream.write(text)
            os.fchmod(stream.fileno(), mode)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
