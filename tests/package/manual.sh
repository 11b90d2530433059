#!/usr/bin/env bash
# Every command and option of --help is in the man pages and in the completion for bash, as installed; the
# pages are right roff, and the completion completes.
source "$(dirname "$0")/common.sh"

pages=$prefix/share/man/man1
completion=$prefix/share/bash-completion/completions/kernelry
PATH=$prefix/bin:$PATH
plain() { sed 's/\\-/-/g; s/\\f[IRB]//g' "$1"; }

commands=$(kernelry --help | sed -n '/^Commands$/,/^$/s/^  \([a-z-]*\)  .*/\1/p')
(($(wc -w <<<"$commands") >= 11)) || fail "--help lists too few commands: $commands"
checked=0
whole=$(plain "$pages/kernelry.1")
for command in $commands; do
    grep -q "^.B kernelry-$command(1)" <<<"$whole" || fail "kernelry.1 misses $command"
    page=$(plain "$pages/kernelry-$command.1")
    words=$(grep -E "^ *$command\) words=" "$completion")
    options=$(kernelry help "$command" | sed -n '/^Options$/,/^$/s/^  \(--[a-z-]*\).*/\1/p')
    [[ -n $options ]] || fail "$command has no options"
    for option in $options; do
        grep -Eq "^\.B $option( |\$)" <<<"$page" ||
            fail "kernelry-$command.1 misses $option"
        grep -Eq "[' ]${option}[' ]" <<<"$words" ||
            fail "the completion of $command misses $option"
        checked=$((checked + 1))
    done
done
variables=$(kernelry --help | grep -o 'KERNELRY_[A-Z_]*' | sort -u)
for variable in $variables; do
    grep -q "$variable" "$pages/kernelry.1" || fail "kernelry.1 misses $variable"
done
printf '%d options of %d commands\n' "$checked" "$(wc -w <<<"$commands")"

# complete WORD...: what is offered for the last one.
complete_words() {
    bash -c 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _kernelry; echo "${COMPREPLY[@]}"' \
        - "$completion" "$@"
}
[[ $(complete_words kernelry ver) == "verify version" ]] || fail "commands are not completed"
[[ $(complete_words kernelry verify --ju) == --junit ]] || fail "options are not completed"
cd "$work" && touch model.bin
[[ $(complete_words kernelry check mo) == model.bin ]] || fail "files are not completed"

if command -v groff >/dev/null; then
    for page in "$pages"/*.1; do
        complaints=$(groff -man -ww -z "$page" 2>&1)
        [[ -z $complaints ]] || fail "$page: $complaints"
    done
else
    printf 'no groff here: the pages were not read as roff\n'
fi
