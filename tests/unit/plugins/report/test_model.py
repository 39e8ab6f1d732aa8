# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The model of the report claims what facts prove, and leaves no host out."""

from __future__ import annotations

from typing import Any

import pytest
from fleet_facts import BROKEN, CVE, FIXED, MADE_AT, OTHER, PATH, asked, facts, fleet, patch, process

from ansible_collections.cgl.livepatch.plugins.plugin_utils.report.looks import Look, gaps, looks
from ansible_collections.cgl.livepatch.plugins.plugin_utils.report.model import model
from ansible_collections.cgl.livepatch.plugins.plugin_utils.report.standing import STATES

GOOD = Look(asked(process(1, patch())))


def _report(fixed: list[str] | None = None, **hosts: Look) -> dict[str, Any]:
    return model(hosts, MADE_AT, {CVE.lower(): fixed or []})


def _row(report: dict[str, Any], host: str) -> tuple[str, str]:
    rows = [row for row in report["cves"][CVE]["rows"] if row["host"] == host]
    assert len(rows) == 1
    return rows[0]["state"], rows[0]["reason"]


COVERED = [{"name": "greet", "address": "0x1", "redirected_to": "0x3", "redirected_by": "over"}]


@pytest.mark.parametrize(
    ("found", "state", "reason"),
    [
        (process(2, patch()), "fixed_in_memory", "patch fix is active and proven"),
        (process(2), "vulnerable", "no patch for it is in the process"),
        (process(2, disk=FIXED), "vulnerable", "A fixed build is on disk: restart it"),
        (process(2, disk=OTHER), "vulnerable", "no patch for it is in the process"),
        (process(2, patch(state="loaded")), "vulnerable", "patch fix is loaded and not active"),
        (
            process(2, patch(verified=False, reasons=["greet was changed"])),
            "unknown",
            "not verified: greet was changed",
        ),
        (process(2, patch(proof="claim")), "unknown", "only the process says that it has patch fix"),
        (process(2, patch(functions=COVERED)), "unknown", "covered by one that does not name the CVE (greet by over)"),
        (process(2, build=FIXED), "fixed_on_disk", "runs build %s, named as fixed" % FIXED),
        (process(2, build=OTHER), "unknown", "nobody named it as fixed"),
        # The object was replaced on disk, and the patch is what counts in memory.
        (process(2, patch(), disk=FIXED), "fixed_in_memory", "active and proven"),
    ],
)
def test_each_state_of_a_process(found: dict[str, Any], state: str, reason: str) -> None:
    report = _report([FIXED], good=GOOD, host=Look(asked(found)))
    assert _row(report, "host")[0] == state
    assert reason in _row(report, "host")[1]
    assert report["cves"][CVE]["hosts"] == {"good": "fixed_in_memory", "host": state}
    assert report["hosts"]["host"]["states"] == {CVE: state}
    assert report["cves"][CVE]["process_counts"][state] == 1 + (state == "fixed_in_memory")


def test_another_patch_that_covers_it_and_names_the_cve_fixes_it_too() -> None:
    both = process(2, patch(functions=COVERED), patch("over"))
    assert _row(_report(host=Look(asked(both))), "host")[0] == "fixed_in_memory"


def test_a_build_with_a_patch_is_affected_whatever_was_said() -> None:
    assert _row(_report([BROKEN], good=GOOD, host=Look(asked(process(2)))), "host")[0] == "vulnerable"


def test_a_process_is_as_bad_as_the_worst_of_its_objects() -> None:
    library = {"path": "/lib/libgreet.so", "build_id": OTHER, "disk_build_id": OTHER, "drift": "none"}
    both = process(2, patch())
    both["objects"].append(library)
    known = asked(both, objects=[BROKEN, OTHER, PATH, "/lib/libgreet.so"])
    known["patches"]["fix-library"] = dict(known["patches"]["fix"], build_id=OTHER, object="/lib/libgreet.so")
    assert _row(_report(host=Look(known)), "host") == ("vulnerable", "no patch for it is in the process")


