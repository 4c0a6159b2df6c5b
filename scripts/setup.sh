#!/usr/bin/env bash
# Brings a Debian machine to where Millrace builds, runs and is tested: packages, a Rust toolchain,
# DPDK's driver-side headers, Python tools of the tests, cargo-fuzz on request. Idempotent, and quick when
# all is there. Run it, or source it to also have cargo on PATH:
#
#   scripts/setup.sh            what building and the lab need
#   scripts/setup.sh --fuzz     also cargo-fuzz
#   scripts/setup.sh --peers    also what scripts/bench-peers.sh compares Millrace with
#
# Needs root only when a package is missing.

set -euo pipefail

RUST_MIN=1.85
# The newest one that builds with RUST_MIN.
CARGO_FUZZ=0.13.1

# Every Debian package that anything in this tree needs, by what needs it.
PACKAGES=(
    # The build: DPDK's headers and drivers, bindgen's libclang, a C compiler for the shims and libFuzzer.
    # Unpacking DPDK's source takes xz.
    build-essential ca-certificates clang dpdk libclang-dev libdpdk-dev pkg-config xz-utils
    # The lab: namespaces, servers, clients, monitoring. dnsmasq-base is the server without its service.
    bind9-dnsutils curl dnsmasq-base dnsperf ethtool iproute2 iputils-ping nginx-light procps
    prometheus python3 tcpdump util-linux wrk
    # The system tests and the load generator where TRex is not: testpmd is in dpdk-dev.
    dpdk-dev python3-pytest python3-scapy python3-venv valgrind
)

# The bench against others: Open vSwitch built with DPDK. No service of it is started or needed.
PEER_PACKAGES=(openvswitch-switch-dpdk)

# Tools that are Python packages and not Debian's, in an environment of their own, all versions pinned.
PYTHON_TOOLS=scripts/python-tools.txt

# What a driver needs of DPDK's source; driver-build checks for the same.
DRIVER_HEADERS=(
    lib/eal/include/dev_driver.h lib/ethdev/ethdev_driver.h lib/ethdev/ethdev_vdev.h
    lib/ethdev/rte_mtr_driver.h drivers/bus/vdev/bus_vdev_driver.h
)

say() { printf '==> %s\n' "$*" >&2; }

die() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

# Prints those of its arguments that are not installed.
missing() {
    local name
    for name in "$@"; do
        [[ $(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null) == installed ]] || printf '%s\n' "$name"
    done
}

# Installs packages with their services kept from starting: the lab starts its own, in its own
# namespaces, and this machine's nginx or Prometheus is nobody's business. An existing policy stays.
install_packages() {
    ((EUID == 0)) || die "missing packages ($*): run this once as root, or install them yourself"
    command -v apt-get >/dev/null || die "this is no Debian: install the counterparts of $*"
    local policy=/usr/sbin/policy-rc.d made_policy=
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        made_policy=$policy
    fi
    local status=0
    say "installing $*"
    apt_get update && apt_get install --no-install-recommends --no-remove "$@" || status=$?
    [[ -z $made_policy ]] || rm -f "$made_policy"
    ((status == 0)) || die "apt-get could not install: $*"
}

apt_get() {
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0 "$@" >&2
}

# Whether dotted version $1 is at least $2.
at_least() {
    [[ $(printf '%s\n' "$1" "$2" | sort -V | head -n 1) == "$2" ]]
}

rustc_version() {
    rustc --version 2>/dev/null | awk '{ print $2 }'
}

# Whether cargo, rustc of a sufficient version, rustfmt and clippy are there.
rust_is_there() {
    local version
    version=$(rustc_version) && [[ -n $version ]] && at_least "$version" "$RUST_MIN" || return 1
    cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1
}

# Debian names its toolchain rustc, cargo and so on. Releases whose rustc is old carry a newer one
# beside it, made for building browsers: rustc-web, cargo-web.
rust_packages() {
    local candidate
    for candidate in "rustc cargo rustfmt rust-clippy" "rustc-web cargo-web rustfmt-web rust-web-clippy"; do
        local version
        version=$(apt-cache policy "${candidate%% *}" 2>/dev/null | awk '/Candidate:/ { print $2 }')
        if [[ -n $version && $version != "(none)" ]] && at_least "$version" "$RUST_MIN"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
}

ensure_rust() {
    [[ ! -d ${CARGO_HOME:-$HOME/.cargo}/bin ]] || PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
    export PATH
    ! rust_is_there || return 0
    local have
    have=$(rustc_version || true)
    if command -v rustup >/dev/null; then
        die "rustc ${have:-none} is here through rustup, but Millrace needs >= $RUST_MIN with rustfmt and clippy:
       rustup update stable && rustup component add rustfmt clippy"
    fi
    ((EUID != 0)) || apt_get update
    local packages
    packages=$(rust_packages)
    [[ -n $packages ]] || die "no rustc >= $RUST_MIN here (found: ${have:-none}) nor in this Debian's packages.
       Install Rust with rustup (stable, with rustfmt and clippy) and run this again."
    if [[ -n $(missing $packages) ]]; then
        [[ $packages != *-web* || -z $have ]] || die "rustc $have is installed and too old (need >= $RUST_MIN).
       Remove it (apt-get remove rustc cargo libstd-rust-dev) and run this again: it will install $packages."
        install_packages $packages
    fi
    hash -r
    rust_is_there || die "installed $packages, but rustc is $(rustc_version || echo none): which one is on PATH?"
}

