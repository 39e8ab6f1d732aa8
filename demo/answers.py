# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The questions that clients ask, and the two answers to each: with the fault, and without it."""

from __future__ import annotations

OLD = {
    "ada": "ada: card 4929 1385 0271 9012, pin 4711",
    "grace": "grace: card 5412 7534 8821 4004, pin 1906",
    "dennis": "dennis: card 4556 0990 1128 7733, pin 1970",
}
NEW = {
    "ada": "ada: card **** **** **** 9012, pin **** (hidden)",
    "grace": "grace: card **** **** **** 4004, pin **** (hidden)",
    "dennis": "dennis: card **** **** **** 7733, pin **** (hidden)",
}


def kind(question: str, answer: str) -> str:
    """Whether this is the "old" answer to the question, the "new" one, or a "wrong" one."""
    if answer == OLD[question]:
        return "old"
    return "new" if answer == NEW[question] else "wrong"
