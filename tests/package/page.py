#!/usr/bin/env python3
"""page.py PAGE FILE: a page of docs/ as a script for bash that does what its reader does.

Blocks of ```sh are commands. A block of ```c replaces the section of FILE that has the same heading,
`/* ---- the heading ---- */`: from it to the next one. Blocks of another kind are shown, and not done.
page.py --replace FILE: read such a block from standard input, and replace.
"""
import re
import sys

HEADING = re.compile(r"^/\* ---- (.+?) -+ \*/$", re.MULTILINE)


def replace(path, block):
    source = open(path).read()
    heading = HEADING.match(block)
    if heading is None:
        sys.exit(f"a block of C begins with no heading: {block.splitlines()[0]}")
    sections = list(HEADING.finditer(source))
    for found, after in zip(sections, sections[1:] + [None]):
        if found[1] == heading[1]:
            rest = "\n" + source[after.start() :] if after else ""
            open(path, "w").write(source[: found.start()] + block.rstrip() + "\n" + rest)
            return
    sys.exit(f"{path} has no section '{heading[1]}'")


def script(page, file):
    yield "set -euo pipefail"
    count = 0
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```$", open(page).read(), re.M | re.S):
        if language == "sh":
            yield block
        elif language == "c":
            yield f"python3 {__file__} --replace {file} <<'END_OF_BLOCK'\n{block}END_OF_BLOCK"
        count += 1
    if count == 0:
        sys.exit(f"{page} has no block")


if sys.argv[1] == "--replace":
    replace(sys.argv[2], sys.stdin.read())
else:
    print("\n".join(script(sys.argv[1], sys.argv[2])))
