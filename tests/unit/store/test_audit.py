# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The log tells of every kind of tampering but the one that it says it cannot; it survives what happens to files."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest

from module_utils._errors import LivepatchError
from module_utils._store import audit, audit_log
from module_utils._store.apply import Applied
from module_utils._store.audit import Deed, record, record_applied
from module_utils._store.audit_log import GENESIS, append, examine
from module_utils._store.places import Places

SIGNATURE = {"policy": "required", "verified": True, "signer": "a@example.org", "key": "SHA256:abc", "error": None}


@pytest.fixture(name="places")
def fixture_places(tmp_path: Path) -> Places:
    """A host with a store and nothing in it."""
    places = Places(str(tmp_path))
    os.makedirs(places.store, mode=0o700)
    return places


def _fill(places: Places, count: int = 5) -> Path:
    for number in range(count):
        append(places, {"action": "load", "patch": "fix-%d" % number})
    return Path(places.audit_log)


def test_each_entry_carries_the_digest_of_the_one_before(places: Places) -> None:
    first = append(places, {"action": "load"})
    second = append(places, {"action": "activate"})
    lines = [json.loads(line) for line in Path(places.audit_log).read_text().splitlines()]
    assert [(line["seq"], line["previous"], line["action"]) for line in lines] == [
        (1, GENESIS, "load"),
        (2, first[1], "activate"),
    ]
    chain = examine(places, 1)
    assert (chain.intact, chain.count, chain.head, chain.entries) == (True, 2, second[1], lines[1:])
    assert (first[0], second[0], os.stat(places.audit_log).st_mode & 0o777) == (1, 2, 0o600)


def test_without_a_store_there_is_no_log_and_that_is_told(tmp_path: Path) -> None:
    places = Places(str(tmp_path))
    assert append(places, {"action": "load"}) == (0, "")
    assert (examine(places).exists, examine(places).intact) == (False, False)
    assert not os.path.exists(places.store)


def _other(line: str, **fields: Any) -> str:
    return json.dumps(dict(json.loads(line), **fields), sort_keys=True, separators=(",", ":"))


TAMPERINGS: dict[str, tuple[Callable[[list[str]], list[str]], int]] = {
    "changed": (lambda lines: [lines[0], _other(lines[1], patch="innocent"), *lines[2:]], 3),
    "one letter": (lambda lines: [lines[0].replace("fix", "fax"), *lines[1:]], 2),
    "taken out": (lambda lines: lines[:2] + lines[3:], 3),
    "first taken out": (lambda lines: lines[1:], 1),
    "put in": (lambda lines: [*lines[:2], _other(lines[1], seq=3), *lines[2:]], 3),
    "twice": (lambda lines: [*lines[:2], lines[1], *lines[2:]], 3),
    "swapped": (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], 2),
    "number": (lambda lines: [*lines[:-1], _other(lines[-1], seq=9)], 5),
    "no entry": (lambda lines: [*lines[:2], "nothing", *lines[3:]], 4),
    "no entry at the end": (lambda lines: [*lines, "nothing"], 6),
    "false torn": (
        lambda lines: [*lines[:3], "{", _other(lines[3], action="torn", before=GENESIS), *lines[4:]],
        5,
    ),
    "two of them": (lambda lines: [*lines[:2], "x", "y", *lines[2:]], 3),
    "long": (lambda lines: [*lines[:2], "x" * 200_000, *lines[2:]], 3),
    "numbers as words": (lambda lines: [lines[0], _other(lines[1], seq="2"), *lines[2:]], 3),
}


@pytest.mark.parametrize("kind", sorted(TAMPERINGS))
def test_tampering_is_found_and_said_where(places: Places, kind: str) -> None:
    path = _fill(places)
    tamper, at = TAMPERINGS[kind]
    path.write_text("".join(line + "\n" for line in tamper(path.read_text().splitlines())))
    chain = examine(places)
    assert not chain.intact
    assert chain.breaks[0]["line"] == at, chain.breaks
    # It stays found, and what is done now is written down all the same.
    append(places, {"action": "load"})
    assert not examine(places).intact


def test_a_missing_end_is_not_seen_by_the_chain_and_is_by_who_kept_its_head(places: Places) -> None:
    path = _fill(places)
    head = examine(places).head
    assert examine(places, expected=head).intact
    append(places, {"action": "load"})
    assert examine(places, expected=head).intact
    path.write_text("".join(line + "\n" for line in path.read_text().splitlines()[:3]))
    assert examine(places).intact
    assert not examine(places, expected=head).intact


