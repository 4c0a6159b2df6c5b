//! Patterns become masks and values over a [`Key`](super::key::Key).
