//! The environment abstraction layer: DPDK's once-per-process start and end, and the threads in it.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_char, c_int};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::errno::Errno;

/// Set by the first [`Eal::init`] and never cleared: DPDK cannot be started twice in a process.
static STARTED: AtomicBool = AtomicBool::new(false);

/// The release of DPDK that is linked: `DPDK 22.11.11`.
#[must_use]
pub fn version() -> String {
    // SAFETY: returns a NUL-terminated string that lives as long as the process; no precondition.
    unsafe { CStr::from_ptr(dpdk_sys::millrace_version()) }.to_string_lossy().into_owned()
}

/// The running EAL. Everything else borrows from it; dropping it ends DPDK in this process for good.
///
/// Arguments are EAL's own, without a program name. What they have to settle:
///
/// * **Memory.** Packet buffers live in hugepages: reserve them (`vm.nr_hugepages`, or
///   `hugepagesz=1G hugepages=4` on the kernel's command line) and mount hugetlbfs; `--in-memory` needs
///   no mount, leaves no files and shares nothing with secondary processes. Without any hugepages,
///   `--no-huge -m <MiB>` allocates the stated amount at start, and `--no-shconf` is what keeps it from
///   leaving files (it excludes `--in-memory`); then hardware NICs work only through an IOMMU, while
///   software devices (`net_ring`, `net_pcap`, `net_af_packet`, ...) work as always.
/// * **Devices.** EAL probes every PCI device it may use, without device arguments. Whoever wants to
///   [`probe`](Eal::probe) NICs with arguments (`dv_flow_en=2`) keeps EAL from doing so first:
///   `-a 0000:00:00.0` allows a device that does not exist, `--no-pci` turns PCI off altogether.
/// * **Cores.** EAL starts a waiting thread per core it is given; Millrace's workers are threads of its
///   own ([`Eal::register_thread`]), so one core (`-l 0`) is enough.
///
/// EAL installs no signal handlers, and none of the threads it starts take the process's signals. The
/// calling thread keeps its CPU affinity, which EAL by itself would narrow to one core for this thread
/// and everything it spawns later.
#[derive(Debug)]
pub struct Eal {
    /// Numbers of the ports that some [`Device`](crate::Device) owns; locked while devices come and go.
    claims: Mutex<BTreeSet<u16>>,
    /// Pools not yet freed. Their memory must stay mapped, even past the end of `self`.
    pools: AtomicUsize,
}

/// Why the EAL would not start, or a thread would not register.
#[derive(Debug, thiserror::Error)]
pub enum EalError {
    /// The EAL runs, or has run, in this process.
    #[error("the EAL can be started only once in a process")]
    AlreadyStarted,
    /// An argument has a NUL byte in it.
    #[error("EAL argument {0:?} contains a NUL byte")]
    NulInArgument(String),
    /// `rte_eal_init` failed; its log says more.
    #[error("starting the EAL with {arguments:?}: {errno}")]
    Init {
        /// The arguments it was given.
        arguments: Vec<String>,
        /// What it answered.
        errno: Errno,
    },
    /// The EAL stopped reading at an argument that is none of its options.
    #[error("EAL does not know argument {0:?}")]
    UnknownArgument(String),
    /// The calling thread has an lcore id already, from an earlier registration or from starting the EAL.
    #[error("this thread is registered already")]
    ThreadRegistered,
    /// There is no lcore id left (`RTE_MAX_LCORE`), or secondary processes are in use.
    #[error("registering a thread: {0}")]
    Register(Errno),
}

impl Eal {
    /// Starts the EAL on the calling thread, which becomes its main lcore.
    ///
    /// A failed start cannot be repeated in the same process either: DPDK keeps state of it.
    pub fn init<S: AsRef<str>>(args: &[S]) -> Result<Eal, EalError> {
        let arguments: Vec<String> = args.iter().map(|arg| arg.as_ref().to_owned()).collect();
        let mut argv = vec![c"millrace".as_ptr().cast_mut()];
        let mut owned = Vec::with_capacity(arguments.len());
        for argument in &arguments {
            let c = CString::new(argument.as_str()).map_err(|_| EalError::NulInArgument(argument.clone()))?;
            owned.push(c);
        }
        if STARTED.swap(true, Ordering::SeqCst) {
            return Err(EalError::AlreadyStarted);
        }
        // EAL may keep pointers into its arguments, so they live as long as the process.
        argv.extend(owned.into_iter().map(CString::into_raw));
        let argc = argv.len() as c_int;
        argv.push(core::ptr::null_mut());
        // EAL reorders the array, so it gets one of its own.
        let argv: &'static mut [*mut c_char] = argv.leak();

        // SAFETY: `argv` holds `argc` NUL-terminated strings and a null, all valid forever; option
        // parsing may reorder the pointers but writes to none of the strings. `STARTED` makes this the
        // only call in the process.
        let parsed = unsafe { dpdk_sys::millrace_eal_init(argc, argv.as_mut_ptr()) };
        if parsed < 0 {
            return Err(EalError::Init { arguments, errno: Errno::last() });
        }
        let eal = Eal { claims: Mutex::new(BTreeSet::new()), pools: AtomicUsize::new(0) };
        match arguments.into_iter().nth(parsed as usize) {
            Some(unknown) => Err(EalError::UnknownArgument(unknown)),
            None => Ok(eal),
        }
    }

    /// Gives the calling thread an lcore id, and with it a cache in every pool. Without one, a thread
    /// allocates and frees at the pool's shared ring: correct, and several times slower.
    pub fn register_thread(&self) -> Result<ThreadGuard<'_>, EalError> {
        // SAFETY: reads a thread-local; no precondition.
        if unsafe { dpdk_sys::millrace_thread_is_registered() } {
            return Err(EalError::ThreadRegistered);
        }
        // SAFETY: the EAL is running (`&self`) and this thread has no lcore id.
        if unsafe { dpdk_sys::rte_thread_register() } < 0 {
            return Err(EalError::Register(Errno::last()));
        }
        Ok(ThreadGuard { eal: PhantomData, thread_bound: PhantomData })
    }

    /// The claimed port numbers. Probing holds the lock too, so that ports appear to one caller at a time.
    pub(crate) fn claims(&self) -> MutexGuard<'_, BTreeSet<u16>> {
        // The set is valid after every single operation on it, so a panic elsewhere spoils nothing.
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn pool_created(&self) {
        self.pools.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn pool_freed(&self) {
        self.pools.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Eal {
    fn drop(&mut self) {
        if *self.pools.get_mut() != 0 {
            // Somebody may still hold a packet of a pool that was not freed. Cleaning up would unmap it
            // under them; the process's end does the same for everyone at once.
            return;
        }
        // SAFETY: the EAL is running and, by the lifetimes, nothing that borrows from it is left. A
        // failure to release something on the way out has no remedy here.
        unsafe { dpdk_sys::rte_eal_cleanup() };
    }
}

/// The calling thread's registration, ended on drop. Stays on its thread.
#[derive(Debug)]
pub struct ThreadGuard<'eal> {
    eal: PhantomData<&'eal Eal>,
    thread_bound: PhantomData<*const ()>,
}

impl Drop for ThreadGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: made by a successful rte_thread_register on this thread (the guard is not `Send`),
        // and the EAL is still running by `'eal`.
        unsafe { dpdk_sys::rte_thread_unregister() };
    }
}
