# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""One operation over every process that is meant: each by itself, with its outcome, in a child that is watched.

One process that fails does not keep the others from being tried; its error stands in its outcome. The child that holds
threads may be killed, by the watchdog or by anybody: what it was at is then tried again, or else taken back.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, replace
from typing import Any, Callable, Tuple

from .._errors import LivepatchError
from .._process.exclusive import exclusive
from .._process.objects import MappedObject, several_copies
from .._process.patience import OUT_OF_PATIENCE, die_after, endless
from .._process.process import Process
from .._process.selection import check_numbering, exe_of, missing_pids, selected
from .._ptrace.tracer import tracer_kept
from .._ptrace.watchdog import Watched, watched, watched_each
from .make_switch import SwitchFailed
from .outcome import ABSENT, Outcome, Report, look, look_again
from .shares import Turns, shares_of
from .targets import Operation, meant

# How often a child may be killed, for another reason than being late, at one process before that is given up.
_MOST_DEATHS = 3
# How long a process runs after a child was late at it, before it is tried again: ten times the hold, seconds.
_REST = 1.0
# How often all processes are listed, where programs that fork keep making new ones.
_MOST_PASSES = 8
# How long a fork may take until the child is seen, seconds.
_FORKING = 0.01
# How many programs one process may become while it is worked on, and how long each is given to begin, seconds.
_MOST_PROGRAMS, _PAUSE = 5, 0.05
# How long the end of a process that was killed is waited for, and how often it is looked at, seconds.
_DYING, _LOOK = 2.0, 0.005
# How long one process may take at most, beyond the timeout, seconds.
_PATIENCE = 120.0
Tell = Callable[[Any], None]
# A process: its number and its start time.
Identity = Tuple[int, int]


@dataclass(frozen=True)
class _Begun:
    """Told by the child before it changes a process: the outcome as it stands then."""

    outcome: Outcome


@dataclass(frozen=True)
class _At:
    """Told before a process is looked at."""

    process: Identity


@dataclass(frozen=True)
class _Refused:
    """Told of a process that may not be looked at."""

    process: Identity


@dataclass(frozen=True)
class _Met:
    """Told at the end of a share: all processes that were looked at."""

    processes: set[Identity]


def run(operation: Operation) -> Report:
    """Carry out an operation. Raises LivepatchError when it cannot even be known which processes are meant."""
    check_numbering()
    outcomes = []
    for pid in missing_pids(operation.selection):
        error = LivepatchError("process_gone", "there is no process %d" % pid)
        outcomes.append(Outcome(pid, 0, "", error=error.as_dict()))
    operation = replace(operation, selection=replace(operation.selection, never=(os.getpid(),)))
    met: set[Identity] = set()
    refused: set[Identity] = set()
    shares = shares_of(operation.selection) if operation.at_once and not operation.pretend else 1
    changed = False
    while True:
        results = _results(operation, met, changed, shares)
        told = [thing for result in results for thing in result.told]
        ended = sorted((thing for thing in told if isinstance(thing, Outcome)), key=lambda outcome: outcome.pid)
        refused.update(thing.process for thing in told if isinstance(thing, _Refused))
        met.update(*(thing.processes for thing in told if isinstance(thing, _Met)))
        met.update((outcome.pid, outcome.start_time) for outcome in ended)
        for death in results:
            if death.died and death.signal == OUT_OF_PATIENCE:
                begun = _endless(operation, death, met)
                met.add((begun.pid, begun.start_time))
                if operation.selection.pids or begun.exe:
                    ended.append(begun)
                else:
                    refused.add((begun.pid, begun.start_time))
            elif death.died:
                begun = _left(death, met)
                ended += _after_death(operation, begun, death)
                met.add((begun.pid, begun.start_time))
        outcomes += ended
        changed = changed or any(outcome.changed for outcome in ended)
        # After the shares one more look at all together: who was looked at by one may have made one of another's.
        if not any(result.died for result in results) and (shares == 1 or not changed):
            return Report([outcome for outcome in outcomes if _counts(operation, outcome)], len(refused))
        shares = 1


