//! What a process knows of the secrets, and which of them the next call asks for. It decides, and
//! calls nothing.
//!
//! | what is known of a secret | age | it is |
//! |---|---|---|
//! | a value, or that it is absent | up to ten minutes | fresh: used |
//! | the same | ten minutes to twenty | stale: asked for again, and used while SSM does not answer |
//! | the same, and the table tells of a later change | | outdated: used until the change is in force, then worth nothing |
//! | nothing, or something older | | worth nothing: waited for |
//!
//! A secret that is required and absent is asked for sooner: it may be being stored just now.
//!
//! What is outdated is asked for when it is this process's turn ([`Turn`]), so that a thousand
//! processes which hear of a change together do not ask together. A change is read when SSM shows
//! the version that it wrote; or, where that is not known, whatever SSM shows five seconds later.
//!
//! All secrets of a process are asked for again together, every ten minutes. The first of these
//! periods is shorter by a random part, so that processes that began together do not stay so.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::parameters::MAX_NAMES;
use super::{SecretChange, SecretName};
use crate::moment::Moment;

/// How long a secret is used before it is asked for again.
const FRESH: Duration = Duration::from_secs(600);

/// How long it is used after that, while SSM does not answer.
const GRACE: Duration = Duration::from_secs(600);

/// What is to be asked for so soon is taken along by a call that is made anyway.
const NEAR: Duration = Duration::from_secs(60);

/// How soon a required secret that was absent is asked for again. The time doubles.
const ABSENT_RETRY: Duration = Duration::from_secs(5);

/// How soon SSM is asked again when it has not shown a version that was announced.
const LAG: Duration = Duration::from_secs(1);

/// When SSM surely shows a secret that was just stored.
const SHOWN_AFTER: Duration = Duration::from_secs(5);

/// How long after its instant a turn may be used.
const TURN_HOLDS: Duration = Duration::from_secs(5);

/// Counts the changes of a secret that this process has heard of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Mark(u64);

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
    /// The last change that it shows.
    mark: Mark,
    /// Whether a caller asked for it since.
    is_used: bool,
}

/// A change that the table tells of.
struct Change {
    id: u64,
    mark: Mark,
    heard: Moment,
    /// How long after that what was read before it may be used, and until when that is.
    tolerated: Duration,
    from: DateTime<Utc>,
    /// How long after that SSM may show what was before.
    settles: Duration,
    version: Option<i64>,
    /// Whether this process waits for its turn to read it.
    takes_turns: bool,
    /// There was no such secret before.
    is_new: bool,
    turn: Option<Instant>,
    /// SSM has shown what was before, and is not asked again so soon.
    not_before: Option<Instant>,
}

/// When a secret may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// At any time.
    Free,
    /// In a turn that is to be taken.
    Untaken,
    /// Not before this instant.
    At(Instant),
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
    /// Whether SSM surely shows that change.
    is_settled: bool,
}

#[derive(Default)]
pub(super) struct Cache {
    entries: HashMap<SecretName, Entry>,
    changes: HashMap<SecretName, Change>,
    /// Changes that are being made, and from when they are in force.
    under_way: HashMap<SecretName, DateTime<Utc>>,
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

    /// What was read of a secret, if anything was.
    pub(super) fn text(&self, name: &SecretName) -> Option<Option<Arc<str>>> {
        self.entries.get(name).map(|entry| entry.text.clone())
    }

    /// Whether a change was heard of that what was read does not show.
    pub(super) fn is_outdated(&self, name: &SecretName) -> bool {
        self.unread_change(name).is_some()
    }

    /// From when a change is in force that was heard of and not read.
    pub(super) fn changes_at(&self, name: &SecretName) -> Option<DateTime<Utc>> {
        let unread = self.unread_change(name).map(|change| change.from);
        let under_way = self.under_way.get(name).copied();
        unread.into_iter().chain(under_way).min()
    }

    /// When a secret may be asked for, that nothing is known of or that is not fresh.
    pub(super) fn turn(&self, name: &SecretName) -> Turn {
        let now = Instant::now();
        let Some(change) = self.unread_change(name) else { return Turn::Free };
        if let Some(at) = change.not_before.filter(|at| now < *at) {
            return Turn::At(at);
        }
        match change.turn.filter(|at| now < *at + TURN_HOLDS) {
            _ if !change.takes_turns => Turn::Free,
            None => Turn::Untaken,
            Some(at) if now < at => Turn::At(at),
            Some(_) => Turn::Free,
        }
    }

    pub(super) fn take_turn(&mut self, name: &SecretName, at: Instant) {
        if let Some(change) = self.changes.get_mut(name) {
            change.turn = Some(at);
        }
    }

    /// What was read and does not show the last change; a secret that was never read may be
    /// asked for at any time, unless it is new.
    fn unread_change(&self, name: &SecretName) -> Option<&Change> {
        let change = self.changes.get(name)?;
        let is_unread = match self.entries.get(name) {
            Some(entry) => entry.mark < change.mark,
            None => change.is_new,
        };
        is_unread.then_some(change)
    }

