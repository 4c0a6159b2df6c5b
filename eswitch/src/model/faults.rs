//! Faults on request: refuse, fail, delay, reorder, lose, age early, fill up, stop.
