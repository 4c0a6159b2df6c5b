//! What a rule does to a packet that it matches.
