# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What was built is kept, and believed only while it is true: digests, two builds at once, killed ones, bounds."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable

import pytest
from cases import CASES
from projects import ASK, MAKEFILE, Project, functions, project

import module_utils
from module_utils._build.cache import entry
from module_utils._build.tree_key import tree_key
from module_utils._build.watch_build import run_watched
from module_utils._errors import LivepatchError
from module_utils._patch.reader import read_patch

CASE = CASES["a changed function, the rest only moves"]
FILES = {**CASE.before, "main.c": ASK}
KEYS = ["%020x" % number for number in range(4)]


def tool(
    one: Project, dest: Path, command: str, prefix: tuple[str, ...] = (), **environment: str
) -> subprocess.Popen[str]:
    """The builder as a process of its own, so that it can be killed; its progress and refusals go to stdout."""
    words = [*prefix, sys.executable, "-m", "module_utils._build.command_line", "--name", "fix", "--artifact", "prog"]
    words += ["--source", str(one.source), "--new-source", str(one.changed), "--build-command", command]
    words += ["--dest", str(dest)]
    plugins = str(Path(str(module_utils.__path__[0])).parent)
    settings = {**os.environ, "PYTHONPATH": plugins, "CGL_LIVEPATCH_CACHE": str(one.source.parent.parent / "cache")}
    return subprocess.Popen(
        words, env={**settings, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another process does."""
    ends = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends, "it did not come to that in a minute"
        time.sleep(0.02)


def counted(folder: Path) -> tuple[dict[str, str], Path]:
    """An environment whose gcc and cc write a line into a file before they compile, and the file."""
    programs, log = folder / "programs", folder / "compiled"
    programs.mkdir()
    log.write_text("")
    for name in ("gcc", "cc"):
        script = '#!/bin/sh\ncase " $* " in *\' -c \'*) echo call >> %s;; esac\nexec %s "$@"\n'
        (programs / name).write_text(script % (log, shutil.which(name)))
        (programs / name).chmod(0o755)
    return {"PATH": "%s:%s" % (programs, os.environ["PATH"])}, log


def test_two_builds_at_once(tmp_path: Path) -> None:
    """Of two builds of the same tree one waits, says so, and does not build again; both give the same patch."""
    one = project(tmp_path, FILES, CASE.after)
    log = tmp_path / "log"
    command = "echo built >> %s; while [ ! -e %s/go ]; do sleep 0.05; done; make" % (log, tmp_path)
    first = tool(one, tmp_path / "1.lpatch", command)
    until(log.exists)
    second = tool(one, tmp_path / "2.lpatch", command)
    assert second.stdout
    assert "waiting for another build" in second.stdout.readline()
    (tmp_path / "go").touch()
    assert "using the built tree" in second.communicate()[0]
    assert first.communicate()[0]
    assert log.read_text() == "built\n"
    assert (tmp_path / "1.lpatch").read_bytes() == (tmp_path / "2.lpatch").read_bytes()


def test_killed_while_it_built(tmp_path: Path) -> None:
    """What the build command of a killed builder still does is waited for; its tree is not believed, but built anew."""
    one = project(tmp_path, FILES, CASE.after)
    log = tmp_path / "log"
    command = "echo built >> {0}/log; while [ ! -e {0}/go ]; do sleep 0.05; done; "
    command += "[ $(wc -l < {0}/log) = 2 ] || echo 'int spoilt;' >> work.c; make"
    command = command.format(tmp_path)
    first = tool(one, tmp_path / "1.lpatch", command)
    until(log.exists)
    first.send_signal(signal.SIGKILL)
    first.wait()
    again = tool(one, tmp_path / "1.lpatch", command)
    assert again.stdout
    assert "waiting for another build" in again.stdout.readline()
    assert log.read_text() == "built\n"
    (tmp_path / "go").touch()
    said = again.communicate()[0]
    assert again.returncode == 0, said
    assert log.read_text() == "built\nbuilt\n"
    assert functions(read_patch((tmp_path / "1.lpatch").read_bytes())) == ["answer"]


def test_a_compiler_that_outlives_the_builder_spoils_nothing(tmp_path: Path) -> None:
    """Half an object under the name that such a compiler writes to is never taken for one."""
    one = project(tmp_path, FILES, CASE.after)
    content = one.build().content
    for folder in (tmp_path / "cache").glob("*/[ab][ef]*/"):
        (folder / "unfinished-1.o").write_bytes(b"half")
    assert one.build().content == content


def test_the_same_change_is_compiled_once(tmp_path: Path) -> None:
    """Check mode, then the real run: nothing is compiled again; a second fix compiles its own file thrice, no more."""
    one = project(tmp_path, FILES, CASE.after)
    environment, log = counted(tmp_path)
    content = one.build(environment=environment).content
    count = len(log.read_text().splitlines())
    assert one.build(environment=environment).content == content
    assert len(log.read_text().splitlines()) == count
    (one.changed / "work.c").write_text(FILES["work.c"])
    (one.changed / "main.c").write_text(ASK.replace('puts("ready")', 'puts("Ready")'))
    assert [code for code, _symbol in one.refusals(environment=environment)] == ["entry_changed"]
    # Before: as it was built, with sections, and the same without -fipa-ra, for main; after: with sections.
    assert len(log.read_text().splitlines()) == count + 4


def test_a_change_of_the_makefile_is_built_once(tmp_path: Path) -> None:
    """The changed tree's own build is not repeated either."""
    one = project(tmp_path, FILES, {"Makefile": MAKEFILE.replace("-O2 -g", "-O2 -g -DMORE")})
    environment, log = counted(tmp_path)
    with pytest.raises(LivepatchError):
        one.build(environment=environment)
    count = len(log.read_text().splitlines())
    with pytest.raises(LivepatchError):
        one.build(environment=environment)
    assert len(log.read_text().splitlines()) == count


def test_a_header_outside_the_tree(tmp_path: Path) -> None:
    """A library's header that was updated since: what was built with the old one is not mixed with the new one."""
    (tmp_path / "inc").mkdir()
    header = tmp_path / "inc" / "step.h"
    header.write_text("#define STEP 3\n")
    work = "#include <step.h>\n__attribute__((noinline)) static long step(long x) { return x + STEP; }\n"
    work += "long answer(long x) { return step(x) * 2; }\n"
    one = project(tmp_path, {"main.c": ASK, "work.c": work}, {"work.c": work.replace("* 2", "* 7")})
    log = tmp_path / "log"
    options = {"environment": {"CPATH": str(header.parent)}, "build_command": "echo built >> %s; make" % log}
    assert functions(one.patch(**options)) == ["answer"]
    assert functions(one.patch(**options)) == ["answer"]
    assert log.read_text() == "built\n"
    header.write_text("#define STEP 44444\n")
    assert functions(one.patch(**options)) == ["answer"]
    assert log.read_text() == "built\nbuilt\n"


def test_two_artifacts_of_one_tree_are_one_build(tmp_path: Path) -> None:
    """Another artifact of the same tree, or a mistaken name, does not build it again."""
    log = tmp_path / "log"
    command = "echo built >> %s; make && cp prog tool" % log
    one = project(tmp_path, FILES, CASE.after)
    with pytest.raises(LivepatchError, match="made no file"):
        one.build(build_command=command, artifact="porg")
    assert functions(one.patch(build_command=command)) == ["answer"]
    assert functions(one.patch(build_command=command, artifact="tool")) == ["answer"]
    assert log.read_text() == "built\n"


def _compiler(folder: Path) -> None:
    path = folder / "programs" / "gcc"
    path.write_text(path.read_text() + "# another version\n")


DIFFERENCES: dict[str, Callable[[Path], object]] = {
    "a file": lambda folder: (folder / "original/project/work.c").write_text("int x;\n"),
    "a permission": lambda folder: (folder / "original/project/work.c").chmod(0o750),
    "a new file": lambda folder: (folder / "original/project/new.h").touch(),
    "an empty folder": lambda folder: (folder / "original/project/objects").mkdir(),
    "where a link leads": lambda folder: os.replace(folder / "other", folder / "original/project/link"),
    "the compiler": _compiler,
}


@pytest.mark.parametrize("what", DIFFERENCES)
def test_another_digest(tmp_path: Path, what: str) -> None:
    """Each of these makes another tree to build."""
    request = _request(tmp_path)
    first = tree_key(request)
    assert tree_key(request) == first
    DIFFERENCES[what](tmp_path)
    assert tree_key(request) != first


def test_digest_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands and the variables that builds read count, also those of the task itself; the artifact does not."""
    request = _request(tmp_path)
    first = tree_key(request)
    other = [dataclasses.replace(request, environment={**request.environment, "X": "1"})]
    other += [
        dataclasses.replace(request, build_command="make all"),
        dataclasses.replace(request, configure_command="x"),
    ]
    assert first not in [tree_key(one) for one in other]
    assert tree_key(dataclasses.replace(request, artifact="tool", name="other")) == first
    monkeypatch.setenv("SHLVL", "7")
    assert tree_key(request) == first
    monkeypatch.setenv("CFLAGS", "-O0")
    assert tree_key(request) != first


def _request(folder: Path):  # type: ignore[no-untyped-def]
    one = project(folder, FILES, CASE.after)
    os.symlink("work.c", one.source / "link")
    os.symlink("main.c", folder / "other")
    return one.request(environment=counted(folder)[0])


def fill(cache: Path, key: str, kilobytes: int, part: str = "") -> Path:
    """Use an entry of the cache, and leave so much in it."""
    with entry(str(cache), key, pytest.fail) as own:
        folder = Path(own.folder) / "after" / part if part else Path(own.folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "object").write_bytes(b"x" * (kilobytes << 10))
        return Path(own.folder)


def test_the_least_recently_used_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With more than the cache may hold, what was not used for longest is taken away, and nothing that is not ours."""
    monkeypatch.setenv("CGL_LIVEPATCH_CACHE_SIZE", "2")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "large").write_bytes(bytes(4 << 20))
    one, two = fill(tmp_path, KEYS[0], 900), fill(tmp_path, KEYS[1], 900)
    fill(tmp_path, KEYS[0], 900)
    three = fill(tmp_path, KEYS[2], 900)
    assert [one.exists(), two.exists(), three.exists()] == [True, False, True]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [one.name, one.name + ".lock", three.name, three.name + ".lock", "notes"]
    )


