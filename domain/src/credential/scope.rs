//! Scopes: what an API key may be used for.
//!
//! To add a scope, add it to [`Scope`] with its name and bit, and to [`Scope::ALL`]; say in
//! `shared/src/api/route.rs` which routes need it; and add the name to `docs/openapi.yaml`, with
//! which a contract test compares them.

use std::fmt;

/// One thing that API keys may do. No scope includes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Order renders.
    Submit,
    /// See jobs, deliveries and the configuration without secrets.
    Read,
    /// Act on jobs and deliveries, and see submitted payloads and providers' answers.
    Operate,
    /// Change keys, providers, receivers and secrets.
    Admin,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 4] = [Self::Submit, Self::Read, Self::Operate, Self::Admin];

    /// The wire name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }

    /// The scope of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }

    fn bit(self) -> u8 {
        match self {
            Self::Submit => 1,
            Self::Read => 2,
            Self::Operate => 4,
            Self::Admin => 8,
        }
    }
}

/// The scopes of a key. It is collected from scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScopeSet(u8);

impl ScopeSet {
    /// Whether `scope` is in the set.
    #[must_use]
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Whether the set has no scope.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The scopes of this set that are not in `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        self.scopes().filter(|scope| !other.contains(*scope)).collect()
    }

    /// The scopes, in the order of [`Scope::ALL`].
    pub fn scopes(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.contains(*scope))
    }
}

impl FromIterator<Scope> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

/// The names, separated by commas.
impl fmt::Display for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.scopes().map(Scope::name).collect();
        f.write_str(&names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scope_set_holds_exactly_its_scopes() {
        for bits in 0..16_u8 {
            let chosen = Scope::ALL.into_iter().enumerate().filter(|(n, _)| bits >> n & 1 == 1);
            let chosen: Vec<Scope> = chosen.map(|(_, scope)| scope).collect();
            let set: ScopeSet = chosen.iter().copied().collect();
            assert_eq!(set.scopes().collect::<Vec<_>>(), chosen);
            assert_eq!(set.is_empty(), chosen.is_empty());
        }
    }

    #[test]
    fn scope_set_difference_is_what_lacks() {
        let wide: ScopeSet = Scope::ALL.into_iter().collect();
        let narrow: ScopeSet = [Scope::Read, Scope::Submit].into_iter().collect();
        assert!(narrow.without(wide).is_empty());
        assert_eq!(wide.without(narrow).to_string(), "operate, admin");
        assert_eq!(narrow.to_string(), "submit, read");
    }
}
