//! The rules of one group: tuple-space search, one hash table per mask, visited in priority order.
