//! API keys: what is kept of one, whom a presented key belongs to, and which keys may be made
//! and revoked.

use std::fmt;

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::scope::{Scope, ScopeSet};
use crate::id::{KeyId, KeyName, KeyOwner, NameError};

/// The most keys that a stack has. Every process keeps all of them, and compares each request
/// with all of them.
pub const MAX_API_KEYS: usize = 100;

/// A new API key: `rr_` and 64 hexadecimal digits. It is shown once and never stored.
#[derive(Clone)]
pub struct ApiKey(String);

impl ApiKey {
    /// A key from random bytes.
    #[must_use]
    pub fn from_random(bytes: [u8; 32]) -> Self {
        Self(format!("rr_{}", hex::encode(bytes)))
    }

    /// The text, for its holder.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is kept of the key.
    #[must_use]
    pub fn hash(&self) -> ApiKeyHash {
        ApiKeyHash::of(&self.0)
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(redacted)")
    }
}

/// The SHA-256 digest of an API key. A key is 32 random bytes, so an attacker does not find it by its hash.
#[derive(Clone, Copy)]
pub struct ApiKeyHash([u8; 32]);

/// Why a text is not the hash of an API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the hash of an API key is a SHA-256 digest of 64 hexadecimal digits")]
pub struct ApiKeyHashError;

impl ApiKeyHash {
    /// The hash of a key.
    #[must_use]
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    /// Reads a stored hash.
    ///
    /// # Errors
    /// When it is not 64 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, ApiKeyHashError> {
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash).map_err(|_| ApiKeyHashError)?;
        Ok(Self(hash))
    }

    /// The text for the table.
    #[must_use]
    pub fn to_hex(self) -> String {
        hex::encode(self.0)
    }
}

/// In constant time.
impl ConstantTimeEq for ApiKeyHash {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl PartialEq for ApiKeyHash {
    fn eq(&self, other: &Self) -> bool {
        self.ct_eq(other).into()
    }
}

impl Eq for ApiKeyHash {}

impl fmt::Debug for ApiKeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKeyHash(redacted)")
    }
}

/// Who made a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyCreator {
    /// An operator with AWS credentials.
    Operator,
    /// The holder of another key.
    Key(KeyId),
}

impl KeyCreator {
    const OPERATOR: &str = "operator";

    /// Reads what [`KeyCreator::as_str`] wrote.
    ///
    /// # Errors
    /// When it is neither `operator` nor a key's id.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        match text {
            Self::OPERATOR => Ok(Self::Operator),
            id => KeyId::parse(id).map(Self::Key),
        }
    }

    /// `operator`, or the key's id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Operator => Self::OPERATOR,
            Self::Key(id) => id.as_str(),
        }
    }
}

/// What is kept of an API key. No two have the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// Names this very key; another key may get the name of a revoked one, and never its id.
    pub id: KeyId,
    /// What its owner calls it.
    pub name: KeyName,
    /// Who answers for what is done with it.
    pub owner: KeyOwner,
    /// What it may be used for.
    pub scopes: ScopeSet,
    /// The key's hash.
    pub hash: ApiKeyHash,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Who made it.
    pub created_by: KeyCreator,
}

impl KeyRecord {
    fn is_admin(&self) -> bool {
        self.scopes.contains(Scope::Admin)
    }
}

/// Why no key of that kind may be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CreateRefusal {
    /// These scopes are not the creator's own.
    ScopeNotGranted(ScopeSet),
    /// This key has the name already.
    NameTaken(KeyId),
    /// There are [`MAX_API_KEYS`] of them.
    TooMany,
}

/// Why a key may not be revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevokeRefusal {
    /// There is no such key.
    Unknown,
    /// No other key has the scope `admin`, so none could be made or revoked any more.
    LastAdmin,
}

/// The API keys in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeys(Vec<KeyRecord>);

impl FromIterator<KeyRecord> for ApiKeys {
    fn from_iter<I: IntoIterator<Item = KeyRecord>>(records: I) -> Self {
        Self(records.into_iter().collect())
    }
}

