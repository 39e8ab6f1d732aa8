# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The words and signs of the report: what a state or a kind of drift is called, and what it means."""

from __future__ import annotations

from typing import NamedTuple


class Word(NamedTuple):
    """What something is called, the sign that stands before it, and what it means."""

    name: str
    sign: str
    meaning: str


STATES = {
    "vulnerable": Word(
        "vulnerable",
        "✗",
        "The process maps an affected build, and no patch for the CVE is active in it.",
    ),
    "unknown": Word(
        "unknown",
        "?",
        "Nothing is proven: the host or a process could not be looked at, a patch is active and not proven, or"
        " another build of the object runs of which nobody said that it is fixed.",
    ),
    "fixed_in_memory": Word(
        "fixed in memory",
        "✓",
        "A patch for the CVE is active in the process, and every byte is as the patch that its host knows makes it.",
    ),
    "fixed_on_disk": Word(
        "fixed on disk",
        "✓",
        "The process runs a build from disk that was named as fixed by whoever made the report. Facts cannot tell.",
    ),
    "not_running": Word(
        "not running",
        "–",
        "No process of the host maps an affected object. What is started there later may be affected.",
    ),
}

#: The kinds of drift that livepatch_facts tells.
DRIFT = {
    "missing": Word("missing", "✗", "A patch is desired, and not in the process."),
    "not_active": Word("loaded, not active", "✗", "A patch is desired and in the process, and not active."),
    "modified": Word("bytes changed", "✗", "Bytes of a patch, or of what it patches, were changed by something else."),
    "not_desired": Word(
        "not desired",
        "!",
        "A patch is in the process, and the host's store does not want it: it is gone when the process starts again.",
    ),
    "disk_newer": Word("disk is another build", "!", "The object on disk is another build than the one that runs."),
    "deleted": Word("not on disk", "!", "The process runs an object that is not on disk any more."),
}
