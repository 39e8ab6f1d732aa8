# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A host's files: what this machine has, seen through overlays, with the host's own on top in memory."""

from __future__ import annotations

import os
import stat
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]

# Whatever of these is a file system of its own needs an overlay of its own.
LOWERS = tuple(path for path in ("/", "/usr", "/opt", "/var") if os.path.ismount(path))

# Empty on a host at first, because what is there is this machine's own affair (and its users' keys).
HIDDEN = (
    "/dev",
    "/etc/ssh",
    "/home",
    "/media",
    "/mnt",
    "/root",
    "/run",
    "/srv",
    "/tmp",
    "/var/tmp",
    str(CHECKOUT),
)

# Not there on a host at first: what this machine has been patched with.
GONE = ("/etc/cgl-livepatch", "/var/lib/cgl-livepatch")

_DEVICES = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
}
_DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}


class Layer:
    """The upper directories of one host, below PLACE (in memory): what is written here, the host sees."""

    def __init__(self, place: Path) -> None:
        self.place = place
        for number in range(len(LOWERS)):
            (place / f"upper{number}").mkdir(parents=True)
            (place / f"work{number}").mkdir()
        for path in HIDDEN:
            if os.path.isdir(path) and not os.path.islink(path):
                os.setxattr(self._directory(path), "trusted.overlay.opaque", b"y")
        for path in GONE:  # a whiteout (Documentation/filesystems/overlayfs.rst)
            os.mknod(self._directory(os.path.dirname(path)) / os.path.basename(path), stat.S_IFCHR, os.makedev(0, 0))
        self._fill()

    def write(self, path: str, content: str | bytes, mode: int = 0o644) -> None:
        """Put a file at PATH, an absolute path as the host sees it."""
        file = self._directory(os.path.dirname(path)) / os.path.basename(path)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        file.chmod(mode)

    def mounts(self) -> list[str]:
        """For each lower file system: where it goes in the host, and the overlay's options (mount(8))."""
        return [
            word
            for number, lower in enumerate(LOWERS)
            for word in (
                lower,
                f"lowerdir={lower},upperdir={self.place}/upper{number},workdir={self.place}/work{number}",
            )
        ]

    def _fill(self) -> None:
        for name, (major, minor) in _DEVICES.items():
            node = self._directory("/dev") / name
            os.mknod(node, 0o666 | stat.S_IFCHR, os.makedev(major, minor))
            node.chmod(0o666)
        for name, target in _DEVICE_LINKS.items():
            (self._directory("/dev") / name).symlink_to(target)
        for path in ("/dev/pts", "/dev/shm", "/run/sshd", "/run/lock", "/srv"):
            self._directory(path)
        # Without PAM, sshd refuses an account with a "locked" password ("!"), even with a key; "*" is none.
        shadow = Path("/etc/shadow").read_text(encoding="utf-8").splitlines()
        fields = [line.split(":") for line in shadow]
        lines = [":".join([f[0], "*", *f[2:]]) if f[0] == "root" else ":".join(f) for f in fields]
        self.write("/etc/shadow", "\n".join(lines) + "\n", 0o600)

    def _directory(self, path: str) -> Path:
        """The directory in the upper layer that stands for PATH; made with the lower one's owner and mode."""
        number = max((n for n, lower in enumerate(LOWERS) if _within(path, lower)), key=lambda n: len(LOWERS[n]))
        directory = self.place / f"upper{number}" / os.path.relpath(path, LOWERS[number])
        if not directory.is_dir():
            if path != LOWERS[number]:
                self._directory(os.path.dirname(path))
            directory.mkdir()
            directory.chmod(0o755)
            if os.path.isdir(path):
                lower = os.stat(path)
                os.chown(directory, lower.st_uid, lower.st_gid)
                directory.chmod(stat.S_IMODE(lower.st_mode))
        return directory


def _within(path: str, lower: str) -> bool:
    return lower == "/" or path == lower or path.startswith(lower + "/")
