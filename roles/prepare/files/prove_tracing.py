# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Prove that this user may trace processes of this host: seize, stop and write into one made for the purpose.

Prints nothing and ends with status 0 when everything works; otherwise one sentence, with the remedy, and status 1.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys

PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH = 0x4206, 0x4207, 17
WALL = 0x40000000
ASK_FOR_ROOT = "run the tasks with 'become: true' (root, or CAP_SYS_PTRACE)"


def main():
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "this host is %s on %s, and processes can be patched on Linux on x86_64; leave this host out" % (
            platform.machine(),
            sys.platform,
        )
    pid = start_stranger()
    try:
        return trace(pid) or write(pid)
    finally:
        os.kill(pid, signal.SIGKILL)


def start_stranger():
    """A sleeping process that is no child of this one, as those to patch are none: Yama makes a difference."""
    reading, writing = os.pipe()
    middle = os.fork()
    if middle == 0:
        stranger = os.fork()
        if stranger == 0:
            os.setsid()
            signal.alarm(60)
            while True:
                signal.pause()
        os.write(writing, b"%d" % stranger)
        os._exit(0)
    os.waitpid(middle, 0)
    pid = int(os.read(reading, 20))
    os.close(reading)
    os.close(writing)
    return pid


def trace(pid):
    """What keeps this user from tracing the process, empty when nothing does."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    if libc.ptrace(PTRACE_SEIZE, pid, None, None) == -1:
        error = os.strerror(ctypes.get_errno())
        scope = read("/proc/sys/kernel/yama/ptrace_scope")
        if scope == "3":
            return "tracing is off until the next boot (kernel.yama.ptrace_scope is 3): boot with a lower value"
        if scope in ("1", "2"):
            remedy = ASK_FOR_ROOT + (", or set kernel.yama.ptrace_scope to 0" if scope == "1" else "")
            return "tracing is refused (%s; kernel.yama.ptrace_scope is %s): %s" % (error, scope, remedy)
        remedy = "give the container CAP_SYS_PTRACE and a seccomp profile that allows ptrace"
        return "tracing is refused (%s): %s" % (error, remedy if os.geteuid() == 0 else ASK_FOR_ROOT)
    libc.ptrace(PTRACE_INTERRUPT, pid, None, None)
    os.waitpid(pid, WALL)
    libc.ptrace(PTRACE_DETACH, pid, None, None)
    return ""


def write(pid):
    """What keeps this user from writing into the program text of the process, empty when nothing does."""
    with open("/proc/%d/maps" % pid) as lines:
        start = next(int(line.split("-")[0], 16) for line in lines if line.split()[1] == "r-xp")
    try:
        memory = os.open("/proc/%d/mem" % pid, os.O_RDWR)
        os.pwrite(memory, os.pread(memory, 1, start), start)
        os.close(memory)
    except OSError as error:
        return (
            "writing into program text is refused (%s): %s, and check the boot parameter proc_mem.force_override,"
            " which must not be 'never' or 'ptrace'" % (error.strerror, ASK_FOR_ROOT)
        )
    return ""


def read(path):
    """The text of a small file, empty when there is none."""
    try:
        with open(path) as stream:
            return stream.read().strip()
    except OSError:
        return ""


if __name__ == "__main__":
    problem = main()
    if problem:
        sys.stdout.write(problem + "\n")
    sys.exit(1 if problem else 0)
