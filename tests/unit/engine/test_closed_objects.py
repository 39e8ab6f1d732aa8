# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""dlclose takes a patched object away, and anything may lie there afterwards: nothing is ever written into that."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest
from libraries import FIXED, host, library, mapped_at, refused
from patching import Running, compile_program, livepatch_mappings, make_patch
from reports import only, well

from module_utils._engine import make_switch
from module_utils._engine.activate import Limits, activate
from module_utils._engine.facts import gather
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch, unload_patch
from module_utils._engine.region import Region, find_region, find_regions
from module_utils._engine.threads_inside import Inside
from module_utils._errors import LivepatchError
from module_utils._patch.content import Patch
from module_utils._process.process import Process
from module_utils._process.selection import Selection

WAYS = [pytest.param(("byte", "jump"), "entry", id="byte"), pytest.param(("jump",), "atomic", id="stop")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path, Patch]:
    """The program, two builds of a library with the same code, and a patch for the first."""
    folder = tmp_path_factory.mktemp("closed")
    one, two = library(folder, "libone.so", 1), library(folder, "libtwo.so", 2)
    return host(folder), one, two, make_patch(folder, one, FIXED, ["answer"])


def _region(pid: int) -> Region:
    with Process(pid) as process:
        region = find_region(find_regions(process.memory, process.maps()), "fix")
        assert region is not None
        return region


def _fact(pid: int) -> dict[str, Any]:
    (fact,) = [fact for fact in gather(["fix"], "patched")["processes"] if fact["pid"] == pid]
    (patch,) = fact["patches"]
    return dict(patch)


def _limits(consistency: str) -> Limits:
    return Limits(max_stop=5.0, timeout=20.0, consistency=consistency)


@pytest.mark.parametrize(("forms", "consistency"), WAYS)
def test_another_build_at_the_same_address(
    made: tuple[Path, Path, Path, Patch], forms: tuple[str, ...], consistency: str
) -> None:
    """The other build has the very bytes that the patch looks for, where it looks for them: it is not written to."""
    program, one, two, patch = made
    with Running(program) as running:
        chosen = Selection(pids=(running.pid,))
        assert running.ask("open 0 %s" % one) == "opened"
        well(load_patch(patch, chosen, forms=forms))
        (site,) = _region(running.pid).sites
        place = mapped_at(running, one)
        assert running.ask("close 0") == "0"
        assert running.ask("open 1 %s" % two) == "opened"
        assert mapped_at(running, two) == place
        with Process(running.pid) as process:
            assert process.memory.read(site.address, len(site.old)) == site.old
            code, message = refused(activate_patch("fix", chosen, _limits(consistency)))
            assert code == "object_modified"
            assert "%#x" % place[0] in message
            assert process.memory.read(site.address, len(site.old)) == site.old
        assert running.ask("ask 1 5") == "7"
        fact = _fact(running.pid)
        assert (fact["state"], fact["verified"]) == ("loaded", False)
        assert "not mapped" in fact["reasons"][0]
        # The patch's own object is there again, elsewhere: loading puts the patch there.
        assert running.ask("open 0 %s" % one) == "opened"
        assert mapped_at(running, one) != place
        assert only(load_patch(patch, chosen, pretend=True, forms=forms)).changed
        assert well(load_patch(patch, chosen, forms=forms)).changed
        well(activate_patch("fix", chosen, _limits(consistency)))
        assert (running.ask("ask 0 5"), running.ask("ask 1 5")) == ("5001", "7")
        well(deactivate_patch("fix", chosen, _limits(consistency)))
        well(unload_patch("fix", chosen, 20.0))
        assert (running.ask("ask 0 5"), running.ask("ask 1 5")) == ("6", "7")


@pytest.mark.parametrize(("forms", "consistency"), WAYS)
@pytest.mark.parametrize("content", ["old", "new", "zero"])
def test_closed_while_active(
    made: tuple[Path, Path, Path, Patch], forms: tuple[str, ...], consistency: str, content: str
) -> None:
    """Memory of the program's own lies there then, with the old or the new bytes of the entry, or others: it stays as
    it is, facts say what is true, and the patch can be taken out in every order.
    """
    program, one, _two, patch = made
    with Running(program) as running:
        chosen = Selection(pids=(running.pid,))
        assert running.ask("open 0 %s" % one) == "opened"
        well(load_patch(patch, chosen, forms=forms))
        well(activate_patch("fix", chosen, _limits(consistency)))
        assert running.ask("ask 0 5") == "5001"
        (site,) = _region(running.pid).sites
        start, end = mapped_at(running, one)
        assert running.ask("close 0") == "0"
        fact = _fact(running.pid)
        assert (fact["state"], fact["verified"]) == ("loaded", False)
        assert running.ask("fill %x %x" % (start, end - start)) == "filled"
        mine = {"old": site.old, "new": site.new, "zero": bytes(len(site.old))}[content]
        with Process(running.pid) as process:
            process.memory.write(site.address, mine)
            before = process.memory.read(start, end - start)
            fact = _fact(running.pid)
            assert (fact["state"], fact["verified"]) == ("loaded", False)
            assert fact["functions"][0]["redirected_to"] == ""
            assert refused(activate_patch("fix", chosen, _limits(consistency)))[0] == "object_modified"
            assert only(deactivate_patch("fix", chosen, _limits(consistency))).error is None
            well(unload_patch("fix", chosen, 20.0))
            assert process.memory.read(start, end - start) == before
        assert livepatch_mappings(running.pid) == []


