# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Random C programs of a few files, and random edits of them; the same for the same seed.

All arithmetic is on unsigned numbers, functions call only those with a smaller number (or themselves, with a depth), so
every program is defined and ends. Each file can show and set its state by name, static locals included; so two programs
can be brought to the same state, and compared in it.
"""

from __future__ import annotations

import copy
import random
import re
from dataclasses import dataclass, field

FILES = ("a", "b", "c")

HEADER = """
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
typedef unsigned long U;
struct rec { U x, y; int mode; const char *name; };
typedef void visitor(const char *name, U *value);
extern U *carry;
static inline U mixed(U a, U b) { return (a ^ b) * HEADER_CONSTANTUL + (b >> 7); }
static inline U text_sum(const char *s) { U n = 5; while (*s) n = n * 33 + (unsigned char)*s++; return n; }
"""

MAIN = """
#include "all.h"
U *carry;
U answer(U x, U y);
visitor *visit;
static char wanted[64];
static U value;
#define TIDY(name, size) __attribute__((noinline)) static void name(void) \\
    { char stack[size]; memset(stack, 0, size); __asm__ volatile("" : : "r"(stack) : "memory"); }
TIDY(tidy, 32768)
TIDY(tidy_between, 32768 + 40)
static void show(const char *name, U *v) { printf("%s=%lu ", name, *v); }
static void set(const char *name, U *v) { if (strcmp(name, wanted) == 0) *v = value; }
void visit_a(visitor *f);
void visit_b(visitor *f);
void visit_c(visitor *f);
int main(void)
{
    char line[200];
    U x, y;
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "answer %lu %lu", &x, &y) == 2) {
            printf("%lu\\n", answer(x, y));
        } else if (sscanf(line, "set %60s %lu", wanted, &value) == 2) {
            visit_a(set), visit_b(set), visit_c(set);
            puts("set");
        } else {
            visit_a(show), visit_b(show), visit_c(show);
            puts("");
        }
        fflush(stdout);
        tidy();
        tidy_between();
    }
    return 0;
}
"""

# How functions of each kind are declared, and what they have as x and y.
_PARAMETERS = {
    "plain": "(U x, U y)",
    "record": "(const struct rec *p)",
    "mode": "(U x, U y, int mode)",
    "variadic": "(int count, ...)",
}
_PROLOGUE = {
    "plain": "",
    "record": "    U x = p->x, y = p->y + p->mode;\n",
    "mode": "    if (mode == 1) x += y; else if (mode == 2) x ^= 0x55; else y = x * 3;\n",
    "variadic": "    va_list l; va_start(l, count); U x = va_arg(l, U), y = count > 1 ? va_arg(l, U) : 9; va_end(l);\n",
}

_OPERATIONS = (
    "(%s + %s)",
    "(%s * %s)",
    "(%s ^ %s)",
    "(%s - %s)",
    "(%s / (%s | 1))",
    "(%s %% (%s | 3))",
    "mixed(%s, %s)",
    "(%s >> (%s & 15))",
    "(%s & ~%s)",
    "(%s > %s)",
)


@dataclass
class Function:
    """One function: `statements` change r; `memos` are its static locals."""

    name: str
    file: str
    number: int
    kind: str
    static: bool
    attribute: str
    statements: list[str]
    memos: list[str] = field(default_factory=list)
    recursive: bool = False

    def prototype(self) -> str:
        """How it is declared."""
        return "%s%sU %s%s" % ("static " if self.static else "", self.attribute, self.name, _PARAMETERS[self.kind])

    def text(self) -> str:
        """Its definition."""
        lines = [self.prototype(), "{"]
        lines += ["    static U %s = %d;" % (memo, 3 + len(memo)) for memo in self.memos]
        lines += ["    if (carry) { U t = %s; %s = *carry; *carry = t; return 0; }" % (m, m) for m in self.memos[:1]]
        lines += [_PROLOGUE[self.kind] + "    U r = x + %d;" % self.number]
        lines += ["    " + statement for statement in self.statements]
        return "\n".join([*lines, "    return r;", "}"])

    def call(self, x: str, y: str, mode: int = 1) -> str:
        """An expression that calls it."""
        arguments = {
            "plain": "%s, %s" % (x, y),
            "record": '&(struct rec){%s, %s, %d, "rec"}' % (x, y, mode),
            "mode": "%s, %s, %d" % (x, y, mode),
            "variadic": "2, (U)(%s), (U)(%s)" % (x, y),
        }
        return "%s(%s)" % (self.name, arguments[self.kind])


@dataclass
class Program:
    """The functions in order, and for each file its variables, its tables of numbers, strings and functions."""

    functions: list[Function]
    variables: dict[str, list[tuple[str, bool, int]]]
    numbers: dict[str, list[list[int]]]
    strings: dict[str, list[list[str]]]
    tables: dict[str, list[list[str]]]
    header: int = 31

    def files(self) -> dict[str, str]:
        """Its source files."""
        shared = ["%s;" % f.prototype() for f in self.functions if not f.static]
        shared += [
            "extern U %s;" % name for file in FILES for name, static, _value in self.variables[file] if not static
        ]
        header = HEADER.replace("HEADER_CONSTANT", str(self.header)) + "\n".join(shared) + "\n"
        return {"all.h": header, "main.c": MAIN, **{"%s.c" % file: self._file(file) for file in FILES}}

    def _file(self, file: str) -> str:
        own = [f for f in self.functions if f.file == file]
        out = ['#include "all.h"']
        for name, static, value in self.variables[file]:
            out.append("%sU %s%s;" % ("static " if static else "", name, " = %d" % value if value else ""))
        for n, row in enumerate(self.numbers[file]):
            out.append("static const U numbers_%s%d[8] = {%s};" % (file, n, ", ".join(map(str, row))))
        for n, words in enumerate(self.strings[file]):
            out.append(
                "static const char *const words_%s%d[4] = {%s};" % (file, n, ", ".join('"%s"' % w for w in words))
            )
        out += [f.prototype() + ";" for f in own if f.static]
        for n, names in enumerate(self.tables[file]):
            out.append("static U (*const table_%s%d[4])(U, U) = {%s};" % (file, n, ", ".join(names)))
        out += [f.text() for f in own]
        out.append("void visit_%s(visitor *f)\n{\n    U t;" % file)
        for name, _static, _value in self.variables[file]:
            out.append('    t = %s; f("%s", &t); %s = t;' % (name, name, name))
        for one in own:
            for memo in one.memos[:1]:
                call = one.call("0", "0")
                out.append('    t = 0; carry = &t; %s; f("%s.%s", &t); %s; carry = 0;' % (call, one.name, memo, call))
        return "\n".join([*out, "}", ""])


class Writer:
    """Writes statements for functions of a program."""

    def __init__(self, draw: random.Random, program: Program) -> None:
        self.draw = draw
        self.program = program

    def value(self, function: Function) -> str:
        """An expression without calls."""
        draw, file = self.draw, function.file
        choices = ["x", "y", "r", "%dUL" % draw.randrange(1, 1 << draw.choice((3, 8, 20, 40)))]
        choices += [name for name, _static, _value in self.program.variables[file]]
        choices += ["numbers_%s%d[x & 7]" % (file, n) for n in range(len(self.program.numbers[file]))]
        choices += function.memos
        return draw.choice(choices)

    def expression(self, function: Function) -> str:
        """An expression of one or two operators."""
        a, b, c = (self.value(function) for _number in range(3))
        one = self.draw.choice(_OPERATIONS) % (a, b)
        return self.draw.choice(_OPERATIONS) % (one, c) if self.draw.random() < 0.5 else one

    def statement(self, function: Function) -> str:
        """Any statement."""
        draw = self.draw

        def e() -> str:
            return self.expression(function)

        kinds = [
            "set",
            "set",
            "if",
            "loop",
            "switch",
            "text",
            "float",
            "state",
            "call",
            "call",
            "words",
            "table",
            "rare",
        ]
        kind = draw.choice(kinds)
        if kind == "if":
            return "if (%s > %s) r ^= %s; else r += %s;" % (self.value(function), self.value(function), e(), e())
        if kind == "loop":
            return "for (U i = 0; i < (%s & %d); i++) r = r * 3 + (%s ^ i);" % (
                self.value(function), draw.choice((3, 7, 15)), self.value(function))  # fmt: skip
        if kind == "switch":
            cases = sorted(draw.sample(range(12), draw.randrange(4, 10)))
            body = " ".join("case %d: r %s %s; break;" % (n, draw.choice(("=", "+=", "^=")), e()) for n in cases)
            return "switch (%s %% 12) { %s default: r++; }" % (self.value(function), body)
        if kind == "text":
            word = "".join(draw.choices("abcdefgh ", k=draw.randrange(3, 20)))
            return '{ char b[64]; snprintf(b, sizeof b, "%%lu-%s", %s & 4095); r ^= text_sum(b); }' % (word, e())
        if kind == "float":
            return "{ double d = (double)(%s & 65535) * %.3f; r += (U)(long)(d + %.2f); }" % (
                e(), draw.uniform(0.1, 9), draw.uniform(0, 5))  # fmt: skip
        if kind == "rare":
            return 'if (__builtin_expect(%s == 77777UL, 0)) { fprintf(stderr, "rare %%lu\\n", r); r = %s; }' % (
                self.value(function), e())  # fmt: skip
        if kind == "state":
            names = [name for name, _static, _value in self.program.variables[function.file]] + function.memos
            if names:
                return "%s %s %s;" % (draw.choice(names), draw.choice(("=", "+=", "^=")), e())
        if kind == "words" and self.program.strings[function.file]:
            n = draw.randrange(len(self.program.strings[function.file]))
            return "r += strlen(words_%s%d[%s & 3]) * 7 + (U)words_%s%d[y & 3][0];" % (
                function.file, n, self.value(function), function.file, n)  # fmt: skip
        if kind == "table" and function.number >= 6 and self.program.tables[function.file]:
            n = draw.randrange(len(self.program.tables[function.file]))
            return "r ^= table_%s%d[%s & 3](%s, y);" % (function.file, n, self.value(function), self.value(function))
        if kind == "call" and sum("f" in re.findall(r"\b(f)\d+\(", s) for s in function.statements) < 2:
            callees = [
                f for f in self.program.functions
                if f.number < function.number and (f.file == function.file or not f.static)
            ]  # fmt: skip
            if callees:
                callee = draw.choice(callees)
                call = callee.call(self.value(function), self.value(function), draw.choice((1, 1, 2, 3)))
                return "r %s %s;" % (draw.choice(("+=", "^=", "-=")), call)
        return "r %s %s;" % (draw.choice(("=", "+=", "^=", "*=")), e())

    def fill(self, function: Function, count: int) -> None:
        """Give a function so many statements more."""
        for _number in range(count):
            function.statements.append(self.statement(function))
        if function.recursive:
            call = function.call("r + 3", "(y & 7) - 1", 2)
            function.statements.append("if (y & 7) r ^= %s;" % call)


def random_program(draw: random.Random) -> Program:
    """A program of 8 to 12 functions in three files."""
    program = Program(
        [], {f: [] for f in FILES}, {f: [] for f in FILES}, {f: [] for f in FILES}, {f: [] for f in FILES}
    )
    for file in FILES:
        for n in range(draw.randrange(1, 4)):
            program.variables[file].append(("v_%s%d" % (file, n), draw.random() < 0.7, draw.choice((0, 0, 7, 123456))))
        for _number in range(draw.randrange(0, 3)):
            program.numbers[file].append([draw.randrange(1 << 20) for _column in range(8)])
        if draw.random() < 0.6:
            program.strings[file].append(
                ["".join(draw.choices("klmnop", k=draw.randrange(1, 9))) for _word in range(4)]
            )
    writer = Writer(draw, program)
    count = draw.randrange(8, 13)
    for number in range(count):
        add_function(writer, number, draw.choice(FILES))
        if number == 5:
            for file in FILES:
                plain = [f.name for f in program.functions if f.kind == "plain" and (f.file == file or not f.static)]
                if plain and draw.random() < 0.7:
                    program.tables[file].append([draw.choice(plain) for _column in range(4)])
    last = Function("answer", "a", count, "plain", False, "", [])
    program.functions.append(last)
    for callee in [f for f in program.functions[:-1] if f.file == "a" or not f.static][-4:]:
        last.statements.append("r = r * 31 + %s;" % callee.call("r", "y", draw.choice((1, 2))))
    writer.fill(last, 2)
    return program


def add_function(writer: Writer, number: int, file: str, name: str = "") -> Function:
    """Write a new function; it can call those with smaller numbers."""
    draw = writer.draw
    kind = draw.choice(("plain", "plain", "plain", "record", "mode", "variadic"))
    attribute = draw.choice(("", "__attribute__((noinline)) ", "__attribute__((noinline)) "))
    one = Function(name or "f%d" % number, file, number, kind, draw.random() < 0.6, attribute, [])
    if draw.random() < 0.4:
        one.memos.append("memo")
    one.recursive = not one.memos and kind != "variadic" and draw.random() < 0.15
    writer.fill(one, draw.randrange(2, 6))
    if one.memos:
        one.statements.append("memo += r & 15;")
    writer.program.functions.append(one)
    return one


def random_edit(draw: random.Random, program: Program) -> tuple[Program, list[str]]:
    """Another version of a program, and what was done to it, in words."""
    new = copy.deepcopy(program)
    writer = Writer(draw, new)
    done: list[str] = []
    wanted = draw.choice((1, 1, 2, 3))
    for _attempt in range(50):
        if len(done) >= wanted and new.files() != program.files():
            break
        edit = draw.choice(_EDITS)
        said = edit(draw, new, writer)
        if said:
            done.append(said)
    return new, done


def _some(draw: random.Random, program: Program) -> Function:
    return draw.choice(program.functions)


def _constant(draw: random.Random, program: Program, writer: Writer) -> str:
    one = _some(draw, program)
    found = [(n, m) for n, s in enumerate(one.statements) for m in re.finditer(r"\b\d+(?:UL|\.\d+)", s)]
    if not found:
        return ""
    n, match = draw.choice(found)
    text = "%dUL" % draw.randrange(1, 1 << 16) if "UL" in match.group() else "%.3f" % draw.uniform(0.2, 7)
    one.statements[n] = one.statements[n][: match.start()] + text + one.statements[n][match.end() :]
    return "another constant in %s" % one.name


def _insert(draw: random.Random, program: Program, writer: Writer) -> str:
    one = _some(draw, program)
    one.statements.insert(draw.randrange(len(one.statements) + 1), writer.statement(one))
    return "a statement more in %s" % one.name


def _replace(draw: random.Random, program: Program, writer: Writer) -> str:
    one = _some(draw, program)
    one.statements[draw.randrange(len(one.statements))] = writer.statement(one)
    return "another statement in %s" % one.name


def _delete(draw: random.Random, program: Program, writer: Writer) -> str:
    one = _some(draw, program)
    if len(one.statements) < 2:
        return ""
    one.statements.pop(draw.randrange(len(one.statements)))
    return "a statement less in %s" % one.name


def _new_function(draw: random.Random, program: Program, writer: Writer) -> str:
    user = _some(draw, program)
    if user.number == 0 or any(f.name == "fresh%d" % user.number for f in program.functions):
        return ""
    if draw.random() < 0.5:
        name = "w_%s%d" % (user.file, user.number)
        if all(name != known for known, _static, _value in program.variables[user.file]):
            program.variables[user.file].append((name, True, draw.choice((0, 99))))
    if draw.random() < 0.5:
        program.strings[user.file].append(["new%d" % n for n in range(4)])
    one = add_function(writer, user.number - 1, user.file, "fresh%d" % user.number)
    program.functions.sort(key=lambda f: f.number)
    user.statements.insert(draw.randrange(len(user.statements) + 1), "r += %s;" % one.call("r", "x"))
    return "a new function in %s.c, called by %s" % (one.file, user.name)


def _remove_function(draw: random.Random, program: Program, writer: Writer) -> str:
    one = draw.choice(program.functions[:-1])
    if any(one.name in names for rows in program.tables.values() for names in rows):
        return ""
    program.functions.remove(one)
    for user in program.functions:
        user.statements[:] = [s if not re.search(r"\b%s\(" % one.name, s) else "r += x * 5;" for s in user.statements]
    return "%s is removed" % one.name


def _table(draw: random.Random, program: Program, writer: Writer) -> str:
    file = draw.choice(FILES)
    if not program.numbers[file]:
        return ""
    draw.choice(program.numbers[file])[draw.randrange(8)] = draw.randrange(1 << 20)
    return "a number in a table of %s.c" % file


def _word(draw: random.Random, program: Program, writer: Writer) -> str:
    file = draw.choice(FILES)
    if not program.strings[file]:
        return ""
    draw.choice(program.strings[file])[draw.randrange(4)] = "".join(draw.choices("qrstuv", k=draw.randrange(1, 12)))
    return "a word in a table of %s.c" % file


def _pointer(draw: random.Random, program: Program, writer: Writer) -> str:
    file = draw.choice(FILES)
    plain = [
        f.name for f in program.functions if f.kind == "plain" and (f.file == file or not f.static) and f.number < 6
    ]
    if not program.tables[file] or not plain:
        return ""
    draw.choice(program.tables[file])[draw.randrange(4)] = draw.choice(plain)
    return "a function in a table of %s.c" % file


def _memo(draw: random.Random, program: Program, writer: Writer) -> str:
    one = _some(draw, program)
    if not one.memos:
        one.memos.append("memo")
        one.statements.append("memo += r & 3; r += memo;")
        return "a static local in %s" % one.name
    one.memos.append("more%d" % len(one.memos))
    one.statements.append("%s ^= r & 7;" % one.memos[-1])
    return "a static local more in %s" % one.name


def _inlining(draw: random.Random, program: Program, writer: Writer) -> str:
    one = _some(draw, program)
    one.attribute = "" if one.attribute else "__attribute__((noinline)) "
    return "%s may be inlined, or not any more" % one.name


def _header(draw: random.Random, program: Program, writer: Writer) -> str:
    program.header += 2
    return "an inline function of the header"


# What happens most comes most often.
_EDITS = [_constant, _constant, _insert, _insert, _insert, _replace, _replace, _delete, _new_function, _new_function,
          _remove_function, _table, _word, _pointer, _memo, _inlining, _header]  # fmt: skip
