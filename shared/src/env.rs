//! Settings from the environment. They are read once, before the first event. An error names
//! the variable, so that it can be found in the template.
//!
//! To add a setting, read it with a function of this module: in [`setup`](crate::setup) if
//! several functions need it, otherwise in the function's `config.rs`. Set it in `template.yaml`
//! for each function that reads it, from a parameter if the operator is to choose it.

use std::env;
use std::fmt::Display;

/// A setting is missing or malformed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// The variable is not set, or empty.
    #[error("the environment variable {0} must be set")]
    Missing(&'static str),
    /// The variable's value cannot be parsed.
    #[error("the environment variable {name} is wrong: {problem}")]
    Wrong { name: &'static str, problem: String },
}

/// A variable that must be set.
///
/// # Errors
/// When it is not set, or empty.
pub fn required(name: &'static str) -> Result<String, EnvError> {
    optional(name).ok_or(EnvError::Missing(name))
}

/// A variable that may be absent or empty.
#[must_use]
pub fn optional(name: &'static str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// An optional variable, read by `parse`; `fallback` when absent.
///
/// # Errors
/// When the variable is set and `parse` refuses it.
pub fn parsed<T, E: Display>(
    name: &'static str,
    fallback: T,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, EnvError> {
    optional(name).map_or(Ok(fallback), |value| parse(&value).map_err(|error| wrong(name, &error)))
}

/// A `name=value` list, separated by commas; empty when absent.
///
/// # Errors
/// When a part has no `=`, or `parse` refuses a value.
pub fn pairs<T, E: Display>(
    name: &'static str,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Vec<(String, T)>, EnvError> {
    let text = optional(name).unwrap_or_default();
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let pairs = parts.map(|part| {
        let (key, value) = part
            .split_once('=')
            .ok_or_else(|| wrong(name, &format!("`{part}` is not name=value")))?;
        let value = parse(value.trim()).map_err(|error| wrong(name, &error))?;
        Ok((key.trim().to_owned(), value))
    });
    pairs.collect()
}

/// `true` or `false`; false when absent.
///
/// # Errors
/// When the value is neither.
pub fn flag(name: &'static str) -> Result<bool, EnvError> {
    parsed(name, false, |value| match value {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(format!("`{other}` is neither true nor false")),
    })
}

fn wrong(name: &'static str, problem: &impl Display) -> EnvError {
    EnvError::Wrong { name, problem: problem.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn env_error_names_the_variable() {
        let missing = required("RELAY_TEST_NEVER_SET").unwrap_err();
        assert_eq!(
            missing.to_string(),
            "the environment variable RELAY_TEST_NEVER_SET must be set"
        );
        // PATH is set wherever tests run, and is no number.
        let wrong = parsed("PATH", 0u32, str::parse).unwrap_err().to_string();
        assert!(wrong.starts_with("the environment variable PATH is wrong: "), "{wrong}");
        assert!(flag("PATH").is_err());
        assert_eq!(flag("RELAY_TEST_NEVER_SET"), Ok(false));
        assert!(pairs("PATH", |value| Ok::<_, String>(value.to_owned())).is_err());
    }
}
