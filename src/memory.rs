//! What the tables' memory is made of, for the log at start.
//!
//! The allocator asks for huge pages ([`dpdk::HugePages`]) where blocks are large; whether the kernel gave
//! any is in `/proc/self/smaps`, in the mappings that carry the flag `hg`.

use std::fs::read_to_string;

/// The kernel's switch for transparent huge pages; its choice is in brackets.
const SWITCH: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
/// The size of its huge pages, bytes.
const HUGE_PAGE: &str = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size";

/// Resident memory of the mappings that asked for huge pages, KiB.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Asked {
    resident: u64,
    /// Of that, in huge pages.
    huge: u64,
}

/// Says how much of the tables is in huge pages, and what to do if that is less than could be.
pub(crate) fn log_tables() {
    let Ok(text) = read_to_string("/proc/self/smaps") else { return };
    let asked = asked(&text);
    if asked.resident == 0 {
        return;
    }
    let mib = |kib: u64| kib >> 10;
    tracing::info!(resident_mib = mib(asked.resident), huge_mib = mib(asked.huge), "tables are in memory");
    let huge_page = read_to_string(HUGE_PAGE).ok().and_then(|text| text.trim().parse().ok());
    if let Some(remedy) = remedy(asked, read_to_string(SWITCH).ok().as_deref(), huge_page) {
        tracing::warn!("large tables are not in huge pages, which slows look-ups down: {remedy}");
    }
}

/// Sums up what the kernel says of the mappings.
fn asked(smaps: &str) -> Asked {
    let (mut sum, mut mapping) = (Asked::default(), Asked::default());
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let field = words.next().unwrap_or_default();
        let kib = |word: Option<&str>| word.and_then(|word| word.parse().ok()).unwrap_or(0);
        match field {
            "Rss:" => mapping.resident = kib(words.next()),
            "AnonHugePages:" => mapping.huge = kib(words.next()),
            // The last line of each.
            "VmFlags:" => {
                if words.any(|flag| flag == "hg") {
                    sum.resident += mapping.resident;
                    sum.huge += mapping.huge;
                }
                mapping = Asked::default();
            }
            _ => {}
        }
    }
    sum
}

/// What to do about large tables in small pages: less than half of what could be is huge.
fn remedy(asked: Asked, switch: Option<&str>, huge_page: Option<u64>) -> Option<String> {
    let Some(huge_page) = huge_page else {
        let small = asked.resident >= dpdk::huge::LARGE_BYTES as u64 >> 10;
        return small.then(|| "this kernel has no transparent huge pages".to_owned());
    };
    let page_kib = huge_page >> 10;
    if asked.resident < 2 * page_kib || asked.huge >= asked.resident / 2 {
        return None;
    }
    Some(if switch.is_some_and(|choices| choices.contains("[never]")) {
        format!("echo madvise > {SWITCH}, and start again")
    } else if huge_page > dpdk::huge::HUGE_BYTES as u64 {
        format!("this kernel's are of {} MiB; one with base pages of 4 KiB has them of 2", page_kib >> 10)
    } else {
        "memory is in too small pieces; echo 1 > /proc/sys/vm/compact_memory, and start again".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
7f0000000000-7f0004000000 rw-p 00000000 00:00 0
Size:              65536 kB
Rss:               65536 kB
AnonHugePages:     61440 kB
THPeligible:           1
VmFlags: rd wr mr mw me ac hg
7f0010000000-7f0010800000 rw-p 00000000 00:00 0                          [anon: heap]
Rss:                8192 kB
AnonHugePages:      8192 kB
VmFlags: rd wr mr mw me ac
7f0020000000-7f0024000000 rw-p 00000000 00:00 0
Rss:                   4 kB
AnonHugePages:         0 kB
VmFlags: rd wr mr mw me ac hg
";

    #[test]
    fn only_mappings_that_asked_count() {
        assert_eq!(asked(SMAPS), Asked { resident: 65540, huge: 61440 });
        assert_eq!(asked(""), Asked::default());
        assert_eq!(asked("Rss: lots\nVmFlags: hg\n"), Asked::default());
    }

    #[test]
    fn the_remedy_fits_the_cause() {
        let (all, none) = (Asked { resident: 65536, huge: 65536 }, Asked { resident: 65536, huge: 0 });
        let two_mib = Some(2 << 20);
        let choices = |chosen: &str| "always madvise never".replace(chosen, &format!("[{chosen}]"));
        let about = |asked, chosen, page| remedy(asked, Some(choices(chosen).as_str()), page);
        assert_eq!(about(all, "madvise", two_mib), None);
        assert_eq!(about(Asked::default(), "never", two_mib), None);
        assert!(about(none, "never", two_mib).is_some_and(|text| text.contains("echo madvise")));
        assert!(about(none, "madvise", two_mib).is_some_and(|text| text.contains("compact_memory")));
        assert!(remedy(none, None, None).is_some_and(|text| text.contains("no transparent huge pages")));
        // With base pages of 64 KiB huge ones are of 512 MiB: tables below that cannot have any.
        assert_eq!(about(none, "madvise", Some(512 << 20)), None);
        let large = Asked { resident: 2 << 20, huge: 0 };
        assert!(about(large, "always", Some(512 << 20)).is_some_and(|text| text.contains("512 MiB")));
    }
}
