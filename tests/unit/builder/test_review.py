# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a reviewer is told of a patch: locks, what is done once, its size, copies of the code elsewhere; and no more."""

from __future__ import annotations

from pathlib import Path

import pytest
from projects import ASK, project

from module_utils._build.review import is_lock_function

LOCKS = """
#include <pthread.h>
#include <semaphore.h>
#define OWN __attribute__((noinline, noipa))
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static sem_t sem;
static long total, first;
OWN void db_lock(void) { pthread_mutex_lock(&mutex); }
OWN void db_unlock(void) { pthread_mutex_unlock(&mutex); }
OWN static long guarded(long x) { db_lock(); total += x; db_unlock(); return total; }
OWN static long open(long x) { if (x < 0) return 0; total += x; return total; }
OWN static long clocked(long x) { sem_post(&sem); total -= x; return total; }
static void begin(void) { first = 5; sem_init(&sem, 0, 1); }
OWN static long start(long x) { pthread_once(&once, begin); return x + first; }
long answer(long x) { return guarded(x) + open(x) + clocked(x) + start(x); }
"""


def warnings_of(folder: Path, *edits: tuple[str, str]) -> list[str]:
    """The warnings for the program with these edits."""
    after = LOCKS
    for old, new in edits:
        assert after.count(old) == 1, old
        after = after.replace(old, new)
    one = project(folder, {"work.c": LOCKS, "main.c": ASK}, {"work.c": after}, build_command="make LDLIBS=-pthread")
    return list(one.build().warnings)


def test_locks(tmp_path: Path) -> None:
    """A function that takes a lock more or less, by the C library's or the program's own functions."""
    found = warnings_of(
        tmp_path,
        ("{ db_lock(); total += x; db_unlock(); return", "{ total += x; return"),
        ("if (x < 0) return 0; total", "pthread_mutex_lock(&mutex); total"),
        ("sem_post(&sem); total -= x;", "sem_wait(&sem); total -= x; sem_post(&sem);"),
    )
    assert [words.split(":")[0] for words in found] == [
        "guarded no longer calls db_lock, no longer calls db_unlock",
        "open now calls pthread_mutex_lock",
        "clocked now calls sem_wait",
    ]


def test_the_same_locks_are_not_worth_a_word(tmp_path: Path) -> None:
    """A way out more, that releases the lock as the others do."""
    out = "{ db_lock(); if (x == 9) { db_unlock(); return 1; } total += x;"
    assert warnings_of(tmp_path, ("{ db_lock(); total += x;", out)) == []


def test_what_is_done_once(tmp_path: Path) -> None:
    """The function given to pthread_once, and the one that calls it."""
    found = warnings_of(tmp_path, ("first = 5", "first = 6"), ("return x + first;", "return x + 2 * first;"))
    assert len(found) == 2
    assert found[0].startswith("begin is run once, by pthread_once in start")
    assert found[1].startswith("start does something only once, by pthread_once")


@pytest.mark.parametrize(
    ("name", "is_lock"),
    [
        ("pthread_rwlock_tryrdlock", True),
        ("item_trylock", True),
        ("ngx_spinlock", True),
        ("dbUnlock", True),
        ("LOCK", True),
        ("aMutexLock", True),
        ("clock_gettime", False),
        ("block_signals", False),
        ("pthread_mutex_init", False),
        ("lookup", False),
    ],
)
def test_names_of_lock_functions(name: str, is_lock: bool) -> None:
    """Words in a name, not parts of words."""
    assert is_lock_function(name) == is_lock


def test_large_patch(tmp_path: Path) -> None:
    """Below the limit, but more than a fix: said with figures."""
    text = "".join("__attribute__((noinline)) long f%d(long x) { return x + %d; }\n" % (n, n) for n in range(50))
    text += "long answer(long x) { return f1(x); }\n"
    one = project(tmp_path, {"main.c": ASK, "work.c": text}, {"work.c": text.replace("x + ", "x * 5 + ")})
    (words,) = one.build().warnings
    assert words.startswith("this is an upgrade, not a fix: it replaces 50 functions, brings 0 new ones, and holds ")


TWO = """
CFLAGS = -O2 -g -fPIC
all: prog tool libwork.so
prog: main.o work.o shared.o
\t$(CC) -o $@ $^
tool: tool.o shared.o
\t$(CC) -o $@ $^
libwork.so: work.o
\t$(CC) -shared -o $@ $^
"""


def test_copies_in_other_objects(tmp_path: Path) -> None:
    """Code of a header in two programs of a build, a file linked into both, and a header of a library."""
    header = "static inline long scale(long x) { return x * 3; }\n"
    files = {
        "main.c": ASK,
        "work.c": '#include "scale.h"\nlong shared(long);\nlong answer(long x) { return scale(x) + shared(x); }\n',
        "tool.c": '#include "scale.h"\nlong shared(long);\nint main(int n) { return scale(n) + shared(n); }\n',
        "shared.c": "long shared(long x) { return x; }\n",
        "scale.h": header,
        "Makefile": TWO,
    }
    change = {"scale.h": header.replace("* 3", "* 5"), "shared.c": "long shared(long x) { return x - 1; }\n"}
    one = project(tmp_path / "programs", files, change)
    assert list(one.build().warnings) == [
        "shared.c is linked into tool, too: patch these as well",
        "the code in scale.h changes; what libwork.so, tool compiled in of it stays as it is: patch these as well",
    ]
    only = {**files, "Makefile": TWO.replace("prog tool ", ""), "work.c": files["work.c"].replace("+ shared(x)", "")}
    one = project(tmp_path / "library", only, {"scale.h": change["scale.h"]}, artifact="libwork.so")
    assert list(one.build().warnings) == [
        "the code in scale.h changes; programs that compiled it in and use this library keep what they have"
    ]
    change = {"scale.h": "/* said */\n" + header, "work.c": files["work.c"].replace("scale(x) +", "scale(x) -")}
    assert list(project(tmp_path / "comment", files, change, artifact="prog").build().warnings) == [
        "work.c is linked into libwork.so, too: patch these as well"
    ]
