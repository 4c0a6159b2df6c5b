#!/usr/bin/env bash
# Every figure and every number of load, latency and faults, in one report: see --help and docs/figures.md.
# Installs what is missing, builds what the chosen parts need of Millrace, its software eSwitch and its packet source
# (unless MILLRACE_BINARY, ESWITCH_DRIVER and TRAFFIC_DRIVER name them), and measures.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export PYTHONPATH=scripts:scripts/trex PYTHONDONTWRITEBYTECODE=1
figures=(/usr/bin/python3 -m figures.cli)

began=$SECONDS
# Arguments are looked at before anything is installed, but for that which looks at them.
if [[ ! -x ${figures[0]} ]]; then . scripts/setup.sh ''; fi
case " $* " in
*' -h '* | *' --help '*) exec "${figures[@]}" --help ;;
esac
needs=$("${figures[@]}" --needs "$@")
((EUID == 0)) || [[ -z $needs ]] ||
    { echo 'figures: namespaces and huge pages need root: run this as root, or --only xenoflow' >&2 && exit 2; }

. scripts/setup.sh ''
for need in $needs; do
    case $need in
    millrace) [[ -n ${MILLRACE_BINARY:-} ]] || cargo build --release --locked --quiet ;;
    eswitch) [[ -n ${ESWITCH_DRIVER:-} ]] || cargo build --profile driver -p eswitch --features pmd --locked --quiet ;;
    traffic) [[ -n ${TRAFFIC_DRIVER:-} ]] || cargo build --profile driver -p traffic --features pmd --locked --quiet ;;
    esac
done
exec "${figures[@]}" --prepared $((SECONDS - began)) "$@"
