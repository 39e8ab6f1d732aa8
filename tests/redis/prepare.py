# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything the redis proof works with: the deployed program, its source, the fix, and how Debian builds it.

The proof is meant for the stock, stripped redis-server of Debian 12 at STOCK. Once Debian's archive no longer
offers that version, the current source package with the fix taken out again is built and stripped, and stands
in for it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys

import fix

from debian import debian_build, diffs
from debian.archive import Archive, ProofError, VanishedError
from debian.cache import default_cache, made_whole, only_one
from debian.packages import installed_tree, source_tree

STOCK = "5:7.0.15-1~deb12u7"
FIXED = "5:7.0.15-1~deb12u10"
ARTIFACT = "src/redis-server"


@dataclasses.dataclass(frozen=True)
class Proof:
    """One prepared proof; every path is absolute and lies in the cache."""

    version: str
    stock: bool  # Debian's own binary, or a stand-in built here because Debian's is gone
    deployed: str  # the stripped program that runs
    benchmark: str  # a redis-benchmark that fits
    source: str  # the source tree of `deployed`, not built
    fix: str  # the diff for livepatch_build, to be applied with -p1
    debian_patch: str  # Debian's whole patch, with the payloads of upstream's tests
    build_command: str
    environment: dict[str, str]
    artifact: str


def prepare(cache: str, gone: frozenset[str] = frozenset()) -> Proof:
    """Fetch, unpack and (for the stand-in) build what the proof needs; `gone` versions count as vanished.

    Raises ProofError with what to do about it.
    """
    with only_one(cache):
        archive = Archive(cache, gone)
        fixed = _unpacked_fixed(archive, cache)
        try:
            return _with_stock(archive, cache, fixed)
        except VanishedError as vanished:
            print(
                f"{vanished}\nA build of the current source without its fix stands in for it.",
                file=sys.stderr,
            )
            return _with_stand_in(cache, fixed)


def _unpacked_fixed(archive: Archive, cache: str) -> str:
    """The tree of the source package that has the fix: FIXED, or the newest that has it."""
    with contextlib.suppress(VanishedError):
        return source_tree(archive, cache, "redis", FIXED)
    for version in archive.source_versions("redis"):
        tree = source_tree(archive, cache, "redis", version)
        if os.path.exists(fix.debian_patch(tree)):
            print(f"{FIXED} is gone; the fix is taken from {version}.", file=sys.stderr)
            return tree
    raise ProofError(
        f"No source package of redis in this machine's archive carries {fix.NAME}: redis {FIXED} did. Point"
        " LIVEPATCH_DEBIAN_CACHE to a cache that still holds it."
    )


def _with_stock(archive: Archive, cache: str, fixed: str) -> Proof:
    installed = installed_tree(archive, cache, ("redis-server", "redis-tools"), STOCK)
    programs = os.path.join(installed, "usr", "bin")
    source = source_tree(archive, cache, "redis", STOCK)
    debian_build.install_dependencies(source)  # the stock program needs their libraries, too
    patch = fix.debian_patch(fixed)
    diffs.check_applies(patch, source)
    return _proof(
        version=STOCK,
        stock=True,
        # A link to redis-check-rdb (so says /proc/PID/exe); the program goes by the name it is called by.
        deployed=os.path.join(programs, "redis-server"),
        benchmark=os.path.join(programs, "redis-benchmark"),
        source=source,
        fix=patch,
        debian_patch=patch,
    )


def _with_stand_in(cache: str, fixed: str) -> Proof:
    home = os.path.join(os.path.dirname(fixed), "without-fix")
    source, diff = os.path.join(home, "redis"), os.path.join(home, "fix.diff")
    if not os.path.exists(home):
        with made_whole(home) as scratch:
            shutil.copytree(fixed, os.path.join(scratch, "redis"), symlinks=True)
            # Later patches stand on its tests; what is taken out and put in again is the program's part.
            diffs.write_part(fix.debian_patch(fixed), os.path.join(scratch, "fix.diff"), fix.PROGRAM)
            diffs.take_out(os.path.join(scratch, "fix.diff"), os.path.join(scratch, "redis"))
    diffs.check_applies(diff, source)
    built = debian_build.build(source, cache, "deployed")
    deployed = os.path.join(built, "deployed", "redis-server")
    if not os.path.exists(deployed):
        with made_whole(os.path.dirname(deployed)) as scratch:
            stripped = os.path.join(scratch, "redis-server")
            # As dh_strip does it.
            strip = ["strip", "--remove-section=.comment", "--remove-section=.note"]
            subprocess.run([*strip, "-o", stripped, os.path.join(built, ARTIFACT)], check=True)
    return _proof(
        version=debian_build.version(source) + " without " + fix.NAME,
        stock=False,
        deployed=deployed,
        benchmark=os.path.join(built, "src", "redis-benchmark"),
        source=source,
        fix=diff,
        debian_patch=fix.debian_patch(fixed),
    )


def _proof(**fields: object) -> Proof:
    return Proof(
        build_command=debian_build.COMMAND,
        environment=debian_build.environment(),
        artifact=ARTIFACT,
        **fields,  # type: ignore[arg-type]
    )


def main() -> int:
    """Print the prepared proof as JSON, as the variables that patch_redis.yml takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretend-gone", action="append", default=[], metavar="VERSION", help=f"such as {STOCK}")
    arguments = parser.parse_args()
    try:
        proof = prepare(default_cache(), frozenset(arguments.pretend_gone))
    except ProofError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps({"redis_" + name: value for name, value in dataclasses.asdict(proof).items()}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
