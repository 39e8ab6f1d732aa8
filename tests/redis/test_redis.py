# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's stock redis-server has the hole, and Debian's source rebuilds to it: what is then patched.

Each check that finds nothing when all is well is also shown to find what it is for.
"""

from __future__ import annotations

import os
import shutil
import signal

import payloads
import probe
import pytest
import sections
from client import Client
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection
from prepare import Proof
from server import CLIENTS, Benchmark, Server

from debian import debian_build, snapshot
from debian.cache import default_cache


@pytest.fixture(scope="session")
def rebuilt(proof: Proof) -> str:
    """The artifact of a build of the deployed program's source, with symbols."""
    return os.path.join(debian_build.build(proof.source, default_cache(), "reference"), proof.artifact)


def test_rebuilt_source_is_the_deployed_program(proof: Proof, rebuilt: str) -> None:
    """Every byte and address that a process maps is the same, the build-id aside."""
    assert {".text", ".rodata", ".data", ".eh_frame"} <= sections.loaded_sections(proof.deployed).keys()
    assert sections.differing(proof.deployed, rebuilt) == []


def test_deployed_program_is_stripped_and_rebuilt_one_is_not(proof: Proof, rebuilt: str) -> None:
    """The names come from the rebuilt program alone."""
    with open(proof.deployed, "rb") as deployed, open(rebuilt, "rb") as built:
        assert ELFFile(deployed).get_section_by_name(".symtab") is None
        symbols = ELFFile(built).get_section_by_name(".symtab")
        assert isinstance(symbols, SymbolTableSection)
        assert symbols.get_symbol_by_name("rdbLoadObject")


def test_one_changed_byte_is_a_difference(rebuilt: str, tmp_path: object) -> None:
    """The comparison above sees a single byte."""
    copy = str(shutil.copy(rebuilt, str(tmp_path)))
    with open(copy, "r+b") as stream:
        text = ELFFile(stream).get_section_by_name(".text")
        assert text is not None
        stream.seek(text["sh_offset"] + text["sh_size"] // 2)
        byte = stream.read(1)[0]
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte ^ 1]))
    assert sections.differing(copy, rebuilt) == [".text"]


def test_unfixed_server_restores_the_payloads(proof: Proof, server: Server, benchmark: Benchmark) -> None:
    """zipmapValidateIntegrity lets both through, as often as they come, while 50 clients notice nothing."""
    for _time in range(3):
        answers = probe.holes(server.port, proof.debian_patch)
        assert list(answers.values()) == [probe.UNFIXED, probe.UNFIXED], answers
    assert benchmark.disturbances() == []
    assert server.runs()


def test_unfixed_server_leaks_what_it_refuses(server: Server, benchmark: Benchmark) -> None:
    """rdbLoadObject forgets one listpack for each value with a field twice."""
    leaked = probe.leak(server.port)["leaked"]
    assert leaked > 0.9 * probe.RESTORE_COUNT * payloads.LEAK
    assert benchmark.disturbances() == []


def test_unfixed_server_dies_of_an_oversize_string(proof: Proof, server: Server) -> None:
    """_sdsnewlen asserts where it should refuse, so this is asked only of a server that has the fix."""
    with pytest.raises(ConnectionError):
        probe.oversize(server.port, proof.debian_patch)
    assert server.wait() == -signal.SIGABRT
    assert "_sdsnewlen: Assertion" in server.log()


def test_nothing_differs_in_a_server_that_is_left_alone(server: Server, benchmark: Benchmark, proof: Proof) -> None:
    """Load and payloads change neither mappings of files nor code, so what differs later is ours."""
    before = snapshot.take(server.pid)
    counted = benchmark.requests()
    probe.holes(server.port, proof.debian_patch)
    probe.leak(server.port)
    assert benchmark.requests() > counted
    assert snapshot.differences(before, snapshot.take(server.pid)) == []


def test_one_changed_byte_of_code_is_noticed(server: Server) -> None:
    """A byte written to the padding behind the program's code, as a debugger writes it."""
    before = snapshot.take(server.pid)
    code = next(m for m in before.mappings if m.of_file and "x" in m.permissions)
    with open(f"/proc/{server.pid}/mem", "r+b", buffering=0) as memory:
        os.pwrite(memory.fileno(), b"\xcc", code.end - 1)
    assert snapshot.differences(before, snapshot.take(server.pid)) == [f"other bytes in {code}"]


def test_a_patch_left_behind_is_noticed(server: Server) -> None:
    """The same process, said to have had one mapping and one open file less before."""
    now = snapshot.take(server.pid)
    patch = snapshot.Mapping(0x1000, 0x2000, "r-xp", 0, "00:01", 7, "/memfd:livepatch:x (deleted)")
    later = snapshot.Snapshot((*now.mappings, patch), now.contents, now.files | {(99, "/memfd:x")}, now.threads)
    found = snapshot.differences(now, later)
    assert [line.split(":")[0] for line in found] == [
        "new mapping of a file",
        "new mapping executable",
        "left behind",
        "open file",
    ]


def test_one_lost_connection_is_noticed(server: Server, benchmark: Benchmark) -> None:
    """redis-benchmark does not hide a lost connection by connecting again."""
    with Client(server.port) as client:
        victims = [one["id"] for one in client.connections() if one["cmd"] == "set"]
        assert len(victims) == CLIENTS
        client.call("CLIENT", "KILL", "ID", victims[0])
    found = benchmark.disturbances()
    assert any("connections lost" in line for line in found), found