@pytest.mark.parametrize(
    ("look", "reason"),
    [
        (Look(None, "it cannot be reached: no route"), "no route"),
        (Look(asked(summary={"unreadable": 2, "patched": 0})), "2 processes could not be looked at"),
        (Look(facts()), "not asked about all processes that run an affected object"),
        (Look(facts(scan="patched")), "not asked about all processes that run an affected object"),
        # These would not tell of a process that runs another build of the object.
        (
            Look(asked(process(2, patch()), scan="affected")),
            "not asked about all processes that run an affected object",
        ),
    ],
)
def test_what_was_not_looked_at_is_unknown(look: Look, reason: str) -> None:
    report = _report(good=GOOD, host=look)
    assert report["hosts"]["host"]["states"] == {CVE: "unknown"}
    assert next(row["reason"] for row in report["cves"][CVE]["rows"] if row["state"] == "unknown").endswith(reason)
    assert report["summary"]["proven_cves"] == 0
    # It is no process.
    assert report["cves"][CVE]["process_counts"]["unknown"] == 0


def test_a_vulnerable_process_counts_beside_unreadable_ones() -> None:
    look = Look(asked(process(2), summary={"unreadable": 1, "patched": 0}))
    assert _report(good=GOOD, host=look)["hosts"]["host"]["states"] == {CVE: "vulnerable"}


def test_where_nothing_affected_runs_nothing_is_to_be_fixed() -> None:
    report = _report(good=GOOD, host=Look(asked()), everything=Look(facts(scan="all", objects=[BROKEN, PATH, "x"])))
    assert report["hosts"]["host"]["states"] == {CVE: "not_running"}
    assert report["hosts"]["everything"]["states"] == {CVE: "not_running"}
    assert report["summary"]["proven_cves"] == 1


def test_a_patch_in_a_store_tells_what_is_affected_too() -> None:
    entry = {"cves": [CVE], "build_id": BROKEN, "processes": {}, "paths": [PATH], "held": {}, "stored_at": 0}
    desired = {"switched_off": "", "errors": [], "patches": {"fix": entry}}
    assert _row(_report(host=Look(asked(process(2), desired=desired))), "host")[0] == "vulnerable"


def test_nothing_known_says_nothing() -> None:
    report = _report(host=Look(facts(process(2))), gone=Look(None, "x"))
    assert (report["cves"], list(report["hosts"])) == ({}, ["host", "gone"])
    assert report["summary"] == {
        "hosts": 2,
        "unknown_hosts": 1,
        "unsure_hosts": 1,
        "cves": 0,
        "proven_cves": 0,
        "drift": 0,
        "obstacles": 0,
    }


def test_what_cannot_be_patched_is_told_with_the_reason() -> None:
    desired = {
        "switched_off": "the file /etc/cgl-livepatch/disable exists",
        "errors": [{"code": "store_corrupt", "message": "bad", "remedy": "r"}],
        "patches": {
            "fix": {
                "cves": [CVE],
                "build_id": BROKEN,
                "processes": {},
                "paths": [],
                "version": "1",
                "stored_at": 5,
                "held": {PATH: [{"pid": 3, "at": 1, "how": "signal 11 (SIGSEGV)"}]},
            }
        },
    }
    traced = process(2, patchable=False, reasons=["it is being traced by process 9"])
    report = _report(host=Look(asked(traced, desired=desired)))
    assert [(row["pid"], row["exe"], row["patch"], row["reason"]) for row in report["obstacles"]] == [
        (2, PATH, "", "it is being traced by process 9"),
        (0, PATH, "fix", "held back by the crash-loop guard (signal 11 (SIGSEGV))"),
        (0, "", "", "nothing is applied by itself: the file /etc/cgl-livepatch/disable exists"),
    ]
    assert report["hosts"]["host"]["store_errors"] == ["store_corrupt: bad"]
    assert [(one["what"], one["source"], one["who"]) for one in report["done"]] == [("stored", "store", "")]


def test_drift_stops_and_what_was_done_are_those_of_the_facts() -> None:
    row = {"kind": "modified", "pid": 1, "exe": PATH, "patch": "fix", "state": "active", "detail": "greet"}
    two = asked(process(1, patch(stop_us=7000)), process(2, patch(stop_us=90, activated_at=1767325600)), drift=[row])
    report = _report(host=Look(two), other=GOOD)
    assert report["drift"] == [dict(row, host="host")]
    assert (report["stops"]["activations"], report["stops"]["max_us"]) == (3, 7000)
    assert [one for one in report["stops"]["bars"] if one["count"]] == [
        {"label": "no stop", "count": 1},
        {"label": "up to 0.1 ms", "count": 1},
        {"label": "5 to 10 ms", "count": 1},
    ]
    assert [one["pid"] for one in report["stops"]["longest"]] == [1, 2]
    assert [(one["first"], one["last"], one["host"], one["processes"], one["who"]) for one in report["done"]] == [
        ("2026-01-02T02:46:40Z", "2026-01-02T03:46:40Z", "host", 2, ""),
        ("2026-01-02T02:46:40Z", "2026-01-02T02:46:40Z", "other", 1, ""),
    ]
    assert [(one["id"], one["hosts"], one["processes"], one["proven"]) for one in report["patches"]] == [
        ("fix", 2, 3, 3)
    ]


