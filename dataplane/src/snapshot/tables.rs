//! The Maglev tables of a snapshot: kept where nothing that goes into them has changed, else built, by as
//! many threads as this one has CPUs.

use super::{Affinity, Backend, BackendState, BuildError, Service, Snapshot};
use crate::ids::BackendId;
use crate::maglev::{self, Identity, MaglevError};
use crate::partition::{self, Member};
use core::num::NonZeroUsize;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;
use std::thread;

/// Tables that are worth a thread: a few milliseconds of work.
const TABLES_PER_THREAD: usize = 8;

/// A service's lookup table, or why there is none.
type Table = Result<Arc<[BackendId]>, MaglevError>;

/// Gives every service its table.
pub(super) fn fill(
    services: &mut [Option<Service>],
    backends: &[Option<Backend>],
    table_size: u32,
    previous: Option<&Snapshot>,
) -> Result<(), BuildError> {
    let active = active_by_service(services.len(), backends);
    let before = previous.map(|previous| active_by_service(previous.services.len(), &previous.backends));
    let mut wanted: Vec<(&mut Service, &[&Backend])> = Vec::new();
    for service in services.iter_mut().flatten() {
        if let Affinity::Partition { bits } = service.affinity {
            service.lookup = if service.removed { Arc::new([]) } else { parted(bits, service, backends) };
            continue;
        }
        let active = &active[service.id.index()];
        let kept = previous.and_then(|previous| previous.service(service.id)).filter(|old| {
            let before = before.as_ref().and_then(|before| before.get(service.id.index()));
            let size = if active.is_empty() { 0 } else { table_size as usize };
            let maglev = !matches!(old.affinity, Affinity::Partition { .. });
            maglev && old.lookup.len() == size && before.is_some_and(|before| same_table(before, active))
        });
        match kept {
            Some(old) => service.lookup = Arc::clone(&old.lookup),
            None => wanted.push((service, active)),
        }
    }
    let sets: Vec<&[&Backend]> = wanted.iter().map(|(_, active)| *active).collect();
    let tables = in_parallel(&sets, |active| build(table_size, active));
    for ((service, _), table) in wanted.into_iter().zip(tables) {
        service.lookup =
            table.map_err(|error| BuildError::Maglev { service: service.name.clone(), error })?;
    }
    Ok(())
}

/// Backends that take new connections, with their weights, by service and in order.
fn active_by_service(services: usize, backends: &[Option<Backend>]) -> Vec<Vec<&Backend>> {
    let mut active = vec![Vec::new(); services];
    for backend in backends.iter().flatten().filter(|backend| backend.state == BackendState::Active) {
        if let Some(of_service) = active.get_mut(backend.service.index()) {
            of_service.push(backend);
        }
    }
    active
}

fn same_table(before: &[&Backend], after: &[&Backend]) -> bool {
    let what = |b: &&Backend| (b.id, b.address, b.port, b.weight, b.share_percent);
    before.iter().map(what).eq(after.iter().map(what))
}

fn build(table_size: u32, active: &[&Backend]) -> Table {
    let ids: Vec<BackendId> = active.iter().map(|backend| backend.id).collect();
    maglev::build_named(table_size, &weighted(active), &ids)
}

/// The backend of each of a service's partitions.
fn parted(bits: u8, service: &Service, backends: &[Option<Backend>]) -> Arc<[BackendId]> {
    // Those that are down or drained have their homes, too.
    let is_configured = |backend: &&Backend| {
        let gone = matches!(backend.state, BackendState::Removed(_));
        backend.service == service.id && backend.weight > 0 && !gone
    };
    let configured: Vec<&Backend> = backends.iter().flatten().filter(is_configured).collect();
    let member = |backend: &&Backend| Member {
        identity: identity(backend),
        weight: backend.weight,
        share_percent: if backend.state == BackendState::Active { backend.share_percent } else { 0 },
    };
    let members: Vec<Member> = configured.iter().map(member).collect();
    partition::assign(bits, &members).into_iter().map(|at| configured[at as usize].id).collect()
}

fn identity(backend: &Backend) -> Identity {
    Identity { address: backend.address, port: backend.port }
}

/// What the table of these backends is made of.
fn weighted(active: &[&Backend]) -> Vec<(Identity, u32)> {
    // All nodes with the same configuration have the same table, except while a backend starts slowly.
    let slow = active.iter().any(|backend| backend.share_percent != 100);
    let weight = |b: &Backend| if slow { b.weight * u32::from(b.share_percent) } else { b.weight };
    active.iter().map(|b| (identity(b), weight(b))).collect()
}

impl Snapshot {
    /// How many slots of its service's lookup table each backend has, by [`BackendId`]. Told by weights, as
    /// to count them is to read all tables.
    #[must_use]
    pub fn table_slots(&self) -> Vec<u32> {
        let mut slots = vec![0; self.backends.len()];
        let active = active_by_service(self.services.len(), &self.backends);
        for (service, active) in self.services.iter().zip(active) {
            let Some(service) = service else { continue };
            if let Affinity::Partition { .. } = service.affinity {
                service.lookup.iter().for_each(|backend| slots[backend.index()] += 1);
                continue;
            }
            let size = service.lookup.len();
            if size > 0 {
                let of = maglev::slots(size as u32, &weighted(&active));
                active.iter().zip(of).for_each(|(backend, of)| slots[backend.id.index()] = of);
            }
        }
        slots
    }
}

/// What `work` makes of each item, in order. Each thread takes the next item when it is done with one, as
/// some may have a CPU for themselves and others share theirs with a worker. On CPUs that workers are pinned
/// to nothing is done unless this thread may run there: threads inherit where they may.
fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let cpus = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = cpus.min(items.len() / TABLES_PER_THREAD).max(1);
    let next = AtomicUsize::new(0);
    let some = || {
        let taken = core::iter::from_fn(|| {
            let at = next.fetch_add(1, Relaxed);
            items.get(at).map(|item| (at, work(item)))
        });
        taken.collect::<Vec<(usize, R)>>()
    };
    let mut done = thread::scope(|scope| {
        // One that the system does not give is not needed either.
        let start = |_| thread::Builder::new().spawn_scoped(scope, some).ok();
        let started: Vec<_> = (1..threads).filter_map(start).collect();
        let mut done = some();
        for thread in started {
            match thread.join() {
                Ok(results) => done.extend(results),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    });
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_items() {
        for count in [0, 1, 7, 8, 63, 64, 1000] {
            let items: Vec<u32> = (0..count).collect();
            let doubled: Vec<u32> = items.iter().map(|item| item * 2).collect();
            assert_eq!(in_parallel(&items, |item| item * 2), doubled);
        }
    }
}
