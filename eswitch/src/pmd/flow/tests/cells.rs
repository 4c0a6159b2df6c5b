//! Flow queues in their places, and objects on their shelves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::cells::Cells;
use super::super::state::DeviceFlows;
use super::super::template::Shelf;
use crate::model::profile::Profile;
use crate::model::queue::{self, Credits, QueueAttr};
use crate::model::refusal::Errno;
use crate::model::switch::FlowQueue;
use crate::model::types::Vport;

fn queues(count: u8) -> Vec<FlowQueue> {
    let profile = Profile::named("ideal").unwrap();
    let credits = Arc::new(Credits::new(0, 0, 0));
    let attr = |queue| QueueAttr { port: Vport(0), queue, size: 8, full_errno: Errno::Nomem };
    (0..count).map(|number| queue::pair(attr(number), &profile, &credits, 1).unwrap().0).collect()
}

#[test]
fn there_are_queues_once_they_are_configured() {
    let (cells, device) = (Cells::default(), DeviceFlows::new());
    assert_eq!(cells.enter(&device, 0).err().unwrap().errno, Errno::Inval);
    cells.replace(|| Ok(queues(2))).unwrap();
    assert_eq!(cells.enter(&device, 1).unwrap().queue.attr().queue, 1);
    assert_eq!(cells.enter(&device, 2).err().unwrap().errno, Errno::Inval);
    assert_eq!(cells.enter(&device, u32::MAX).err().unwrap().errno, Errno::Inval);
    cells.replace(|| Ok(queues(1))).unwrap();
    assert_eq!(cells.enter(&device, 1).err().unwrap().errno, Errno::Inval);
    assert_eq!(device.misuse(), 0);
}

#[test]
fn a_second_user_is_turned_away_and_counted() {
    let (cells, device) = (Cells::default(), DeviceFlows::new());
    cells.replace(|| Ok(queues(2))).unwrap();
    {
        let _first = cells.enter(&device, 0).unwrap();
        assert_eq!(cells.enter(&device, 0).err().unwrap().errno, Errno::Busy);
        assert!(cells.enter(&device, 1).is_ok(), "another queue is another matter");
        assert_eq!(cells.replace(|| Ok(queues(1))).err().unwrap().errno, Errno::Busy);
    }
    assert_eq!(device.misuse(), 1);
    assert!(cells.enter(&device, 0).is_ok());
}

/// Several threads on one queue: never two at once, and everyone turned away is counted.
#[test]
fn threads_on_one_queue_exclude_each_other() {
    let (cells, device) = (Cells::default(), DeviceFlows::new());
    cells.replace(|| Ok(queues(1))).unwrap();
    let (inside, entered, refused) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..2000 {
                    let Ok(_lane) = cells.enter(&device, 0) else {
                        refused.fetch_add(1, Ordering::Relaxed);
                        std::thread::yield_now();
                        continue;
                    };
                    assert_eq!(inside.fetch_add(1, Ordering::AcqRel), 0);
                    entered.fetch_add(1, Ordering::Relaxed);
                    inside.fetch_sub(1, Ordering::AcqRel);
                }
            });
        }
    });
    assert_eq!(entered.load(Ordering::Relaxed) + refused.load(Ordering::Relaxed), 6000);
    assert_eq!(device.misuse(), refused.load(Ordering::Relaxed));
}

#[test]
fn stale_handles_are_recognised() {
    let mut shelf = Shelf::default();
    let (first, second) = (shelf.insert("first"), shelf.insert("second"));
    assert_ne!(first, 0);
    assert_eq!((shelf.get(first), shelf.get(second)), (Some(&"first"), Some(&"second")));
    assert_eq!(shelf.remove(first), Some("first"));
    assert_eq!(shelf.get(first), None);
    assert_eq!(shelf.remove(first), None);
    let third = shelf.insert("third");
    assert_ne!(third, first, "the place is the same, the handle is not");
    assert_eq!((shelf.get(first), shelf.get(third)), (None, Some(&"third")));
    for invented in [0, 1, usize::MAX, first | 1 << 63, 0x7fff_0000_1234] {
        assert_eq!(shelf.get(invented), None, "{invented:#x}");
    }
}