def _counts(operation: Operation, outcome: Outcome) -> bool:
    """False for a process that has exited, where it was not asked for by its number: there is nothing to be done."""
    return bool(operation.selection.pids or not outcome.error or outcome.error["code"] != "process_gone")


def _left(death: Watched, met: set[Identity]) -> Outcome:
    """The process at which a child died. Raises LivepatchError where it was at none."""
    begun = [thing.outcome for thing in death.told if isinstance(thing, _Begun)]
    left = [outcome for outcome in begun if (outcome.pid, outcome.start_time) not in met]
    if not left:
        raise LivepatchError("internal", "%s, while it looked for processes" % _death(death), "Run the task again.")
    return left[-1]


def _endless(operation: Operation, death: Watched, met: set[Identity]) -> Outcome:
    """The outcome for a process that let a child wait until that died; what it had begun there is taken back."""
    at = [thing.process for thing in death.told if isinstance(thing, _At) and thing.process not in met]
    if not at:
        raise LivepatchError("internal", "%s, while it looked for processes" % _death(death), "Run the task again.")
    begun = [thing.outcome for thing in death.told if isinstance(thing, _Begun)]
    outcome = next((one for one in begun if (one.pid, one.start_time) == at[-1]), Outcome(*at[-1], ""))
    if outcome.exe and operation.undo and not death.left:  # who is left behind still has the process to itself
        with contextlib.suppress(LivepatchError), Process(outcome.pid) as process:
            if process.start_time == outcome.start_time:
                _watched_one(replace(operation, step=operation.undo), process, False)
    return replace(outcome, error=endless(outcome.pid, _patience(operation), death.left).as_dict())


def _patience(operation: Operation) -> float:
    """How long one process may take, seconds: a large one is searched for minutes when a patch is unloaded."""
    return operation.timeout + _PATIENCE


def _results(operation: Operation, met: set[Identity], changed: bool, shares: int) -> list[Watched]:
    """What came of all processes that were not yet met, and how the children ended that worked on them.

    `changed`: something was changed before, so that there may be new ones.
    """
    if shares == 1:
        return [watched(lambda tell: _work(operation, met, changed, tell))]
    turns = Turns(shares)

    def work(index: int) -> Callable[[Tell], None]:
        return lambda tell: _work_on_share(operation, turns, index, met, tell)

    try:
        return watched_each([work(index) for index in range(shares)], ended=turns.leave)
    finally:
        turns.close()


def _work_on_share(operation: Operation, turns: Turns, index: int, met: set[Identity], tell: Tell) -> None:
    """As _work, once, for one share of all processes."""
    never = (*operation.selection.never, *turns.join(index))
    selection = replace(operation.selection, never=never, share=(index, turns.count))
    met = set(met)
    _look_through(replace(operation, selection=selection, turn=lambda process: turns.taken(index, process)), met, tell)
    tell(_Met(met))


def _work(operation: Operation, met: set[Identity], ever: bool, tell: Tell) -> None:
    """Tell the outcome of each process that was not yet met.

    Once more while something changes: a program that has no patch yet may fork at any time. And once more a little
    later: a child that was being made has the memory of before, and is seen only then. Processes that are named by
    their numbers have no children that are meant. `ever`: something has changed.
    """
    met, quiet = set(met), False
    for _pass in range(_MOST_PASSES):
        changed = _look_through(operation, met, tell)
        ever = ever or changed
        if operation.pretend or operation.selection.pids or not ever or (quiet and not changed):
            return
        quiet = not changed
        time.sleep(_FORKING if quiet else 0)


