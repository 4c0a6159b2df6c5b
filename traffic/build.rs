//! With the feature `pmd`: binds DPDK's driver-side interface and compiles the shim for its static inlines.
//! Without it: nothing.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "pmd")]
    driver_build::build(&driver_build::Driver {
        header: "src/pmd/shim.h",
        source: "src/pmd/shim.c",
        functions: &[
            "traffic_.*",
            "rte_eth_dev_(allocate|probing_finish|release_port|allocated)",
            "rte_eal_process_type",
            "rte_vdev_register",
            "rte_(zmalloc|get_tsc_hz)",
        ],
        types: &["eth_dev_ops", "rte_eth_dev.*", "rte_eth_(stats|xstat|xstat_name|.*conf|.*info)"],
        variables: &["RTE_PROC_PRIMARY", "RTE_PKTMBUF_HEADROOM", "RTE_PTYPE_.*", "RTE_ETH_.*", "TRAFFIC_.*"],
    });
}
