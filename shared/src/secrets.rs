//! Secrets in SSM Parameter Store, below one prefix per stack, behind a cache.
//!
//! An account has forty reads of parameters a second, for all its functions together. So a
//! process asks for ten names in one call: [`Secrets`] collects what is asked for at the same
//! time, and takes along what is due and what was announced by [`Secrets::expect`]. What it
//! learned, also that a parameter does not exist, is used for ten minutes, and for ten minutes
//! more while SSM does not answer: [`cache`] has the rules. What the API or `relay` changes is
//! announced in the table: [`follow`] has how a process hears of it, and [`look`] what it does
//! about changes that are made by hand.
//!
//! A caller for whom there is something to use waits a second at most, and not at all after a
//! call has just failed. Any other waits and repeats the call, with full jitter.
//!
//! This is not a cache library such as `moka`, because a library's entries are gone when their
//! TTL is over. And for a few names a library would only add to the size of each function.

mod cache;
mod change;
mod follow;
mod look;
mod parameters;
mod turn;

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_sdk_ssm::Client;
use chrono::{DateTime, Utc};
use domain::headers::HeadersId;
use domain::id::ProviderName;
use domain::signature::{KnownSecrets, SigningSecrets};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::warn;

pub use self::change::SecretChange;

use self::cache::{Asked, Cache, Known, Need, Turn};
use self::follow::Follower;
use self::parameters::{CallError, Created, Parameters};
use self::turn::next_turn;
use crate::entropy::Entropy;
use crate::moment::Moment;
use crate::store::{Consistency, Store};
use crate::telemetry::chain;

/// How long a caller without anything to use waits for SSM. API Gateway waits for 30 s, of which
/// a provider may take 15.
pub const PATIENCE: Duration = Duration::from_secs(12);

/// How long a caller waits that has something to use: for a healthy call after a long pause.
const SHORT_WAIT: Duration = Duration::from_secs(1);

/// The wait after a failed call while a caller has nothing to use. It doubles up to the second.
const WAITS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(3));

/// The wait after a failed call while there is something to use.
const RELAXED_WAITS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// How long SSM is not asked again for what it refuses to show.
const REFUSED_FOR: Duration = Duration::from_secs(5);

/// A secret's place below the stack's prefix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecretName {
    /// The key of the tokens in callback URLs.
    CallbackSecret,
    /// The secrets that outgoing webhooks are signed with, newest first.
    WebhookSecrets,
    /// Headers that the default receiver's owner wants on every webhook. They never change:
    /// other headers have another id.
    WebhookHeaders(HeadersId),
    /// A provider's API key.
    ProviderKey(ProviderName),
    /// The secrets that a provider signs its callbacks with, separated by commas.
    ProviderWebhookSecrets(ProviderName),
}

impl SecretName {
    /// Where it is below the stack's prefix.
    #[must_use]
    pub fn path(&self) -> String {
        match self {
            Self::CallbackSecret => "callback-secret".into(),
            Self::WebhookSecrets => "webhook-secrets".into(),
            Self::WebhookHeaders(id) => format!("webhook-headers/{id}"),
            Self::ProviderKey(provider) => format!("providers/{provider}/api-key"),
            Self::ProviderWebhookSecrets(provider) => {
                format!("providers/{provider}/webhook-secrets")
            }
        }
    }

    /// Whether its changes are announced to all processes.
    fn is_announced(&self) -> bool {
        match self {
            // The table tells who made it, to those who miss it.
            Self::CallbackSecret => false,
            // They never change.
            Self::WebhookHeaders(_) => false,
            Self::WebhookSecrets | Self::ProviderKey(_) | Self::ProviderWebhookSecrets(_) => true,
        }
    }

