#!/usr/bin/env python3
"""The ABI of the public C headers as a table: the layout of every struct, the value of every constant,
the type of every function, the symbols of the libraries. One table a minor is checked in, beside this
file.

  abi.py table INCLUDE [LIBRARY...]          print the table of headers (and built libraries)
  abi.py check SOURCE [LIBRARY...]           compare SOURCE's headers with what is checked in
  abi.py record SOURCE [LIBRARY...]          write the table of a minor that is not released yet

clang tells what is declared; a C program, compiled with --cc and started with --run, tells sizes,
offsets and values.
"""

import argparse
import difflib
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

HEADERS = ("checkpoint.h", "plugin.h")  # they include the others
HERE = pathlib.Path(__file__).resolve().parent


# ---- what is declared ----------------------------------------------------------------------------

def source_text():
    return "".join(f"#include <kernelry/{header}>\n" for header in HEADERS)


def clang(include, *arguments):
    return subprocess.run(["clang", "-std=c17", f"-I{include}", "-x", "c", *arguments, "-"],
                          input=source_text(), capture_output=True, text=True, check=True).stdout


class Declarations:
    """Structs, constants, typedefs and functions of our headers, as clang's syntax tree has them."""

    def __init__(self, include):
        self.structs, self.constants, self.typedefs, self.functions = {}, [], {}, {}
        tree = json.loads(clang(include, "-fsyntax-only", "-Xclang", "-ast-dump=json"))
        for node in tree["inner"]:
            if not node.get("isImplicit"):
                self.take(node)
        self.macros = self.find_macros(include)

    def take(self, node):
        name, kind = node.get("name", ""), node["kind"]
        if kind == "EnumDecl":
            self.constants += [child["name"] for child in node.get("inner", ())
                               if child["kind"] == "EnumConstantDecl"
                               and child["name"].startswith("KRY_")]
        if not name.startswith("kry_"):
            return
        if kind == "RecordDecl" and node.get("completeDefinition"):
            self.structs[name] = [(field["name"], field["type"]["qualType"])
                                  for field in node["inner"] if field["kind"] == "FieldDecl"]
        elif kind == "TypedefDecl":
            underlying = node["type"]["qualType"]
            if underlying != f"struct {name}":
                self.typedefs[name] = underlying
        elif kind == "FunctionDecl" and node.get("storageClass") != "static":
            self.functions[name] = node["type"]["qualType"]

    @staticmethod
    def find_macros(include):
        """Macros that stand for a value. The ABI's own number is the table's head."""
        lines = clang(include, "-E", "-dM").splitlines()
        found = (re.match(r"#define (KRY_[A-Z0-9_]+) (.+)", line) for line in lines)
        return sorted(match[1] for match in found if match
                      and not re.match(r"KRY_(API|PLUGIN_LINKAGE|ABI_[A-Z]+)$", match[1]))


# ---- what it measures ----------------------------------------------------------------------------

def program_of(declared):
    """C that prints 'struct name size', 'field struct name offset size' and 'value name text'."""
    lines = [source_text(), "#include <stdio.h>",
             "static void text(const char *name, const char *value) {",
             '    printf("value %s \\"%s\\"\\n", name, value); }',
             "static void number(const char *name, long long value) {",
             '    printf("value %s %lld\\n", name, value); }',
             "#define VALUE(name) _Generic((name), char *: text, const char *: text, "
             "default: number)(#name, (name))",
             "int main(void) {"]
    for name, fields in declared.structs.items():
        lines.append(f'printf("struct {name} %zu\\n", sizeof({name}));')
        lines += [f'printf("field {name} {field} %zu %zu\\n", offsetof({name}, {field}), '
                  f"sizeof((({name} *)0)->{field}));" for field, _ in fields]
    lines += [f"VALUE({name});" for name in [*declared.constants, *declared.macros]]
    lines.append("return 0; }")
    return "\n".join(lines)


