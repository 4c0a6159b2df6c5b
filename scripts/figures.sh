#!/usr/bin/env bash
# Every figure and every number of load, latency and faults, in one report: see --help and docs/figures.md.
# Installs what is missing, builds Millrace, its software eSwitch and its packet source (unless MILLRACE_BINARY,
# ESWITCH_DRIVER and TRAFFIC_DRIVER name them), and measures.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export PYTHONPATH=scripts:scripts/trex PYTHONDONTWRITEBYTECODE=1
figures=(/usr/bin/python3 -m figures.cli)

case " $* " in
*' -h '* | *' --help '*) exec "${figures[@]}" --help ;;
esac
((EUID == 0)) || { echo 'figures: namespaces and huge pages need root: run this as root' >&2 && exit 2; }

began=$SECONDS
. scripts/setup.sh
[[ -n ${ESWITCH_DRIVER:-} ]] || cargo build --profile driver --package eswitch --features pmd --locked --quiet
[[ -n ${TRAFFIC_DRIVER:-} ]] || cargo build --profile driver --package traffic --features pmd --locked --quiet
[[ -n ${MILLRACE_BINARY:-} ]] || cargo build --release --locked --quiet
exec "${figures[@]}" --prepared $((SECONDS - began)) "$@"
