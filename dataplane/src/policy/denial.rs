//! What is denied whatever is known of its connection, so that somebody who only compares tuples may drop it.

use super::{Action, Policy, Standing, Subject, Verdict};
use crate::flow::{FlowKey, Protocol};

impl Policy {
    /// The verdict on every packet of this tuple, a client's to a virtual address: that it is dropped, in
    /// silence and without a word for the log, whether it opens a connection, belongs to one that nobody
    /// knows, or to one that was let in before. `None`: not all of them are, or they are counted under
    /// different rules.
    #[must_use]
    pub fn denies_all(&self, key: &FlowKey) -> Option<Verdict> {
        let dropped = |standing| {
            let verdict = self.judge(&Subject::connection(key, standing));
            (verdict.action == Action::Deny && !verdict.log).then_some(verdict)
        };
        let verdict = dropped(Standing::New)?;
        // Each datagram without a connection opens one.
        if key.protocol == Protocol::Tcp && dropped(Standing::Midstream)? != verdict {
            return None;
        }
        // One that was let in is counted once, when it ends; its other packets belong to none.
        dropped(Standing::Established)?;
        Some(verdict)
    }
}
