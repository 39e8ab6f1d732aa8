# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Who did what, when, to which process: told to the journal, and written into the log of the store.

Only what is named here is told: no content of a file, no key, no environment but SUDO_USER.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

from .._errors import LivepatchError
from . import audit_log, journal
from .apply import Applied
from .places import Places

DONE, FAILED, REFUSED, HELD = "done", "failed", "refused", "held"
_MOST_PROCESSES = 64
_MOST_TEXT = 400
_NO_LOGIN = 0xFFFFFFFF


@dataclass(frozen=True)
class Deed:
    """One thing that was done, or was not.

    `action`: load, unload, activate, deactivate, store_put, store_remove, apply, release; `program`: what did it;
    `processes`: {pid, exe, before, state, code} each; `signature`: what that is worth (Verdict.as_dict); `error`:
    what kept it from being done.
    """

    action: str
    outcome: str
    program: str
    patch: str
    version: str = ""
    sha256: str = ""
    processes: tuple[dict[str, Any], ...] = ()
    signature: dict[str, Any] | None = None
    error: dict[str, str] | None = None


def record(places: Places, deed: Deed) -> str:
    """Write it down; why it could not be, in words, empty when all is well.

    Without a store on the host, and for other users than root, whom the store does not let in, there is the journal
    only.
    """
    who = _who()
    content = _content(deed, who)
    problem, seq, digest = "", 0, ""
    try:
        if os.geteuid() == 0:
            seq, digest = audit_log.append(places, content)
    except (LivepatchError, OSError) as error:
        problem = "what was done could not be written into %s: %s" % (places.audit_log, error)
    journal.tell(places.journal, _fields(deed, who, seq, digest, problem))
    return problem


def record_applied(places: Places, done: list[Applied], program: str) -> list[str]:
    """Write down what the service, or livepatch-store, did to processes; what could not be written, in words."""
    problems = []
    for one in done:
        process = {"pid": one.pid, "exe": one.exe}
        for patch_id in one.applied:
            deed = Deed("apply", DONE, program, patch_id, processes=(dict(process, state="active"),))
            problems.append(record(places, replace(deed, signature=one.signatures.get(patch_id))))
        for patch_id in one.held:
            problems.append(record(places, Deed("apply", HELD, program, patch_id, processes=(process,))))
        for patch_id, error in one.failed.items():
            refused = error["code"] in ("signature_missing", "signature_invalid", "trust_unsafe")
            outcome, failed = REFUSED if refused else FAILED, (dict(process, code=error["code"]),)
            problems.append(record(places, Deed("apply", outcome, program, patch_id, processes=failed, error=error)))
    return [problem for problem in problems if problem]


def _who() -> dict[str, Any]:
    """Who is at work, as far as the host knows. `sudo_user` is what sudo(8) said, and no proof."""
    login: int | None = None
    try:
        with open("/proc/self/loginuid", encoding="ascii") as stream:
            login = int(stream.read())
    except (OSError, ValueError):
        pass  # this kernel keeps none
    sudo = os.environ.get("SUDO_USER", "")
    return {
        "uid": os.getuid(),
        "login_uid": None if login == _NO_LOGIN else login,
        "sudo_user": _text(sudo)[:64],
        "pid": os.getpid(),
    }


def _content(deed: Deed, who: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {
        "action": deed.action,
        "outcome": deed.outcome,
        "program": deed.program,
        "patch": _text(deed.patch),
        "version": _text(deed.version),
        "sha256": deed.sha256,
        "processes": [
            {name: _text(value) if isinstance(value, str) else value for name, value in one.items()}
            for one in deed.processes[:_MOST_PROCESSES]
        ],
        "count": len(deed.processes),
        "who": who,
    }
    if deed.signature:
        content["signature"] = {name: deed.signature[name] for name in ("policy", "verified", "signer", "key")}
    if deed.error:
        content["error"] = {"code": deed.error["code"], "message": _text(deed.error["message"])}
    return content


def _fields(deed: Deed, who: dict[str, Any], seq: int, digest: str, problem: str) -> dict[str, str]:
    signature = deed.signature or {}
    pids = [str(one["pid"]) for one in deed.processes]
    message = "%s of patch %s: %s" % (deed.action, _text(deed.patch), deed.outcome)
    if pids:
        message += ", process %s" % ", ".join(pids[:8]) + (" and %d more" % (len(pids) - 8) if len(pids) > 8 else "")
    if deed.error:
        message += ": " + _text(deed.error["message"])
    return {
        "MESSAGE": message,
        "MESSAGE_ID": journal.MESSAGE_ID,
        "PRIORITY": str(journal.NOTICE if deed.outcome == DONE else journal.ERROR),
        "SYSLOG_IDENTIFIER": "cgl-livepatch",
        "LIVEPATCH_ACTION": deed.action,
        "LIVEPATCH_OUTCOME": deed.outcome,
        "LIVEPATCH_PROGRAM": deed.program,
        "LIVEPATCH_PATCH": _text(deed.patch),
        "LIVEPATCH_VERSION": _text(deed.version),
        "LIVEPATCH_SHA256": deed.sha256,
        "LIVEPATCH_PIDS": " ".join(pids[:_MOST_PROCESSES]),
        "LIVEPATCH_CODE": deed.error["code"] if deed.error else "",
        "LIVEPATCH_SIGNER": signature.get("signer", ""),
        "LIVEPATCH_KEY": signature.get("key", ""),
        "LIVEPATCH_LOGIN_UID": "" if who["login_uid"] is None else str(who["login_uid"]),
        "LIVEPATCH_SUDO_USER": str(who["sudo_user"]),
        "LIVEPATCH_LOG_SEQ": str(seq) if seq else "",
        "LIVEPATCH_LOG_DIGEST": digest,
        "LIVEPATCH_LOG_PROBLEM": problem,
    }


def _text(value: str) -> str:
    """One line that can be shown, and not a long one."""
    return "".join(letter if letter.isprintable() else "?" for letter in value)[:_MOST_TEXT]