def test_a_log_written_anew_is_found_by_who_kept_its_head(places: Places) -> None:
    path = _fill(places)
    head = examine(places).head
    path.unlink()
    append(places, {"action": "load", "patch": "innocent"})
    _fill(places, 7)
    assert examine(places).intact
    assert not examine(places, expected=head).intact


@pytest.mark.parametrize("left", [1, 20, -2])
def test_a_line_that_was_cut_off_is_told_and_the_chain_goes_on(places: Places, left: int) -> None:
    path = _fill(places, 3)
    *whole, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole) + last[:left])
    before = examine(places)
    assert (before.intact, before.torn, before.seq) == (True, 1, 2)
    append(places, {"action": "load"})
    after = examine(places, 2)
    assert (after.intact, after.torn) == (True, 1)
    assert [(one["seq"], one["action"]) for one in after.entries] == [(3, "torn"), (4, "load")]
    assert after.entries[0]["before"] == before.head
    lines = path.read_bytes().splitlines(keepends=True)
    for spoiled in ([*lines[:2], b"[\n", *lines[3:]], [lines[0], *lines[2:]], [*lines[:2], *lines[3:]]):
        path.write_bytes(b"".join(spoiled))
        assert not examine(places).intact


def test_a_line_of_which_only_the_end_is_missing_is_whole(places: Places) -> None:
    path = _fill(places, 3)
    path.write_bytes(path.read_bytes()[:-1])
    assert (examine(places).intact, examine(places).torn, examine(places).seq) == (True, 0, 3)
    assert append(places, {"action": "load"})[0] == 4
    assert (examine(places).intact, examine(places).count) == (True, 4)


def test_the_first_line_may_be_the_one_that_was_cut_off(places: Places) -> None:
    path = _fill(places, 1)
    path.write_bytes(path.read_bytes()[:10])
    append(places, {"action": "load"})
    assert (examine(places).intact, examine(places).torn) == (True, 1)


def test_what_does_not_fit_on_the_disk_leaves_no_half_line(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _fill(places, 2)
    before, write = path.read_bytes(), os.write
    monkeypatch.setattr(audit_log.os, "write", lambda where, raw: write(where, raw[:30]))
    with pytest.raises(OSError, match="as a whole"):
        append(places, {"action": "load"})
    monkeypatch.undo()
    assert path.read_bytes() == before
    problem = "no space left"

    def full(_where: int) -> None:
        raise OSError(28, problem)

    monkeypatch.setattr(audit_log.os, "fsync", full)
    assert problem in record(places, Deed("load", audit.DONE, "test", "fix"))


def test_many_at_once_make_one_chain(places: Places) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from module_utils._store.audit_log import append;"
        "from module_utils._store.places import Places;"
        "[append(Places(sys.argv[2]), {'action': 'load', 'patch': sys.argv[3]}) for _ in range(25)]"
    )
    plugins = str(Path(audit_log.__file__).parents[2])
    command = [sys.executable, "-c", script, plugins, places.root]
    writers = [subprocess.Popen([*command, str(number)]) for number in range(6)]
    assert [writer.wait() for writer in writers] == [0] * 6
    chain = examine(places, 200)
    assert (chain.intact, chain.count, len({one["patch"] for one in chain.entries})) == (True, 150, 6)


def test_a_log_that_was_put_away_is_begun_anew(places: Places) -> None:
    path = _fill(places, 2)
    path.rename(path.with_suffix(".old"))
    assert append(places, {"action": "load"})[0] == 1


@pytest.mark.parametrize("how", ["mode", "owner", "link", "pipe", "folder"])
def test_a_log_that_others_may_write_is_not_believed(places: Places, how: str) -> None:
    path = _fill(places, 1)
    if how == "mode":
        path.chmod(0o622)
    elif how == "owner":
        os.chown(path, 65534, 65534)
    elif how == "folder":
        os.chmod(places.store, 0o777)
    else:
        elsewhere = path.with_name("elsewhere")
        path.rename(elsewhere)
        path.symlink_to(elsewhere) if how == "link" else os.mkfifo(path, 0o600)
    for act in (lambda: append(places, {"action": "load"}), lambda: examine(places)):
        with pytest.raises((LivepatchError, OSError)):
            act()
    assert "could not be written" in record(places, Deed("load", audit.DONE, "test", "fix"))


