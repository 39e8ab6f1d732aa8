# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The project's own build is watched, whatever it is: make, configure, cmake, libtool-like archives, two artifacts."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from cases import CASES
from projects import ASK, MAKEFILE, Project, addresses, functions, make_diff, project, replaced

from module_utils._build.watch_build import install_wrappers, read_notes, run_watched
from module_utils._errors import LivepatchError

CASE = CASES["a changed function, the rest only moves"]
FILES = {**CASE.before, "main.c": ASK}


def failure(one: Project, **options: object) -> LivepatchError:
    """The error with which a build fails."""
    with pytest.raises(LivepatchError) as caught:
        one.build(**options)
    return caught.value


def test_wrapper_notes_every_word(tmp_path: Path) -> None:
    """Folder and arguments come through as they were: spaces, quotes, newlines, none lost under parallel calls."""
    work = tmp_path / "it's work"
    tree = tmp_path / "a tree"
    tree.mkdir()
    command = "gcc -E -x c -D'A=\"b c\"' -D'X=1\n2' /dev/null >/dev/null\n"
    command += "for i in 1 2 3 4 5 6 7 8; do cc --version >/dev/null & done; wait"
    calls = run_watched(str(tree), command, {}, str(work))
    assert calls[0].folder == str(tree)
    assert calls[0].arguments == ("-E", "-x", "c", '-DA="b c"', "-DX=1\n2", "/dev/null")
    assert os.path.basename(calls[0].compiler) == "gcc"
    assert sorted(call.arguments for call in calls[1:]) == [("--version",)] * 8


def test_environment_of_each_call_is_kept(tmp_path: Path) -> None:
    """A build that exports CPATH compiles again with the same header; one that does not is not mixed up with it."""
    work = "#include <step.h>\nlong answer(long x) { return x * STEP; }\n"
    files = {"main.c": ASK, "work.c": work, "inc/step.h": "#define STEP 3\n"}
    files["Makefile"] = "export CPATH = inc\n" + MAKEFILE
    one = project(tmp_path, files, {"work.c": work.replace("x * STEP", "x + STEP")})
    assert functions(one.patch()) == ["answer"]
    assert functions(project(tmp_path / "header", files, {"inc/step.h": "#define STEP 5\n"}).patch()) == ["answer"]


def test_time_of_day_is_no_change(tmp_path: Path) -> None:
    """With a fixed date, as distributions build, __DATE__ and __TIME__ do not differ between before and after."""
    work = "const char *built(void) { return __DATE__ __TIME__; }\nlong answer(long x) { return x; }\n"
    one = project(tmp_path, {"main.c": ASK, "work.c": work}, {"work.c": work.replace("return x;", "return x + 1;")})
    assert functions(one.patch(environment={"SOURCE_DATE_EPOCH": "1700000000"})) == ["answer"]
    assert [code for code, _symbol in one.refusals()] == ["source_mismatch"]


