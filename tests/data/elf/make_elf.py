#!/usr/bin/env python3
"""make_elf.py PLUGIN.so OUT: files that are no plugins here, each wrong in one way.

The note comes from PLUGIN.so; headers are written by hand, so none of the machines' compilers is
needed. tests/loader/test_elf.c lists each file with what is said of it.
"""
import pathlib
import struct
import sys

PT_NULL, PT_LOAD, PT_NOTE, PT_TLS = 0, 1, 4, 7
ET_REL, ET_EXEC, ET_DYN, ET_CORE = 1, 2, 3, 4
X86_64 = 62


class Elf:
    """An ELF file of headers and notes: a PT_LOAD over everything, then the given segments."""

    def __init__(self, machine=X86_64, bits=64, order="<", kind=ET_DYN):
        self.machine, self.bits, self.order, self.kind = machine, bits, order, kind
        self.segments = []  # (type, offset behind the headers, bytes, address or None: as mapped)
        self.body = b""
        self.sections = (0, 0)  # offset, count

    def add(self, kind, content, size=None, address=None):
        self.body += b"\0" * (-len(self.body) % 8)
        bytes_told = len(content) if size is None else size
        self.segments.append((kind, len(self.body), bytes_told, address))
        self.body += content
        return self

    def header(self):
        wide = self.bits == 64
        sizes = (64, 56, 64) if wide else (52, 32, 40)
        word = "Q" if wide else "I"
        ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if self.order == "<" else 2, 1]) + b"\0" * 9
        return ident + struct.pack(
            f"{self.order}HHI3{word}I6H",
            *(self.kind, self.machine, 1, 0, sizes[0], self.sections[0], 0, sizes[0], sizes[1]),
            *(len(self.segments) + 1, sizes[2], self.sections[1], 0),
        )

    def segment(self, kind, offset, size, address):
        if self.bits == 64:
            return struct.pack(self.order + "IIQQQQQQ", kind, 4, offset, address, address, size, size, 4)
        return struct.pack(self.order + "IIIIIIII", kind, offset, address, address, size, size, 4, 4)

    def bytes(self):
        head = self.header()
        begin = len(head) + (56 if self.bits == 64 else 32) * (len(self.segments) + 1)
        begin += -begin % 8
        table = self.segment(PT_LOAD, 0, begin + len(self.body), 0)
        for kind, offset, size, address in self.segments:
            at = begin + offset
            table += self.segment(kind, at, size, at if address is None else address)
        return (head + table).ljust(begin, b"\0") + self.body


def note_of(plugin):
    """The descriptor of our note in a plugin."""
    at = plugin.index(b"Kernelry\0\0\0\0")
    (size,) = struct.unpack_from("<I", plugin, at - 8)
    return plugin[at + 12 : at + 12 + size]


def note(descriptor, owner=b"Kernelry\0", kind=1, order="<"):
    head = struct.pack(order + "III", len(owner), len(descriptor), kind)
    return head + owner + b"\0" * (-len(owner) % 4) + descriptor


def foreign(descriptor):
    """Plugins for other machines, and ELF files that are no shared objects."""
    big = struct.pack(">6I", *struct.unpack_from("<6I", descriptor)) + descriptor[24:]
    little_end, big_end = note(descriptor), note(big, order=">")
    return {
        "i386.so": Elf(3, bits=32).add(PT_NOTE, little_end),
        "x32.so": Elf(X86_64, bits=32).add(PT_NOTE, little_end),
        "arm.so": Elf(40, bits=32).add(PT_NOTE, little_end),
        "mips.so": Elf(8, bits=32, order=">").add(PT_NOTE, big_end),
        "s390x.so": Elf(22, order=">").add(PT_NOTE, big_end),
        "ppc64.so": Elf(21, order=">").add(PT_NOTE, big_end),
        "ppc64le.so": Elf(21).add(PT_NOTE, little_end),
        "riscv64.so": Elf(243).add(PT_NOTE, little_end),
        "loongarch64.so": Elf(258).add(PT_NOTE, little_end),
        "object.o": Elf(kind=ET_REL).add(PT_NOTE, little_end),
        "program": Elf(kind=ET_EXEC).add(PT_NOTE, little_end),
        "core": Elf(kind=ET_CORE).add(PT_NOTE, little_end),
    }


