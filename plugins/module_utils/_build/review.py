# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a reviewer wants to be told of a patch that can be made: locks, things done once, its size, copies elsewhere.

These are warnings. Locks are known by the names of the functions that take them; a lock taken by an instruction in
place, or a variable of one's own that says "done already", is not seen.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from typing import Iterable

from .._patch.content import BSS, TEXT
from .atoms import Atom, Field, UnitCode
from .built_tree import BuiltTree
from .calls import calls
from .changed_functions import UnitChange, is_function
from .changed_units import ChangedUnits
from .choose_contents import Included, PatchContents
from .dependencies import files_read
from .link_inputs import Unit, find_link, linked_units
from .read_change import Change

# From here on a patch is called large; the hard limits are those of choose_contents.
MANY_FUNCTIONS = 40
MANY_BYTES = 128 << 10

_LOCK_WORD = re.compile(r"(try|timed|clock)?(rd|wr|rw|spin)?(un)?locks?$|mutex$|(f|spin|rw)lock$")
_LOCKS_BY_NAME = frozenset(("sem_wait", "sem_trywait", "sem_timedwait", "sem_clockwait", "sem_post", "lockf"))
_NOT_TAKEN = frozenset(("init", "destroy", "attr", "mutexattr", "rwlockattr", "free", "new", "create"))
_WORDS = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z0-9]+(?![a-z])")
_ONCE = frozenset(
    (
        "pthread_once",
        "call_once",
        "__cxa_guard_acquire",
        "g_once_impl",
        "g_once_init_enter",
        "CRYPTO_THREAD_run_once",
        "uv_once",
    )
)


def review(units: ChangedUnits, contents: PatchContents, change: Change, is_library: bool) -> list[str]:
    """The warnings, in words; `is_library` says that programs are linked with the object."""
    found = [words for one in contents.replaced() for words in _locks(one)]
    found += [words for one in units.changes for words in _done_once(one, contents)]
    return found + _size(contents) + _copies_elsewhere(units, contents, change, is_library)


def is_lock_function(name: str) -> bool:
    """True for the name of a function that takes or releases a lock."""
    words = [word.lower() for word in _WORDS.findall(name)]
    is_lock = name in _LOCKS_BY_NAME or any(_LOCK_WORD.match(word) for word in words)
    return is_lock and not _NOT_TAKEN & set(words)


def _called(code: UnitCode, function: Atom) -> Counter[str]:
    """The functions that a function and its cold part call, how many times each."""
    parts = [function, *(atom for atom in code.atoms if atom.parent and atom.parent in function.names)]
    return Counter(_name(reference) for part in parts for reference in part.fields if calls(part, reference))


def _name(reference: Field) -> str:
    return reference.atom.name if reference.atom is not None else reference.name


def _locks(one: Included) -> list[str]:
    """A function that takes or releases other locks than it did: who is inside the old one meanwhile holds the old."""
    old = one.change.original(one.atom)
    if old is None or one.change.before is None:
        return []
    before, after = (
        {name for name in _called(code, atom) if is_lock_function(name)}
        for code, atom in ((one.change.before, old), (one.change.after, one.atom))
    )
    if before == after:
        return []
    words = ["no longer calls %s" % name for name in sorted(before - after)]
    words += ["now calls %s" % name for name in sorted(after - before)]
    return [
        "%s %s: check that a thread that is inside it, or holds the lock, while it is switched leaves the lock as the "
        "others expect it; consistency quiescent switches when no thread is inside" % (one.atom.name, ", ".join(words))
    ]


def _done_once(change: UnitChange, contents: PatchContents) -> list[str]:
    replaced = {id(one.atom) for one in contents.replaced()}
    found = []
    for user in change.after.atoms:
        guards = sorted(set(_called(change.after, user)) & _ONCE) if is_function(user) else []
        if not guards:
            continue
        for reference in user.fields:
            if id(reference.atom) in replaced and not calls(user, reference):
                found.append(
                    "%s is run once, by %s in %s: where that has happened, its change has no effect"
                    % (_name(reference), guards[0], user.name)
                )
        if id(user) in replaced and change.original(user) is not None:
            found.append(
                "%s does something only once, by %s: where that has happened, a change of that part has no effect"
                % (user.name, guards[0])
            )
    return list(dict.fromkeys(found))


def _size(contents: PatchContents) -> list[str]:
    functions = len(contents.replaced())
    new = sum(1 for one in contents.included if is_function(one.atom)) - functions
    size = sum(one.atom.size for one in contents.included if one.atom.kind != BSS)
    if functions + new <= MANY_FUNCTIONS and size <= MANY_BYTES:
        return []
    return [
        "this is an upgrade, not a fix: it replaces %d functions, brings %d new ones, and holds %d bytes; consider a "
        "restart into the new version" % (functions, new, size)
    ]


def _copies_elsewhere(units: ChangedUnits, contents: PatchContents, change: Change, is_library: bool) -> list[str]:
    """What else of the same build has the code that changes: files linked into it too, and what headers put there.

    That a header has such code is seen where a file changes that reads it and is not itself touched.
    """
    tree = units.tree
    reached = {one.change.unit.source for one in contents.included if one.atom.kind == TEXT}
    sources, headers = set(), set()
    for unit, reads in zip(tree.units, tree.reads):
        own = _relative(tree.tree, unit.source)
        if unit.source in reached and own in change.files:
            sources.add(own)
        elif unit.source in reached:
            headers |= set(reads) & set(change.files)
    found = []
    others = _other_objects(tree)
    copies = sorted(
        path for path, rows in others.items() if any(_relative(tree.tree, unit.source) in sources for unit in rows)
    )
    if copies:
        found.append("%s is linked into %s, too: patch these as well" % (_some(sources), _some(copies)))
    if headers:
        asked = [unit for rows in others.values() for unit in rows]
        told = zip(asked, files_read(asked, tree.tree))
        reads_header = {id(unit) for unit, reads in told if headers.intersection(reads.inside)}
        readers = [path for path, rows in others.items() if any(id(unit) in reads_header for unit in rows)]
        what = "the code in %s changes" % _some(headers)
        if readers:
            found.append("%s; what %s compiled in of it stays as it is: patch these as well" % (what, _some(readers)))
        elif is_library:
            found.append("%s; programs that compiled it in and use this library keep what they have" % what)
    return found


def _other_objects(tree: BuiltTree) -> dict[str, list[Unit]]:
    """What else the build linked and kept, by its path in the tree, and the units of each."""
    found = {}
    for call in tree.calls:
        path = os.path.realpath(call.output())
        if call.stage() != "link" or not os.path.isfile(path) or path == os.path.realpath(tree.artifact):
            continue
        if find_link(tree.calls, path) is call:
            found[_relative(tree.tree, path)] = linked_units(tree.calls, call)
    return found


def _relative(tree: str, path: str) -> str:
    return os.path.relpath(os.path.realpath(path), os.path.realpath(tree))


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:6]) + (" and %d more" % (len(listed) - 6) if len(listed) > 6 else "")
