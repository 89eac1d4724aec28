//! What a process knows of the secrets, and which of them the next call asks for. It decides, and
//! calls nothing.
//!
//! | what is known of a secret | age | it is |
//! |---|---|---|
//! | a value, or that it is absent | up to ten minutes | fresh: used |
//! | the same | ten minutes to twenty | stale: asked for again, and used while SSM does not answer |
//! | the same, and the table tells of a later change | | stale for the rest of a minute after the change, then worth nothing |
//! | nothing, or something older | | worth nothing: waited for |
//!
//! A secret that is required and absent is asked for sooner: it may be being stored just now.
//!
//! All secrets of a process are asked for again together, every ten minutes. The first of these
//! periods is shorter by a random part, so that processes that began together do not stay so.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::SecretName;
use super::parameters::MAX_NAMES;
use crate::moment::Moment;

/// How long a secret is used before it is asked for again.
const FRESH: Duration = Duration::from_secs(600);

/// How long it is used after that, while SSM does not answer.
const GRACE: Duration = Duration::from_secs(600);

/// What is to be asked for so soon is taken along by a call that is made anyway.
const NEAR: Duration = Duration::from_secs(60);

/// How soon a required secret that was absent is asked for again. The time doubles.
const ABSENT_RETRY: Duration = Duration::from_secs(5);

/// Counts the changes of a secret that the table tells of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark(pub(super) u64);

/// Whether the caller can do without the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Required,
    Optional,
}

/// What a secret was when it was read.
struct Entry {
    text: Option<Arc<str>>,
    read: Moment,
    /// The age at which it is asked for again.
    fresh_for: Duration,
    /// How long it had been absent when it was read.
    absent_for: Duration,
    mark: Mark,
    /// Whether a caller asked for it since.
    is_used: bool,
}

/// A change that the table tells of.
struct Change {
    mark: Mark,
    heard: Moment,
    /// How long after that what was read before it may be used.
    tolerated: Duration,
}

/// What is known of a secret.
pub(super) enum Known {
    Fresh(Option<Arc<str>>),
    Stale { text: Option<Arc<str>>, age: Duration },
    Nothing,
}

/// A secret that is asked for, and the last change of it that was heard of before.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) name: SecretName,
    mark: Mark,
}

#[derive(Default)]
pub(super) struct Cache {
    entries: HashMap<SecretName, Entry>,
    changes: HashMap<SecretName, Change>,
    /// The period after which all entries are read again, and its length.
    period: Option<(Moment, Duration)>,
    /// What callers wait for, oldest first.
    wanted: Vec<SecretName>,
    /// What they are going to need.
    expected: BTreeSet<SecretName>,
    /// What SSM refuses to show. One such name would have the others of its call refused too.
    refused: BTreeSet<SecretName>,
}

impl Cache {
    pub(super) fn names(&self) -> impl Iterator<Item = &SecretName> {
        self.entries.keys()
    }

    pub(super) fn look_up(&mut self, name: &SecretName, need: Need) -> Known {
        let Some(entry) = self.entries.get_mut(name) else { return Known::Nothing };
        entry.is_used = true;
        let (text, age) = (entry.text.clone(), entry.read.age());
        let change = self.changes.get(name).filter(|change| entry.mark < change.mark);
        let is_outdated = change.is_some();
        let is_tolerated = change.is_none_or(|it| it.heard.age() < it.tolerated);
        if !is_outdated && age < entry.fresh_for(need) {
            Known::Fresh(text)
        } else if is_tolerated && age < FRESH + GRACE {
            Known::Stale { text, age }
        } else {
            Known::Nothing
        }
    }

    pub(super) fn want(&mut self, name: &SecretName) {
        if !self.wanted.contains(name) {
            self.wanted.push(name.clone());
        }
    }

    /// The next call takes this secret along, unless it is known.
    pub(super) fn expect(&mut self, name: SecretName) {
        if !self.entries.contains_key(&name) {
            self.expected.insert(name);
        }
    }

