#!/usr/bin/env bash
# docs/contract.md claims only tests that exist, and every number that a message or a header
# quotes is explained there.
source "$(dirname "$0")/common.sh"

cd "$PACKAGE_SOURCE"
contract=docs/contract.md
# shellcheck disable=SC2016 # the backquotes are Markdown's
grep -o '`[a-z0-9_]*: [a-z0-9_]*`' "$contract" | tr -d '`:' >"$work/claims"
[[ -s $work/claims ]] || fail "$contract claims no test"
missing=0
while read -r file test; do
    source=$(find tests -name "$file.c")
    if [[ -z $source ]] || ! grep -Eq "^static void $test\(|cmocka_unit_test[a-z_]*\($test\b" "$source"; then
        printf '%s claims %s in %s.c, which is not there\n' "$contract" "$test" "$file"
        missing=1
    fi
done <"$work/claims"

grep -rhoE 'KRY-[CP][0-9]{2}' include core checkpoint plugins tools tests --include='*.[ch]' |
    sort -u >"$work/quoted"
[[ -s $work/quoted ]] || fail "nothing quotes the contract"
while read -r number; do
    if ! grep -q "^| $number |" "$contract"; then
        printf '%s is quoted, and %s does not explain it\n' "$number" "$contract"
        missing=1
    fi
done <"$work/quoted"
((missing == 0)) || fail "see above"
wc -l "$work/claims" "$work/quoted"
