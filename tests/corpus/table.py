# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/corpus.md: what the corpus is, and what came of each fix when it was last run."""

from __future__ import annotations

import datetime
import platform

from .cycle import Row

HEADER = """<!--
Copyright (c) 2026 cgl.livepatch contributors
GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
SPDX-License-Identifier: GPL-2.0-or-later
-->

# The corpus: real fixes, live

`make corpus` takes these fixes from the source packages of Debian 12, builds a patch of each, and takes it through its
whole life in the running program, under load: load, activate, verify, deactivate, unload. It fails if a request is
lost, if a byte of code or a mapping is left behind, or if a fix is patched or refused otherwise than this page says.
It has written this page.

A version by itself is Debian's own stripped binary, which its archive still serves without the fix; "without its
fixes" is a build of that source package from which the patches were taken out. *Stop* is the longest time for which a
process stood still for the switch; *requests* are those answered while the patch went in and out, and *lost* those
unanswered, answered otherwise, or on a connection that broke. Where the fix brings a payload, or one is simple,
*shown* says what the program answered without and with the patch.
"""


def page(rows: list[Row]) -> str:
    """The whole page."""
    rows = sorted(rows, key=lambda row: (row.program, row.cves))
    done = [row for row in rows if row.result == "patched"]
    not_done = [row for row in rows if row.result != "patched"]
    programs = len({row.program for row in rows})
    longest = max((row.stop_us for row in rows), default=0)
    linux = platform.release().partition("-")[0]
    text = HEADER + (
        f"\nRun on {datetime.date.today()}, Linux {linux}: {len(rows)} fixes of {programs} programs and"
        f" libraries, {len(done)} patched and {len(not_done)} refused; {sum(row.done for row in rows)} requests"
        f" answered, {sum(row.lost for row in rows)} lost; longest stop {longest} us.\n"
    )
    text += "\n## Patched\n\n"
    text += _table(
        ["program", "version", "CVE", "functions", "switch", "stop, us", "requests", "lost", "shown"],
        [
            [
                row.program,
                row.version,
                row.cves + (f" (with {row.stands_on})" if row.stands_on else ""),
                row.functions,
                row.switch,
                str(row.stop_us),
                str(row.done),
                str(row.lost),
                row.behaviour,
            ]
            for row in done
        ],
    )
    text += "\n## Refused, and examined\n\n"
    text += _table(
        ["program", "version", "CVE", "code", "what was found"],
        [
            [
                row.program,
                row.version,
                row.cves + (f" (with {row.stands_on})" if row.stands_on else ""),
                ", ".join(f"`{code}`" for code in row.refusal.split()),
                row.why,
            ]
            for row in not_done
        ],
    )
    return text


def _table(headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