def test_wrappers_stand_for_compilers_only(tmp_path: Path) -> None:
    """gcc, gcc-12, x86_64-linux-gnu-gcc and clang are wrapped; gcc-ar and make are not."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("gcc", "gcc-12", "x86_64-linux-gnu-gcc-12", "clang++-14", "c99", "gcc-ar", "make", "ccache"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o700)
    assert install_wrappers(str(tmp_path / "wrappers"), str(tmp_path / "notes"), str(programs)) == 5
    assert read_notes(str(tmp_path / "notes")) == []


def test_diff(tmp_path: Path) -> None:
    """A diff gives the same patch as the changed tree."""
    one = project(tmp_path, FILES, CASE.after)
    diff = make_diff(one, tmp_path)
    by_diff = one.build(new_source="", diff=(str(diff),), strip=2)
    assert by_diff.content == one.build().content


def test_diff_that_does_not_apply(tmp_path: Path) -> None:
    """The error shows what patch says; the source tree is as it was."""
    one = project(tmp_path, FILES, CASE.after)
    diff = make_diff(one, tmp_path)
    (one.source / "work.c").write_text(FILES["work.c"].replace("calls++", "calls += 1"))
    error = failure(one, new_source="", diff=(str(diff),), strip=2)
    assert error.code == "diff_failed"
    assert "FAILED" in error.message
    assert sorted(path.name for path in one.source.iterdir()) == ["Makefile", "main.c", "work.c"]


def test_diff_with_the_wrong_strip(tmp_path: Path) -> None:
    """Nothing is found to change."""
    one = project(tmp_path, FILES, CASE.after)
    assert failure(one, new_source="", diff=(str(make_diff(one, tmp_path)),), strip=1).code == "diff_failed"


def test_failing_build(tmp_path: Path) -> None:
    """The last lines of the output are in the message."""
    one = project(tmp_path, FILES, CASE.after)
    error = failure(one, build_command="echo first the noise; echo then the reason >&2; exit 3")
    assert error.code == "build_failed"
    assert "status 3" in error.message
    assert "then the reason" in error.message


def test_compiler_by_absolute_path(tmp_path: Path) -> None:
    """Such a build cannot be watched; the remedy says what to do."""
    one = project(tmp_path, FILES, CASE.after)
    error = failure(one, build_command="make CC=%s" % shutil.which("gcc"))
    assert error.code == "build_failed"
    assert "absolute path" in error.message
    assert "CC=gcc" in error.remedy


def test_artifact_that_is_not_made(tmp_path: Path) -> None:
    """The build goes well and makes something else."""
    one = project(tmp_path, FILES, CASE.after)
    assert failure(one, artifact="program").code == "artifact_missing"


def test_the_source_tree_stays_untouched(tmp_path: Path) -> None:
    """Nothing is built in it, no time stamp moves."""
    one = project(tmp_path, FILES, CASE.after)
    before = {path: path.stat().st_mtime_ns for path in sorted(one.source.rglob("*"))}
    one.build()
    assert {path: path.stat().st_mtime_ns for path in sorted(one.source.rglob("*"))} == before


def test_second_patch_builds_nothing_again(tmp_path: Path) -> None:
    """With the same original, the build command does not run again; with another one, it does."""
    log = tmp_path / "log"
    command = "echo built >> %s; make" % log
    one = project(tmp_path, FILES, CASE.after)
    one.build(build_command=command)
    (one.changed / "work.c").write_text(CASE.after["work.c"].replace("x < 0", "x < -5"))
    assert functions(one.patch(build_command=command)) == ["answer"]
    assert log.read_text() == "built\n"
    (one.source / "main.c").write_text(ASK + "\n")
    one.build(build_command=command)
    assert log.read_text() == "built\nbuilt\n"


def test_a_run_that_died_is_repaired(tmp_path: Path) -> None:
    """Killed while the changed tree was in place, and killed in the middle of a build."""
    one = project(tmp_path, FILES, CASE.after)
    first = one.build().content
    (folder,) = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    shutil.copytree(folder / "src", folder / "half")
    (folder / "src").rename(folder / "original")
    (folder / "half").rename(folder / "src")
    (folder / "src" / "project" / "work.c").write_text("broken")
    assert one.build().content == first
    (folder / "record.json").unlink()
    (folder / "src" / "project" / "main.c").write_text("broken")
    assert one.build().content == first


def test_configure(tmp_path: Path) -> None:
    """A configure script that finds the compiler and writes the Makefile and a header."""
    configure = """#!/bin/sh
