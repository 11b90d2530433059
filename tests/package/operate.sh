#!/usr/bin/env bash
# docs/operate.md explains each variable that the sources read, and each line that the core logs.
source "$(dirname "$0")/common.sh"
need python3

cd "$PACKAGE_SOURCE"
python3 - <<'END'
import pathlib, re

page = re.sub(r"```.*?```", "", pathlib.Path("docs/operate.md").read_text(), flags=re.S)
page = re.sub(r"\s+", " ", page)
missing = []
variables, messages = set(), set()
for folder in ("core", "checkpoint", "plugins", "tools", "python/src"):
    for file in pathlib.Path(folder).rglob("*"):
        if file.suffix not in (".c", ".h", ".py"):
            continue
        text = file.read_text()
        variables |= set(re.findall(r'"(KERNELRY_[A-Z_0-9]+)"', text))
        if folder != "core":
            continue
        text = re.sub(r'"\s*"', "", text)
        formats = re.findall(r'core_log\([^;"]*"((?:[^"\\]|\\.)*)"', text)
        if file.name in ("note.c", "trust.c", "load.c"):
            formats += re.findall(r'"((?:has|is|was|needs|lacks|cannot|ends|its|the note|kernel %s) (?:[^"\\]|\\.)*)"', text)
        messages |= set(formats)
for variable in variables:
    if f"`{variable}" not in page:
        missing.append(variable)
# An entry of the page is what a message begins with, … standing for what is filled in.
entries = [".*".join(map(re.escape, entry.split("…"))) for entry in re.findall(r"`([^`]+)`", page)]
for message in messages - {"%s"}:
    filled = re.sub(r"%[-.*0-9#]*(ll|z)?[a-zA-Z]", "X", message)
    if not any(len(entry) > 8 and re.match(entry, filled) for entry in entries):
        missing.append(message)
print(len(variables), "variables,", len(messages), "messages")
assert len(variables) > 8 and len(messages) > 30
assert not missing, "docs/operate.md does not explain:\n" + "\n".join(missing)
END
