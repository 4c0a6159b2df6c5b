#!/usr/bin/env bash
# Millrace beside dpdk-testpmd (the floor) and Open vSwitch with DPDK, on the same packets: see --help and
# docs/benchmarks.md. Installs what is missing, builds Millrace and the source of packets (unless MILLRACE_BINARY
# and TRAFFIC_DRIVER name them), and measures.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export PYTHONPATH=scripts PYTHONDONTWRITEBYTECODE=1
bench=(/usr/bin/python3 -m bench.peers)

# Open vSwitch is not installed for those who do not want it.
peers=--peers
case " $* " in
*' -h '* | *' --help '*) exec "${bench[@]}" --help ;;
*' --only'*ovs*) ;;
*' --only'*) peers='' ;;
esac
((EUID == 0)) || { echo 'bench-peers: huge pages and priorities need root: run this as root' >&2 && exit 1; }

. scripts/setup.sh "$peers"
[[ -n ${TRAFFIC_DRIVER:-} ]] || cargo build --profile driver --package traffic --features pmd --locked --quiet
[[ -n ${MILLRACE_BINARY:-} ]] || cargo build --release --locked --quiet
exec "${bench[@]}" "$@"
