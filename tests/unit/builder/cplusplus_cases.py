# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A C++ program with what C++ has beyond C, and a change of each; and what must be refused."""

from __future__ import annotations

MAIN = r"""
#include <cstdio>
long answer(long x);
long deeper(long x) { return answer(x); }
int main()
{
    long x;
    puts("ready");
    fflush(stdout);
    while (scanf("%ld", &x) == 1) {
        try {
            printf("%ld\n", deeper(x));
        } catch (const char *text) {
            printf("caught %s\n", text);
        } catch (...) {
            puts("caught something");
        }
        fflush(stdout);
    }
}
"""

HEADER = r"""
#include <stdexcept>
#include <string>
#include <vector>
namespace shapes {
struct Counted {
    static long alive;
    Counted() { ++alive; }
    Counted(const Counted &) { ++alive; }
    ~Counted() { --alive; }
};
class Shape {
  public:
    explicit Shape(long size) : size_(size) {}
    virtual ~Shape();
    virtual long area(long x) const;
    long twice(long x) const { return 2 * area(x); }
  protected:
    long size_;
};
class Round : public Shape {
  public:
    explicit Round(long size) : Shape(size) {}
    long area(long x) const override;
};
template <typename T> __attribute__((noinline)) T largest(const std::vector<T> &all, T least)
{
    T found = least;
    for (const T &one : all)
        if (one > found)
            found = one;
    return found;
}
inline __attribute__((noinline)) long times(long x) { static long calls; calls += x & 1; return calls; }
}
long other(long x);
shapes::Shape *make(long x);
"""

WORK = r"""
#include "shapes.h"
#ifdef FULL
#include <functional>
#include <iostream>
#include <map>
#include <sstream>
static std::function<long(long)> kept = [](long x) { return x + 1; };
static long more(long x)
{
    std::map<std::string, long> names;
    names[std::to_string(x)] += kept(x);
    std::ostringstream out;
    out << names[std::to_string(x)] << " and " << x;
    return out.str().size();
}
#else
static long more(long x) { return x; }
#endif
using namespace shapes;
long Counted::alive;
static Round ring(7);
__attribute__((noinline)) static long careful(long x)
{
    Counted one;
    std::string text(x & 15, 'y');
    if (x == 2)
        throw std::out_of_range(text + "two");
    if (x == 3)
        throw 17L;
    if (x == 4)
        throw "four";
    return text.size() + other(x);
}
__attribute__((noinline)) static long guarded(long x)
{
    static const std::string once = std::to_string(x) + "!";
    return once.size() * 3 + x;
}
__attribute__((noinline)) static long catches(long x)
{
    Counted two;
    try {
        return careful(x) + Counted::alive;
    } catch (const std::out_of_range &e) {
        return std::string(e.what()).size() * 100 + Counted::alive;
    } catch (long number) {
        return number;
    }
}
long answer(long x)
{
    std::vector<long> some = {x, 3, x / 2};
    std::vector<double> parts = {x * 0.5, 2.25};
    Shape *made = make(x);
    long area = made->area(x) + ring.twice(x);
    delete made;
    return catches(x) + guarded(x) + largest(some, 1L) + (long)(largest(parts, 1.0) * 4) + times(x) + more(x)
        + area + Counted::alive;
}
"""

OTHER = r"""
#include "shapes.h"
using namespace shapes;
Shape::~Shape() {}
long Shape::area(long x) const { return size_ * x; }
long Round::area(long x) const { return size_ * x * 3; }
Shape *make(long x) { return x & 1 ? new Shape(x) : new Round(x + 1); }
long other(long x)
{
    std::vector<long> some = {x, 5};
    if (x == 6)
        throw std::runtime_error("six");
    return largest(some, 2L) + times(x);
}
"""

