#!/usr/bin/env bash
# Millrace beside dpdk-testpmd (the floor) and Open vSwitch with DPDK, on the same packets: see --help and
# docs/benchmarks.md. Installs what is missing, builds Millrace unless MILLRACE_BINARY names one, and measures.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bench() {
    PYTHONPATH=scripts PYTHONDONTWRITEBYTECODE=1 exec /usr/bin/python3 -m bench.peers "$@"
}

peers=--peers previous=
for word in "$@"; do
    case $word in -h | --help) bench --help ;; esac
    # Open vSwitch is not installed for those who do not want it.
    case $previous=$word in --only=*ovs*) ;; --only=* | *=--only=testpmd* | *=--only=millrace*) peers='' ;; esac
    previous=$word
done
((EUID == 0)) || { echo 'bench-peers: huge pages and priorities need root: run this as root' >&2 && exit 1; }

set_up_arguments=("$@")
set -- $peers
. scripts/setup.sh "$@"
[[ -n ${MILLRACE_BINARY:-} ]] || cargo build --release --locked --quiet
bench "${set_up_arguments[@]}"