def test_what_is_in_use_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry that another build uses is not taken from under it, though it is the oldest."""
    monkeypatch.setenv("CGL_LIVEPATCH_CACHE_SIZE", "1")
    with entry(str(tmp_path), KEYS[0], pytest.fail) as own:
        (Path(own.folder) / "object").write_bytes(bytes(2 << 20))
        other = fill(tmp_path, KEYS[1], 900)
        assert (Path(own.folder) / "object").exists()
    assert not other.exists()


def test_old_changes_go_before_the_tree_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When nothing else is left to take away: what was compiled for earlier changes, not for the last one."""
    monkeypatch.setenv("CGL_LIVEPATCH_CACHE_SIZE", "2")
    for number in range(4):
        folder = fill(tmp_path, KEYS[0], 800, str(number))
        os.utime(folder / "after" / str(number), (number, number))
    assert sorted(os.listdir(folder / "after")) == ["2", "3"]


def test_a_removal_that_was_cut_short(tmp_path: Path) -> None:
    """What is left of it is no entry, and goes next time."""
    (tmp_path / (KEYS[1] + ".gone") / "after").mkdir(parents=True)
    fill(tmp_path, KEYS[0], 1)
    assert sorted(os.listdir(tmp_path)) == [KEYS[0], KEYS[0] + ".lock"]