@tracer_kept()
def _look_through(operation: Operation, met: set[Identity], tell: Tell) -> bool:
    """Tell what came of each process that was not yet met, which it is from now on; whether any was changed."""
    changed = False
    for process in selected(operation.selection):
        identity = (process.pid, process.start_time)
        if identity in met:
            continue
        met.add(identity)
        tell(_At(identity))
        with die_after(_patience(operation)):
            result = _tried(operation, process, tell)
        if result is not None:
            tell(_Refused(identity) if isinstance(result, LivepatchError) else result)
        changed = changed or (isinstance(result, Outcome) and result.changed)
    return changed


def _tried(operation: Operation, process: Process, tell: Tell) -> Outcome | LivepatchError | None:
    """What came of one process, None for one that is not meant, an error for one that may not be looked at.

    One that becomes another program meanwhile is tried again as that.
    """
    named, changed = bool(operation.selection.pids), False
    end = time.monotonic() + operation.timeout
    for turn in range(_MOST_PROGRAMS):
        if turn:
            time.sleep(_PAUSE)
            process.as_it_is_now()
        program = process.program()
        outcome = Outcome(process.pid, process.start_time, "")
        result: Outcome | LivepatchError | None = outcome
        try:
            objects = meant(operation, process, outcome)
            if objects is not None:
                _one(operation, process, outcome, tell, objects)
            else:
                result = None
        except LivepatchError as error:
            if named:
                outcome.error = error.as_dict()
            else:
                result = error if error.code == "not_permitted" else None
        if not named and result is not outcome:
            return result
        if result is outcome and not outcome.error:
            return outcome
        now = process.program()
        changed = changed or bool(program and now and program != now)
        if _has_ended(process):  # whatever the error was, this is the reason
            outcome.error = LivepatchError("process_gone", "process %d has exited" % process.pid).as_dict()
            return outcome
        # It lives: who takes it for gone has seen it become another program, if only before the first look.
        taken_for_gone = outcome.error is not None and outcome.error["code"] == "process_gone"
        changed = changed or taken_for_gone
        if program and program == now and not taken_for_gone:
            return result
        if turn and time.monotonic() > end:
            break
    if changed:
        message = "%s becomes another program time and again" % process
        outcome.error = LivepatchError("function_busy", message).as_dict()
        return outcome
    return result


def _has_ended(process: Process) -> bool:
    """Whether a process has exited; waits for the end of one that was killed, for a while."""
    end = time.monotonic() + _DYING
    while process.is_ending() and not process.has_exited() and time.monotonic() < end:
        time.sleep(_LOOK)
    return process.has_exited()


def _one(operation: Operation, process: Process, outcome: Outcome, tell: Tell, objects: list[MappedObject]) -> None:
    try:
        outcome.exe = exe_of(process)
        outcome.threads = len(process.threads())
        if operation.pretend:
            _step(operation, process, outcome, objects)
        else:
            with exclusive(process, operation.timeout), operation.turn(process):
                _step(operation, process, outcome, objects, tell)
    except LivepatchError as error:
        outcome.error = error.as_dict()
        if error.code != "process_gone" and process.has_exited():  # to the kernel that may look like a refusal
            outcome.error = LivepatchError("process_gone", "%s has exited: %s" % (process, error)).as_dict()
        if isinstance(error, SwitchFailed):
            outcome.attempts, outcome.stop_us = error.attempts, error.stop_us
    except OSError as error:
        # A thread that was held is gone: killed with the process, or by another one that begins a new program. Who
        # takes a process for gone that lives tries again.
        gone = isinstance(error, ProcessLookupError) or process.has_exited()
        code = "process_gone" if gone else "internal"
        outcome.error = LivepatchError(code, "%s: %s" % (process, error)).as_dict()
    if outcome.error:
        outcome.changed = False
        look_again(process, operation.patch_id, outcome)


