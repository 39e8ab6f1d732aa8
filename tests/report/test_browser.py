# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The report in a real browser, with one host and with 2,000: it loads, can be read, used by keyboard, and printed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from fleet_facts import CVE, MADE_AT, asked, fleet, patch, process
from playwright.sync_api import Browser, Page, sync_playwright

from ansible_collections.cgl.livepatch.plugins.plugin_utils.report.looks import Look
from ansible_collections.cgl.livepatch.plugins.plugin_utils.report.model import model
from ansible_collections.cgl.livepatch.plugins.plugin_utils.report.page import page as render

CHROMIUM = "/usr/bin/chromium-headless-shell"
PHONE = {"width": 360, "height": 740}
DESK = {"width": 1280, "height": 900}
#: Seconds in which the page with 2,000 hosts has to be there and to answer, on a machine with other work.
SOON = 10


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One browser for all tests. It runs as root in a machine for tests, where its own sandbox does not work."""
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture(scope="session")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """The addresses of the reports, by number of hosts."""
    folder = tmp_path_factory.mktemp("reports")
    found = {}
    for hosts in (1, 2000):
        file = folder / f"{hosts}.html"
        file.write_text(render(model(fleet(hosts), MADE_AT, {})), "utf-8")
        found[hosts] = file.as_uri()
    return found


class Visit:
    """A page that is open, and what it complained about or asked of the network."""

    def __init__(self, browser: Browser, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))

    def open(self, address: str) -> Page:
        """Open it, and let it come to rest."""
        self.page.goto(address)
        return self.page

    def close(self) -> None:
        """Close it; nothing was complained about, and nothing but the page itself was asked for."""
        self.context.close()
        assert self.complaints == []
        assert len(self.requests) == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("hosts", [1, 2000])
def test_nobody_is_kept_out(
    browser: Browser, reports: dict[int, str], hosts: int, screen: dict[str, int], scheme: str
) -> None:
    visit = Visit(browser, viewport=screen, color_scheme=scheme, bypass_csp=True)
    page = visit.open(reports[hosts])
    found = Axe().run(
        page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
    )
    assert found.violations_count == 0, found.generate_report()
    assert len(found.response["passes"]) > 20
    # Nothing but tables, which scroll by themselves, is wider than the screen.
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 24, 29)"
    )
    visit.close()


def test_a_screen_reader_is_told_the_same(browser: Browser, reports: dict[int, str]) -> None:
    visit = Visit(browser)
    page = visit.open(reports[1])
    told = page.locator("body").aria_snapshot()
    for line in (
        "- banner:",
        '- navigation "Contents":',
        "- main:",
        "- contentinfo:",
        '- region "CVEs":',
        '- columnheader "State"',
        '- rowheader "host0000.example"',
        '- cell "fixed in memory"',
    ):
        assert line in told, told
    picture = page.get_by_role("img", name="Activations by how long they stopped a process")
    assert picture.count() == 1
    assert "no stop: 1; up to 0.1 ms: 0;" in str(page.locator("svg desc").text_content())
    visit.close()


def test_the_keyboard_is_enough(browser: Browser, reports: dict[int, str]) -> None:
    visit = Visit(browser, viewport=DESK)
    page = visit.open(reports[2000])
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.locator(".skip").bounding_box()["x"] >= 0  # type: ignore[index]
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    bad = page.locator("details").filter(has_text="not proven on").first
    assert not bad.evaluate("one => one.open")
    bad.locator("summary").focus()
    page.keyboard.press("Enter")
    assert bad.evaluate("one => one.open")
    # The filter is the next stop, and behind it the headings that sort.
    page.keyboard.press("Tab")
    page.keyboard.type("host0017")
    bad.get_by_text("1 of 200 rows").wait_for(timeout=SOON * 1000)
    assert bad.locator("tbody tr:visible").count() == 1
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.press("Delete")
    bad.get_by_text("1 of 200 rows").wait_for(state="detached", timeout=SOON * 1000)
    assert bad.locator("tbody tr:visible").count() == 200
    head = bad.locator("thead th").first
    head.locator("button").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert bad.locator("tbody th").first.text_content() == "host1979.example"
    visit.close()


def test_two_thousand_hosts_are_there_soon(browser: Browser, reports: dict[int, str]) -> None:
    visit = Visit(browser, viewport=DESK)
    begin = time.monotonic()
    page = visit.open(reports[2000])
    page.locator("h1").wait_for()
    assert time.monotonic() - begin < SOON
    # What is first seen is small: long tables are closed, and are laid out when they are opened.
    assert page.locator("tbody tr:visible").count() < 100
    good = page.locator("details").filter(has_text="fixed, or not running").first
    begin = time.monotonic()
    good.locator("summary").click()
    good.locator("tbody tr").last.scroll_into_view_if_needed()
    good.locator("thead button").first.click()
    assert good.locator("thead th").first.get_attribute("aria-sort") == "ascending"
    assert time.monotonic() - begin < SOON
    assert good.locator("tbody tr").count() > 1800
    visit.close()


@pytest.mark.parametrize("hosts", [1, 2000])
def test_it_can_be_read_without_scripts(browser: Browser, reports: dict[int, str], hosts: int) -> None:
    visit = Visit(browser, java_script_enabled=False)
    page = visit.open(reports[hosts])
    assert page.locator(".tool").count() == 0
    details = page.locator("details").filter(has_text="fixed, or not running").first
    if hosts > 1:
        assert details.locator("table").is_hidden()
        details.locator("summary").click()
    assert details.locator("table").is_visible()
    assert details.locator("tbody tr").first.text_content().startswith("host0000.example")  # type: ignore[union-attr]
    visit.close()


def test_it_can_be_printed(browser: Browser, reports: dict[int, str], tmp_path: Path) -> None:
    visit = Visit(browser, color_scheme="dark")
    page = visit.open(reports[1])
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator("nav").is_hidden()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    file = tmp_path / "report.pdf"
    page.pdf(path=str(file), format="A4")
    assert file.read_bytes().startswith(b"%PDF")
    visit.close()


def test_what_a_host_says_does_nothing_here(browser: Browser, tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    looks = {hostile: Look(asked(*(process(pid, patch(), path=f"{hostile}{pid}") for pid in range(1, 30))))}
    file = tmp_path / "hostile.html"
    file.write_text(render(model(looks, MADE_AT, {})), "utf-8")
    visit = Visit(browser)
    page = visit.open(file.as_uri())
    details = page.locator("details").filter(has_text="fixed, or not running").first
    # The script of the page moves and filters rows, and hands on nothing as markup either.
    details.locator("thead button").first.click()
    details.locator("input").fill("onerror=alert(2)>29")
    details.get_by_text("1 of 29 rows").wait_for()
    assert page.locator("img").count() == 0
    assert page.get_by_role("heading", name=CVE).count() == 1
    assert hostile in str(details.locator("tbody").text_content())
    visit.close()


def test_the_policy_stops_what_would_slip_through(browser: Browser, tmp_path: Path) -> None:
    html = render(model(fleet(1), MADE_AT, {}))
    file = tmp_path / "broken.html"
    file.write_text(html.replace("</main>", "<script>window.slipped = 1</script></main>"), "utf-8")
    visit = Visit(browser)
    page = visit.open(file.as_uri())
    assert page.evaluate("typeof window.slipped") == "undefined"
    assert len(visit.complaints) == 1
    visit.context.close()