class Journal:
    """What listens in place of the journal."""

    def __init__(self, places: Places) -> None:
        os.makedirs(os.path.dirname(places.journal))
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(places.journal)
        self.socket.settimeout(10)

    def fields(self) -> dict[str, str]:
        """The fields of the next message; none of ours has a value of several lines."""
        lines = self.socket.recv(1 << 16).decode().splitlines()
        return dict(line.split("=", 1) for line in lines)


def test_the_journal_and_the_log_tell_the_same(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "admin\nLIVEPATCH_OUTCOME=done")
    monkeypatch.setenv("API_TOKEN", "very-secret")
    journal = Journal(places)
    error = {"code": "signature_invalid", "message": "no\nLIVEPATCH_OUTCOME=done", "remedy": "x"}
    process = {"pid": 12, "exe": "/usr/sbin/greeter\nX=1", "before": "absent", "state": "absent", "code": "x"}
    deed = Deed("load", audit.REFUSED, "livepatch_load", "fix", "1", "ab" * 32, (process,), SIGNATURE, error)
    assert record(places, deed) == ""
    fields = journal.fields()
    chain = examine(places, 1)
    entry = chain.entries[0]
    assert fields["LIVEPATCH_LOG_DIGEST"] == chain.head
    assert (fields["LIVEPATCH_ACTION"], fields["LIVEPATCH_OUTCOME"], fields["PRIORITY"]) == ("load", "refused", "3")
    assert (fields["LIVEPATCH_SIGNER"], entry["signature"]["signer"]) == ("a@example.org", "a@example.org")
    assert (fields["LIVEPATCH_CODE"], entry["error"]["code"]) == ("signature_invalid", "signature_invalid")
    assert (fields["LIVEPATCH_PIDS"], entry["processes"][0]["pid"], entry["count"]) == ("12", 12, 1)
    assert entry["who"]["uid"] == os.getuid()
    assert fields["LIVEPATCH_SUDO_USER"] == entry["who"]["sudo_user"] == "admin?LIVEPATCH_OUTCOME=done"
    assert "very-secret" not in Path(places.audit_log).read_text() + str(fields)


def test_who_logged_in_is_what_the_kernel_knows(places: Places) -> None:
    record(places, Deed("load", audit.DONE, "test", "fix"))
    known = int(Path("/proc/self/loginuid").read_text())
    told = examine(places, 1).entries[0]["who"]["login_uid"]
    assert told == (None if known == 0xFFFFFFFF else known)


def test_a_journal_that_does_not_read_keeps_nobody_waiting_for_long(places: Places) -> None:
    journal = Journal(places)
    for _number in range(600):
        if not audit.journal.tell(places.journal, {"MESSAGE": "x" * 2000}):
            break
    else:
        pytest.fail("the socket takes everything")
    assert record(places, Deed("load", audit.DONE, "test", "fix")) == ""
    assert examine(places).intact
    journal.socket.close()


def test_a_value_of_several_lines_is_sent_as_the_protocol_has_it(places: Places) -> None:
    journal = Journal(places)
    assert audit.journal.tell(places.journal, {"MESSAGE": "a\nb", "PRIORITY": "5", "EMPTY": ""})
    assert journal.socket.recv(4096) == b"MESSAGE\n\x03\0\0\0\0\0\0\0a\nb\nPRIORITY=5\n"


def test_what_the_service_did_is_written_down(places: Places) -> None:
    refused = {"code": "signature_invalid", "message": "no", "remedy": ""}
    done = Applied(7, 1, "/srv/x", ["one"], ["two"], {"three": refused}, {"one": SIGNATURE})
    assert record_applied(places, [done], "service") == []
    told = [(one["action"], one["outcome"], one["patch"]) for one in examine(places, 9).entries]
    assert told == [("apply", "done", "one"), ("apply", "held", "two"), ("apply", "refused", "three")]


def test_a_long_list_of_processes_stays_one_line(places: Places) -> None:
    rows = tuple({"pid": pid, "exe": "/" + "x" * 5000} for pid in range(5000))
    assert record(places, Deed("load", audit.DONE, "test", "fix", processes=rows)) == ""
    entry = examine(places, 1).entries[0]
    assert (entry["count"], len(entry["processes"])) == (5000, 64)
