//! Flow operations: what `rte_flow.h` asks of a driver.
//!
//! 1. [`items`], [`actions`] (with [`encap`], [`modify`], [`rss`]): the application's lists, made typed.
//! 2. [`handle`], [`error`]: what the application gets to hold and to read.

mod actions;
mod encap;
mod error;
mod handle;
mod items;
mod modify;
mod rss;

/// In which call a list stands; it decides what may be missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    /// A rule of the synchronous API: complete.
    Rule,
    /// A template: masks count; what comes with each rule may be missing.
    Template,
    /// The masks of an actions template: all-ones where the template's value is for every rule.
    Mask,
    /// A rule that is put into a template table: what the templates have may be missing.
    Insertion,
}

#[cfg(test)]
mod tests;
