//! The actions of a meter's policy: one list per colour.

use super::Form;
use super::actions::{self, Actions, Scratch};
use crate::model::refusal::Refusal;
use crate::pmd::ffi;

/// Room for three lists.
#[derive(Default)]
pub(in crate::pmd) struct PolicyLists<'a>([Scratch<'a>; 3]);

impl<'a> PolicyLists<'a> {
    /// Translates the lists of green, yellow and red; one that is null is empty.
    ///
    /// # Errors
    /// As for a rule's actions.
    ///
    /// # Safety
    /// Each list is null or as `rte_flow_create` describes it, and stays put and unchanged for `'a`.
    pub(in crate::pmd) unsafe fn translate(
        &'a self,
        lists: &[*const ffi::rte_flow_action; 3],
    ) -> Result<[Actions<'a>; 3], Refusal> {
        let mut typed = [Actions::new(), Actions::new(), Actions::new()];
        for ((list, scratch), typed) in lists.iter().zip(&self.0).zip(&mut typed) {
            if !list.is_null() {
                // SAFETY: the caller's promise.
                unsafe { actions::translate(*list, Form::Rule, scratch, typed) }?;
            }
        }
        Ok(typed)
    }
}
