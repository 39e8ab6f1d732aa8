# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The page: well formed, whole by itself, and whatever a host says is text in it and nothing else."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from fleet_facts import CVE, MADE_AT, PATH, asked, fleet, patch, process
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.cgl.livepatch.plugins.plugin_utils.report.looks import Look
from ansible_collections.cgl.livepatch.plugins.plugin_utils.report.model import model
from ansible_collections.cgl.livepatch.plugins.plugin_utils.report.page import grouped, page
from ansible_collections.cgl.livepatch.plugins.plugin_utils.report.words import DRIFT, STATES
from module_utils._store.drift import KINDS

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7 * 7 }}"
VOID = {"meta", "br", "img", "link", "input"}


class Read(HTMLParser):
    """The page as a browser would read it: its elements in their order, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.inside: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
            self.inside.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self._open):
            self.inside[tag][-1] += data
        if not {"script", "style"} & set(self._open):
            self.text += data


def _hostile(text: str) -> dict[str, Look]:
    """A fleet that says `text` wherever it can say anything."""
    there = patch(text, version=text, cves=[text], reasons=[text], state="active", verified=False)
    there["functions"][0]["name"] = text
    first = process(1, there, path=text, patchable=False, reasons=[text])
    row = {"kind": "modified", "pid": 1, "exe": text, "patch": text, "state": text, "detail": text}
    desired = {"switched_off": text, "errors": [{"code": text, "message": text, "remedy": text}], "patches": {}}
    deed = {"at": MADE_AT, "action": text, "outcome": text, "patch": text, "version": text, "seq": 1}
    deed["who"] = {"uid": 0, "login_uid": None, "sudo_user": text}
    audit = {"exists": True, "intact": False, "breaks": [{"line": 1, "why": text}], "head": text, "head_found": True}
    known = asked(first, drift=[row], desired=desired, audit=dict(audit, entries=[deed]))
    known["patches"][text]["description"] = text
    slow = process(2, dict(patch(stop_us=5, cves=[text]), id=text), path=text)
    return {text: Look(known), "slow": Look(asked(slow)), text + "-gone": Look(None, text)}


def test_a_process_named_script_is_text() -> None:
    html = page(model(_hostile(HOSTILE), MADE_AT, {}))
    read = Read(html)
    assert html.count("<script>") == 1
    assert "<img" not in html
    assert "{{ 7 * 7 }}" in read.text
    assert not [name for _tag, attributes in read.elements for name in attributes if name.startswith("on")]
    # Host, program, patch, CVE, reason ...
    assert read.text.count(HOSTILE) > 10


@functools.lru_cache(maxsize=None)
def _plain_page() -> Read:
    return Read(page(model(_hostile("x"), MADE_AT, {})))


@settings(max_examples=50, deadline=None)
@given(st.text(min_size=1).filter(str.strip))
def test_any_text_leaves_the_page_as_it_is(text: str) -> None:
    plain = _plain_page()
    read = Read(page(model(_hostile(text), MADE_AT, {})))
    assert [tag for tag, _attributes in read.elements] == [tag for tag, _attributes in plain.elements]


def test_it_needs_and_allows_nothing_else() -> None:
    read = Read(page(model(fleet(60), MADE_AT, {})))
    policy = next(
        attributes["content"] or ""
        for tag, attributes in read.elements
        if attributes.get("http-equiv") and tag == "meta"
    )
    assert policy.startswith("default-src 'none'; ")
    for tag in ("style", "script"):
        (inside,) = read.inside[tag]
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert "%s-src 'sha256-%s'" % (tag, digest) in policy
    for tag, attributes in read.elements:
        assert not {"src", "style"} & set(attributes)
        assert tag not in ("link", "iframe", "img")
        assert (attributes.get("href") or "#").startswith("#")


@pytest.mark.parametrize("hosts", [0, 1, 60])
def test_it_can_be_used_without_seeing_it(hosts: int) -> None:
    read = Read(page(model(fleet(hosts), MADE_AT, {})))
    tags = [tag for tag, _attributes in read.elements]
    assert [tags.count(one) for one in ("header", "nav", "main", "footer", "h1")] == [1] * 5
    ids = [attributes["id"] for _tag, attributes in read.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [str(attributes["href"])[1:] for tag, attributes in read.elements if tag == "a"]
    assert "main" in links
    assert set(links) <= set(ids)
    named = [name for _tag, one in read.elements for name in str(one.get("aria-labelledby") or "").split()]
    assert set(named) <= set(ids)
    assert tags.count("caption") == tags.count("table") > 0
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in read.elements if tag == "th")
    if hosts:
        assert "svg" in tags
        # The picture says in words what it shows.
        assert "no stop: %d" % sum(one.stop == 0 for one in _stops(hosts)) in read.inside["desc"][0]


class _Stop:
    def __init__(self, stop: int) -> None:
        self.stop = stop


def _stops(hosts: int) -> list[_Stop]:
    return [
        _Stop(there["stop_us"])
        for look in fleet(hosts).values()
        for one in (look.facts or {}).get("processes", [])
        for there in one["patches"]
        if there["state"] == "active"
    ]


def test_every_state_and_kind_is_said_in_words() -> None:
    read = Read(page(model(fleet(60), MADE_AT, {})))
    for word in [*STATES.values(), *DRIFT.values()]:
        assert word.name in read.text
        assert word.meaning in read.text
    assert set(DRIFT) == set(KINDS)
    assert "it cannot be reached: Connection timed out" in read.text
    assert "it is being traced by process 12" in read.text


def test_processes_that_differ_in_nothing_else_are_one_row() -> None:
    rows: list[dict[str, Any]] = [{"host": "a", "exe": PATH, "pid": pid, "start_time": pid} for pid in range(1, 31)]
    (group,) = grouped([*rows, {"host": "a", "exe": PATH, "pid": 0, "start_time": 0}])
    assert (group["pids"], group["count"], group["more"]) == (list(range(1, 13)), 30, 18)
    assert len(grouped([*rows, {"host": "b", "exe": PATH, "pid": 1, "start_time": 0}])) == 2
    html = page(model({"a": Look(asked(*(process(pid, patch()) for pid in range(1, 31))))}, MADE_AT, {}))
    assert re.search(r"11, 12 and 18 more</td>", html)


def test_two_thousand_hosts_are_a_page_of_a_few_hundred_kilobytes() -> None:
    html = page(model(fleet(2000), MADE_AT, {}))
    assert len(html.encode()) < 1_500_000
    assert html.count("host0007.example") >= 2  # among those of the CVE, and those not looked at
    assert CVE in html
