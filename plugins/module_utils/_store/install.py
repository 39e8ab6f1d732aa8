# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The part of the collection that works on a host without Ansible: the same code, put where the service finds it.

/usr/lib/cgl-livepatch/cgl_livepatch/   this package, as far as the service needs it
/usr/lib/cgl-livepatch/launch           what services are started through
/usr/sbin/livepatch-store               the command
/etc/systemd/system/cgl-livepatch.service
/etc/systemd/system-generators/cgl-livepatch
"""

from __future__ import annotations

import contextlib
import os
import py_compile
import shutil
import sys

from . import ask, command_line, unit_files
from .files import write_file
from .launching import launcher_text
from .places import Places

_PACKAGE = __name__.rpartition("._store.")[0]
_NEEDED = (ask, command_line, unit_files)
_COMMAND = """#!{python} -I
# Made by cgl.livepatch (module livepatch_service).
import sys

sys.path.insert(0, {program!r})
from cgl_livepatch.{module} import main

raise SystemExit(main())
"""
_SERVICE = """# Made by cgl.livepatch (module livepatch_service).
[Unit]
Description=Live patches for programs as they start
Documentation=man:ptrace(2)
DefaultDependencies=no
After=local-fs.target systemd-journald.socket
Conflicts=shutdown.target
Before=shutdown.target
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={command} daemon --guard-seconds {guard_seconds:g}
Restart=always
RestartSec=100ms
RuntimeDirectory=cgl-livepatch
RuntimeDirectoryMode=0755
RuntimeDirectoryPreserve=restart
StateDirectory=cgl-livepatch
StateDirectoryMode=0700
UMask=0077
OOMScoreAdjust=-900
# When a host boots, many programs wait for it.
Nice=-5
# It reads and writes the memory of every process, and asks the kernel about them. More it does not need. Nothing here
# may be kept by a seccomp filter (RestrictAddressFamilies=, also ProtectKernelTunables=): whoever is under one may
# suspend no other's.
CapabilityBoundingSet=CAP_SYS_PTRACE CAP_SYS_ADMIN CAP_NET_ADMIN CAP_DAC_READ_SEARCH CAP_DAC_OVERRIDE
CapabilityBoundingSet=CAP_SYS_NICE CAP_KILL CAP_IPC_LOCK
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths=/var/lib/cgl-livepatch /run/cgl-livepatch
ReadOnlyPaths=/proc/sys -/proc/sysrq-trigger -/proc/irq -/proc/bus -/sys
ProtectControlGroups=yes
DevicePolicy=closed
IPAddressDeny=any
PrivateMounts=yes
KeyringMode=private
MemoryMax=512M
TasksMax=64

[Install]
WantedBy=sysinit.target
"""


def files(places: Places, python: str, guard_seconds: float) -> dict[str, tuple[bytes, int]]:
    """The files of an installation: content and mode by path. `python`: the interpreter with the libraries."""
    found = {os.path.join(_library(places), name): (raw, 0o644) for name, raw in _sources().items()}
    command, generator = places.root + "/usr/sbin/livepatch-store", _generator(places)
    texts = {
        places.launcher: (launcher_text(places, python), 0o755),
        command: (_script(places, python, "_store.command_line"), 0o755),
        generator: (_script(places, python, "_store.unit_files"), 0o755),
        _service(places): (_SERVICE.format(command="/usr/sbin/livepatch-store", guard_seconds=guard_seconds), 0o644),
    }
    found.update({path: (text.encode("utf-8"), mode) for path, (text, mode) in texts.items()})
    return found


def install(places: Places, python: str, guard_seconds: float = 10.0, pretend: bool = False) -> list[str]:
    """Put everything in place; the paths that changed. Raises OSError."""
    wanted = files(places, python, guard_seconds)
    changed = [path for path, content in wanted.items() if _look(path) != content]
    stale = [path for path in _installed(places) if path not in wanted]
    if pretend:
        return sorted(changed + stale)
    # What starts services comes last, and what is in use is replaced as a whole.
    for path in sorted(changed, key=lambda one: (not one.startswith(_library(places)), one)):
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        write_file(path, *wanted[path])
    for path in stale:
        os.unlink(path)
    for path in wanted:
        if path.endswith(".py") and path in changed:
            py_compile.compile(path, doraise=True)
    return sorted(changed + stale)


def uninstall(places: Places, pretend: bool = False) -> list[str]:
    """Take everything away but the store; the paths that are gone. What starts services goes first. Raises OSError."""
    single = [_generator(places), _service(places), places.root + "/usr/sbin/livepatch-store", places.launcher]
    gone = [path for path in [*single, places.program] if os.path.lexists(path)]
    if not pretend:
        for path in gone:
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
    return gone


def _sources() -> dict[str, bytes]:
    """The source of each module that the service imports, by its path below the package.

    By the loader that brought it: that may be a file, or the archive in which Ansible sends a module.
    """
    found = {"__init__.py": b""}
    for name, module in sorted(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        if not name.startswith(_PACKAGE + ".") or spec is None or not spec.origin:
            continue
        path = name[len(_PACKAGE) + 1 :].replace(".", "/")
        if path.partition("/")[0] in _ROOMS and spec.loader is not None:
            found[path + ("/__init__.py" if spec.submodule_search_locations is not None else ".py")] = (
                spec.loader.get_data(spec.origin)
            )
    return found


_ROOMS = ("_compile_once", "_errors", "_elf", "_process", "_ptrace", "_patch", "_engine", "_store")


def _library(places: Places) -> str:
    return places.program + "/cgl_livepatch"


def _generator(places: Places) -> str:
    return places.root + "/etc/systemd/system-generators/cgl-livepatch"


def _service(places: Places) -> str:
    return places.root + "/etc/systemd/system/" + unit_files.SERVICE


def _script(places: Places, python: str, module: str) -> str:
    return _COMMAND.format(python=python, program=places.program, module=module)


def _installed(places: Places) -> list[str]:
    return [
        os.path.join(folder, name)
        for folder, _folders, names in os.walk(_library(places))
        for name in names
        if name.endswith(".py")
    ]


def _look(path: str) -> tuple[bytes, int] | None:
    try:
        with open(path, "rb") as stream:
            return stream.read(), os.fstat(stream.fileno()).st_mode & 0o7777
    except OSError:
        return None
