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
# Each of these builds ends with one thread that links: profiles are built beside one another.
wants() { [[ " $needs " == *" $1 "* ]]; }
driver() { cargo build --profile driver --package "$1" --features pmd --locked --quiet; }
{
    if wants eswitch && [[ -z ${ESWITCH_DRIVER:-} ]]; then driver eswitch; fi
    if wants traffic && [[ -z ${TRAFFIC_DRIVER:-} ]]; then driver traffic; fi
} &
drivers=$!
trap 'kill "$drivers" 2>/dev/null || true' EXIT
if wants millrace && [[ -z ${MILLRACE_BINARY:-} ]]; then cargo build --release --locked --quiet; fi
wait "$drivers"
trap - EXIT
exec "${figures[@]}" --prepared $((SECONDS - began)) "$@"