HEADER_EDITS = (
    (
        "T found = least;",
        'T found = least; if (all.size() > 100) throw std::length_error("many");\n    found = found + 1;',
    ),
    ("calls += x & 1;", "calls += x & 3;"),
)
_NEW = r"""
struct Wide : public Counted {
    virtual ~Wide() {}
    virtual long width(long x) { return x * 11; }
};
struct Wider : public Wide { long width(long x) override { return x * 13; } };
struct Odd : public std::runtime_error { Odd() : std::runtime_error("odd one") {} long number = 4; };
template <typename T> static T middle(T a, T b) { static T sum; sum += a; return sum / 2 + b; }
__attribute__((noinline)) static long fresh(long x)
{
    static std::vector<long> seen;
    static const std::string prefix = std::string("fresh ") + std::to_string(x);
    struct Owner { Wide *wide; ~Owner() { delete wide; } } wide = {x & 1 ? new Wide : new Wider};
    auto over = [&seen = seen, x](long y) { seen.push_back(y); return x > y; };
    if (dynamic_cast<Wider *>(wide.wide) && x == 8)
        throw Odd();
    return prefix.size() + middle(x, 3L) + over(x - 5) + seen.size() + wide.wide->width(x);
}
"""
WORK_EDITS = (
    ("static Round ring(7);\n", "static Round ring(7);\n" + _NEW),
    ("    if (x == 3)\n", "    if (x == 5)\n        throw Odd();\n    if (x == 3)\n"),
    ("if (x == 4)", "if (x == 4 || x == 7)"),
    ("once.size() * 3", "once.size() * 5"),
    (
        "    } catch (long number) {\n        return number;",
        """    } catch (const Odd &odd) {
        return odd.number + Counted::alive;
    } catch (long number) {
        return -number + fresh(x);""",
    ),
    ("return careful(x) + Counted::alive;", "return careful(x) * 2 + fresh(x) + Counted::alive;"),
    ("return x + 1;", "return x + 10;"),
    ('" and "', '" and then "'),
)
OTHER_EDITS = (
    ("return size_ * x * 3;", 'if (x == 9) throw "nine"; return size_ * x * 4;'),
    ("return size_ * x; }", "return size_ * x + 1; }"),
    ("if (x == 6)", "if (x == 6 || x == 1)"),
)

MAKEFILE = """
CXXFLAGS = -O2 -g
WORK = work.o other.o
prog: main.o $(WORK)
\t$(CXX) $(CXXFLAGS) $(LINK) -o $@ main.o $(WORK) -Wl,-rpath,'$$ORIGIN'
libwork.so: work.o other.o
\t$(CXX) $(CXXFLAGS) -shared -o $@ work.o other.o
"""
FILES = {"main.cc": MAIN, "work.cc": WORK, "other.cc": OTHER, "shapes.h": HEADER, "Makefile": MAKEFILE}

# Exceptions only, in two threads, nothing that would keep the patch: it can be taken out again.
THROWING_MAIN = r"""
#include <cstdio>
#include <pthread.h>
#include <unistd.h>
long answer(long x);
static volatile bool runs = true;
static volatile long wrong;
static void *throws(void *none)
{
    while (runs)
        for (long x = 0; x < 50; ++x)
            try {
                if (answer(x & 1 ? 1001 : 1000) != 5)
                    ++wrong;
            } catch (const char *) {
                ++wrong;
            } catch (int) {
            }
    return none;
}
int main()
{
    long x;
    pthread_t thread;
    pthread_create(&thread, 0, throws, 0);
    puts("ready");
    fflush(stdout);
    while (scanf("%ld", &x) == 1) {
        long found;
        try {
            found = answer(x);
        } catch (int number) {
            found = -number;
        }
        printf("%ld %ld\n", found, wrong);
        fflush(stdout);
    }
    runs = false;
    pthread_join(thread, 0);
    return 0;
}
"""
THROWING = r"""
struct Guard { long *to; ~Guard() { ++*to; } };
__attribute__((noinline)) long inner(long x, long *to)
{
    Guard guard = {to};
    if (x == 1000)
        throw 5L;
    if (x & 1)
        throw 3;
    return x;
}
__attribute__((noinline)) long answer(long x)
{
    long count = 0;
    try {
        return inner(x, &count);
    } catch (long number) {
        return number + count - 1;
    }
}
"""
THROWING_EDITS = (
    ("throw 3;", "throw 3 + 2;"),
    ("return x;", "return x + 1;"),
    ("catch (long number) {", "catch (long number) {\n        ++count, --count;"),
)
