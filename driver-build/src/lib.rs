//! What the build scripts of this workspace's DPDK drivers do: bind the driver-side interface, and compile
//! the shim for its static inlines. Ends the build with a remedy where something is missing.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The headers that DPDK installs for applications only lack these; the set-up script fetches them.
const DRIVER_HEADERS: &[&str] =
    &["ethdev_driver.h", "ethdev_vdev.h", "bus_vdev_driver.h", "dev_driver.h", "rte_mtr_driver.h"];

/// Seen only through pointers, or not at all (some of them no Rust layout describes).
const OPAQUE: &[&str] =
    &["rte_mempool", "rte_intr_handle", "rte_l2tpv2_.*", "rte_flow_item_(l2tpv2|gtp_psc|flex_.*)"];

/// What a driver wants bound. Names are regular expressions.
#[derive(Clone, Copy, Debug)]
pub struct Driver<'a> {
    /// The C side of the driver, relative to its package: a header that includes what is to be bound.
    pub header: &'a str,
    /// The functions that the header declares.
    pub source: &'a str,
    /// Functions to bind.
    pub functions: &'a [&'a str],
    /// Types to bind, beside those that the functions need.
    pub types: &'a [&'a str],
    /// Constants to bind.
    pub variables: &'a [&'a str],
}

/// Compiles the shim, and writes the bindings to `driver.rs` in `OUT_DIR`.
pub fn build(driver: &Driver<'_>) {
    println!("cargo::rerun-if-changed={}", driver.header);
    println!("cargo::rerun-if-changed={}", driver.source);
    println!("cargo::rerun-if-env-changed=DPDK_DRIVER_INCLUDE");
    let (version, mut cflags) = find_dpdk();
    cflags.push(format!("-I{}", find_driver_headers(&version).display()));
    cflags.extend(["-D_GNU_SOURCE", "-DALLOW_EXPERIMENTAL_API", "-DALLOW_INTERNAL_API"].map(str::to_owned));
    compile_shim(driver, &cflags);
    generate_bindings(driver, &cflags);
}

/// DPDK's version and C flags; emits what to link with. Only 22.11, vendors' builds of it among them:
/// what drivers have to offer changes with every release (in 24.11 asynchronous rules have a table of
/// calls of their own).
fn find_dpdk() -> (String, Vec<String>) {
    let library = match pkg_config::Config::new().range_version("22.11".."22.12").probe("libdpdk") {
        Ok(library) => library,
        Err(error) => fail(&error.to_string()),
    };
    // Not among the libraries that applications link with.
    println!("cargo::rustc-link-lib=dylib=rte_bus_vdev");
    let pkg_config = std::env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
    match Command::new(pkg_config).args(["--cflags", "libdpdk"]).output() {
        Ok(output) if output.status.success() => {
            let flags =
                String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect();
            (library.version, flags)
        }
        Ok(output) => fail(&String::from_utf8_lossy(&output.stderr)),
        Err(error) => fail(&error.to_string()),
    }
}

/// `DPDK_DRIVER_INCLUDE`, or where `scripts/setup.sh` puts them: in the cache, by DPDK's version.
fn find_driver_headers(version: &str) -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .unwrap_or_default();
    let directory = std::env::var_os("DPDK_DRIVER_INCLUDE")
        .map_or_else(|| cache.join(format!("millrace/dpdk-driver-{version}")), PathBuf::from);
    match DRIVER_HEADERS.iter().find(|name| !directory.join(name).is_file()) {
        None => directory,
        Some(name) => fail(&format!("{name} is not in {}", directory.display())),
    }
}

fn compile_shim(driver: &Driver<'_>, cflags: &[String]) {
    let mut build = cc::Build::new();
    build.file(driver.source).opt_level(3).std("gnu11").warnings(false);
    for flag in cflags {
        build.flag(flag);
    }
    build.compile("driver_shim");
}

fn generate_bindings(driver: &Driver<'_>, cflags: &[String]) {
    let mut builder = bindgen::Builder::default()
        .header(driver.header)
        .clang_args(cflags)
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .derive_default(true)
        .derive_debug(false)
        .generate_comments(false)
        .layout_tests(false)
        .use_core()
        .rust_edition(bindgen::RustEdition::Edition2024);
    for function in driver.functions {
        builder = builder.allowlist_function(function);
    }
    for name in driver.types {
        builder = builder.allowlist_type(name);
    }
    for variable in driver.variables {
        builder = builder.allowlist_var(variable);
    }
    for opaque in OPAQUE {
        builder = builder.opaque_type(opaque);
    }
    let bindings = match builder.generate() {
        Ok(bindings) => bindings,
        Err(error) => fail(&format!("binding the headers: {error}")),
    };
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("driver.rs");
    bindings.write_to_file(out).expect("OUT_DIR is writable");
}

/// Ends the build with what to do about it.
fn fail(why: &str) -> ! {
    println!(
        "cargo::error=The driver is written for DPDK 22.11 and its driver-side headers: run scripts/setup.sh,"
    );
    println!("cargo::error=or set DPDK_DRIVER_INCLUDE to a directory with {}", DRIVER_HEADERS.join(", "));
    for line in why.lines().filter(|line| !line.trim().is_empty()) {
        println!("cargo::error=  {line}");
    }
    std::process::exit(1);
}
