//! What rules refer to: counters, age contexts, meters.