def _step(
    operation: Operation,
    process: Process,
    outcome: Outcome,
    objects: list[MappedObject],
    tell: Tell | None = None,
) -> None:
    look(process, operation.patch_id, outcome, process.maps())
    outcome.before = outcome.state
    # Where a patch is to be loaded or activated, its object is there once.
    starts = [found.start for found in objects if found.build_id == outcome.build_id]
    if len(starts) > 1:
        raise several_copies(outcome.build_id, starts, str(process))
    if tell:
        tell(_Begun(outcome))
    operation.step(process, outcome)
    reasons = look(process, operation.patch_id, outcome, process.maps())
    if operation.pretend:
        outcome.state = operation.goal if outcome.changed else outcome.state
    elif operation.finder and reasons:
        raise LivepatchError(
            "memory_mismatch",
            "patch %s in %s is not as it must be: %s" % (operation.patch_id, process, "; ".join(reasons)),
            "Deactivate and unload the patch there, and load it again; restart the process if that fails, too.",
        )


def _after_death(operation: Operation, begun: Outcome, death: Watched) -> list[Outcome]:
    """The outcome for a process at which the child died: tried again until the timeout, then taken back.

    None where it has become a program that is not meant.
    """
    end = time.monotonic() + operation.timeout
    deaths = [death]
    try:
        with Process(begun.pid) as process:
            if process.start_time != begun.start_time:
                raise LivepatchError("process_gone", "process %d has exited" % begun.pid)
            while True:
                if deaths[-1].late:
                    time.sleep(max(0.0, min(_REST, end - time.monotonic())))
                result = _watched_one(operation, process, any(one.late for one in deaths))
                if not result.died:
                    outcomes = [thing for thing in result.told if isinstance(thing, Outcome)]
                    if not outcomes and operation.goal == ABSENT:  # all was done when the child died
                        outcomes = [_looked_at(operation, process, begun)]
                    for outcome in outcomes:
                        outcome.before = begun.before
                        outcome.changed = outcome.error is None and outcome.state != begun.before
                        outcome.attempts += len(deaths)
                    return outcomes
                deaths.append(result)
                endless_there = result.signal == OUT_OF_PATIENCE
                if endless_there or time.monotonic() > end or sum(not one.late for one in deaths) > _MOST_DEATHS:
                    break
            if operation.undo and not result.left:  # who is left behind still has the process to itself
                _watched_one(replace(operation, step=operation.undo), process, result.late)
            if endless_there:
                raise endless(process.pid, _patience(operation), result.left)
            try:
                begun = _looked_at(operation, process, begun)
            except (LivepatchError, OSError):
                begun = replace(begun, state=ABSENT, verified=False)
            code = "stop_budget_exceeded" if deaths[-1].late else "internal"
            message = "%s at %s, %d times; the patch is %s there" % (
                _death(deaths[-1]),
                process,
                len(deaths),
                begun.state if begun.verified else "in between, and the same task can be run again",
            )
            raise LivepatchError(code, message)
    except LivepatchError as error:
        return [replace(begun, error=error.as_dict(), attempts=len(deaths))]


def _watched_one(operation: Operation, process: Process, insisting: bool) -> Watched:
    def work(tell: Tell) -> None:
        with die_after(_patience(operation)):
            tell(_tried(operation, process, lambda _thing: None))

    return watched(work, insisting)


def _looked_at(operation: Operation, process: Process, outcome: Outcome) -> Outcome:
    """The outcome with what is in the process now, by a child: we wait for nobody. Raises LivepatchError, OSError."""

    def work(tell: Tell) -> None:
        with die_after(_patience(operation)):
            look(process, operation.patch_id, outcome, process.maps())
        tell(outcome)

    result = watched(work)
    if result.died:
        raise endless(process.pid, _patience(operation), result.left)
    return next(thing for thing in result.told if isinstance(thing, Outcome))


def _death(death: Watched) -> str:
    """How a child died, in words."""
    if death.late:
        return "the part of the tool that holds threads came to a halt past its time, and was killed for it"
    return "the part of the tool that does the work was killed (signal %d)" % death.signal
