#!/usr/bin/env bash
# A plugin with a mistake: verify's JUnit report is XML, counts what it should, names the duty, and the
# command in it fails at the same place.
source "$(dirname "$0")/common.sh"
need python3
need make
need pkg-config

cd "$work"
PATH=$prefix/bin:$PATH
kernelry new-plugin "a_b"
sed -i 's/(float)(code - 8)/(float)(code - 8 + (k == linear->in_features - 1))/' a_b/a_b.c
make -C a_b >/dev/null

verify() { kernelry verify a_b/a_b.so --quick --cases 30 --seed 3 "$@"; }
if verify --check numbers --junit report.xml; then fail "the mistake was not found"; fi
verify --check pure --junit good.xml
python3 - <<'END' >again.sh
import xml.etree.ElementTree as xml

suites = xml.parse("report.xml").getroot().findall("testsuite")
assert [s.get("name") for s in suites] == ["a_b/a_b"], suites
suite = suites[0]
assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("1", "1", "0"), suite.attrib
case = suite.find("testcase")
assert case.get("name") == "KRY-P14 numbers" and case.get("classname") == "a_b/a_b", case.attrib
failure = case.find("failure")
assert failure.get("type") == "KRY-P14" and failure.get("message"), failure.attrib
first, again = failure.text.split("\nagain by: ")
assert first.startswith("first at: ") and "u4b8" in first, first
print(again)
good = xml.parse("good.xml").getroot().find("testsuite")
assert (good.get("tests"), good.get("failures")) == ("1", "0"), good.attrib
END
cat again.sh
if bash ./again.sh >again; then fail "the command in the report does not fail"; fi
grep -q "FAILED   KRY-P14  numbers" again || fail "the command fails otherwise: $(cat again)"

# A plugin that the core refuses is a failure, too; a report that cannot be written is told at once.
printf 'int nothing;\n' | cc -shared -fPIC -x c -o no_plugin.so -
if kernelry verify ./no_plugin.so --junit refused.xml 2>error; then fail "no_plugin.so was taken"; fi
python3 -c '
import xml.etree.ElementTree as xml
suite = xml.parse("refused.xml").getroot().find("testsuite")
assert suite.get("failures") == "1" and "note" in suite.find("testcase/failure").get("message")'
if verify --junit nowhere/report.xml 2>error; then fail "nowhere/report.xml was written"; fi
grep -q "nowhere/report.xml" error || fail "the message does not name the file: $(cat error)"
[[ ! -s good.xml.tmp ]] || fail "something is left behind"