CC=${CC:-gcc}
echo 'int main(void){return 0;}' > probe.c && $CC probe.c -o probe && rm probe probe.c || exit 1
echo '#define START 5' > config.h
sed "s/@CC@/$CC/" Makefile.in > Makefile
"""
    makefile = MAKEFILE.replace("prog:", "CC = @CC@\nprog:")
    files = {"configure": configure, "Makefile": "", "Makefile.in": makefile, "main.c": ASK}
    files["work.c"] = '#include "config.h"\nlong answer(long x) { return x + START; }\n'
    one = project(tmp_path, files, {"work.c": files["work.c"].replace("x + ", "x * 2 + ")})
    assert functions(one.patch(configure_command="sh ./configure")) == ["answer"]
    assert failure(one, configure_command="sh ./configure; exit 4").code == "build_failed"


def test_cmake(tmp_path: Path) -> None:
    """cmake finds the wrapper on PATH and writes its absolute path into its Makefiles; __FILE__ is an absolute path."""
    lists = "cmake_minimum_required(VERSION 3.10)\nproject(p C)\nset(CMAKE_BUILD_TYPE RelWithDebInfo)\n"
    lists += "add_executable(prog main.c work.c)\n"
    one = project(tmp_path, {**FILES, "CMakeLists.txt": lists, "Makefile": ""}, CASE.after)
    command = "mkdir out && cd out && cmake .. && make"
    assert functions(one.patch(build_command=command, artifact="out/prog")) == ["answer"]


def test_dpkg_buildpackage(tmp_path: Path) -> None:
    """A Debian source package, built as Debian builds it: dh calls make, with the distribution's own flags."""
    rules = "#!/usr/bin/make -f\n%:\n\tdh $@\n"
    debian = {
        "debian/control": "Source: prog\nMaintainer: nobody <nobody@localhost>\n"
        "Build-Depends: debhelper-compat (= 13)\n\n"
        "Package: prog\nArchitecture: any\nDescription: answers\n one program\n",
        "debian/changelog": "prog (1.0) unstable; urgency=low\n\n  * First.\n\n"
        " -- nobody <nobody@localhost>  Thu, 01 Jan 2026 00:00:00 +0000\n",
        "debian/source/format": "3.0 (native)\n",
        "debian/rules": rules,
        "Makefile": MAKEFILE.replace("CFLAGS = -O2 -g\n", ""),
    }
    one = project(tmp_path, {**FILES, **debian}, CASE.after)
    for tree in (one.source, one.changed):
        (tree / "debian" / "rules").chmod(0o755)
    patch = one.patch(build_command="dpkg-buildpackage -b -d -us -uc", environment={"DEB_BUILD_OPTIONS": "nocheck"})
    assert functions(patch) == ["answer"]


def test_static_library_in_the_program(tmp_path: Path) -> None:
    """Members of an archive are found by their content; one that is not needed is not in the object."""
    makefile = """
CFLAGS = -O2
prog: main.o lib/libwork.a
\t$(CC) -o prog main.o -Llib -lwork
lib/libwork.a: lib/work.o lib/spare.o
\t$(AR) rc $@ $^
"""
    files = {"main.c": ASK, "lib/work.c": CASE.before["work.c"], "lib/spare.c": "int spare(void) { return 1; }\n"}
    files["Makefile"] = makefile
    one = project(tmp_path, files, {"lib/work.c": CASE.after["work.c"]})
    assert functions(one.patch()) == ["answer"]
    other = project(tmp_path / "other", files, {"lib/spare.c": "int spare(void) { return 2; }\n"})
    assert [code for code, _symbol in other.refusals()] == ["not_in_object"]


def test_one_source_compiled_twice(tmp_path: Path) -> None:
    """Two artifacts from one source with different settings: the link of the artifact meant decides."""
    makefile = """
all: prog tool
prog: main.o prog-work.o
\t$(CC) -o $@ $^
tool: main.o tool-work.o
\t$(CC) -o $@ $^
prog-work.o: work.c
\t$(CC) -O2 -DSTEP=3 -c -o $@ $<
tool-work.o: work.c
\t$(CC) -O2 -DSTEP=7 -DTOOL -c -o $@ $<
"""
    work = "long answer(long x)\n{\n#ifdef TOOL\n    x += 1;\n#endif\n    return x * STEP;\n}\n"
    files = {"main.c": ASK, "work.c": work, "Makefile": makefile}
    one = project(tmp_path, files, {"work.c": work.replace("x += 1", "x += 2")})
    assert [code for code, _symbol in one.refusals()] == ["nothing_changed"]
    patch = one.patch(artifact="tool")
    assert functions(patch) == ["answer"]
    assert [replaced(patch, "answer").offset] == addresses(one.built(name="tool"))["answer"]