    /// The secret at this path, if it is one whose changes are announced.
    #[must_use]
    pub fn of_path(path: &str) -> Option<Self> {
        if path == "webhook-secrets" {
            return Some(Self::WebhookSecrets);
        }
        let (provider, kind) = path.strip_prefix("providers/")?.split_once('/')?;
        let provider = ProviderName::parse(provider).ok()?;
        match kind {
            "api-key" => Some(Self::ProviderKey(provider)),
            "webhook-secrets" => Some(Self::ProviderWebhookSecrets(provider)),
            _ => None,
        }
    }
}

/// Why a secret cannot be read or written. Never carries its value.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SecretError {
    /// The parameter does not exist.
    #[error("the parameter {0} does not exist")]
    Missing(String),
    /// SSM did not answer, or refused.
    #[error("the parameter {name} could not be read or written")]
    Unavailable {
        /// The parameter's full name.
        name: String,
        /// The SDK's error.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// SSM answered with a version that is older than the last one written.
    #[error("the parameter {0} is read as it was before it was last written")]
    Stale(String),
    /// The stored text has another form than this secret.
    #[error("the parameter {name} is malformed: {problem}")]
    Malformed {
        /// The parameter's full name.
        name: String,
        /// What is wrong, without the value.
        problem: String,
    },
}

/// SSM took longer than a caller waits.
#[derive(Debug, thiserror::Error)]
#[error("no answer in time")]
struct NoAnswer;

/// Where the secret of [`Secrets::get_or_create`] comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was stored before.
    Stored,
    /// This call created it.
    Created,
}

/// The stack's secrets.
pub struct Secrets(Arc<Reader>);

/// Its state is locked for moments only, never across a call.
struct Reader {
    parameters: Parameters,
    entropy: Entropy,
    follower: Follower,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    cache: Cache,
    /// When the table was last looked at for changes.
    looked_at: Option<DateTime<Utc>>,
    /// When this process last looked, or asked to look, for changes made by hand.
    looked_by_hand: Option<Moment>,
    /// The call that is under way, or waits for its time. Its callers drive it.
    call: Option<WeakShared<BoxFuture<'static, Troubles>>>,
    failures: Failures,
    refusals: HashMap<SecretName, (Moment, CallError)>,
}

/// Why a call did not read all that it asked for.
type Troubles = Arc<HashMap<SecretName, CallError>>;

/// The calls that failed in a row.
#[derive(Default)]
struct Failures {
    count: u32,
    last: Option<(Instant, f64)>,
}

impl Failures {
    /// When the next call may be made: full jitter over a wait that doubles.
    fn next_call(&self, (first, longest): (Duration, Duration)) -> Option<Instant> {
        let (at, sample) = self.last?;
        let doublings = self.count.saturating_sub(1).min(16);
        let wait = first.saturating_mul(1 << doublings).min(longest);
        Some(at + wait.mul_f64(sample))
    }

    /// Adds a failure that several callers may have noticed, once.
    fn add_since(&mut self, began: Instant, sample: f64) {
        if self.last.is_none_or(|(at, _)| at < began) {
            self.add(sample);
        }
    }

    fn add(&mut self, sample: f64) {
        self.count = self.count.saturating_add(1);
        self.last = Some((Instant::now(), sample));
    }
}

/// Shows the names of the cached secrets, and no value.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.state();
        let names: Vec<_> = state.cache.names().collect();
        f.debug_struct("Secrets")
            .field("prefix", &self.0.parameters.prefix())
            .field("cached", &names)
            .finish()
    }
}

impl Secrets {
    /// Secrets below `prefix`, such as `/render-relay/production`, whose changes `store` tells
    /// of. Jitter comes from `entropy`, and the time from `clock`.
    #[must_use]
    pub fn new(
        client: &Client,
        prefix: &str,
        entropy: Entropy,
        store: Store,
        clock: fn() -> DateTime<Utc>,
    ) -> Self {
        let parameters = Parameters::new(client, prefix);
        let follower = Follower::new(store, clock);
        Self(Arc::new(Reader { parameters, entropy, follower, state: Mutex::default() }))
    }