def measure(declared, include, options):
    with tempfile.TemporaryDirectory() as folder:
        program = os.path.join(folder, "measure")
        subprocess.run([*shlex.split(options.cc), "-std=c17", "-w", f"-I{include}", "-x", "c", "-",
                        "-o", program], input=program_of(declared), text=True, check=True)
        printed = subprocess.run([*options.run, program], capture_output=True, text=True,
                                 check=True).stdout
    return [line.split(maxsplit=2) for line in printed.splitlines()]


def symbols_of(library):
    printed = subprocess.run(["nm", "-D", "--defined-only", "--with-symbol-versions", library],
                             capture_output=True, text=True, check=True).stdout
    named = subprocess.run(["readelf", "-d", library], capture_output=True, text=True,
                           check=True).stdout
    soname = re.search(r"Library soname: \[(.*)\]", named)[1]
    return [(f"symbol {soname} {line.split()[2]}", line.split()[1])
            for line in printed.splitlines()]


def version_of(include):
    types = (include / "kernelry/types.h").read_text()
    return ".".join(re.search(rf"#define KRY_ABI_{part} (\d+)", types)[1]
                    for part in ("MAJOR", "MINOR"))


def table_of(include, libraries, options):
    """{what it is: how it is}, in the order in which it is printed."""
    declared = Declarations(include)
    table = {"abi": version_of(include)}
    types = {(name, field): kind for name, fields in declared.structs.items()
             for field, kind in fields}
    for what, name, rest in measure(declared, include, options):
        if what == "field":
            field, offset, size = rest.split()
            table[f"field {name}.{field}"] = \
                f"at {offset}, {size} bytes, {types[name, field]}"
        else:
            table[f"{what} {name}"] = f"{rest} bytes" if what == "struct" else rest
    for name, kind in declared.typedefs.items():
        table[f"typedef {name}"] = kind
    for name, kind in declared.functions.items():
        table[f"function {name}"] = kind
    for library in libraries:
        table.update(symbols_of(library))
    return table


def print_table(table):
    return "".join(f"{what}: {how}\n" for what, how in table.items())


def parse_table(text):
    return dict(line.split(": ", 1) for line in text.splitlines())


# ---- what must hold ------------------------------------------------------------------------------

def section_of(changelog, version):
    """The text of '### ABI version', and whether it stands below '## Unreleased'."""
    released, section, found = False, None, None
    for line in changelog.splitlines():
        if line.startswith("## "):
            released = not line.startswith("## Unreleased")
        if line.startswith("#"):
            section = line
        elif section == f"### ABI {version}":
            found = ((found[0] if found else "") + line + "\n", released)
    return found


def is_told(name, text):
    """By its name, or by a pattern such as KRY_MAP_*."""
    words = re.findall(r"[A-Za-z_0-9]+\*?", text)
    return any(word == name or (word.endswith("*") and name.startswith(word[:-1]))
               for word in words)


def recorded(tables):
    """The tables that are checked in, oldest first."""
    files = {tuple(map(int, path.stem.split("."))): path for path in tables.glob("[0-9]*.txt")}
    return [(version, parse_table(files[version].read_text())) for version in sorted(files)]


def check_growth(before, now):
    """Within a major things are added, at the end, and nothing changes."""
    wrong = []
    for what, how in before.items():
        if what == "abi":
            continue
        if what not in now:
            wrong.append(f"{what} is gone")
        elif what.startswith("struct "):
            if int(now[what].split()[0]) < int(how.split()[0]):
                wrong.append(f"{what}: {how} before, {now[what]} now")
        elif now[what] != how:
            wrong.append(f"{what}: '{how}' before, '{now[what]}' now")
    ends = {what.split()[1]: int(how.split()[0]) for what, how in before.items()
            if what.startswith("struct ")}
    for what, how in now.items():
        struct = what.removeprefix("field ").split(".")[0]
        if what.startswith("field ") and what not in before and struct in ends:
            if int(re.match(r"at (\d+)", how)[1]) < ends[struct]:
                wrong.append(f"{what}: {how}, inside what {struct} had before")
    return wrong


