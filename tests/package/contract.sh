#!/usr/bin/env bash
# docs/contract.md: every row is kept by somebody and shown by a test, it claims only tests and checks
# that exist, and every number that a message or a header quotes is explained there.
source "$(dirname "$0")/common.sh"

cd "$PACKAGE_SOURCE"
contract=docs/contract.md
wrong=0
complain() {
    printf '%s\n' "$*"
    wrong=1
}

# Promises are | number | promise | tests |, duties | number | duty | who checks | tests |.
grep -E '^\| KRY-[CP][0-9]{2} \|' "$contract" >"$work/rows"
while IFS='|' read -r _ number _ rest; do
    number=${number// /}
    shown=$rest
    if [[ $number == KRY-P* ]]; then
        checked=${rest%%|*}
        shown=${rest#*|}
        [[ $checked =~ [a-z] ]] || complain "$number: nobody checks it"
    fi
    # shellcheck disable=SC2016 # the backquotes are Markdown's
    [[ $shown =~ '`'[a-z0-9_]+': '[a-z0-9_]+'`' ]] || complain "$number is shown by no test"
done <"$work/rows"
sort "$work/rows" | cut -d' ' -f2 | uniq -d >"$work/twice"
[[ ! -s $work/twice ]] || complain "numbers used twice: $(cat "$work/twice")"

# shellcheck disable=SC2016
grep -o '`[a-z0-9_]*: [a-z0-9_]*`' "$contract" | tr -d '`:' >"$work/claims"
[[ -s $work/claims ]] || fail "$contract claims no test"
while read -r file test; do
    source=$(find tests -name "$file.c")
    if [[ -z $source ]] || ! grep -Eq "^static void $test\(|cmocka_unit_test[a-z_]*\($test\b" "$source"; then
        complain "$contract claims $test in $file.c, which is not there"
    fi
done <"$work/claims"

# The checks of `verify` that duties name: "verify: `pure`, `threads`".
# shellcheck disable=SC2016
grep -E '^\| KRY-P' "$work/rows" | grep -oE 'verify[^|]*' | grep -oE '`[a-z0-9-]+`' | tr -d '`' |
    sort -u >"$work/checks"
[[ -s $work/checks ]] || fail "$contract names no check of verify"
while read -r check; do
    grep -rq "\"$check\"" tests/conformance --include='*.c' ||
        complain "$contract names the check $check, which verify has not"
done <"$work/checks"

grep -rhoE 'KRY-[CP][0-9]{2}' include core checkpoint plugins tools tests docs --include='*.[ch]' \
    --include='*.md' | sort -u >"$work/quoted"
[[ -s $work/quoted ]] || fail "nothing quotes the contract"
while read -r number; do
    grep -q "^| $number |" "$contract" || complain "$number is quoted, and $contract does not explain it"
done <"$work/quoted"
((!wrong)) || fail "see above"
wc -l "$work/rows" "$work/claims" "$work/checks" "$work/quoted"
