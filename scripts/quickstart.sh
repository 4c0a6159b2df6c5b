#!/usr/bin/env bash
# The first look at Millrace: installs what is missing, builds, and lets real clients talk to real servers
# through it, in network namespaces of its own. See --help.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case ${1:-} in
-h | --help)
    PYTHONPATH=scripts exec /usr/bin/python3 -m lab.quickstart --help
    ;;
--down) ;;
*)
    echo "==> set-up" >&2
    . scripts/setup.sh ""
    echo "==> cargo build --release (the first time takes some minutes)" >&2
    cargo build --release --locked --quiet
    if [[ " $* " != *" --no-eswitch "* ]]; then
        cargo build --profile driver --package eswitch --features pmd --locked --quiet
    fi
    ;;
esac
PYTHONPATH=scripts PYTHONDONTWRITEBYTECODE=1 exec /usr/bin/python3 -m lab.quickstart "$@"
