#!/usr/bin/env bash
# Benches of the driver in one process, on wires in memory: packets through a million rules, packets while
# rules are inserted, and flow queues. Prints the lines that begin with "bench:", and the machine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

usage() {
    cat <<'HELP'
Usage: scripts/bench/driver.sh [forward | stall | queue | churn]...

  forward  a packet's cost through rings, driver and 1 k and 1 M rules
  stall    the time between polls, idle and during a million insertions, SWS and HWS
  queue    creations a second on one flow queue, and what the profiles promise
  churn    two flow queues at random for a minute under load; everything is checked

None: forward, stall and queue. ESWITCH_BENCH_RULES (1000000), ESWITCH_BENCH_SECONDS (60) and
ESWITCH_TEST_EAL (the EAL's options) change sizes. With root's rights it goes before other processes; Linux
throttles such by 50 ms in a second, which shows as the longest time between polls. stall and churn have three
threads: with fewer cores, their times are the scheduler's, too.
HELP
}

benches=()
for word in "$@"; do
    case $word in
    forward | stall | queue | churn) benches+=("bench_$word") ;;
    -h | --help) usage && exit ;;
    *) usage >&2 && exit 2 ;;
    esac
done
((${#benches[@]})) || benches=(bench_forward bench_stall bench_queue)

before=()
! chrt -f 1 true 2>/dev/null || before=(chrt -f 1)
cargo test --quiet --profile driver --package eswitch --features pmd --lib --no-run
binary=$(cargo test --profile driver --package eswitch --features pmd --lib --no-run 2>&1 |
    sed -n 's/.*Executable.*(\(.*\))$/\1/p')
printf '%s, %s cores, load %s; commit %s\n' "$(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -n 1)" \
    "$(nproc)" "$(cut -d' ' -f1-3 /proc/loadavg)" "$(git describe --always --dirty)"
for bench in "${benches[@]}"; do
    "${before[@]}" "$binary" --ignored --nocapture --test-threads 1 "$bench" 2>&1 |
        grep -E '^bench:|panicked|FAILED' | sed 's/^bench: //'
done
