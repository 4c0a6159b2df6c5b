//! Finds DPDK, binds what `dpdk` calls, and compiles the shim for what the headers only inline.
//!
//! Nothing here asks for a version number beyond the floor: releases differ in what their headers
//! declare (a vendor's 22.11 carries back-ports), so `shim.h` asks the headers themselves.

use std::path::PathBuf;
use std::process::Command;

/// The first release whose templates can be of the transfer domain.
const VERSION_MIN: &str = "22.11";

/// Functions `dpdk` calls, by subject.
const FUNCTIONS: &[&[&str]] = &[
    &["rte_eal_cleanup", "rte_strerror", "rte_thread_register", "rte_thread_unregister"],
    &["rte_get_tsc_hz"],
    &["rte_dev_probe"],
    &["rte_pktmbuf_pool_create", "rte_mempool_free", "rte_mempool_avail_count", "rte_mempool_in_use_count"],
    &[
        "rte_eth_dev_adjust_nb_rx_tx_desc",
        "rte_eth_allmulticast_enable",
        "rte_eth_dev_close",
        "rte_eth_dev_configure",
        "rte_eth_dev_get_mtu",
        "rte_eth_dev_get_name_by_port",
        "rte_eth_dev_info_get",
        "rte_eth_dev_set_mtu",
        "rte_eth_dev_socket_id",
        "rte_eth_dev_start",
        "rte_eth_dev_stop",
        "rte_eth_find_next_owned_by",
        "rte_eth_macaddr_get",
        "rte_eth_promiscuous_enable",
        "rte_eth_rx_queue_setup",
        "rte_eth_tx_queue_setup",
    ],
    &[
        "rte_eth_dev_rss_hash_conf_get",
        "rte_eth_dev_rss_hash_update",
        "rte_eth_dev_rss_reta_query",
        "rte_eth_dev_rss_reta_update",
    ],
    &["rte_eth_stats_get", "rte_eth_xstats_get", "rte_eth_xstats_get_names"],
    &[
        "rte_eth_dev_hairpin_capability_get",
        "rte_eth_hairpin_bind",
        "rte_eth_rx_hairpin_queue_setup",
        "rte_eth_tx_hairpin_queue_setup",
    ],
    &[
        "rte_flow_action_handle_destroy",
        "rte_flow_actions_template_destroy",
        "rte_flow_destroy",
        "rte_flow_flush",
        "rte_flow_pattern_template_destroy",
        "rte_flow_pick_transfer_proxy",
        "rte_flow_push",
        "rte_flow_template_table_destroy",
    ],
    &["rte_hash_add_key", "rte_hash_free", "rte_hash_lookup_bulk"],
    &["millrace_.*"],
];

/// Constants and macros that the preprocessor leaves as plain numbers.
const CONSTANTS: &[&str] = &[
    "MILLRACE_.*",
    "RTE_ETH_NAME_MAX_LEN",
    "RTE_HASH_LOOKUP_BULK_MAX",
    "RTE_MAX_ETHPORTS",
    "RTE_MAX_QUEUES_PER_PORT",
    "RTE_PKTMBUF_HEADROOM",
];

/// Types that no function above mentions.
const TYPES: &[&str] = &["millrace_mbuf_head", "millrace_item_kind", "millrace_action_kind"];

/// Types seen only through pointers: their insides differ between releases and are none of ours.
const OPAQUE: &[&str] = &["rte_mbuf", "rte_mempool", "rte_device"];

fn main() {
    for file in ["shim.h", "shim.c", "flow.h", "flow.c", "meter.h", "meter.c"] {
        println!("cargo::rerun-if-changed={file}");
    }
    let cflags = find_dpdk();
    compile_shim(&cflags);
    generate_bindings(&cflags);
}

/// Emits the link flags and returns the C flags, all of them: the headers need `-march` for their
/// intrinsics and `-include rte_config.h` for everything else, which a list of include paths loses.
fn find_dpdk() -> Vec<String> {
    if let Err(error) = pkg_config::Config::new().atleast_version(VERSION_MIN).probe("libdpdk") {
        fail(&error.to_string());
    }
    let pkg_config = std::env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
    let output = match Command::new(pkg_config).args(["--cflags", "libdpdk"]).output() {
        Ok(output) if output.status.success() => output,
        Ok(output) => fail(&String::from_utf8_lossy(&output.stderr)),
        Err(error) => fail(&error.to_string()),
    };
    let mut cflags: Vec<String> =
        String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect();
    cflags.extend(["-D_GNU_SOURCE", "-DALLOW_EXPERIMENTAL_API"].map(str::to_owned));
    cflags
}

fn compile_shim(cflags: &[String]) {
    let mut build = cc::Build::new();
    // The shim is the packet path's other half: optimised also where Rust is not.
    build.files(["shim.c", "flow.c", "meter.c"]).opt_level(3).std("gnu11").warnings(false);
    for flag in cflags {
        build.flag(flag);
    }
    build.compile("millrace_dpdk_shim");
}

fn generate_bindings(cflags: &[String]) {
    let mut builder = bindgen::Builder::default()
        .header("shim.h")
        .clang_args(cflags)
        .allowlist_recursively(true)
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .derive_default(true)
        .generate_comments(false)
        .use_core()
        .rust_edition(bindgen::RustEdition::Edition2024)
        .parse_callbacks(Box::new(bindgen::CargoCallbacks::new()));
    for function in FUNCTIONS.iter().copied().flatten() {
        builder = builder.allowlist_function(function);
    }
    for constant in CONSTANTS {
        builder = builder.allowlist_var(constant);
    }
    for name in TYPES {
        builder = builder.allowlist_type(name);
    }
    for opaque in OPAQUE {
        builder = builder.opaque_type(opaque);
    }
    let bindings = match builder.generate() {
        Ok(bindings) => bindings,
        Err(error) => fail(&format!("binding the headers: {error}")),
    };
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("bindings.rs");
    bindings.write_to_file(out).expect("OUT_DIR is writable");
}

/// Ends the build with what to do about it.
fn fail(why: &str) -> ! {
    println!(
        "cargo::error=DPDK {VERSION_MIN} or newer is needed and was not usable through pkg-config (libdpdk)."
    );
    println!(
        "cargo::error=Debian and Ubuntu: apt install libdpdk-dev dpdk-dev dpdk libclang-dev clang pkg-config,"
    );
    println!("cargo::error=or run ./scripts/test.sh, which sets the machine up first.");
    println!(
        "cargo::error=A DPDK elsewhere (a vendor's) is found by PKG_CONFIG_PATH=<prefix>/lib/<triplet>/pkgconfig."
    );
    for line in why.lines().filter(|line| !line.trim().is_empty()) {
        println!("cargo::error=  {line}");
    }
    std::process::exit(1);
}
