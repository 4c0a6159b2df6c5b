//! The last changes of what is in force, and the last attempts at it.

use crate::api::HistoryRow;
use crate::clock;
use std::collections::VecDeque;

/// How many are remembered.
const ENTRIES: usize = 32;

/// Oldest first.
#[derive(Debug, Default)]
pub(crate) struct History {
    rows: VecDeque<HistoryRow>,
}

impl History {
    /// Remembers a change to `generation`, or an attempt that came to nothing, made by `by`.
    pub(crate) fn note(
        &mut self,
        cause: &str,
        by: &str,
        generation: Option<u64>,
        summary: impl Into<String>,
    ) {
        if self.rows.len() == ENTRIES {
            self.rows.pop_front();
        }
        self.rows.push_back(HistoryRow {
            at: clock::utc(clock::unix_seconds()),
            generation,
            cause: cause.to_owned(),
            by: by.to_owned(),
            summary: summary.into(),
        });
    }

    /// All that is remembered, oldest first.
    pub(crate) fn rows(&self) -> Vec<HistoryRow> {
        self.rows.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_remembered() {
        let mut history = History::default();
        for generation in 0..100 {
            history.note("reload", "uid 0", Some(generation), "nothing has changed");
        }
        let rows = history.rows();
        assert_eq!((rows.len(), rows[0].generation, rows[31].generation), (32, Some(68), Some(99)));
    }
}
