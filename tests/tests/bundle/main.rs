//! The whole bundle in one process: the five functions as they are deployed, on an AWS, on
//! providers and on receivers that live in memory, in virtual time. So a test can end a
//! function between any two of its calls, and look at what becomes of it days later.
//!
//! [`bundle::Bundle`] puts it together. What may not happen is watched while it runs
//! ([`watch`]) and judged when everything is quiet ([`verdict`]), order by order ([`orders`],
//! [`events`]). Things go wrong at one call of one story ([`crash_points`]), for minutes
//! ([`trouble`]), or everywhere by chance ([`simulation`]).

// `cfg(test)` is always true here; it tells the lints that helpers are tests too.
#[cfg(test)]
mod backend;
#[cfg(test)]
mod bundle;
#[cfg(test)]
mod crash_points;
#[cfg(test)]
mod events;
#[cfg(test)]
mod front;
#[cfg(test)]
mod functions;
#[cfg(test)]
mod hosts;
#[cfg(test)]
mod invocation;
#[cfg(test)]
mod lambda;
#[cfg(test)]
mod lateness;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod operator;
#[cfg(test)]
mod orders;
#[cfg(test)]
mod random;
#[cfg(test)]
mod receivers;
#[cfg(test)]
mod renders;
#[cfg(test)]
mod schedule;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod stories;
#[cfg(test)]
mod storm;
#[cfg(test)]
mod trouble;
#[cfg(test)]
mod verdict;
#[cfg(test)]
mod watch;
#[cfg(test)]
mod weak_points;
#[cfg(test)]
mod weather;
