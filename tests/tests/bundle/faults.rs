//! What goes wrong: at one call of an invocation, at random around the functions, or on a
//! delivery's way.

pub(crate) mod delivery_faults;
pub(crate) mod fault;
pub(crate) mod random_faults;
