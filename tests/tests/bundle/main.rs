//! The whole bundle in one process: the five functions as they are deployed, on an AWS, on
//! providers and on receivers that live in memory, in virtual time. So a test can end a
//! function between any two of its calls, and look at what becomes of it days later.
//!
//! [`harness::bundle::Bundle`] puts it together. What may not happen is watched while it runs
//! ([`checker`]) and judged when everything is quiet ([`verdict`]), order by order ([`orders`],
//! [`events`]). Things go wrong at one call of one scenario ([`crash_points`]), for minutes
//! ([`trouble`]), or everywhere by chance ([`simulation`]).

// `cfg(test)` is always true here; it tells the lints that helpers are tests too.
#[cfg(test)]
mod checks;
#[cfg(test)]
mod crash_points;
#[cfg(test)]
mod delivery_schedule;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod outages;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod weak_points;
