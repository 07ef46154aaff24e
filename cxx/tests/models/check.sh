#!/bin/sh
# Checks park.pml: both forms of the barrier lose no wake, and every mutant does. Needs spin and a C compiler.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
status=0

errors() {  # how many spin finds with these definitions
    spin -a "$@" "$here/park.pml" > spin.log 2>&1 || { cat spin.log >&2; exit 2; }
    cc -O2 -DSAFETY -o pan pan.c
    ./pan -m100000 > pan.log
    if grep -q "max search depth too small" pan.log; then echo "search depth" >&2; exit 2; fi
    sed -n 's/.*errors: \([0-9]*\).*/\1/p' pan.log
}

check() {  # expected, name, definitions
    expected=$1 name=$2
    shift 2
    found=$(errors "$@")
    if { [ "$expected" = none ] && [ "$found" = 0 ]; } || { [ "$expected" = some ] && [ "$found" != 0 ]; }; then
        verdict=right
    else
        verdict=WRONG status=1
    fi
    printf '%-6s %-50s %s errors\n' "$verdict" "$name" "$found"
}

check none "membarrier" -DMEMBARRIER
check none "locked on both sides" -DLOCKED
check some "no barrier" -DNO_BARRIER
check some "a barrier on the sleeper's side only" -DSLEEPER_ONLY
check some "a barrier on the waker's side only" -DWAKER_ONLY
check some "membarrier, no second look" -DMEMBARRIER -DNO_LOOK
check some "locked, no second look" -DLOCKED -DNO_LOOK
check some "membarrier, the waker does not reset the word" -DMEMBARRIER -DNO_RESET
check some "locked, the waker does not reset the word" -DLOCKED -DNO_RESET
check some "the waker resets the word after the wake" -DLOCKED -DRESET_LATE
exit $status
