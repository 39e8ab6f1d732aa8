# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls in a batch are made in order, up to the first that does not do what it should, by either way of making them."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Iterator

import pytest
from patching import Running, compile_program
from programs import stop_all, wait_for_threads

from module_utils._process.process import Process
from module_utils._ptrace import call_batch, call_loop_x86_64
from module_utils._ptrace.call_batch import CallBatch

_WRITE, _READ, _GETPID, _CLOSE = 1, 0, 39, 3


@pytest.fixture(params=["loop", "one by one"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are made by the processor's own loop, or by the C library."""
    if request.param == "one by one":
        monkeypatch.setattr(call_batch, "_loop", lambda: None)
    else:
        assert call_batch._loop() is not None


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Both ends of a pipe: to read from, to write to."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_the_loop_is_what_its_comments_say(tmp_path: Path) -> None:
    source = Path(call_loop_x86_64.__file__).read_text()
    said = re.findall(r'^    b"\\.*"  # (.*)$', source, re.MULTILINE)
    (tmp_path / "loop.s").write_text("\n".join(line.replace(": ", ":\n", 1) for line in said) + "\n")
    subprocess.run(["as", "-o", tmp_path / "loop.o", tmp_path / "loop.s"], check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", tmp_path / "loop.o", tmp_path / "loop"], check=True)
    assert (tmp_path / "loop").read_bytes() == call_loop_x86_64.LOOP


@pytest.mark.usefixtures("way")
def test_all_are_made_in_order(pipe: tuple[int, int]) -> None:
    letters = ctypes.create_string_buffer(b"abc", 8)
    at = ctypes.addressof(letters)
    batch = CallBatch(3)
    for index in range(3):
        batch.add(_WRITE, pipe[1], at + index, 1, place=at, expected=int.from_bytes(b"abc", "little"))
    assert batch.run() == 3
    assert os.read(pipe[0], 9) == b"abc"
    assert list(batch.results()) == [1, 1, 1]


@pytest.mark.usefixtures("way")
def test_it_ends_with_the_first_that_fails(pipe: tuple[int, int]) -> None:
    batch = CallBatch(4)
    batch.add(_CLOSE, os.dup(0))
    batch.add(_CLOSE, -1)
    batch.add(_CLOSE, os.dup(0))
    batch.add(_GETPID)
    assert batch.run() == 1
    assert (batch.result(0), batch.result(1), batch.result(2)) == (0, -errno.EBADF, 0)
    assert batch.run(2) == 3
    assert batch.result(3) == os.getpid()  # made, and not what it should be: it does not return 0
    assert batch.run(2, 2) == 2


@pytest.mark.usefixtures("way")
def test_it_ends_where_memory_does_not_say_what_it_should(pipe: tuple[int, int]) -> None:
    room = ctypes.create_string_buffer(24)
    os.write(pipe[1], b"expected" + b"whatever" + b"the rest")
    batch = CallBatch(3)
    for index in range(3):
        to = ctypes.addressof(room) + 8 * index
        batch.add(_READ, pipe[0], to, 8, place=to, expected=int.from_bytes(b"expected", "little"))
    assert batch.run() == 1
    assert room.raw == b"expectedwhatever" + bytes(8)


@pytest.mark.usefixtures("way")
def test_all_are_made_whatever_comes_of_them(pipe: tuple[int, int]) -> None:
    batch = CallBatch(3)
    for _index in range(3):
        batch.add(_CLOSE, -1)
    batch.set_call(1, _GETPID)
    batch.run_all()
    assert list(batch.results()) == [-errno.EBADF, os.getpid(), -errno.EBADF]
    batch.set_call(2, _CLOSE, os.dup(0))
    batch.run_all()
    assert list(batch.results()) == [-errno.EBADF, os.getpid(), 0]


@pytest.mark.usefixtures("way")
def test_six_arguments_arrive() -> None:
    batch = CallBatch(1)
    batch.add(9, 0, 1 << 20, 3, 0x22, -1, 0)  # mmap
    batch.run()
    assert batch.result(0) > 0
    batch.set_call(0, 11, batch.result(0), 1 << 20)  # munmap
    assert batch.run() == 1


SLEEPERS = r"""
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
static void *sleeps(void *nothing) { for (;;) pause(); }
int main(void) {
    pthread_t one;
    char line[9];
    setvbuf(stdout, 0, _IOLBF, 0);
    for (int index = 0; index < 99; index++) pthread_create(&one, 0, sleeps, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) puts("here");
}
"""
# Stops the process whose number is its argument, after seeing to it that no memory becomes executable any more.
_CONFINED = r"""
import ctypes, struct, sys
from module_utils._process.process import Process
from module_utils._ptrace import call_batch
from programs import stop_all
# mmap with PROT_EXEC gives EPERM: load the call's number, is it mmap's, load prot, is it PROT_EXEC, EPERM, allow
code = [(0x20, 0, 0, 0), (0x15, 0, 3, 9), (0x20, 0, 0, 32), (0x45, 0, 1, 4), (6, 0, 0, 0x50001), (6, 0, 0, 0x7FFF0000)]
raw = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *one) for one in code))
program = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(code), ctypes.addressof(raw)))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0
assert call_batch._loop() is None
with Process(int(sys.argv[1])) as process:
    print(stop_all(process))
"""


def test_where_no_memory_may_be_executed(tmp_path: Path) -> None:
    """A tool under a filter that forbids it stops all threads, all the same."""
    program = compile_program(tmp_path, "sleepers", SLEEPERS)
    with Running(program) as running, Process(running.pid) as process:
        wait_for_threads(running.pid, 100)
        assert stop_all(process) == 100
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        said = subprocess.run(
            [sys.executable, "-c", _CONFINED, str(running.pid)],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        assert (said.stdout, said.stderr) == ("100\n", "")
        assert running.ask("?") == "here"
