#!/bin/sh
# Checks the models: both forms of the barriers keep what each promises, and every mutant breaks it. `check.sh gate`: that one
# only. Needs spin and a C compiler.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
status=0

errors() {  # how many spin finds in $model with these definitions
    spin -a "$@" "$here/$model.pml" > spin.log 2>&1 || { cat spin.log >&2; exit 2; }
    cc -O2 -DSAFETY -DCOLLAPSE -o pan pan.c
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
    printf '%-6s %-5s %-60s %s errors\n' "$verdict" "$model" "$name" "$found"
}

park() {
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
}

gate() {
    check none "membarrier" -DMEMBARRIER
    check none "a full barrier on both sides" -DLOCKED
    check some "no barrier for users" -DLOCKED -DNO_LIGHT
    for form in MEMBARRIER LOCKED; do
        check some "$form, none for who closes" -D$form -DNO_HEAVY
        check some "$form, a user looks before it says that it is inside" -D$form -DENTER_LOOKS_FIRST
        check some "$form, a user looks before it says that it has left" -D$form -DLEAVE_LOOKS_FIRST
        check some "$form, two may close it" -D$form -DNO_EXCHANGE
        check some "$form, who leaves closes it under the next user" -D$form -DNO_LOOK_BEHIND
        check some "$form, a locked user comes in while it is being closed" -D$form -DLOCKED_COMES_IN
        check some "$form, closed without the lock beside a guard" -D$form -DBESIDE_GUARD
        check some "$form, the memory goes while free code holds some" -D$form -DHELD_MAY_GO
        check some "$form, the memory goes while somebody is closing" -D$form -DCLOSING_IS_CLOSED
    done
    check some "membarrier, who leaves looks behind itself without one" -DMEMBARRIER -DLOOKS_BEHIND_UNFENCED
}

for model in ${*:-park gate}; do $model; done
exit $status
