//! The allocator against what `GlobalAlloc` promises, sizes around its limits foremost.

use super::*;
use proptest::prelude::*;

/// A block, filled with its own number.
struct Block {
    start: *mut u8,
    layout: Layout,
    mark: u8,
}

/// Bytes that tell whether a block is whole: both ends, and every page's first.
fn samples(len: usize) -> impl Iterator<Item = usize> {
    (0..len).step_by(4096).chain([len - 1])
}

impl Block {
    fn new(size: usize, align: usize, zeroed: bool, mark: u8) -> Block {
        let layout = Layout::from_size_align(size, align).expect("layout");
        // SAFETY: the size is not zero.
        let start = unsafe { if zeroed { HugePages.alloc_zeroed(layout) } else { HugePages.alloc(layout) } };
        assert!(!start.is_null());
        let mut block = Block { start, layout, mark };
        if zeroed {
            assert!(samples(size).all(|at| block.bytes()[at] == 0));
        }
        block.fill();
        block
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the block is this long, is this one's own, and has been written or is read as it came from
        // `alloc_zeroed`.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.layout.size()) }
    }

    fn fill(&mut self) {
        assert_eq!(self.start.addr() % self.layout.align(), 0);
        let (start, mark) = (self.start, self.mark);
        // SAFETY: samples are inside the block.
        samples(self.layout.size()).for_each(|at| unsafe { start.add(at).write(mark) });
    }

    fn check(&mut self, len: usize) {
        let start = self.start;
        // SAFETY: all but the last of the samples of the length it had when it was filled have been written.
        let whole = (0..len).step_by(4096).all(|at| unsafe { start.add(at).read() } == self.mark);
        assert!(whole, "{:?}", self.layout);
    }

    fn resize(&mut self, size: usize) {
        let before = self.layout.size();
        // SAFETY: the block is one of this layout; the size is not zero.
        self.start = unsafe { HugePages.realloc(self.start, self.layout, size) };
        assert!(!self.start.is_null());
        self.layout = Layout::from_size_align(size, self.layout.align()).expect("layout");
        self.check(before.min(size));
        self.fill();
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: the block is one of this layout and is not used again.
        unsafe { HugePages.dealloc(self.start, self.layout) };
    }
}

fn any_size() -> impl Strategy<Value = usize> {
    let near = |size: usize| size - 2..size + 3;
    prop_oneof![
        1usize..1 << 16,
        near(LARGE_BYTES),
        near(LARGE_BYTES + HUGE_BYTES),
        near(2 * LARGE_BYTES + PAGE_BYTES),
        LARGE_BYTES..4 * LARGE_BYTES,
    ]
}

#[derive(Clone, Debug)]
enum Step {
    New { size: usize, align_log: u32, zeroed: bool },
    Resize { which: usize, size: usize },
    Free { which: usize },
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (any_size(), 0u32..24, any::<bool>()).prop_map(|(size, align_log, zeroed)| Step::New {
            size,
            align_log,
            zeroed
        }),
        (any::<usize>(), any_size()).prop_map(|(which, size)| Step::Resize { which, size }),
        any::<usize>().prop_map(|which| Step::Free { which }),
    ]
}

/// Whatever is done, blocks keep what was written to them: none overlaps another, none loses its pages.
fn play(steps: &[Step]) {
    let mut blocks: Vec<Block> = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        let count = blocks.len().max(1);
        match *step {
            Step::New { size, align_log, zeroed } => {
                blocks.push(Block::new(size, 1 << align_log, zeroed, number as u8 + 1));
            }
            Step::Resize { which, size } => {
                if let Some(block) = blocks.get_mut(which % count) {
                    block.resize(size);
                }
            }
            Step::Free { which } => {
                if which % count < blocks.len() {
                    blocks.swap_remove(which % count);
                }
            }
        }
        blocks.iter_mut().for_each(|block| block.check(block.layout.size()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn blocks_keep_their_bytes(steps in prop::collection::vec(any_step(), 1..24)) {
        play(&steps);
    }

    #[test]
    fn blocks_of_threads_keep_theirs(
        scripts in prop::collection::vec(prop::collection::vec(any_step(), 1..12), 2..5),
    ) {
        std::thread::scope(|scope| {
            for steps in &scripts {
                scope.spawn(move || play(steps));
            }
        });
    }
}

/// Blocks made by one thread are given back by another.
#[test]
fn blocks_change_hands() {
    struct Handed(Block);
    // SAFETY: a block is used by one thread at a time.
    unsafe impl Send for Handed {}

    let (give, take) = std::sync::mpsc::sync_channel::<Handed>(4);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for mut handed in take {
                let len = handed.0.layout.size();
                handed.0.check(len);
            }
        });
        for mark in 0..32 {
            let block = Block::new(LARGE_BYTES + usize::from(mark), 64, mark % 2 == 0, mark);
            give.send(Handed(block)).expect("the other thread takes them all");
        }
        drop(give);
    });
}

#[test]
fn zeroed_blocks_take_no_memory_until_they_are_written() {
    let mut block = Block::new(8 * LARGE_BYTES, 64, false, 1);
    let resident = |block: &Block| {
        let (start, len) = (block.start.cast(), block.layout.size());
        let mut pages = vec![0u8; len / 4096];
        // SAFETY: `pages` has a byte for each page of the block, of which mincore(2) reads none.
        assert_eq!(unsafe { libc::mincore(start, len, pages.as_mut_ptr()) }, 0);
        pages.iter().filter(|&&page| page & 1 != 0).count()
    };
    assert_ne!(resident(&block), 0);
    block.check(block.layout.size());
    // SAFETY: the size is not zero.
    let start = unsafe { HugePages.alloc_zeroed(block.layout) };
    let untouched = Block { start, layout: block.layout, mark: 0 };
    assert!(!start.is_null());
    assert_eq!(resident(&untouched), 0);
}

#[test]
fn sizes_that_no_machine_has_are_refused() {
    for size in [isize::MAX as usize / 2, isize::MAX as usize - HUGE_BYTES, 1 << 60] {
        let layout = Layout::from_size_align(size, 4096).expect("layout");
        // SAFETY: the size is not zero.
        assert!(unsafe { HugePages.alloc(layout) }.is_null());
    }
    let mut block = Block::new(LARGE_BYTES, 8, false, 7);
    // SAFETY: the block is one of this layout; the size is not zero.
    let other = unsafe { HugePages.realloc(block.start, block.layout, 1 << 60) };
    assert!(other.is_null());
    block.check(LARGE_BYTES);
}