    /// A secret that was just stored under a name of its own is read in a turn.
    pub(super) fn expect_in_turn(&mut self, name: &SecretName) {
        let is_cold = self.entries.is_empty();
        if is_cold || self.entries.contains_key(name) || self.changes.contains_key(name) {
            self.expect(name.clone());
            return;
        }
        let stored = Change {
            id: 0,
            mark: Mark(1),
            heard: Moment::now(),
            tolerated: Duration::ZERO,
            from: DateTime::UNIX_EPOCH,
            settles: SHOWN_AFTER,
            version: Some(1),
            takes_turns: true,
            is_new: true,
            turn: None,
            not_before: None,
        };
        self.changes.insert(name.clone(), stored);
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
                let due = self
                    .entries
                    .iter()
                    .filter(|(name, it)| it.is_due() || (it.is_used && self.is_outdated(name)));
                let due: BTreeSet<&SecretName> = due.map(|(name, _)| name).collect();
                let also = due.into_iter().chain(&self.expected);
                let also = also.filter(|name| !self.wanted.contains(name));
                let all = self.wanted.iter().chain(also);
                all.filter(|name| !self.refused.contains(name)).cloned().collect()
            }
        };
        names.truncate(MAX_NAMES);
        self.wanted.retain(|name| !names.contains(name));
        names.into_iter().map(|name| self.asked(name)).collect()
    }

    /// A secret that a call is about to ask for.
    pub(super) fn asked(&self, name: SecretName) -> Asked {
        let change = self.changes.get(&name);
        let mark = change.map_or(Mark(0), |it| it.mark);
        Asked { name, mark, is_settled: change.is_none_or(Change::is_settled) }
    }

    /// A call has asked for it, with or without success.
    pub(super) fn end_turn(&mut self, name: &SecretName) {
        if let Some(change) = self.changes.get_mut(name) {
            change.turn = None;
        }
    }

    /// Keeps what a secret is, and the version of its parameter. `sample` is random, in
    /// `0.0..1.0`.
    pub(super) fn store(
        &mut self,
        asked: &Asked,
        text: Option<Arc<str>>,
        version: Option<i64>,
        sample: f64,
    ) {
        let fresh_for = self.rest_of_period(sample);
        let before = self.entries.get(&asked.name).filter(|before| before.text.is_none());
        let absent_for = before.map_or(Duration::ZERO, |it| it.absent_for + it.read.age());
        let read = Moment::now();
        let mut mark = asked.mark;
        if let Some(change) = self.changes.get_mut(&asked.name).filter(|it| it.mark == mark) {
            let is_shown = change.version.is_some_and(|least| version >= Some(least));
            change.not_before = None;
            if !is_shown && !asked.is_settled {
                mark = Mark(mark.0.saturating_sub(1));
                let left = change.settles.saturating_sub(change.heard.age());
                let wait = if change.version.is_some() { left.min(LAG) } else { left };
                change.not_before = Some(Instant::now() + wait);
            }
        }
        let entry = Entry { text, read, fresh_for, absent_for, mark, is_used: false };
        self.entries.insert(asked.name.clone(), entry);
        self.expected.remove(&asked.name);
        self.refused.remove(&asked.name);
    }

    /// Keeps what this process itself has just written.
    pub(super) fn put(&mut self, name: &SecretName, text: Option<Arc<str>>, sample: f64) {
        let written = Asked { is_settled: true, ..self.asked(name.clone()) };
        self.store(&written, text, None, sample);
    }

    pub(super) fn refuse(&mut self, name: &SecretName) {
        self.refused.insert(name.clone());
        self.expected.remove(name);
    }

    pub(super) fn forget(&mut self, name: &SecretName) {
        self.entries.remove(name);
    }

    /// What was read before this change is outdated, unless it was heard of before.
    pub(super) fn hear_of_change(
        &mut self,
        name: &SecretName,
        change: &SecretChange,
        takes_turns: bool,
        now: DateTime<Utc>,
    ) {
        if change.is_under_way(now) {
            self.under_way.insert(name.clone(), change.from);
            return;
        }
        self.under_way.remove(name);
        let before = self.changes.get(name);
        if before.is_some_and(|before| before.id == change.id) {
            return;
        }
        let mark = Mark(before.map_or(0, |before| before.mark.0).saturating_add(1));
        let tolerated = change.tolerated(now).to_std().unwrap_or_default();
        let settles = (change.settles_at() - now).to_std().unwrap_or_default();
        // What was outdated already gets no more time by another change.
        let unread = self.unread_change(name);
        let left = unread.map(|it| it.tolerated.saturating_sub(it.heard.age()));
        let heard = Change {
            id: change.id,
            mark,
            heard: Moment::now(),
            tolerated: left.map_or(tolerated, |left| left.min(tolerated)),
            from: unread.map_or(change.from, |unread| unread.from.min(change.from)),
            settles,
            version: change.version,
            takes_turns,
            is_new: false,
            turn: unread.and_then(|unread| unread.turn),
            not_before: None,
        };
        self.changes.insert(name.clone(), heard);
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

impl Change {
    fn is_settled(&self) -> bool {
        self.heard.age() >= self.settles
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