/// A key that may be revoked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Revocation<'a> {
    /// The key.
    pub record: &'a KeyRecord,
    /// An admin's key that has to be in force still when the other one goes: the revoker's, or
    /// any other if the revoker revokes his own.
    pub remaining: &'a KeyRecord,
}

impl ApiKeys {
    /// The keys.
    pub fn iter(&self) -> impl Iterator<Item = &KeyRecord> {
        self.0.iter()
    }

    /// The key of this id.
    #[must_use]
    pub fn get(&self, id: &KeyId) -> Option<&KeyRecord> {
        self.0.iter().find(|record| record.id == *id)
    }

    /// The record of `key`, if it is in force. It is compared with every hash in constant time,
    /// so the time of an answer says neither how near a wrong key is nor which one a right one is.
    #[must_use]
    pub fn of(&self, key: &str) -> Option<&KeyRecord> {
        let presented = ApiKeyHash::of(key);
        let (mut found, mut place) = (Choice::from(0), 0_u64);
        for (at, record) in (0_u64..).zip(&self.0) {
            let is_it = record.hash.ct_eq(&presented);
            place.conditional_assign(&at, is_it);
            found |= is_it;
        }
        let place = usize::try_from(place).ok().filter(|_| found.into())?;
        self.0.get(place)
    }

    /// Whether `creator` may make a key of this name with these scopes: no key grants a scope
    /// that it lacks.
    ///
    /// # Errors
    /// Why not.
    pub fn check_new(
        &self,
        creator: &KeyRecord,
        name: &KeyName,
        scopes: ScopeSet,
    ) -> Result<(), CreateRefusal> {
        let lacking = scopes.without(creator.scopes);
        if !lacking.is_empty() {
            return Err(CreateRefusal::ScopeNotGranted(lacking));
        }
        self.check_name(name)
    }

    /// Whether there may be a key of this name beside the others.
    ///
    /// # Errors
    /// Why not.
    pub fn check_name(&self, name: &KeyName) -> Result<(), CreateRefusal> {
        if let Some(namesake) = self.0.iter().find(|record| record.name == *name) {
            return Err(CreateRefusal::NameTaken(namesake.id.clone()));
        }
        match self.0.len() < MAX_API_KEYS {
            true => Ok(()),
            false => Err(CreateRefusal::TooMany),
        }
    }

