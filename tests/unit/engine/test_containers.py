# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs with another root, or in namespaces of their own, patched from the host and from inside (as root)."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Iterator

import pytest
from patching import Running, compile_program, make_patch, run
from reports import only
from snapshots import snapshot, tracers
from steps import WAYS, load_and_activate, take_out

from module_utils._engine.activate import Limits
from module_utils._engine.facts import gather
from module_utils._engine.operations import activate_patch, load_patch
from module_utils._patch.content import Patch
from module_utils._process.selection import Selection
from module_utils._ptrace import injected_call

# With "chroot FOLDER" it makes that its root when it runs already; with "filter" it has a seccomp filter that refuses
# what systemd's MemoryDenyWriteExecute refuses.
PROGRAM = r"""
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
static volatile int zero;
__attribute__((noinline, noipa)) int first(int x) { return x + zero + 1; }
__attribute__((noinline, noipa)) int second(int x) { return x + zero + 2; }
#define REFUSED(number, argument, bits, all) \
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)), \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 4), \
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[argument])), \
    BPF_STMT(BPF_ALU | BPF_AND | BPF_K, bits), \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, bits, 0, 1), \
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM)
static void filter(void) {
    struct sock_filter code[] = {
        REFUSED(SYS_mmap, 2, PROT_WRITE | PROT_EXEC, 1), REFUSED(SYS_mprotect, 2, PROT_EXEC, 1),
        REFUSED(SYS_pkey_mprotect, 2, PROT_EXEC, 1), REFUSED(SYS_shmat, 2, 0100000, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program)) exit(9);
}
int main(int count, char **words) {
    char line[100];
    setvbuf(stdout, 0, _IOLBF, 0);
    if (count > 1 && !strcmp(words[1], "mdwe") && prctl(65 /* PR_SET_MDWE */, 1, 0, 0, 0)) exit(errno);
    if (count > 1 && !strcmp(words[1], "filter")) filter();
    if (count > 2 && !strcmp(words[1], "chroot") && (chroot(words[2]) || chdir("/"))) exit(9);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        void *writable = MAP_FAILED;
        if (*line == 'm') writable = mmap(0, 4096, PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        printf("%d\n", *line == 'm' ? writable != MAP_FAILED : second(first(0)));
    }
}
"""
FIXED = r"""
static volatile int zero;
int first(int x) { return x + zero + 100; }
int second(int x) { return x + zero + 200; }
"""
BYTE = ("byte", "jump")
NAMESPACES = ("--pid", "--fork", "--kill-child", "--mount", "--mount-proc")
OWN_USERS = ("--user", "--map-root-user", *NAMESPACES)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Patch]:
    folder = tmp_path_factory.mktemp("containers")
    program = compile_program(folder, "program", PROGRAM)
    return program, make_patch(folder, program, FIXED, ["first", "second"])


@contextlib.contextmanager
def _contained(
    program: Path, *arguments: str, options: tuple[str, ...] = NAMESPACES, then: str = ""
) -> Iterator[Running]:
    """A program that is the first process in namespaces of its own, behind a command; its pid is as seen here."""
    command = ["sh", "-c", then + '\nexec "$@"', "sh", str(program), *arguments]
    with Running(Path(shutil.which("unshare") or ""), *options, *command) as running:
        children = Path("/proc/%d/task/%d/children" % (running.pid, running.pid)).read_text().split()
        assert len(children) == 1
        running.pid = int(children[0])
        assert os.readlink("/proc/%d/ns/pid" % running.pid) != os.readlink("/proc/self/ns/pid")
        yield running