# Where driver-build looks for the headers of DPDK that are for drivers, which no package has.
driver_headers_directory() {
    printf '%s/millrace/dpdk-driver-%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}" "$(pkg-config --modversion libdpdk)"
}

# Fetches these headers from the source of exactly the DPDK that is installed. apt verifies it, with lists
# and sources of its own in a temporary directory: this machine's configuration stays, and no root is needed.
ensure_driver_headers() {
    [[ -z ${DPDK_DRIVER_INCLUDE:-} ]] || return 0
    local directory header absent='' version
    version=$(pkg-config --modversion libdpdk)
    if [[ $version != 22.11.* ]]; then
        say "DPDK $version: all but the software eSwitch's driver can be built, which is written for 22.11"
        return 0
    fi
    directory=$(driver_headers_directory)
    for header in "${DRIVER_HEADERS[@]}"; do
        [[ -f $directory/${header##*/} ]] || absent+=" ${header##*/}"
    done
    [[ -n $absent ]] || return 0
    say "fetching DPDK's driver-side headers:$absent"
    local scratch status=0
    scratch=$(mktemp -d)
    fetch_driver_headers "$scratch" "$directory" || status=$?
    rm -rf "$scratch"
    ((status == 0)) || die "no source of the DPDK installed here could be fetched. Put ${DRIVER_HEADERS[*]##*/}
       of DPDK $(pkg-config --modversion libdpdk) into a directory and name it in DPDK_DRIVER_INCLUDE."
}

# Downloads into $1, extracts into $2.
fetch_driver_headers() {
    local scratch=$1 directory=$2 version file
    version=$(dpkg-query -W -f='${source:Version}' libdpdk-dev) || return 1
    mkdir -p "$scratch"/{sources,lists/partial,cache/archives/partial,headers} || return 1
    # The machine's own archives, with its keys, but their sources instead of their packages.
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources}; do
        [[ -r $file ]] || continue
        sed -E -e '/^deb-src[[:space:]]/d' -e 's/^deb([[:space:]])/deb-src\1/' -e 's/^Types:.*/Types: deb-src/' \
            "$file" >"$scratch/sources/${file##*/}"
    done
    local apt=(-o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::SourceParts=$scratch/sources"
        -o "Dir::State::Lists=$scratch/lists" -o "Dir::Cache=$scratch/cache"
        -o "APT::Sandbox::User=$(id -un)" -o Acquire::Languages=none)
    # An archive whose sources are configured as well is now there twice, and apt says so each time.
    (cd "$scratch" && apt_get "${apt[@]}" update &&
        apt_get "${apt[@]}" source --download-only --only-source "dpdk=$version") \
        2> >(grep -v 'is configured multiple times' >&2) || return 1
    tar --extract --file "$(echo "$scratch"/dpdk_*.orig.tar.*z)" --directory "$scratch/headers" --no-anchored \
        --transform='s|.*/||' "${DRIVER_HEADERS[@]}" || return 1
    mkdir -p "$directory" && cp "$scratch"/headers/*.h "$directory"
}

# Where tests look for these tools; a change of the list makes another one.
python_tools_directory() {
    printf '%s/millrace/python-tools-%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}" "$(sha256sum <"$1" | cut -c1-16)"
}

ensure_python_tools() {
    local list directory
    list=$(dirname "${BASH_SOURCE[0]}")/../$PYTHON_TOOLS
    directory=$(python_tools_directory "$list")
    [[ ! -e $directory/complete ]] || return 0
    say "installing $(grep -v '^#' "$list" | wc -l) Python packages for the tests of the API and for load tests"
    rm -rf "$directory"
    mkdir -p "${directory%/*}"
    /usr/bin/python3 -m venv "$directory" &&
        "$directory/bin/pip" install --quiet --disable-pip-version-check --no-deps --requirement "$list" >&2 &&
        touch "$directory/complete" || die "no Python packages: see above"
}

ensure_fuzz() {
    cargo fuzz --version >/dev/null 2>&1 && return
    say "installing cargo-fuzz"
    cargo install --quiet --locked "cargo-fuzz@$CARGO_FUZZ" >&2
    PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
    export PATH
}

set_up() {
    local absent packages=("${PACKAGES[@]}")
    [[ ${1:-} != --peers ]] || packages+=("${PEER_PACKAGES[@]}")
    absent=$(missing "${packages[@]}")
    [[ -z $absent ]] || install_packages $absent
    ensure_rust
    ensure_driver_headers
    ensure_python_tools
    [[ ${1:-} != --fuzz ]] || ensure_fuzz
}

set_up "$@"
