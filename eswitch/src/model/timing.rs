//! When things happen: costs, delays and ceilings, drawn from a profile under a seed.
