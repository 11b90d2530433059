#!/usr/bin/env python3
"""What the gate of abi.py lets through and what not, on changed copies of the headers.

Started as `abi.py check` is: test_abi.py SOURCE [LIBRARY...].
"""

import argparse
import pathlib
import shlex
import shutil
import sys
import tempfile
import unittest

import abi

CHANGELOG = "# Changelog\n\n## Unreleased: 0.1.0\n\n### ABI 0.8\n- Added: `KRY_NEW_*`, `kry_new`.\n" \
            "\n### ABI 0.7\n- All.\n"
options = argparse.Namespace()


class Gate(unittest.TestCase):
    """A copy of the headers that says it is ABI 0.7, recorded; each test changes it."""

    @classmethod
    def setUpClass(cls):
        cls.table = abi.table_of(options.source / "include", options.libraries, options)
        cls.table["abi"] = "0.7"

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.source = pathlib.Path(folder.name)
        shutil.copytree(options.source / "include", self.source / "include")
        (self.source / "CHANGELOG.md").write_text(CHANGELOG)
        self.call_it("0.7")
        abi.record(self.source, self.table, self.source)

    def change(self, header, old, new):
        path = self.source / "include/kernelry" / header
        text = path.read_text()
        self.assertIn(old, text)
        path.write_text(text.replace(old, new, 1))

    def call_it(self, version):
        path = self.source / "include/kernelry/types.h"
        lines = path.read_text().splitlines()
        major, minor = version.split(".")
        for number, line in enumerate(lines):
            if line.startswith("#define KRY_ABI_MAJOR "):
                lines[number] = f"#define KRY_ABI_MAJOR {major}"
            if line.startswith("#define KRY_ABI_MINOR "):
                lines[number] = f"#define KRY_ABI_MINOR {minor}"
        path.write_text("\n".join(lines) + "\n")

    def measured(self):
        return abi.table_of(self.source / "include", options.libraries, options)

    def found(self):
        return "\n".join(abi.check(self.source, self.measured(), self.source))

    def append_field(self, field="uint64_t added"):
        self.change("types.h", "    uint64_t zeroed_bytes;  /* cleared once by the caller, left "
                    "cleared by each apply */\n} kry_workspace;",
                    f"    uint64_t zeroed_bytes;\n    {field};\n}} kry_workspace;")

    def test_headers_as_recorded_pass(self):
        self.assertEqual(self.found(), "")

    def test_field_that_is_added_without_a_bump_fails(self):
        self.append_field()
        found = self.found()
        self.assertIn("field kry_workspace.added: at 24, 8 bytes, uint64_t", found)
        self.assertIn("raise KRY_ABI_MINOR", found)

    def test_constant_that_changes_without_a_bump_fails(self):
        self.change("types.h", "KRY_E_STALE = 16", "KRY_E_STALE = 17")
        self.assertIn("value KRY_E_STALE: 17", self.found())

    def test_macro_that_changes_without_a_bump_fails(self):
        self.change("types.h", "#define KRY_ALIGNMENT 256", "#define KRY_ALIGNMENT 128")
        self.assertIn("value KRY_ALIGNMENT: 128", self.found())

    def test_function_that_changes_without_a_bump_fails(self):
        self.change("kernelry.h", "kry_layer_workspace(const kry_layer *layer, int64_t m",
                    "kry_layer_workspace(const kry_layer *layer, int32_t m")
        self.assertIn("+function kry_layer_workspace", self.found())

    def test_bump_without_a_section_in_the_changelog_fails(self):
        self.call_it("0.9")
        self.assertIn("no section '### ABI 0.9'", self.found())

    def test_bump_without_a_table_fails(self):
        self.call_it("0.8")
        self.assertIn("ABI 0.8 has no table", self.found())

    def bump(self):
        self.call_it("0.8")
        abi.record(self.source, self.measured(), self.source)

    def test_field_at_the_end_of_the_next_minor_must_be_told(self):
        self.append_field("uint64_t surprise")
        self.bump()
        self.assertEqual(self.found(),
                         "CHANGELOG.md, section ABI 0.8: does not tell of surprise")

    def test_constants_told_by_a_pattern_pass(self):
        self.change("types.h", "#define KRY_ALIGNMENT 256",
                    "#define KRY_ALIGNMENT 256\n#define KRY_NEW_ONE 1\n#define KRY_NEW_TWO 2")
        self.bump()
        self.assertEqual(self.found(), "")

    def test_field_in_the_middle_fails_in_any_minor(self):
        self.change("types.h", "    uint64_t scratch_bytes; /* any contents */",
                    "    uint64_t kry_new;\n    uint64_t scratch_bytes;")
        self.bump()
        found = self.found()
        self.assertIn("field kry_workspace.scratch_bytes: 'at 8", found)
        self.assertIn("inside what kry_workspace had before", found)

    def test_constant_that_is_gone_fails_in_any_minor(self):
        self.change("types.h", "#define KRY_CPU_SVE (UINT64_C(1) << 37)\n", "")
        self.bump()
        self.assertIn("value KRY_CPU_SVE is gone", self.found())

    def test_change_is_for_the_next_major(self):
        self.change("types.h", "KRY_E_STALE = 16", "KRY_E_STALE = 17")
        self.call_it("1.0")
        (self.source / "CHANGELOG.md").write_text("## Unreleased\n### ABI 1.0\n- `KRY_E_STALE`.\n")
        abi.record(self.source, self.measured(), self.source)
        found = self.found()
        self.assertNotIn("KRY_E_STALE", found)
        self.assertIn("expected one that ends with .so.1", found)

    def test_declared_function_that_is_not_exported_fails(self):
        self.change("kernelry.h", "KRY_API const char *kry_version(void);",
                    "KRY_API const char *kry_version(void);\nKRY_API void kry_new(void);")
        self.bump()
        self.assertEqual(self.found(), "kry_new is declared and exported by no library")

    def test_released_table_is_not_written_again(self):
        (self.source / "CHANGELOG.md").write_text(CHANGELOG.replace("Unreleased: 0.1.0", "0.1.0"))
        self.append_field()
        with self.assertRaisesRegex(SystemExit, "ABI 0.7 is released"):
            abi.record(self.source, self.measured(), self.source)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("libraries", nargs="*")
    parser.add_argument("--cc", default="cc")
    parser.add_argument("--run", type=shlex.split, default=[])
    parser.parse_args(namespace=options)
    unittest.main(argv=sys.argv[:1])
