# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The start commands of systemd's services, led through the launcher: a generator of drop-ins (systemd.generator(7)).

A generator, and no file written once: it runs at every boot and whenever systemd reads its units again, as it does when
a package brings a new one, so a command that changed is followed. The drop-in's name sorts behind others, because the
last that sets ExecStart= wins.
"""

from __future__ import annotations

import os
import re
import sys

from .places import Places

DROP_IN = "zz-livepatch.conf"
SERVICE = "cgl-livepatch.service"
# Where units lie, the first wins (systemd.unit(5)).
_FOLDERS = ("etc", "run", "usr/local/lib", "usr/lib", "lib")
_NAME = re.compile(r"[A-Za-z0-9:_.\\@-]+\.service\Z")
_PREFIXES = "-:+!"
# A service with one of these has files of its own, in which the launcher is not.
_ELSEWHERE = ("RootDirectory", "RootImage")


class UnitRefused(Exception):
    """A unit cannot be led through the launcher; the text says why."""


def unit_names(places: Places) -> list[str]:
    """The services that are to be started through the launcher, as the administrator's file has them."""
    try:
        with open(places.units, encoding="utf-8", errors="replace") as stream:
            lines = [line.partition("#")[0].strip() for line in stream]
    except OSError:
        return []
    return [line if line.endswith(".service") else line + ".service" for line in lines if line]


def generate(places: Places, folder: str) -> list[str]:
    """Write the drop-ins below `folder`; a sentence for each unit that must stay as it is."""
    problems = []
    if not os.access(places.launcher, os.X_OK):
        return ["there is no %s" % places.launcher]
    for name in unit_names(places):
        try:
            text = drop_in(unit_text(places, name), places.launcher, name)
        except UnitRefused as why:
            problems.append("%s is not started through the launcher: %s" % (name, why))
            continue
        place = os.path.join(folder, name + ".d")
        os.makedirs(place, exist_ok=True)
        with open(os.path.join(place, DROP_IN), "w", encoding="utf-8") as stream:
            stream.write(text)
    return problems


def unit_text(places: Places, name: str) -> str:
    """The lines of a unit and its drop-ins, in the order in which systemd takes them. Raises UnitRefused."""
    if not _NAME.match(name):
        raise UnitRefused("this is no name of a service")
    template = re.sub(r"@.+\.service\Z", "@.service", name)
    names = list(dict.fromkeys([name, template]))
    folders = ["%s/%s/systemd/system" % (places.root, part) for part in _FOLDERS]
    candidates = [os.path.join(folder, one) for one in names for folder in folders]
    main = next((path for path in candidates if os.path.exists(path)), None)
    if main is None:
        raise UnitRefused("there is no such unit")
    drop_ins: dict[str, str] = {}
    for one in reversed(["service", *reversed(names)]):
        for folder in folders:
            place = os.path.join(folder, one + ".d")
            for file in sorted(os.listdir(place)) if os.path.isdir(place) else []:
                if file.endswith(".conf") and file != DROP_IN:
                    drop_ins.setdefault(file, os.path.join(place, file))
    return "\n".join(_content(path) for path in [main, *(drop_ins[file] for file in sorted(drop_ins))])


def drop_in(text: str, launcher: str, name: str) -> str:
    """A drop-in that starts the same commands through the launcher. Raises UnitRefused."""
    commands: list[str] = []
    for key, value in _settings(text):
        if key == "ExecStart":
            commands = [*commands, value] if value else []
        if key in _ELSEWHERE and value:
            raise UnitRefused("it has %s=, and the launcher is not in there" % key)
    if not commands:
        raise UnitRefused("it has no ExecStart=")
    if name == SERVICE:
        raise UnitRefused("that is what launchers ask")
    lines = ["# Made by cgl.livepatch from %s at every daemon-reload; changes here are lost." % name, "[Unit]"]
    lines += ["Wants=" + SERVICE, "After=" + SERVICE, "[Service]", "ExecStart="]
    lines += ["ExecStart=" + _through(command, launcher) for command in commands]
    return "\n".join(lines) + "\n"


def _through(command: str, launcher: str) -> str:
    bare = command.lstrip(_PREFIXES)
    if bare[:1] in ("@", "|"):
        raise UnitRefused("its command begins with '%s', which gives it another name or shell" % bare[:1])
    return "%s%s %s" % (command[: len(command) - len(bare)], launcher, bare.strip())


def _settings(text: str) -> list[tuple[str, str]]:
    """Keys and values of the section [Service], with lines that go on in the next one put together."""
    lines: list[str] = []
    whole = ""
    for line in text.splitlines():
        if whole and line.lstrip()[:1] in ("#", ";"):
            continue  # comments may stand between the parts of one line
        whole += line
        if whole.endswith("\\") and not whole.lstrip().startswith(("#", ";")):
            whole = whole[:-1] + " "
            continue
        lines.append(whole.strip())
        whole = ""
    found, section = [], ""
    for line in lines:
        if line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line and line[0] not in "#;":
            key, _sign, value = line.partition("=")
            found.append((key.strip(), value.strip()))
    return found


def _content(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read()
    except OSError as error:
        raise UnitRefused("%s cannot be read: %s" % (path, error.strerror)) from None


def main() -> int:
    """What systemd runs: the first argument is the folder for the drop-ins."""
    for problem in generate(Places(), sys.argv[1]):
        try:
            with open("/dev/kmsg", "w", encoding="utf-8") as stream:
                stream.write("<4>cgl.livepatch: %s\n" % problem)
        except OSError:
            sys.stderr.write("%s\n" % problem)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
