# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Running ssh-keygen(1): no shell, nothing on disk, no terminal to ask on, and an end to it.

What it reads beside its standard input lies in memory files (memfd_create(2)) that nobody else can reach, so what it
checks is what we read, and nothing is left behind.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

from .._errors import LivepatchError

#: Where it is looked for: never on the caller's own search path.
PLACES = "/usr/bin:/bin:/usr/local/bin"
# What ssh-keygen may say of itself in a message, characters.
_MOST_WORDS = 300
_PASSED_ON = ("SSH_AUTH_SOCK", "SSH_SK_PROVIDER")


@dataclass(frozen=True)
class Answer:
    """How it ended: `good` by its exit status alone; `said` on standard output; `words` on standard error, one line."""

    good: bool
    said: bytes
    words: str


def ssh_keygen(
    code: str, arguments: list[str], content: bytes = b"", files: dict[str, bytes] | None = None, timeout: float = 20.0
) -> Answer:
    """Run it on `content`, on its standard input, and with `files`, the content of files by the option that names them.

    Raises LivepatchError `code` where it is not there, or did not end within `timeout` seconds.
    """
    program = shutil.which("ssh-keygen", path=PLACES)
    if program is None:
        remedy = "Install it (package openssh-client, or openssh)."
        raise LivepatchError(code, "signatures cannot be made or checked here: there is no ssh-keygen", remedy)
    command, descriptors = [program, *arguments], []
    try:
        for option, raw in (files or {}).items():
            descriptor = os.memfd_create("livepatch" + option, os.MFD_CLOEXEC)
            descriptors.append(descriptor)
            command += [option, "/proc/self/fd/%d" % descriptor]
            with open(descriptor, "wb", closefd=False) as stream:
                stream.write(raw)
        ran = subprocess.run(
            command,
            input=content,
            capture_output=True,
            pass_fds=descriptors,
            env=_environment(),
            cwd="/",
            start_new_session=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise LivepatchError(code, "ssh-keygen was given up after %g seconds" % timeout, "Try again.") from None
    except OSError as error:
        raise LivepatchError(code, "ssh-keygen cannot be run: %s" % error, "Mend that, then try again.") from None
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    return Answer(ran.returncode == 0, ran.stdout, _words(ran.stderr))


def _environment() -> dict[str, str]:
    """Nothing of the caller's but the way to the agent; nobody is asked for a passphrase."""
    known = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {"LC_ALL": "C", "SSH_ASKPASS_REQUIRE": "never", **known}


def _words(raw: bytes) -> str:
    lines = [line.strip() for line in raw.decode("utf-8", "replace").splitlines()]
    text = "; ".join(line for line in lines if line and not line.startswith("Signing data"))
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:_MOST_WORDS]