def check_told(before, now, version, text):
    """What is new is in the changelog, by name."""
    names = set()
    for what in now.keys() - before.keys():
        kind, name = what.split(maxsplit=1)
        struct, _, field = name.partition(".")
        if kind == "field" and f"struct {struct}" in before:
            names.add(field)
        elif kind != "field" and kind != "symbol":
            names.add(name)
    return [f"CHANGELOG.md, section ABI {version}: does not tell of {name}"
            for name in sorted(names) if not is_told(name, text)]


def check_symbols(now):
    """What is declared is exported, and nothing else; libraries are called after the major."""
    names = {what.split()[1] for what in now if what.startswith("symbol ")}
    major = now["abi"].split(".")[0]
    declared = {what.split()[1] for what in now if what.startswith("function ")}
    exported = {what.split()[2].split("@")[0] for what in now if what.startswith("symbol ")}
    wrong = [f"{name}: found a soname of another ABI, expected one that ends with .so.{major}"
             for name in sorted(names) if not name.endswith(f".so.{major}")]
    wrong += [f"{name} is declared and exported by no library"
              for name in sorted(declared - exported)]
    return wrong + [f"{name} is exported and declared nowhere"
                    for name in sorted(exported - declared)]


def check(source, now, tables_at=HERE):
    version = now["abi"]
    changed = section_of((source / "CHANGELOG.md").read_text(), version)
    if changed is None:
        return [f"CHANGELOG.md has no section '### ABI {version}'"]
    tables = recorded(tables_at)
    number = tuple(map(int, version.split(".")))
    own = dict(tables).get(number)
    if own is None:
        return [f"ABI {version} has no table: tests/abi/abi.py record"]
    if own != now:
        lines = difflib.unified_diff(print_table(own).splitlines(), print_table(now).splitlines(),
                                     f"ABI {version} as recorded", "as it is", lineterm="", n=0)
        return [*lines, "the ABI changed: raise KRY_ABI_MINOR (KRY_ABI_MAJOR where something that "
                "was there changed), tell of it in CHANGELOG.md, then tests/abi/abi.py record"]
    wrong = check_symbols(now)
    earlier = [table for other, table in tables if other < number and other[0] == number[0]]
    if earlier:
        wrong += check_growth(earlier[-1], now)
        wrong += check_told(earlier[-1], now, version, changed[0])
    return wrong


def check_kept(options):
    """Headers that are kept are those that their table was made from."""
    wrong = []
    for include in sorted(HERE.glob("*/include")):
        version = include.parent.name
        kept = table_of(include, [], options)
        told = parse_table((HERE / f"{version}.txt").read_text())
        if kept != {what: how for what, how in told.items() if not what.startswith("symbol ")}:
            wrong.append(f"tests/abi/{version}/include is not what {version}.txt tells")
    return wrong


def record(source, now, tables_at=HERE):
    version = now["abi"]
    path = tables_at / f"{version}.txt"
    section = section_of((source / "CHANGELOG.md").read_text(), version)
    if path.exists() and (section is None or section[1]):
        sys.exit(f"ABI {version} is released: raise KRY_ABI_MINOR in include/kernelry/types.h")
    path.write_text(print_table(now))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("table", "check", "record"))
    parser.add_argument("place", type=pathlib.Path)
    parser.add_argument("libraries", nargs="*")
    parser.add_argument("--cc", default="cc")
    parser.add_argument("--run", type=shlex.split, default=[])
    options = parser.parse_args()
    include = options.place if options.what == "table" else options.place / "include"
    now = table_of(include, options.libraries, options)
    if options.what == "table":
        print(print_table(now), end="")
    elif options.what == "record":
        record(options.place, now)
    else:
        wrong = check(options.place, now) + check_kept(options)
        print("\n".join(wrong) if wrong else f"ABI {now['abi']}: {len(now) - 1} facts, as recorded")
        sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
