//! The simulator over real HTTP, as the functions and the tests will use it.

// `cfg(test)` is always true here; it tells the lints that helpers are tests too.
#[cfg(test)]
mod accounts;
#[cfg(test)]
mod json2video;
#[cfg(test)]
mod ledger;
#[cfg(test)]
mod polling;
#[cfg(test)]
mod providers;
#[cfg(test)]
mod receivers;
#[cfg(test)]
mod renderio;
#[cfg(test)]
mod server;
#[cfg(test)]
mod viralsync;
