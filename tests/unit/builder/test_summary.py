# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What an administrator is shown of a patch: sizes, what each function refers to, the instructions that differ."""

from __future__ import annotations

import difflib
import json
import subprocess
import sys
from pathlib import Path

from projects import ASK, Project, project

import module_utils
from module_utils._build.request import BuildResult
from module_utils._patch.describe import describe
from module_utils._patch.reader import read_patch

WORK = """
#include <stdio.h>
#include <stdlib.h>
#define OWN __attribute__((noinline, noipa))
static long limit = 10, total;
static long table[4] = {1, 2, 3, 4};
OWN static int order(const void *a, const void *b) { return *(const long *)a > *(const long *)b; }
OWN static long helper(long x) { return x + total; }
OWN static long sorted(long x) { table[0] = x; qsort(table, 4, sizeof *table, order); return table[1]; }
OWN static long plain(long x) { return x * 2; }
long answer(long x)
{
    switch (x) {
    case 0: return 17;
    case 1: return helper(x);
    case 2: return -4;
    case 3: return helper(x) * 3;
    case 4: return 99;
    }
    if (__builtin_expect(x == 4242, 0)) {
        fprintf(stderr, "bad %ld\\n", x);
        abort();
    }
    total += x > limit++;
    return sorted(x) + plain(x);
}
"""
NEW = "OWN static long fresh(long x) { static long seen; return seen += helper(x); }\n"


def built(folder: Path) -> tuple[Project, BuildResult]:
    """A patch of two functions and a value."""
    after = WORK.replace("OWN static long plain", NEW + "OWN static long plain").replace("x * 2", "x * 2 + fresh(x)")
    after = after.replace("limit = 10", "limit = 20").replace("return 99", 'return puts("ninety-eight") + 98')
    after = after.replace("bad %ld", "very bad %ld")
    one = project(folder, {"work.c": WORK, "main.c": ASK}, {"work.c": after}, data_changes=("limit",))
    return one, one.build(description="Two repairs", cves=("CVE-2026-1",), want_listings=True)


def test_what_each_function_refers_to(tmp_path: Path) -> None:
    """Its own strings, switch table and cold part are followed; the file says what the build says."""
    _one, result = built(tmp_path)
    told = describe(read_patch(result.content))
    assert {key: result.summary[key] for key in told} == told
    answer, plain = sorted(told["functions"], key=lambda row: str(row["name"]))
    assert answer["calls"] == ["helper", "plain", "sorted"]
    assert answer["uses"] == ["limit", "stderr", "total"]
    assert answer["imports"] == ["abort", "fprintf", "puts"]
    assert answer["brings"] == []
    assert (plain["calls"], plain["uses"], plain["imports"], plain["brings"]) == ([], [], [], ["fresh"])
    assert 0 < plain["size_old"] < plain["size_new"]
    assert told["data"] == [{"name": "limit", "old": "0a" + "00" * 7, "new": "14" + "00" * 7}]
    assert told["description"] == "Two repairs"


def test_a_patch_file_is_described(tmp_path: Path) -> None:
    """By the command, as text and as JSON; what is no patch file is said to be none."""
    _one, result = built(tmp_path)
    (tmp_path / "fix.lpatch").write_bytes(result.content)
    (tmp_path / "other").write_bytes(result.content[:-1])

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "module_utils._patch.describe", *arguments],
            env={"PYTHONPATH": ":".join([str(Path(module_utils.__path__[0]).parent), *sys.path])},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    text = run("fix.lpatch").stdout
    for line in (
        "fix version 1",
        "  cves CVE-2026-1",
        "    imports abort, fprintf, puts",
        "    brings fresh",
        "  value limit: 0a00000000000000 becomes 1400000000000000",
    ):
        assert line in text.splitlines()
    told = json.loads(run("--json", "fix.lpatch").stdout)
    assert told["sha256"] == result.summary["sha256"]
    assert told["functions"] == result.summary["functions"]
    broken = run("other", "fix.lpatch")
    assert (broken.returncode, broken.stdout) == (1, text)
    assert "other: the patch file is cut off" in broken.stderr


def test_what_diff_shows(tmp_path: Path) -> None:
    """Only the instructions that differ, with names in them and no addresses; new functions and values too."""
    _one, result = built(tmp_path)
    shown = {listing.name: listing for listing in result.listings}
    assert sorted(shown) == ["answer", "fresh", "limit", "plain"]
    assert (shown["fresh"].before, shown["fresh"].file) == ("", "work.c")
    assert (shown["limit"].before, shown["limit"].after) == ("0a" + " 00" * 7 + "\n", "14" + " 00" * 7 + "\n")
    one = shown["answer"]
    lines = list(difflib.unified_diff(one.before.splitlines(), one.after.splitlines(), n=0, lineterm=""))[2:]
    assert "-lea 'bad %ld\\n'(%rip),%rsi" in lines
    assert "+lea 'very bad %ld\\n'(%rip),%rsi" in lines
    assert "+lea 'ninety-eight'(%rip),%rdi" in lines
    assert "+call puts" in lines
    for line in one.before.splitlines():
        assert "0x0(%rip)" not in line
        assert "<" not in line
    assert "call abort" in one.after.splitlines()
    # What merely moved does not show.
    assert len([line for line in lines if line[0] in "+-"]) < 12