    /// What the next call asks for: what is waited for, what is due, and what is going to be
    /// needed, as far as it has room.
    pub(super) fn take_call(&mut self) -> Vec<Asked> {
        let alone = self.wanted.first().filter(|name| self.refused.contains(name)).cloned();
        let mut names: Vec<SecretName> = match alone {
            Some(name) => vec![name],
            None => {
                let due = self.entries.iter().filter(|(_, it)| it.is_due()).map(|(name, _)| name);
                let due: BTreeSet<&SecretName> = due.collect();
                let also = due.into_iter().chain(&self.expected);
                let also = also.filter(|name| !self.wanted.contains(name));
                let all = self.wanted.iter().chain(also);
                all.filter(|name| !self.refused.contains(name)).cloned().collect()
            }
        };
        names.truncate(MAX_NAMES);
        self.wanted.retain(|name| !names.contains(name));
        let mark = |name: &SecretName| self.changes.get(name).map_or(Mark(0), |it| it.mark);
        names.into_iter().map(|name| Asked { mark: mark(&name), name }).collect()
    }

    /// Keeps what a secret is. `sample` is random, in `0.0..1.0`.
    pub(super) fn store(&mut self, asked: &Asked, text: Option<Arc<str>>, sample: f64) {
        let fresh_for = self.rest_of_period(sample);
        let before = self.entries.get(&asked.name).filter(|before| before.text.is_none());
        let absent_for = before.map_or(Duration::ZERO, |it| it.absent_for + it.read.age());
        let (read, mark) = (Moment::now(), asked.mark);
        let entry = Entry { text, read, fresh_for, absent_for, mark, is_used: false };
        self.entries.insert(asked.name.clone(), entry);
        self.expected.remove(&asked.name);
        self.refused.remove(&asked.name);
    }

    /// Keeps what this process itself has just read or written, past the cache.
    pub(super) fn put(&mut self, name: &SecretName, text: Option<Arc<str>>, sample: f64) {
        let mark = self.changes.get(name).map_or(Mark(0), |it| it.mark);
        self.store(&Asked { name: name.clone(), mark }, text, sample);
    }

    pub(super) fn refuse(&mut self, name: &SecretName) {
        self.refused.insert(name.clone());
        self.expected.remove(name);
    }

    pub(super) fn forget(&mut self, name: &SecretName) {
        self.entries.remove(name);
    }

    /// What was read before `mark` is outdated, and used for at most `tolerated` more.
    pub(super) fn hear_of_change(&mut self, name: &SecretName, mark: Mark, tolerated: Duration) {
        let heard = Moment::now();
        let change = Change { mark, heard, tolerated };
        let Some(before) = self.changes.get_mut(name) else {
            self.changes.insert(name.clone(), change);
            return;
        };
        let entry_mark = self.entries.get(name).map_or(Mark(0), |entry| entry.mark);
        // What was outdated already gets no more time by another change.
        let left = match entry_mark < before.mark {
            true => before.tolerated.saturating_sub(before.heard.age()).min(tolerated),
            false => tolerated,
        };
        if mark >= before.mark {
            *before = Change { tolerated: left, ..change };
        }
    }

    /// The time until all secrets are asked for again.
    fn rest_of_period(&mut self, sample: f64) -> Duration {
        let length = match self.period {
            Some((began, length)) if began.age() + NEAR < length => return length - began.age(),
            Some(_) => FRESH,
            None => FRESH.mul_f64(0.5 + sample / 2.0),
        };
        self.period = Some((Moment::now(), length));
        length
    }
}

impl Entry {
    fn fresh_for(&self, need: Need) -> Duration {
        match (need, &self.text) {
            (Need::Required, None) => self.fresh_for.min(self.absent_for.max(ABSENT_RETRY)),
            (Need::Required, Some(_)) | (Need::Optional, _) => self.fresh_for,
        }
    }

    /// Whether it is to be asked for again, now or soon, and is worth it.
    fn is_due(&self) -> bool {
        self.is_used && self.read.age() + NEAR >= self.fresh_for
    }
}
