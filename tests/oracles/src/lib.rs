//! Nothing but its tests: the libraries that receivers use, against what we sign and verify.
