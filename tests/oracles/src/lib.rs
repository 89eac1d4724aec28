//! Nothing but its tests: other people's libraries, against what this repository implements
//! itself. See the README.