BUSY = r"""
#include <unistd.h>
static volatile int build = BUILD;
__attribute__((noinline, noipa)) int answer(int x) { usleep(x * 1000); return build; }
"""


@pytest.mark.parametrize(
    ("timeout", "right_before"),
    [(0.0, False), (20.0, False), (0.0, True)],
    ids=["at-once", "at-a-later-attempt", "right-before-the-stop"],
)
def test_closed_while_the_tool_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timeout: float, right_before: bool
) -> None:
    """Another build takes the place between two attempts at a stop: it is looked at again before each of them.

    Or in the instant between that look and the stop: the build-id is looked at once more when all stand still.
    """
    builds = [
        compile_program(tmp_path, "lib%d.so" % number, BUSY.replace("BUILD", str(number)), "-shared", "-fPIC")
        for number in (1, 2)
    ]
    patch = make_patch(tmp_path, builds[0], FIXED, ["answer"])
    with Running(host(tmp_path)) as running, Process(running.pid) as process:
        chosen = Selection(pids=(running.pid,))
        assert running.ask("open 0 %s" % builds[0]) == "opened"
        well(load_patch(patch, chosen, forms=("jump",)))
        (site,) = _region(running.pid).sites
        switch, attempts = make_switch._Attempt.switch, [0]

        def other_build_comes(attempt: Any, check: Callable[[], None]) -> Any:
            attempts[0] += 1
            if attempts[0] > 1:
                return switch(attempt, check)
            place = mapped_at(running, builds[0])
            assert running.ask("close 0") == "0"
            assert running.ask("open 1 %s" % builds[1]) == "opened"
            assert mapped_at(running, builds[1]) == place
            return switch(attempt, check) if right_before else (Inside(running.pid, site.address), 1)

        monkeypatch.setattr(make_switch._Attempt, "switch", other_build_comes)
        limits = Limits(max_stop=2.0, timeout=timeout, consistency="atomic")
        with pytest.raises(LivepatchError) as error:
            activate(process, "fix", limits)
        assert (error.value.code, attempts[0]) == (
            "object_modified" if timeout or right_before else "function_busy",
            1,
        )
        assert process.memory.read(site.address, len(site.old)) == site.old
        assert running.ask("ask 1 1") == "2"
        assert refused(activate_patch("fix", chosen, limits))[0] == "object_modified"
        well(unload_patch("fix", chosen, 20.0))


def test_opened_again_at_the_same_address(made: tuple[Path, Path, Path, Patch]) -> None:
    """What was active is only loaded then, which is told, and can be activated again."""
    program, one, _two, patch = made
    with Running(program) as running:
        chosen = Selection(pids=(running.pid,))
        assert running.ask("open 0 %s" % one) == "opened"
        well(load_patch(patch, chosen))
        well(activate_patch("fix", chosen, _limits("entry")))
        place = mapped_at(running, one)
        assert running.ask("close 0") == "0"
        assert running.ask("open 0 %s" % one) == "opened"
        assert mapped_at(running, one) == place
        assert running.ask("ask 0 5") == "6"
        fact = _fact(running.pid)
        assert (fact["state"], fact["verified"]) == ("loaded", True)
        assert well(activate_patch("fix", chosen, _limits("entry"))).changed
        assert running.ask("ask 0 5") == "5001"


def test_what_the_code_uses_was_closed_too(tmp_path: Path) -> None:
    """The object is there again, at its place, and the library that it needs at another one than its code was bound to:
    the patch is not activated, and can be loaded again.
    """
    helper = compile_program(tmp_path, "libhelper.so", "int help(int x) { return 7 * x; }", "-shared", "-fPIC")
    user = "#include <stdlib.h>\nextern int help(int);\nint answer(int x) { return abs(x) + help(x); }"
    place = ["-L%s" % tmp_path, "-lhelper", "-Wl,-rpath,%s" % tmp_path]
    target = compile_program(tmp_path, "libanswer.so", user, "-shared", "-fPIC", *place)
    fixed = "extern int help(int);\nint answer(int x) { return 1000 + help(x); }"
    patch = make_patch(tmp_path, target, fixed, ["answer"])
    with Running(host(tmp_path)) as running:
        chosen = Selection(pids=(running.pid,))
        assert running.ask("open 0 %s" % target) == "opened"
        well(load_patch(patch, chosen))
        well(activate_patch("fix", chosen, _limits("entry")))
        assert running.ask("ask 0 5") == "1035"
        well(deactivate_patch("fix", chosen, _limits("entry")))
        start, end = mapped_at(running, helper)
        there = mapped_at(running, target)
        assert running.ask("close 0") == "0"
        assert running.ask("fill %x %x" % (start, end - start)) == "filled"
        assert running.ask("open 0 %s" % target) == "opened"
        assert mapped_at(running, target) == there
        assert mapped_at(running, helper) != (start, end)
        code, message = refused(activate_patch("fix", chosen, _limits("entry")))
        assert code == "object_modified"
        assert "what its code uses" in message
        assert running.ask("ask 0 5") == "40"
        well(load_patch(patch, chosen))
        well(activate_patch("fix", chosen, _limits("entry")))
        assert running.ask("ask 0 5") == "1035"