def damaged(descriptor):
    """Shared objects for this machine whose notes or tables are wrong."""
    ours = note(descriptor)
    gnu = note(b"\1\2\3\4" * 5, owner=b"GNU\0", kind=3)
    words = struct.unpack_from("<6I", descriptor)
    later = struct.pack("<2I", words[0], words[1] + 1) + descriptor[8:]
    flags = descriptor[:12] + struct.pack("<I", 1) + descriptor[16:]

    def filled(begin, size):
        return Elf().add(PT_NOTE, note(descriptor[:begin] + b"a" * size + descriptor[begin + size :]))

    cut_table = Elf().add(PT_NOTE, ours)
    cut_table.sections = (64, 1000)
    no_table = Elf().add(PT_NOTE, ours)
    no_table.sections = (1 << 40, 1)
    return {
        "no-note.so": Elf().add(PT_NULL, ours),
        "build-id-alone.so": Elf().add(PT_NOTE, gnu),
        "owner-unended.so": Elf().add(PT_NOTE, note(descriptor, owner=b"Kernelry")),
        "owner-longer.so": Elf().add(PT_NOTE, note(descriptor, owner=b"Kernelry2\0")),
        "other-type.so": Elf().add(PT_NOTE, note(descriptor, kind=2)),
        "empty-note.so": Elf().add(PT_NOTE, note(b"")),
        "cut-note.so": Elf().add(PT_NOTE, ours, size=len(ours) - 1),
        "cut-head.so": Elf().add(PT_NOTE, ours, size=11),
        "cut-owner.so": Elf().add(PT_NOTE, struct.pack("<III", 9, 0, 1)),
        "unended-name.so": filled(24, 64),
        "unended-version.so": filled(88, 32),
        "unended-entry.so": filled(120, 96),
        "unended-platform.so": filled(216, 32),
        "two-notes.so": Elf().add(PT_NOTE, gnu + ours + ours),
        "two-segments.so": Elf().add(PT_NOTE, ours).add(PT_NOTE, ours),
        "later-abi.so": Elf().add(PT_NOTE, note(later)),
        "unknown-flags.so": Elf().add(PT_NOTE, note(flags)),
        "sections-cut.so": cut_table,
        "sections-beyond.so": no_table,
        "note-unmapped.so": Elf().add(PT_NOTE, ours, address=0x40000000),
        "note-elsewhere.so": Elf().add(PT_NOTE, ours, address=0),
    }


def in_plugin(plugin):
    """A plugin that would load, but for one field of a program header."""
    count = struct.unpack_from("<H", plugin, 56)[0]

    def with_address(kind, address, kind_after=None):
        copy = bytearray(plugin)
        for at in range(64, 64 + 56 * count, 56):
            if struct.unpack_from("<I", copy, at)[0] == kind:
                struct.pack_into("<I", copy, at, kind if kind_after is None else kind_after)
                struct.pack_into("<QQ", copy, at + 16, address, address)
        return bytes(copy)

    return {
        "loaded-note-unmapped.so": with_address(PT_NOTE, 0x7000000),
        "loaded-note-elsewhere.so": with_address(PT_NOTE, 0),
        "loaded-dynamic-unmapped.so": with_address(2, 0x7000000),
        "loaded-tls-unmapped.so": with_address(PT_NOTE, 0x7000000, PT_TLS),
    }


def other_files():
    """What else is found under a name with .so."""
    pe = b"MZ".ljust(60, b"\0") + struct.pack("<I", 64) + b"PE\0\0"
    return {
        "pe32.dll": pe + struct.pack("<HHIIIHH", 0x14C, 0, 0, 0, 0, 0, 0x2102),
        "pe64.dll": pe + struct.pack("<HHIIIHH", 0x8664, 0, 0, 0, 0, 0, 0x2022),
        "macho.dylib": struct.pack("<8I", 0xFEEDFACF, 0x01000007, 3, 6, 0, 0, 0, 0) + b"\0" * 64,
        "wasm.so": b"\0asm" + struct.pack("<I", 1) + b"\0" * 64,
        "archive.so": b"!<arch>\n" + b"plugin.o/       0           0     0     644     0         `\n" * 2,
        "linker-script.so": b"/* GNU ld script */\nGROUP ( /lib/libplugin.so.1 AS_NEEDED ( libm.so.6 ) )\n",
        "shell.so": b"#!/bin/sh\nexit 1\n",
        "python.so": b"#!/usr/bin/env python3\nimport sys\n\nsys.exit('this is no shared object')\n",
        "page.so": b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head></html>\n",
        "lfs-pointer.so": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64
        + b"\nsize 5080\n",
        "gzip.so": bytes.fromhex("1f8b0800000000000003") + b"\x5a" * 64,
        "empty.so": b"",
        "magic.so": b"\x7fELF",
    }


def main(plugin, out):
    descriptor = note_of(plugin)
    out.mkdir(exist_ok=True)
    for old in out.iterdir():
        old.unlink()
    for name, elf in {**foreign(descriptor), **damaged(descriptor)}.items():
        (out / name).write_bytes(elf.bytes())
    for name, content in {**in_plugin(plugin), **other_files()}.items():
        (out / name).write_bytes(content)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]).read_bytes(), pathlib.Path(sys.argv[2]))
