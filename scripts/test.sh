#!/usr/bin/env bash
# Everything CI runs, in order; the first failure ends it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    cat <<'HELP'
Usage: scripts/test.sh [--quick | --full] [-h]

Installs what is missing and tests everything: format, lints, purity, style, unit and property tests,
1000 seeds of the whole-system simulation, fuzz targets (briefly), benches (that they run), and the system
tests: real clients, real servers and Millrace between them, in network namespaces. Needs root for these.

  --quick   stop before the fuzz targets, benches and system tests; needs no root
  --full    system tests at full size (1 GiB downloads, 100,000 connections, a million mutated packets),
            five minutes for each fuzz target, 100,000 seeds of the simulation, and 100,000 packets whose fate
            `trace` must foretell
HELP
}

mode=ci fuzz_seconds=10 sim_seeds=1000 foretold=3000
case ${1:-} in
'') ;;
--quick) mode=quick ;;
--full) mode=full fuzz_seconds=300 sim_seeds=100000 foretold=100000 ;;
-h | --help) usage && exit ;;
*) usage >&2 && exit 2 ;;
esac

started=$SECONDS step_started=$SECONDS step_name=

# Ends the step before and names the next one.
step() {
    [[ -z $step_name ]] || printf -- '--- %s: %d s\n' "$step_name" $((SECONDS - step_started))
    step_name=$1 step_started=$SECONDS
    printf '\n=== %s\n' "$1"
}

finish() {
    local status=$?
    # Builds beside one another, if one of them or an interrupt ended this.
    jobs -p | xargs -r kill 2>/dev/null || true
    ((status == 0)) && printf '\n=== all passed in %d s\n' $((SECONDS - started)) ||
        printf '\n=== FAILED at "%s" after %d s\n' "$step_name" $((SECONDS - started))
    exit "$status"
}
trap finish EXIT

# `dataplane`, `health`, `offload` without its real engines, and the software eSwitch and the packet source
# without their drivers have no FFI, no I/O and no runtime: neither they nor what they use may name these.
check_purity() {
    local package tree
    for package in dataplane offload eswitch traffic health; do
        tree=$(cargo tree --locked --package "$package" --edges normal --prefix none)
        ! grep -E '^(dpdk|dpdk-sys|tokio|mio|socket2|libc|nix) ' <<<"$tree" || return 1
        printf '%s depends on: %s\n' "$package" \
            "$(cut -d' ' -f1 <<<"$tree" | sort -u | grep -v "^$package\$" | xargs)"
    done
}

# libFuzzer's coverage needs flags that only nightly takes by itself; RUSTC_BOOTSTRAP lets stable take them.
# The brief run always takes the same way, so that what it finds is due to the change at hand; --full takes
# a new one each time.
run_fuzz_targets() {
    local target targets seed=1
    [[ $mode != full ]] || seed=0
    targets=$(cargo fuzz list)
    for target in $targets; do
        printf '%s, %d s: ' "$target" "$fuzz_seconds"
        RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none "$target" -- \
            -seed=$seed -max_total_time="$fuzz_seconds" -print_final_stats=1 >target/fuzz.log 2>&1 ||
            { grep -A 4 'panicked at' target/fuzz.log; tail -n 60 target/fuzz.log; return 1; }
        awk '/number_of_executed_units/ { print $2 " inputs, no failure" }' target/fuzz.log
    done
}

# What is optimised. Each of these ends with one thread that links, so profiles are built beside one another; the
# release is linked for the longest, and is begun first.
optimised_builds() {
    local release='' drivers driver status=0
    if [[ $mode != quick ]]; then cargo build --quiet --release --locked & release=$!; fi
    { for driver in eswitch traffic; do
        cargo build --quiet --profile driver --package "$driver" --features pmd --locked || exit
    done; } &
    drivers=$!
    simulation --no-run || status=$?
    wait "$drivers" || status=$?
    [[ -z $release ]] || wait "$release" || status=$?
    return "$status"
}

simulation() {
    SIM_SEEDS=$sim_seeds cargo test --quiet --profile simulation --package offload --features sim --test simulation \
        --locked "$@"
}

system_tests() {
    ((EUID == 0)) || { echo 'the system tests make network namespaces: run this as root' >&2 && return 1; }
    local full=()
    [[ $mode != full ]] || full=(--full)
    PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 -m pytest -p no:cacheprovider tests "${full[@]}"
}

step set-up
if [[ $mode == quick ]]; then . scripts/setup.sh ''; else . scripts/setup.sh --fuzz; fi
cargo --version && rustc --version

step format
cargo fmt --all --check

step lints
cargo clippy --quiet --workspace --all-targets --locked -- -D warnings
cargo clippy --quiet --package eswitch --features pmd --all-targets --locked -- -D warnings
cargo clippy --quiet --package traffic --features pmd --all-targets --locked -- -D warnings

step purity
check_purity

step style
/usr/bin/python3 scripts/tidy.py

step 'load tests, without their load'
PYTHONDONTWRITEBYTECODE=1 "$(python_tools_directory scripts/python-tools.txt)/bin/python" -m pytest -q \
    -p no:cacheprovider scripts/trex/tests

step 'optimised builds'
optimised_builds

step 'the whole system under many seeds'
simulation -- --include-ignored --nocapture

step 'unit and property tests'
MILLRACE_FORETOLD=$foretold cargo test --quiet --workspace --locked
cargo test --quiet --package eswitch --features pmd --lib --locked

if [[ $mode != quick ]]; then
    step 'fuzz targets'
    run_fuzz_targets

    step benches
    cargo test --quiet --workspace --bench "*" --locked

    step 'memory of the driver'
    if [[ $mode == full ]]; then scripts/memcheck.sh; else scripts/memcheck.sh --quick; fi

    step 'system tests'
    system_tests
fi
step 'the end'