def test_one_source_compiled_twice_and_one_object_stays(tmp_path: Path) -> None:
    """The object that the change does not touch counts as one that it does not touch: it calls in the old way."""
    makefile = """
prog: main.o first.o second.o
\t$(CC) -o $@ $^
first.o: part.c
\t$(CC) -O2 -g -DFIRST -c -o $@ $<
second.o: part.c
\t$(CC) -O2 -g -c -o $@ $<
"""
    part = "#ifdef FIRST\nlong scale(long x) { return x * 3; }\n#else\n"
    part += "long scale(long x);\nlong answer(long x) { return scale(x) + 1; }\n#endif\n"
    after = part.replace("long scale(long x) { return x * 3;", "long scale(long x, long y) { return x * 3 + y;")
    one = project(tmp_path, {"main.c": ASK, "part.c": part, "Makefile": makefile}, {"part.c": after})
    assert one.refusals() == [("signature_changed", "scale")]


def test_compile_and_link_in_one_call(tmp_path: Path) -> None:
    """cc main.c work.c -o prog keeps no objects."""
    one = project(tmp_path, FILES, CASE.after)
    assert functions(one.patch(build_command="cc -O2 main.c work.c -o prog")) == ["answer"]


def test_same_file_name_in_two_folders(tmp_path: Path) -> None:
    """Both files are called util.c and have static functions of the same names and sizes."""
    util = "static long state = %d;\n"
    util += "__attribute__((noinline)) static long step(long x) { state += x; return state * %d; }\n"
    util += "long %s(long x) { return step(x) + 1; }\n"
    files = {
        "main.c": ASK,
        "work.c": "long one(long), two(long);\nlong answer(long x) { return one(x) + two(x); }\n",
        "a/util.c": util % (1, 3, "one"),
        "b/util.c": util % (2, 5, "two"),
        "Makefile": MAKEFILE.replace("$(wildcard *.c)", "$(wildcard *.c */*.c)"),
    }
    one = project(tmp_path, files, {"b/util.c": files["b/util.c"].replace("state += x", "state -= x")})
    patch = one.patch()
    assert functions(patch) == ["step"]
    places = addresses(one.built())
    assert replaced(patch, "step").offset == max(places["step"])
    assert [r.offset for r in patch.manifest.references if r.name == "state"] == [max(places["state"])]


def test_same_code_in_two_files_that_calls_other_functions(tmp_path: Path) -> None:
    """Both files have the same name, the same static functions and the same bytes but for where they call."""
    util = "extern long %s_base(long);\nlong %s_calls;\n"
    util += "__attribute__((noinline)) static long step(long x) { %s_calls++; return %s_base(x) + 1; }\n"
    util += "long %s(long x) { return step(x) + 1; }\n"
    files = {
        "main.c": ASK,
        "work.c": "long one(long), two(long);\nlong answer(long x) { return one(x) + two(x); }\n"
        "long one_base(long x) { return x; }\nlong two_base(long x) { return x * 2; }\n",
        "a/util.c": util % (("one",) * 5),
        "b/util.c": util % (("two",) * 5),
        "Makefile": MAKEFILE.replace("$(wildcard *.c)", "$(wildcard *.c */*.c)"),
    }
    one = project(tmp_path, files, {"b/util.c": files["b/util.c"].replace("(x) + 1; }\nlong", "(x) + 5; }\nlong")})
    patch = one.patch()
    assert functions(patch) == ["step"]
    program = addresses(one.built())
    # The linker put b/util.c behind a/util.c.
    assert replaced(patch, "step").offset == max(program["step"])
    assert [r.offset for r in patch.manifest.references if r.name == "two_calls"] == program["two_calls"]


