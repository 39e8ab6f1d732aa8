# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A host of its own for the tests of the store: all files below a folder, the service running on them, a real program.

The program answers `old` or `new` on its standard output as soon as it begins, from a constructor, from main, and then
for each line it reads; its first words tell whether it was patched before its own code ran.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable, Iterator

from patching import compile_program, make_patch

from module_utils._patch.content import Patch
from module_utils._store.desired import desired_of
from module_utils._store.install import install
from module_utils._store.places import Places
from module_utils._store.store import Store

PROGRAM = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
extern char _start[];
__attribute__((noinline, noipa)) int answer(int x) { return (x ^ 3) + (x << 5) - 32; }
static int first;
__attribute__((constructor)) static void early(void) { first = answer(1); }
static void say(const char *what) { printf("%s %d %d %d\n", what, getpid(), first, answer(1)); fflush(stdout); }
int main(int count, char **words)
{
    char line[64];
    const char *kind = count > 1 ? words[1] : "simple";
    if (!strcmp(kind, "forking") && fork()) _exit(0);
    if (!strcmp(kind, "forking")) { setsid(); if (fork()) _exit(0); }
    if (!strcmp(kind, "entry")) printf("%d\n", getauxval(AT_ENTRY) == (unsigned long)_start);
    if (!strcmp(kind, "crash")) { say("crash"); abort(); }
    if (!strcmp(kind, "fail")) { say("fail"); return 3; }
    if (!strcmp(kind, "notify")) {
        struct sockaddr_un to = {.sun_family = AF_UNIX};
        int s = socket(AF_UNIX, SOCK_DGRAM, 0);
        strncpy(to.sun_path, getenv("NOTIFY_SOCKET"), sizeof to.sun_path - 1);
        sendto(s, "READY=1", 7, 0, (struct sockaddr *)&to, sizeof to);
    }
    say("ready");
    while (fgets(line, sizeof line, stdin)) {
        if (!strcmp(line, "quit\n")) return 0;
        say("answer");
    }
    for (;;) pause();
}
"""
FIX = "int answer(int x) { return x + 100; }"
OLD, NEW = 2, 101
_LIBRARY: list[Path] = []


class Bed:
    """One host in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.places = Places(str(folder / "host"))
        self._share_library()
        install(self.places, sys.executable)
        self.store = Store(self.places)
        self.program = compile_program(folder, "greeter", PROGRAM)
        self.patch = make_patch(folder, self.program, FIX, ["answer"])
        self.log = folder / "service.log"

    def _share_library(self) -> None:
        """The library, compiled once for all hosts of a run: it is the same on each."""
        if not _LIBRARY:
            folder = Path(tempfile.mkdtemp(prefix="livepatch-library-"))
            os.chmod(folder, 0o755)
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            install(Places(str(folder)), sys.executable)
            _LIBRARY.append(Path(Places(str(folder)).program) / "cgl_livepatch")
        place = Path(self.places.program)
        place.mkdir(parents=True)
        (place / "cgl_livepatch").symlink_to(_LIBRARY[0])

    def keep(self, patch: Patch | None = None, enabled: bool = True, **processes: str) -> None:
        """Put the patch into the store."""
        patch = patch or self.patch
        raw = (self.folder / (patch.manifest.id + ".lpatch")).read_bytes()
        entry = desired_of(patch, processes, enabled, (), int(time.time()))
        self.store.put(entry, raw)

    @contextlib.contextmanager
    def service(self, *options: str, through: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[bytes]]:
        """The service, ready, until the block ends; `through`: a command that starts it."""
        command = [
            *through,
            self.places.root + "/usr/sbin/livepatch-store",
            "daemon",
            "--root",
            self.places.root,
            *options,
        ]
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.places.socket)
        with open(self.log, "ab") as log:
            process = subprocess.Popen(command, stderr=log, start_new_session=True)
        try:
            until(lambda: os.path.exists(self.places.socket))
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def told(self) -> str:
        """What the service has said so far."""
        return self.log.read_text()


class Started:
    """A program that was started; ended with the block, and what it left behind with it."""

    def __init__(self, *command: str, **options: object) -> None:
        self.process = subprocess.Popen(  # type: ignore[call-overload]
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            **options,
        )
        self.pid: int = self.process.pid
        self.others: set[int] = set()
        self._read = b""

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in {self.pid, *self.others}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        self.process.wait()

    def line(self, timeout: float = 20.0) -> list[str]:
        """The words of the next line it prints."""
        while b"\n" not in self._read:
            assert select.select([self.process.stdout], [], [], timeout)[0], "it printed nothing"
            piece = os.read(self.process.stdout.fileno(), 4096)
            assert piece, "it ended"
            self._read += piece
        line, _end, self._read = self._read.partition(b"\n")
        return line.decode().split()

    def begun(self) -> tuple[int, int, int]:
        """Its process id, and what it answered in a constructor, and in main, when it began."""
        _word, pid, first, now = self.line()
        self.others.add(int(pid))
        return int(pid), int(first), int(now)

    def ask(self) -> int:
        """What it answers now."""
        self.process.stdin.write(b"x\n")
        self.process.stdin.flush()
        return int(self.line()[3])


def until(condition: Callable[[], object], timeout: float = 20.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.005)