def test_the_log_tells_who_and_whether_it_is_whole() -> None:
    put = {"at": "2026-01-02T00:00:00Z", "action": "store_put", "outcome": "done", "patch": "fix", "version": "1"}
    entries = [
        dict(put, seq=1, count=0, who={"uid": 0, "login_uid": 1000, "sudo_user": "admin", "pid": 4}),
        {"at": "2026-01-03T00:00:00Z", "action": "torn", "seq": 2},
    ]
    audit = {"exists": True, "intact": True, "breaks": [], "head": "ab", "head_found": True, "entries": entries}
    broken = dict(audit, intact=False, breaks=[{"line": 3, "why": "it is no entry"}], entries=[])
    report = _report(good=Look(asked(audit=audit)), bad=Look(asked(audit=broken)), none=Look(asked()))
    assert [(one["what"], one["patch"], one["who"], one["source"]) for one in report["done"]] == [
        ("torn", "", "", "log"),
        ("store_put: done", "fix", "login user 1000, by sudo from admin, as user 0", "log"),
    ]
    logs = {host: one["log"] for host, one in report["hosts"].items()}
    assert logs["good"] == {"read": True, "exists": True, "intact": True, "why": "", "head": "ab"}
    assert (logs["bad"]["intact"], logs["bad"]["why"]) == (False, "line 3: it is no entry")
    assert not logs["none"]["read"]


def test_a_time_that_cannot_be_is_no_reason_to_fail() -> None:
    assert _report(host=Look(asked(process(1, patch(activated_at=2**62)))))["done"][0]["last"] == ""


def test_every_host_of_a_fleet_is_in_it() -> None:
    report = model(fleet(2000), MADE_AT, {})
    assert report["summary"]["hosts"] == len(report["hosts"]) == len(report["cves"][CVE]["hosts"]) == 2000
    counts = report["cves"][CVE]["host_counts"]
    assert sum(counts.values()) == 2000
    assert set(counts) == set(STATES)
    assert counts["unknown"] == 2 * 40
    assert counts["vulnerable"] == 3 * 40


def test_a_host_counts_as_it_said_last() -> None:
    variables = {
        "a": {"one": {"ansible_facts": {"livepatch": facts()}}, "two": {"skipped": True}},
        "b": {"one": {"ansible_facts": {"livepatch": facts()}}, "two": {"unreachable": True, "msg": "gone\nx"}},
        "c": {"one": {"failed": True, "msg": "no python-ptrace"}},
        "d": {},
        "e": {"one": {"ansible_facts": {"livepatch": facts()}}},
        "f": {"one": {"ansible_facts": {"livepatch": dict(facts(), schema=2)}}},
    }
    found = looks(variables, "abcdf", variables, ["one", "two"])
    assert found["a"].facts == facts()
    assert {host: look.why.partition(":")[0] for host, look in found.items() if look.facts is None} == {
        "b": "it cannot be reached",
        "c": "it cannot be looked at",
        "d": "it was not looked at",
        "e": "it left the play before it was looked at",
        "f": "The report reads facts of schema 1, and these have schema 2",
    }
    assert found["b"].why == "it cannot be reached: gone"


def test_hosts_are_asked_again_about_what_others_have_patches_for() -> None:
    variables = {
        "patched": {"look": {"ansible_facts": {"livepatch": facts(process(1, patch()))}}},
        "bare": {"look": {"ansible_facts": {"livepatch": facts()}}},
        "gone": {"look": {"unreachable": True}},
    }
    assert gaps(variables, variables, variables, "look") == {"objects": sorted([BROKEN, PATH]), "hosts": ["bare"]}
    del variables["bare"]
    assert gaps(variables, variables, variables, "look") == {"objects": [], "hosts": []}
