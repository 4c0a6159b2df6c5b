#!/usr/bin/env bash
# Does the software eSwitch's driver use memory as it should? Debian's testpmd runs every script of
# tests/eswitch with it, packets on all wires, starts and stops ports and takes the device away: under valgrind,
# or built with AddressSanitizer.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    cat <<'HELP'
Usage: scripts/memcheck.sh [--asan | --quick] [NAME ...]

Runs tests/eswitch/NAME.testpmd (all of them unless named) under valgrind's memcheck with the driver in
target/driver. Invalid or uninitialised reads, invalid writes and definite leaks are errors.

  --quick  a few of the scripts, in less than a minute
  --asan   builds the driver and the model's tests with AddressSanitizer (some minutes) and runs these
           instead; needs a rustc whose distribution has the sanitizer's runtime (rustup's has)
HELP
}

target=x86_64-unknown-linux-gnu

# AddressSanitizer is unstable in rustc; RUSTC_BOOTSTRAP lets stable take the flag.
with_asan() {
    RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR=target/asan \
        cargo "$@" --quiet --package eswitch --features pmd --lib --locked --target "$target"
}

checker=valgrind
case ${1:-} in
--asan) checker=asan && shift ;;
--quick) set -- --quick ;;
-h | --help) usage && exit ;;
-*) usage >&2 && exit 2 ;;
esac

if [[ $checker == asan ]]; then
    # Tests leak on purpose: what they make up shall live for ever.
    ASAN_OPTIONS=detect_leaks=0 with_asan test
    with_asan build --profile driver
    export ESWITCH_DRIVER=target/asan/$target/driver/libeswitch.so
else
    cargo build --quiet --profile driver --package eswitch --features pmd --locked
fi
PYTHONPATH=scripts:tests PYTHONDONTWRITEBYTECODE=1 exec /usr/bin/python3 -m lab.memcheck "$checker" "$@"
