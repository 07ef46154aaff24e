#!/usr/bin/env bash
# A file from one network namespace to another, over a cable that is cut on the way. As root. See the README.
set -euo pipefail

megabytes=${1:-300}
seconds=${2:-1}
python=$(realpath -s "$(command -v "${PYTHON:-python3}")")
a=tachyon-a-$$ b=tachyon-b-$$
folder=$(mktemp -d)
cd "$folder"

tidy_up() {
    jobs -p | xargs -r kill 2>/dev/null || true
    wait 2>/dev/null || true
    ip netns del "$a" 2>/dev/null || true
    ip netns del "$b" 2>/dev/null || true
    rm -rf "$folder"
}
trap tidy_up EXIT

ip netns add "$a"
ip netns add "$b"
ip link add cable netns "$a" type veth peer name cable netns "$b"
ip -n "$a" addr add 10.78.0.1/24 dev cable
ip -n "$b" addr add 10.78.0.2/24 dev cable
for machine in "$a" "$b"; do
    ip -n "$machine" link set lo up
    ip -n "$machine" link set cable up
done
echo "machine a: 10.78.0.1   machine b: 10.78.0.2"

on() { ip netns exec "$1" "$python" -m tachyon "${@:2}"; }
# The name of the route is said before each line: here it says where.
here() { sed -u "s/^file:/$1:/" >&2; }

head -c "${megabytes}000000" /dev/urandom >original
on "$b" bridge import file to-b --listen tcp/10.78.0.2:7447 --insecure 2> >(here b) & gateway_b=$!
on "$b" recv to-b -o copy & recv=$!
on "$a" bridge export from-a file --connect tcp/10.78.0.2:7447 --insecure 2> >(here a) & gateway_a=$!
on "$a" send from-a original & send=$!

# Once a tenth has arrived.
for _ in $(seq 600); do
    size=$(stat -c %s copy.part 2>/dev/null || echo 0)
    [ "$size" -lt "${megabytes}00000" ] || break
    sleep 0.05
done
echo "the cable is cut for $seconds s"
ip -n "$a" link set cable down
sleep "$seconds"
ip -n "$a" link set cable up
echo "the cable is whole again"

for each in "$send" "$recv" "$gateway_a" "$gateway_b"; do wait "$each"; done
cmp original copy
echo "the same on both machines"