    /// The key of this id, if `revoker` may revoke it.
    ///
    /// # Errors
    /// Why not.
    pub fn check_revocation<'a>(
        &'a self,
        revoker: &'a KeyRecord,
        id: &KeyId,
    ) -> Result<Revocation<'a>, RevokeRefusal> {
        let record = self.get(id).ok_or(RevokeRefusal::Unknown)?;
        let mut others = self.0.iter().filter(|other| other.id != *id && other.is_admin());
        let remaining = if revoker.id == *id { others.next() } else { Some(revoker) };
        let remaining = remaining.filter(|remaining| remaining.is_admin());
        remaining.map(|remaining| Revocation { record, remaining }).ok_or(RevokeRefusal::LastAdmin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: u8, scopes: &[Scope]) -> KeyRecord {
        KeyRecord {
            id: KeyId::from_bytes([number; 16]),
            name: KeyName::parse(&format!("key-{number}")).unwrap(),
            owner: KeyOwner::parse("ops").unwrap(),
            scopes: scopes.iter().copied().collect(),
            hash: ApiKeyHash::of(&format!("rr_{number}")),
            created_at: DateTime::UNIX_EPOCH,
            created_by: KeyCreator::Operator,
        }
    }

    fn some_keys() -> ApiKeys {
        [
            record(1, &[Scope::Submit]),
            record(2, &[Scope::Admin, Scope::Read]),
            record(3, &[Scope::Read]),
        ]
        .into_iter()
        .collect()
    }

    #[test]
    fn api_key_leads_to_its_own_record() {
        let keys = some_keys();
        for number in 1..=3 {
            let found = keys.of(&format!("rr_{number}")).unwrap();
            assert_eq!(found.id, KeyId::from_bytes([number; 16]));
        }
        for wrong in ["", "rr_", "rr_1 ", "rr_4", &ApiKeyHash::of("rr_1").to_hex()] {
            assert_eq!(keys.of(wrong), None, "{wrong}");
        }
        assert_eq!(ApiKeys::from_iter([]).of("rr_1"), None);
    }

    #[test]
    fn key_grants_only_its_own_scopes() {
        let keys = some_keys();
        let creator = record(2, &[Scope::Admin, Scope::Read]);
        let name = KeyName::parse("new").unwrap();
        let check =
            |scopes: &[Scope]| keys.check_new(&creator, &name, scopes.iter().copied().collect());
        assert_eq!(check(&[Scope::Read]), Ok(()));
        assert_eq!(check(&[Scope::Read, Scope::Admin]), Ok(()));
        let lacking = [Scope::Submit, Scope::Operate].into_iter().collect();
        assert_eq!(check(&Scope::ALL), Err(CreateRefusal::ScopeNotGranted(lacking)));
    }

    #[test]
    fn key_name_is_given_once() {
        let taken = KeyName::parse("key-1").unwrap();
        let refusal = some_keys().check_name(&taken).unwrap_err();
        assert_eq!(refusal, CreateRefusal::NameTaken(KeyId::from_bytes([1; 16])));
    }

    #[test]
    fn number_of_keys_is_bounded() {
        let many = |count: u8| -> ApiKeys { (0..count).map(|n| record(n, &[])).collect() };
        let name = KeyName::parse("one-more").unwrap();
        assert_eq!(many(99).check_name(&name), Ok(()));
        assert_eq!(many(100).check_name(&name), Err(CreateRefusal::TooMany));
    }

    #[test]
    fn last_admin_key_is_not_revoked() {
        let keys = some_keys();
        let id = |number| KeyId::from_bytes([number; 16]);
        let admin = keys.get(&id(2)).unwrap();
        assert_eq!(keys.check_revocation(admin, &id(2)), Err(RevokeRefusal::LastAdmin));
        assert_eq!(keys.check_revocation(admin, &id(9)), Err(RevokeRefusal::Unknown));
        let ids = |revocation: Revocation<'_>| {
            (revocation.record.id.clone(), revocation.remaining.id.clone())
        };
        assert_eq!(keys.check_revocation(admin, &id(1)).map(ids), Ok((id(1), id(2))));
        let two: ApiKeys = keys.iter().cloned().chain([record(4, &[Scope::Admin])]).collect();
        assert_eq!(two.check_revocation(admin, &id(2)).map(ids), Ok((id(2), id(4))));
        assert_eq!(two.check_revocation(admin, &id(4)).map(ids), Ok((id(4), id(2))));
        let other = two.get(&id(4)).unwrap();
        assert_eq!(two.check_revocation(other, &id(1)).map(ids), Ok((id(1), id(4))));
    }

    #[test]
    fn api_key_is_hidden_in_debug() {
        let key = ApiKey::from_random([9; 32]);
        assert_eq!(key.reveal().len(), 67);
        let hash = key.hash().to_hex();
        assert_eq!(ApiKeyHash::parse(&hash), Ok(key.hash()));
        let shown = format!("{key:?} {:?} {:?}", key.hash(), record(1, &[]));
        assert!(!shown.contains("0909") && !shown.contains(&hash), "{shown}");
        for bad in ["", "abc", &hash[1..]] {
            assert!(ApiKeyHash::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn key_creator_round_trips() {
        for creator in [KeyCreator::Operator, KeyCreator::Key(KeyId::from_bytes([7; 16]))] {
            assert_eq!(KeyCreator::parse(creator.as_str()), Ok(creator));
        }
        assert!(KeyCreator::parse("alice").is_err());
    }
}