def test_one_object_linked_twice(tmp_path: Path) -> None:
    """The same source compiled twice into the same bytes: only the order of the link tells the copies apart."""
    makefile = """
prog: main.o first.o second.o
\t$(CC) -o $@ $^
first.o: part.c
\t$(CC) -O2 -DNAME=one -c -o $@ $<
second.o: part.c
\t$(CC) -O2 -DNAME=two -c -o $@ $<
"""
    part = (
        "__attribute__((noinline)) static long step(long x) { return x + 1; }\nlong NAME(long x) { return step(x); }\n"
    )
    main = ASK.replace("long answer(long x);", "long one(long), two(long);").replace("answer(x)", "one(x) + two(x)")
    files = {"main.c": main, "part.c": part, "Makefile": makefile}
    one = project(tmp_path, files, {"part.c": part.replace("x + 1", "x + 2")})
    patch = one.patch()
    assert functions(patch) == ["step", "step"]
    assert sorted(f.offset for f in patch.manifest.functions) == sorted(addresses(one.built())["step"])


def test_library_that_keeps_symbols_in(tmp_path: Path) -> None:
    """What another file defines is the object's own also where an alias, or a version script, keeps it in."""
    other = """
__attribute__((noinline)) long exported(long x) { return x + 1; }
extern __typeof(exported) exported_inside __attribute__((alias("exported"), visibility("hidden")));
__attribute__((noinline)) long kept_in(long x) { return x + 2; }
"""
    lib = """
extern long exported_inside(long) __attribute__((visibility("hidden")));
long kept_in(long);
long entry(long x) { return exported_inside(x) + kept_in(x); }
"""
    makefile = (
        "libwork.so.1: work.o other.o map\n"
        "\t$(CC) -shared -Wl,-soname,libwork.so.1 -Wl,--version-script=map -o $@ work.o other.o\n"
        "%.o: %.c\n\t$(CC) -O2 -g -fPIC -c -o $@ $<\n"
    )
    files = {"work.c": lib, "other.c": other, "map": "WORK_1 { global: exported; entry; local: *; };\n"}
    after = lib.replace("exported_inside(x) + kept_in(x)", "exported_inside(x) * 2 + kept_in(x)")
    one = project(tmp_path, {**files, "Makefile": makefile}, {"work.c": after}, artifact="libwork.so.1")
    patch = one.patch()
    assert functions(patch) == ["entry"]
    kinds = {r.name: r.kind for r in patch.manifest.references}
    assert kinds == {"exported_inside": "object", "kept_in": "object"}


def test_shared_library(tmp_path: Path) -> None:
    """Exported functions are called through the library's own slot, hidden ones directly."""
    lib = """
long shown = 3;
__attribute__((visibility("hidden"))) long hidden = 4;
static long local = 5;
__attribute__((noinline)) long exported(long x) { return x + shown; }
__attribute__((noinline, visibility("hidden"))) long internal(long x) { return x + hidden; }
long unused(long x) { return x; }
long entry(long x) { return exported(x) + internal(x) + local++; }
"""
    makefile = "libwork.so.1: work.c\n\t$(CC) -O2 -fPIC -shared -Wl,-soname,libwork.so.1 -o $@ $<\n"
    after = lib.replace("exported(x) + internal(x)", "exported(x) * 2 + internal(x) + shown + unused(x)")
    one = project(tmp_path, {"work.c": lib, "Makefile": makefile}, {"work.c": after}, artifact="libwork.so.1")
    patch = one.patch()
    assert functions(patch) == ["entry"]
    kinds = {r.name: (r.kind, r.slot > 0) for r in patch.manifest.references}
    assert kinds["exported"] == ("external", True)
    assert kinds["shown"] == ("external", True)
    assert kinds["unused"] == ("external", False)
    assert kinds["internal"] == ("object", False)
    assert kinds["local"] == ("object", False)