def _inside(pid: int, *words: str, namespaces: str = "-m -p") -> dict[str, Any]:
    """What the engine says that runs in namespaces of a process; processes have their numbers there."""
    enter = ["nsenter", "-t", str(pid), *namespaces.split(), *(["--preserve-credentials"] if "U" in namespaces else [])]
    engine = [sys.executable, "-m", "module_utils._engine.command_line", *words]
    told = subprocess.run(
        [*enter, *engine],
        env={**os.environ, "PYTHONPATH": ":".join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if not told.stdout:
        return {"refused": told.stderr}
    answer: dict[str, Any] = json.loads(told.stdout)
    return answer


def _error_inside(pid: int, *words: str, namespaces: str) -> dict[str, str]:
    answer = _inside(pid, *words, namespaces=namespaces)
    error: dict[str, str] = answer["processes"][0]["error"]
    return error


def _object(pid: int, name: str) -> dict[str, str]:
    """What facts say of one object of a process, by the name of its file."""
    for process in gather([], "all")["processes"]:
        if process["pid"] == pid:
            for found in process["objects"]:
                if Path(found["path"]).name == name:
                    return dict(found)
    raise AssertionError("%s of %d is in no facts" % (name, pid))


@pytest.mark.parametrize(("forms", "consistency"), WAYS)
@pytest.mark.parametrize("options", [NAMESPACES, OWN_USERS], ids=["pid-mount", "user"])
def test_from_the_host(
    made: tuple[Path, Patch], options: tuple[str, ...], forms: tuple[str, ...], consistency: str
) -> None:
    """A container's processes are found, and patched, as any others: by their numbers on the host."""
    program, patch = made
    with _contained(program, options=options) as running:
        before = snapshot(running.pid)
        found = load_patch(patch, Selection(exe=str(program)))
        assert [(outcome.pid, outcome.error) for outcome in found.outcomes] == [(running.pid, None)]
        load_and_activate(patch, running.pid, forms, consistency)
        assert running.ask("?") == "300"
        assert _object(running.pid, "program")["drift"] == "none"
        take_out(patch, running.pid)
        assert running.ask("?") == "3"
        assert snapshot(running.pid) == before


@pytest.mark.parametrize(
    ("options", "namespaces"), [(NAMESPACES, "-m -p"), (OWN_USERS, "-U -m -p")], ids=["pid-mount", "user"]
)
def test_from_inside(made: tuple[Path, Patch], options: tuple[str, ...], namespaces: str) -> None:
    """A container's root patches its processes by their numbers in it; the host sees that, and takes it out."""
    program, patch = made
    with _contained(program, options=options) as running:
        file = str(program.with_name("fix.lpatch"))
        for words in (["load", file, "--pid", "1"], ["activate", "fix"]):
            answer = _inside(running.pid, *words, namespaces=namespaces)
            assert [(one["pid"], one["error"]) for one in answer["processes"]] == [(1, None)]
        assert running.ask("?") == "300"
        told = _inside(running.pid, "facts", namespaces=namespaces)
        assert [(one["pid"], one["patches"][0]["state"]) for one in told["processes"]] == [(1, "active")]
        assert running.pid in [one["pid"] for one in gather(["fix"], "patched")["processes"]]
        take_out(patch, running.pid)
        assert running.ask("?") == "3"


def test_a_confined_program_from_inside_its_own_user_namespace(made: tuple[Path, Patch]) -> None:
    """A container's root may not suspend filters: said so, nothing is changed; the host's root may."""
    program, patch = made
    with _contained(program, "filter", options=OWN_USERS) as running:
        before = snapshot(running.pid)
        error = _error_inside(
            running.pid, "load", str(program.with_name("fix.lpatch")), "--pid", "1", namespaces="-U -m -p"
        )
        assert error["code"] == "not_permitted"
        assert "seccomp" in error["message"]
        assert "root of the host" in error["remedy"]
        assert snapshot(running.pid) == before
        load_and_activate(patch, running.pid, BYTE, "entry")
        assert running.ask("?") == "300"


def test_from_a_user_namespace_that_is_not_its_own(made: tuple[Path, Patch]) -> None:
    """Root of one container and a process of the host: not permitted, and why."""
    program, _patch = made
    file = str(program.with_name("fix.lpatch"))
    with _contained(program, options=OWN_USERS) as other, Running(program) as running:
        before = snapshot(running.pid)
        error = _error_inside(other.pid, "load", file, "--pid", str(running.pid), namespaces="-U")
        assert error["code"] == "not_permitted"
        assert "user namespace" in error["message"]
        assert "root of the host" in error["remedy"]
        assert snapshot(running.pid) == before


def test_with_the_proc_of_another_pid_namespace(made: tuple[Path, Patch]) -> None:
    """Numbers in /proc that are not the kernel's would lead to other processes: nothing is done at all."""
    program, _patch = made
    with _contained(program) as running, Running(program) as outside:
        before = snapshot(running.pid), snapshot(outside.pid)
        file = str(program.with_name("fix.lpatch"))
        for pid in (str(outside.pid), "1"):
            answer = _inside(running.pid, "load", file, "--pid", pid, namespaces="-p")
            assert "another PID namespace" in answer["refused"]
        assert (snapshot(running.pid), snapshot(outside.pid)) == before


def test_a_tracer_outside_is_not_seen_inside(made: tuple[Path, Patch]) -> None:
    """A container's program that is traced from its host: inside, where its tracer has no number, it is said so."""
    program, _patch = made
    with _contained(program) as running:
        words = ("load", str(program.with_name("fix.lpatch")), "--pid", "1")
        with _traced(running.pid):
            error = _error_inside(running.pid, *words, namespaces="-m -p")
        assert error["code"] == "not_permitted"
        assert "outside this PID namespace" in error["message"]
        assert _error_inside(running.pid, *words, namespaces="-m -p") is None


@contextlib.contextmanager
def _traced(pid: int) -> Iterator[None]:
    """Somebody else traces a process while the block runs."""
    reading, writing = os.pipe()
    tracer = os.fork()
    if not tracer:
        ctypes.CDLL(None).ptrace(0x4206, pid, None, None)  # PTRACE_SEIZE
        os.close(reading)
        os.write(writing, b"!")
        time.sleep(60)
        os._exit(0)
    os.read(reading, 1)
    assert tracers(pid) == {str(tracer)}
    try:
        yield
    finally:
        os.kill(tracer, 9)
        os.waitpid(tracer, 0)
        os.close(reading)
        os.close(writing)


def test_only_files_that_cannot_be_executed(made: tuple[Path, Patch]) -> None:
    """vm.memfd_noexec, which each PID namespace has for itself, is 2: a memfd must be sealed against execution."""
    program, patch = made
    with _contained(program, then="echo 2 > /proc/sys/vm/memfd_noexec") as running:
        load_and_activate(patch, running.pid, BYTE, "entry")
        assert running.ask("?") == "300"
        take_out(patch, running.pid)
        assert running.ask("?") == "3"


@pytest.mark.parametrize(("forms", "consistency"), WAYS)
@pytest.mark.parametrize("how", ["mdwe", "filter"])
def test_memory_deny_write_execute(
    made: tuple[Path, Patch], how: str, forms: tuple[str, ...], consistency: str
) -> None:
    """By prctl(PR_SET_MDWE) and by systemd's filter: it is patched, never by memory that can be written and run."""
    program, patch = made
    with Running(program, how) as running:
        assert running.ask("map") == "0"
        load_and_activate(patch, running.pid, forms, consistency)
        assert running.ask("?") == "300"
        assert not [line for line in Path("/proc/%d/maps" % running.pid).read_text().splitlines() if " rwx" in line]
        take_out(patch, running.pid)
        assert (running.ask("?"), running.ask("map")) == ("3", "0")


@pytest.fixture
def jail(made: tuple[Path, Patch], tmp_path: Path) -> Path:
    """A folder with the program and the libraries that it needs, where they would be on the host."""
    shutil.copy(made[0], tmp_path / "program")
    for line in run("ldd", str(made[0])).splitlines():
        library = next((word for word in line.split() if word.startswith("/")), "")
        if library:
            (tmp_path / library[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, tmp_path / library[1:])
    return tmp_path


def _enter(folder: Path, way: str) -> None:
    """Become a process with this root: by chroot, or by pivot_root in a mount namespace of its own."""
    libc = ctypes.CDLL(None)
    if way != "chroot":
        here = os.fsencode(folder)
        libc.unshare(0x20000)  # CLONE_NEWNS
        libc.mount(b"none", b"/", None, 0x44000, None)  # MS_REC | MS_PRIVATE
        libc.mount(here, here, None, 0x1000, None)  # MS_BIND
        os.chdir(folder)
        if libc.syscall(155, b".", b"."):  # pivot_root
            os._exit(9)
        libc.umount2(b".", 2)  # MNT_DETACH
        os.chdir("/")
    else:
        os.chroot(folder)
        os.chdir("/")


@pytest.mark.parametrize("way", ["chroot", "pivot_root"])
def test_another_root(made: tuple[Path, Patch], jail: Path, way: str) -> None:
    """It is patched, and what is on disk is looked for where the process would find it."""
    _program, patch = made
    with Running(Path("/program"), preexec_fn=lambda: _enter(jail, way)) as running:
        assert os.path.samefile("/proc/%d/root" % running.pid, jail)
        # The host sees files in a folder of its own by their whole path, those of a container as the container does.
        path = str(jail / "program") if way == "chroot" else "/program"
        found = load_patch(patch, Selection(exe=path))
        assert [(outcome.pid, outcome.error) for outcome in found.outcomes] == [(running.pid, None)]
        load_and_activate(patch, running.pid, BYTE, "entry")
        assert running.ask("?") == "300"
        assert (_object(running.pid, "program")["path"], _object(running.pid, "program")["drift"]) == (path, "none")
        assert _object(running.pid, "libc.so.6")["drift"] == "none"
        (jail / "program").unlink()
        assert _object(running.pid, "program")["drift"] == "deleted"
        shutil.copy("/bin/cat", jail / "program")
        assert _object(running.pid, "program")["drift"] == "replaced"
        take_out(patch, running.pid)
        assert running.ask("?") == "3"


def test_a_daemon_that_gives_itself_another_root(made: tuple[Path, Patch], tmp_path: Path) -> None:
    """Its files lie outside its root, on the host and in a container: they are none the less on disk, or not."""
    _program, patch = made
    (tmp_path / "empty").mkdir()
    for contained in (False, True):
        program = tmp_path / ("program-%s" % contained)
        shutil.copy(made[0], program)
        words = ("chroot", str(tmp_path / "empty"))
        with _contained(program, *words) if contained else Running(program, *words) as running:
            load_and_activate(patch, running.pid, BYTE, "entry")
            assert running.ask("?") == "300"
            assert _object(running.pid, program.name)["drift"] == "none"
            assert _object(running.pid, "libc.so.6")["drift"] == "none"
            program.unlink()
            assert _object(running.pid, program.name)["drift"] == "deleted"
            take_out(patch, running.pid)
            assert only(load_patch(patch, Selection(pids=(running.pid,)))).error is None


@pytest.fixture
def control_group(tmp_path: Path) -> Iterator[Path]:
    """A control group (version 2) that was made for the test."""
    mounted = tmp_path / "cgroup"
    mounted.mkdir()
    run("mount", "-t", "cgroup2", "none", str(mounted))
    group = mounted / ("livepatch-%d" % os.getpid())
    group.mkdir()
    try:
        yield group
    finally:
        while (group / "cgroup.procs").read_text():
            time.sleep(0.005)
        group.rmdir()
        run("umount", str(mounted))


def _freeze(group: Path, frozen: bool) -> None:
    (group / "cgroup.freeze").write_text(str(int(frozen)))
    while "frozen %d" % frozen not in (group / "cgroup.events").read_text():
        time.sleep(0.002)


def test_a_container_that_is_paused(
    made: tuple[Path, Patch], control_group: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen program cannot make our calls: said so, in time; switched it can be, and stays frozen."""
    program, patch = made
    monkeypatch.setattr(injected_call, "_CALL_TIME", 0.3)
    with Running(program) as running:
        (control_group / "cgroup.procs").write_text(str(running.pid))
        chosen, limits = Selection(pids=(running.pid,)), Limits(max_stop=2.0, timeout=5.0, consistency="atomic")
        before = snapshot(running.pid)
        _freeze(control_group, True)
        outcome = only(load_patch(patch, chosen))
        assert outcome.error is not None
        assert (outcome.error["code"], outcome.attempts) == ("function_busy", 0)
        assert "frozen" in outcome.error["message"]
        assert snapshot(running.pid) == before
        assert tracers(running.pid) == {"0"}
        _freeze(control_group, False)
        assert running.ask("?") == "3"
        assert only(load_patch(patch, chosen, forms=("jump",))).error is None
        _freeze(control_group, True)
        assert only(activate_patch("fix", chosen, limits)).error is None
        assert "frozen 1" in (control_group / "cgroup.events").read_text()
        _freeze(control_group, False)
        assert running.ask("?") == "300"
