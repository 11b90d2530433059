#!/usr/bin/env python3
"""cut_elf.py PLUGIN.so OUT: a shared object's headers and notes alone, for the corpus.

Everything that the note parser does not read is dropped: section headers, and the bytes of
segments other than PT_NOTE, which come to have none; but the first that is loaded holds the file.
"""
import struct
import sys

HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
SEGMENT = struct.Struct("<IIQQQQQQ")
PT_LOAD, PT_NOTE = 1, 4


def cut(file):
    header = list(HEADER.unpack_from(file))
    table, size, count = header[5], header[9], header[10]
    segments = [list(SEGMENT.unpack_from(file, table + i * size)) for i in range(count)]
    end = HEADER.size + count * SEGMENT.size
    notes = b""
    for segment in segments:
        kind, _, offset, _, _, bytes_in_file, _, _ = segment
        segment[2] = segment[3] = segment[4] = segment[5] = 0
        if kind == PT_NOTE:
            notes += b"\0" * (-(end + len(notes)) % 8)
            segment[2] = segment[3] = end + len(notes)
            segment[5] = bytes_in_file
            notes += file[offset : offset + bytes_in_file]
    loaded = next(s for s in segments if s[0] == PT_LOAD)
    loaded[5] = loaded[6] = end + len(notes)
    header[5], header[6], header[11:] = HEADER.size, 0, [0, 0, 0]
    return HEADER.pack(*header) + b"".join(SEGMENT.pack(*s) for s in segments) + notes


if __name__ == "__main__":
    with open(sys.argv[1], "rb") as source, open(sys.argv[2], "wb") as out:
        out.write(cut(source.read()))
