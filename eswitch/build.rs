//! With the feature `pmd`: binds DPDK's driver-side interface and compiles the shim for its static inlines.
//! Without it: nothing.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "pmd")]
    driver_build::build(&driver_build::Driver {
        header: "src/pmd/shim.h",
        source: "src/pmd/shim.c",
        functions: &[
            "eswitch_.*",
            "rte_(eal|eth|flow|kvargs|lcore|log|malloc|mempool|mtr|pktmbuf|ring|service|tel|telemetry|thread|vdev)_.*",
            "rte_(free|zmalloc|malloc|get_tsc_hz|get_timer_hz|socket_id|strerror)",
            "rte_eth.*",
        ],
        types: &["rte_eth_.*", "rte_flow_.*", "rte_mtr_.*", "rte_vdev_.*", "eth_.*", "eswitch_.*"],
        variables: &["RTE_.*", "ESWITCH_.*"],
    });
}