    /// The secret, parsed by `parse`.
    ///
    /// # Errors
    /// When the secret is missing, cannot be read, or `parse` refuses it.
    pub async fn get<T, E: ToString>(
        &self,
        name: &SecretName,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, SecretError> {
        let text = self.0.read(name, Need::Required).await?;
        let text = text.ok_or_else(|| SecretError::Missing(self.0.full(name)))?;
        self.parsed(name, &text, parse)
    }

    /// The secret, or none when the parameter does not exist.
    ///
    /// # Errors
    /// When the secret cannot be read, or `parse` refuses it.
    pub async fn find<T, E: ToString>(
        &self,
        name: &SecretName,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, SecretError> {
        let text = self.0.read(name, Need::Optional).await?;
        text.map(|text| self.parsed(name, &text, parse)).transpose()
    }

    /// The secrets that webhooks are signed with, and until when they are known to be right.
    ///
    /// # Errors
    /// When they are missing, cannot be read, or are malformed.
    pub async fn signing(&self) -> Result<KnownSecrets, SecretError> {
        let name = SecretName::WebhookSecrets;
        self.0.read(&name, Need::Required).await?;
        let (text, looked_at, changes_at) = {
            let state = self.0.state();
            let text = state.cache.text(&name).flatten();
            (text, state.looked_at, state.cache.changes_at(&name))
        };
        let text = text.ok_or_else(|| self.missing(&name))?;
        let secrets = self.parsed(&name, &text, SigningSecrets::parse)?;
        // One that never looked knows nothing.
        Ok(KnownSecrets::new(secrets, looked_at.unwrap_or(DateTime::UNIX_EPOCH), changes_at))
    }

    /// The secret with every change that was announced before, without a turn: for what
    /// happens rarely. None when the parameter does not exist.
    ///
    /// # Errors
    /// When the table or the secret cannot be read, or `parse` refuses it.
    pub async fn current<T, E: ToString>(
        &self,
        name: &SecretName,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, SecretError> {
        let followed = self.0.follow(Consistency::Strong).await;
        let is_certain = followed.is_ok() && {
            let state = self.0.state();
            !state.cache.is_outdated(name) && state.cache.text(name).flatten().is_some()
        };
        let text = match is_certain {
            true => self.0.read(name, Need::Optional).await?,
            false => self.stored(name).await?.map(|(text, _)| text),
        };
        text.map(|text| self.parsed(name, &text, parse)).transpose()
    }

    /// Announces what is going to be needed: the next call takes it along.
    pub fn expect(&self, names: impl IntoIterator<Item = SecretName>) {
        let mut state = self.0.state();
        names.into_iter().for_each(|name| state.cache.expect(name));
    }

    /// Whether the secret's value is known and may still be used.
    #[must_use]
    pub fn holds(&self, name: &SecretName) -> bool {
        match self.0.state().cache.look_up(name, Need::Required) {
            Known::Fresh(text) | Known::Stale { text, .. } => text.is_some(),
            Known::Nothing => false,
        }
    }

    /// Secrets that were read before this change are read again, at once. While SSM does not
    /// answer they are used until the change is in force.
    pub fn hear_of_change(&self, names: &[SecretName], change: &SecretChange, now: DateTime<Utc>) {
        let mut state = self.0.state();
        names.iter().for_each(|name| state.cache.hear_of_change(name, change, false, now));
    }

    /// Has a secret that was just stored read in a turn, unless this process has only begun: of
    /// those that know nothing yet, few begin at the same time.
    pub fn expect_in_turn(&self, name: &SecretName) {
        self.0.state().cache.expect_in_turn(name);
    }

    /// Removes the secret from the cache.
    pub fn forget(&self, name: &SecretName) {
        self.0.state().cache.forget(name);
    }

    /// The secret as it is stored now, made by `create` if it does not exist. Of several
    /// concurrent callers one stores its secret, and all of them get that one.
    ///
    /// # Errors
    /// When the secret can be neither read nor written, or `parse` refuses it.
    pub async fn get_or_create<T, E: ToString>(
        &self,
        name: &SecretName,
        create: impl FnOnce() -> String,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<(T, Origin), SecretError> {
        if let Some((text, _)) = self.stored(name).await? {
            return Ok((self.parsed(name, &text, parse)?, Origin::Stored));
        }
        let made = create();
        let (text, origin) = match self.create(name, &made).await? {
            Origin::Created => (made.into(), Origin::Created),
            // By another caller, or by this call: one whose response was lost is repeated.
            Origin::Stored => {
                let (text, _) = self.stored(name).await?.ok_or_else(|| self.missing(name))?;
                let is_ours = *text == *made;
                (text, if is_ours { Origin::Created } else { Origin::Stored })
            }
        };
        Ok((self.parsed(name, &text, parse)?, origin))
    }

    /// Stores a secret unless it exists.
    ///
    /// # Errors
    /// When SSM does not confirm the write; the secret may be stored all the same.
    pub async fn create(&self, name: &SecretName, text: &str) -> Result<Origin, SecretError> {
        match self.0.repeat(name, || self.0.parameters.create(name, text)).await? {
            Created::Stored => {
                self.0.keep(name, Some(text.into()));
                Ok(Origin::Created)
            }
            Created::Existed => {
                self.forget(name);
                Ok(Origin::Stored)
            }
        }
    }

    /// The secret as it is stored, of version `least` or later: for a caller that is going to
    /// replace it.
    ///
    /// # Errors
    /// When the secret is missing, cannot be read, is of an older version, or `parse` refuses
    /// it.
    pub async fn read_since<T, E: ToString>(
        &self,
        name: &SecretName,
        least: i64,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, SecretError> {
        let (text, version) = self.stored(name).await?.ok_or_else(|| self.missing(name))?;
        if version < least {
            self.forget(name);
            return Err(SecretError::Stale(self.0.full(name)));
        }
        self.parsed(name, &text, parse)
    }

    /// Replaces the stored value, if any, and returns the new version. SSM has no conditional
    /// write, so the caller has to hold a lock.
    ///
    /// # Errors
    /// When SSM does not confirm the write; the value may be stored all the same.
    pub async fn replace(&self, name: &SecretName, text: &str) -> Result<i64, SecretError> {
        self.forget(name);
        let version = match self.0.repeat(name, || self.0.parameters.replace(name, text)).await {
            Ok(version) => version,
            // The write may have succeeded, and its response may be lost.
            Err(cause) => match self.0.parameters.read(std::slice::from_ref(name)).await {
                Ok(found) => match found.get(name) {
                    Some(stored) if *stored.text == *text => stored.version,
                    Some(_) | None => return Err(cause),
                },
                Err(_) => return Err(cause),
            },
        };
        self.0.keep(name, Some(text.into()));
        Ok(version)
    }

    /// Deletes the parameter; whether it existed.
    ///
    /// # Errors
    /// When SSM does not confirm it; the parameter may be deleted all the same.
    pub async fn remove(&self, name: &SecretName) -> Result<bool, SecretError> {
        self.forget(name);
        let existed = self.0.repeat(name, || self.0.parameters.delete(name)).await?;
        self.0.keep(name, None);
        Ok(existed)
    }

    /// Text and version of a secret, past the cache.
    async fn stored(&self, name: &SecretName) -> Result<Option<(Arc<str>, i64)>, SecretError> {
        let names = std::slice::from_ref(name);
        let mut found = self.0.repeat(name, || self.0.parameters.read(names)).await?;
        let stored = found.remove(name);
        let text = stored.as_ref().map(|stored| stored.text.clone());
        self.0.keep_read(name, text, stored.as_ref().map(|stored| stored.version));
        Ok(stored.map(|stored| (stored.text, stored.version)))
    }

    fn missing(&self, name: &SecretName) -> SecretError {
        SecretError::Missing(self.0.full(name))
    }

    fn parsed<T, E: ToString>(
        &self,
        name: &SecretName,
        text: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, SecretError> {
        parse(text).map_err(|error| SecretError::Malformed {
            name: self.0.full(name),
            problem: error.to_string(),
        })
    }
}

/// What [`Reader::plan`] has decided for a caller.
enum Plan {
    Use(Option<Arc<str>>),
    Fail(CallError),
    /// There is a change to read, at a turn that is to be taken.
    TakeTurn,
    /// There is nothing to use, and nothing to ask before then.
    Until(Instant),
    /// Waits for the call. There may be something to use if that fails, and its age.
    Wait(Shared<BoxFuture<'static, Troubles>>, Option<(Option<Arc<str>>, Duration)>),
}

impl Reader {
    /// What a secret is now, or was a while ago if SSM does not answer.
    async fn read(
        self: &Arc<Self>,
        name: &SecretName,
        need: Need,
    ) -> Result<Option<Arc<str>>, SecretError> {
        let began = Instant::now();
        let (patient, short) = (began + PATIENCE, began + SHORT_WAIT);
        let mut last = None;
        if name.is_announced() {
            // What cannot be followed now is followed later: what was read is used meanwhile.
            drop(self.follow(Consistency::Eventual).await);
        }
        loop {
            match self.plan(name, need) {
                Plan::Use(text) => return Ok(text),
                Plan::TakeTurn => self.take_turn(name).await,
                Plan::Until(at) if at < patient => sleep_until(at).await,
                Plan::Until(_) => return Err(self.unavailable(name, Arc::new(NoAnswer))),
                Plan::Fail(cause) => return Err(self.unavailable(name, cause.source)),
                Plan::Wait(call, Some((text, age))) => {
                    let cause = match timeout_at(short, call).await {
                        Ok(troubles) => match troubles.get(name) {
                            // Usually it was read. A full call leaves a name to the next one.
                            None => continue,
                            Some(cause) => cause.source.clone(),
                        },
                        Err(_) => {
                            self.state().failures.add_since(began, self.entropy.jitter_sample());
                            Arc::new(NoAnswer) as Arc<dyn Error + Send + Sync>
                        }
                    };
                    warn!(
                        secret.name = self.full(name),
                        secret.age_s = age.as_secs(),
                        error = chain(&*cause),
                        "serving stale secret"
                    );
                    return Ok(text);
                }
                Plan::Wait(call, None) => match timeout_at(patient, call).await {
                    Ok(troubles) => last = troubles.get(name).cloned(),
                    Err(_) => {
                        let cause = last.map_or_else(|| Arc::new(NoAnswer) as _, |it| it.source);
                        return Err(self.unavailable(name, cause));
                    }
                },
            }
        }
    }

    fn plan(self: &Arc<Self>, name: &SecretName, need: Need) -> Plan {
        let mut state = self.state();
        let known = state.cache.look_up(name, need);
        let refusal = state.refusals.get(name).filter(|(at, _)| at.age() < REFUSED_FOR);
        let usable = match known {
            Known::Fresh(text) => return Plan::Use(text),
            Known::Stale { text, age } => {
                let waits = state.failures.next_call(RELAXED_WAITS);
                if refusal.is_some() || waits.is_some_and(|next| Instant::now() < next) {
                    return Plan::Use(text);
                }
                Some((text, age))
            }
            Known::Nothing => {
                if let Some((_, cause)) = refusal {
                    return Plan::Fail(cause.clone());
                }
                None
            }
        };
        match (state.cache.turn(name), usable.clone()) {
            (Turn::Free, _) => {}
            (Turn::Untaken, _) => return Plan::TakeTurn,
            (Turn::At(_), Some((text, _))) => return Plan::Use(text),
            (Turn::At(at), None) => return Plan::Until(at),
        }
        state.cache.want(name);
        let under_way = state.call.as_ref().and_then(WeakShared::upgrade);
        let call = under_way.unwrap_or_else(|| {
            let call = Arc::clone(self).call(state.failures.next_call(WAITS)).boxed().shared();
            state.call = call.downgrade();
            call
        });
        Plan::Wait(call, usable)
    }

    /// Makes one call for all that is wanted when it begins: when all that is asked for at the
    /// same time is known, and after a failure not before `next`.
    async fn call(self: Arc<Self>, next: Option<Instant>) -> Troubles {
        if let Some(next) = next {
            sleep_until(next).await;
        }
        next_turn().await;
        let asked = self.state().cache.take_call();
        let mut troubles = HashMap::new();
        match self.ask(&asked).await {
            Err(cause) if !cause.passes && asked.len() > 1 => {
                // One of them may be the reason: no other is to suffer from it.
                for one in &asked {
                    if let Err(cause) = self.ask(std::slice::from_ref(one)).await {
                        troubles.insert(one.name.clone(), cause);
                    }
                }
            }
            Err(cause) => {
                troubles.extend(asked.iter().map(|one| (one.name.clone(), cause.clone())));
            }
            Ok(()) => {}
        }
        let mut state = self.state();
        state.call = None;
        asked.iter().for_each(|one| state.cache.end_turn(&one.name));
        for (name, cause) in troubles.iter().filter(|(_, cause)| !cause.passes) {
            state.cache.refuse(name);
            state.refusals.insert(name.clone(), (Moment::now(), cause.clone()));
        }
        match troubles.values().any(|cause| cause.passes) {
            true => state.failures.add(self.entropy.jitter_sample()),
            false => state.failures = Failures::default(),
        }
        Arc::new(troubles)
    }

    async fn ask(&self, asked: &[Asked]) -> Result<(), CallError> {
        let names: Vec<SecretName> = asked.iter().map(|one| one.name.clone()).collect();
        let mut found = self.parameters.read(&names).await?;
        let mut state = self.state();
        for one in asked {
            let stored = found.remove(&one.name);
            let version = stored.as_ref().map(|stored| stored.version);
            let text = stored.map(|stored| stored.text);
            state.cache.store(one, text, version, self.entropy.jitter_sample());
        }
        Ok(())
    }

    /// Repeats a call past the cache until it succeeds or cannot, or the caller's patience ends.
    async fn repeat<T, F: Future<Output = Result<T, CallError>>>(
        &self,
        name: &SecretName,
        call: impl Fn() -> F,
    ) -> Result<T, SecretError> {
        let patient = Instant::now() + PATIENCE;
        let mut failures = Failures::default();
        loop {
            let cause = match call().await {
                Ok(answer) => return Ok(answer),
                Err(cause) => cause,
            };
            failures.add(self.entropy.jitter_sample());
            match failures.next_call(WAITS).filter(|next| cause.passes && *next < patient) {
                Some(next) => sleep_until(next).await,
                None => return Err(self.unavailable(name, cause.source)),
            }
        }
    }

    fn keep(&self, name: &SecretName, text: Option<Arc<str>>) {
        let sample = self.entropy.jitter_sample();
        self.state().cache.put(name, text, sample);
    }

    fn keep_read(&self, name: &SecretName, text: Option<Arc<str>>, version: Option<i64>) {
        let sample = self.entropy.jitter_sample();
        let mut state = self.state();
        let asked = state.cache.asked(name.clone());
        state.cache.store(&asked, text, version, sample);
        state.cache.end_turn(name);
    }

    fn unavailable(&self, name: &SecretName, source: Arc<dyn Error + Send + Sync>) -> SecretError {
        SecretError::Unavailable { name: self.full(name), source }
    }

    fn full(&self, name: &SecretName) -> String {
        self.parameters.full(name)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