def test_a_limit_that_is_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not guessed at."""
    monkeypatch.setenv("CGL_LIVEPATCH_CACHE_SIZE", "10G")
    with pytest.raises(LivepatchError, match="10G") as caught:
        fill(tmp_path, KEYS[0], 1)
    assert caught.value.code == "cache_unusable"


def test_a_cache_that_cannot_be_made(tmp_path: Path) -> None:
    """The error names the place, and how to choose another."""
    (tmp_path / "file").touch()
    one = project(tmp_path, FILES, CASE.after)
    with pytest.raises(LivepatchError, match="file/cache") as caught:
        one.build(cache=str(tmp_path / "file" / "cache"))
    assert caught.value.code == "cache_unusable"
    assert "CGL_LIVEPATCH_CACHE" in caught.value.remedy


def on_small_disk(folder: Path, options: str) -> tuple[int, str]:
    """Status and output of a build whose cache is a file system of its own, mounted with these options."""
    one = project(folder, {**FILES, "large": "x" * 200000}, CASE.after)
    cache = folder / "cache"
    cache.mkdir()
    own_mounts = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    mount = 'mount -t tmpfs -o %s none %s && exec "$@"' % (options, cache)
    with tool(one, folder / "1.lpatch", "make", (*own_mounts, "sh", "-c", mount, "sh")) as running:
        said = running.communicate()[0]
    return running.returncode, said


@pytest.mark.parametrize(("options", "reason"), [("ro", errno.EROFS), ("nr_inodes=12", errno.ENOSPC)])
def test_a_disk_that_cannot_be_written(tmp_path: Path, options: str, reason: int) -> None:
    """The error says so, and what to do."""
    status, said = on_small_disk(tmp_path, options)
    assert status == 1
    assert os.strerror(reason) in said
    assert "CGL_LIVEPATCH_CACHE" in said


def test_a_disk_that_runs_full(tmp_path: Path) -> None:
    """Wherever it comes to that (copying, noting, linking, compiling), there is a clear error, or a good patch."""
    found = []
    for kilobytes in (40, 220, 240, 256, 264, 272, 280, 288, 296, 304, 320, 1000):
        (tmp_path / str(kilobytes)).mkdir()
        status, said = on_small_disk(tmp_path / str(kilobytes), "size=%dk" % kilobytes)
        assert "Traceback" not in said
        found.append(status)
        if status:
            assert os.strerror(errno.ENOSPC) in said
            assert "CGL_LIVEPATCH_CACHE" in said
        else:
            patch = read_patch((tmp_path / str(kilobytes) / "1.lpatch").read_bytes())
            assert functions(patch) == ["answer"]
    assert found[0] == 1
    assert found[-1] == 0
    # More space never makes it worse.
    assert found == sorted(found, reverse=True)


def test_a_call_that_cannot_be_noted_is_not_made(tmp_path: Path) -> None:
    """Otherwise the build would seem not to have compiled what it did."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a.c").write_text("int a;\n")
    command = "rm -r %s/work/notes; gcc -c a.c" % tmp_path
    with pytest.raises(LivepatchError, match="no note of this call") as caught:
        run_watched(str(tmp_path / "tree"), command, {}, str(tmp_path / "work"))
    assert caught.value.code == "build_failed"
    assert not (tmp_path / "tree" / "a.o").exists()
