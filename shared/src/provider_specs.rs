//! The provider specs in force in this process.
//!
//! They are read from the table when a function starts. After that, one small item, the index,
//! is read at most every 20 s, and only the documents that changed. While the table does not
//! answer, the specs that were read last stay in force. A process that could never read them
//! refuses its work: a job of a provider that seems missing would wait for nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use domain::id::ProviderName;
use domain::polling::Pause;
use domain::provider::Catalogue;
use domain::provider::catalogue::{Adjustments, CatalogueError, LeftOut, OwnSpec, Provider};
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::store::{DocumentId, SpecEntry, SpecIndex, Store, StoreError};
use crate::telemetry::chain;

/// How old the specs are when the index is read again.
const CHECK_EVERY: Duration = Duration::from_secs(20);

/// Why there are no provider specs.
#[derive(Debug, thiserror::Error)]
pub enum ProviderSpecsError {
    /// The table cannot be read.
    #[error("the provider specs could not be read")]
    Store(#[from] StoreError),
    /// A shipped spec is wrong.
    #[error("the provider catalogue is wrong")]
    Catalogue(#[from] CatalogueError),
}

/// The specs, and when they were last checked.
pub struct ProviderSpecs {
    store: Store,
    adjustments: Adjustments,
    in_force: Mutex<Arc<SpecsInForce>>,
    checked: Mutex<Checked>,
    /// Whether the table was ever read.
    was_read: AtomicBool,
    /// Held by the call that checks.
    check: tokio::sync::Mutex<()>,
}

/// The specs at one revision of the index.
#[derive(Debug)]
pub struct SpecsInForce {
    /// The revision.
    pub revision: u64,
    /// All providers.
    pub catalogue: Catalogue,
    /// The stack's own specs, by name.
    pub stored: BTreeMap<String, StoredSpec>,
    /// Why shipped specs are not in the catalogue, by name: the settings do not fit them.
    pub shipped_left_out: BTreeMap<String, String>,
    /// Up to when pauses of providers are ended by hand, by name.
    pub resumed: BTreeMap<String, DateTime<Utc>>,
}

/// A spec of the stack's own.
#[derive(Clone, Debug)]
pub struct StoredSpec {
    /// What the index says of it, if this release can read that.
    pub entry: Option<SpecEntry>,
    /// The document; none when it cannot be read.
    pub json: Option<String>,
    /// Why it is not in the catalogue, if it is not.
    pub left_out: Option<String>,
}

/// When the index was last asked for. The age is the larger one of two clocks: the monotonic
/// clock may stand still while a function is frozen, and the wall clock may be set back.
struct Checked {
    at: Instant,
    at_wall: SystemTime,
}

impl Checked {
    fn now() -> Self {
        Self { at: Instant::now(), at_wall: SystemTime::now() }
    }

    fn age(&self) -> Duration {
        self.at.elapsed().max(self.at_wall.elapsed().unwrap_or_default())
    }
}

impl ProviderSpecs {
    /// The shipped specs alone. Those of the table come with the first check, 20 s later.
    ///
    /// # Errors
    /// When a shipped spec is wrong.
    pub fn shipped(store: Store, adjustments: Adjustments) -> Result<Self, CatalogueError> {
        let in_force = SpecsInForce::new(&adjustments, 0, BTreeMap::new())?;
        Ok(Self::of(store, adjustments, in_force, true))
    }

    /// The shipped specs and those in the table. Without the table, [`ProviderSpecs::refresh`]
    /// reads them before they are used.
    ///
    /// # Errors
    /// When a shipped spec is wrong.
    pub async fn load(store: Store, adjustments: Adjustments) -> Result<Self, ProviderSpecsError> {
        let read = async {
            let index = store.spec_index().await?;
            read(&store, &adjustments, &index, &BTreeMap::new()).await
        };
        let in_force = match read.await {
            Ok(in_force) => in_force,
            Err(ProviderSpecsError::Store(_)) => {
                let specs = Self::shipped(store, adjustments)?;
                specs.was_read.store(false, Ordering::SeqCst);
                return Ok(specs);
            }
            Err(error @ ProviderSpecsError::Catalogue(_)) => return Err(error),
        };
        let is_known = |name: &str| {
            let mut names = in_force.catalogue.names();
            in_force.stored.contains_key(name)
                || in_force.shipped_left_out.contains_key(name)
                || names.any(|known| known.as_str() == name)
        };
        for name in adjustments.names().filter(|name| !is_known(name)) {
            error!(provider.name = name, "settings name an unknown provider");
        }
        Ok(Self::of(store, adjustments, in_force, true))
    }

    fn of(store: Store, adjustments: Adjustments, in_force: SpecsInForce, was_read: bool) -> Self {
        Self {
            store,
            adjustments,
            in_force: Mutex::new(Arc::new(in_force)),
            checked: Mutex::new(Checked::now()),
            was_read: AtomicBool::new(was_read),
            check: tokio::sync::Mutex::default(),
        }
    }

    /// The specs as they were read last.
    #[must_use]
    pub fn in_force(&self) -> Arc<SpecsInForce> {
        Arc::clone(&self.in_force.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Which settings of the stack change its specs.
    #[must_use]
    pub fn adjustments(&self) -> &Adjustments {
        &self.adjustments
    }

    /// Reads what changed, unless that was done in the last 20 s or is being done. A failure
    /// changes nothing once the specs were read.
    ///
    /// # Errors
    /// When the specs were never read, and cannot be read now.
    pub async fn refresh(&self) -> Result<(), ProviderSpecsError> {
        if !self.was_read.load(Ordering::SeqCst) {
            return self.reload().await.map(drop);
        }
        let is_fresh = || {
            let checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
            checked.age() < CHECK_EVERY
        };
        if is_fresh() {
            return Ok(());
        }
        let Ok(_checking) = self.check.try_lock() else { return Ok(()) };
        // A table that does not answer is asked no more often than one that does.
        *self.checked.lock().unwrap_or_else(PoisonError::into_inner) = Checked::now();
        if let Err(cause) = self.read_changes().await {
            warn!(error = chain(&cause), "provider specs not refreshed; cached ones stay in force");
        }
        Ok(())
    }

    /// Reads what changed, for a caller that shows or changes it.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn reload(&self) -> Result<Arc<SpecsInForce>, ProviderSpecsError> {
        let _checking = self.check.lock().await;
        self.read_changes().await?;
        *self.checked.lock().unwrap_or_else(PoisonError::into_inner) = Checked::now();
        Ok(self.in_force())
    }

    async fn read_changes(&self) -> Result<(), ProviderSpecsError> {
        let index = self.store.spec_index().await?;
        let before = self.in_force();
        if index.revision == before.revision {
            self.was_read.store(true, Ordering::SeqCst);
            return Ok(());
        }
        let known = before
            .stored
            .values()
            .filter_map(|spec| Some((spec.entry.as_ref()?.document.clone(), spec.json.clone()?)));
        let after = read(&self.store, &self.adjustments, &index, &known.collect()).await?;
        info!(revision = after.revision, "provider specs changed");
        *self.in_force.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(after);
        self.was_read.store(true, Ordering::SeqCst);
        Ok(())
    }
}

impl SpecsInForce {
    /// The provider with this name.
    #[must_use]
    pub fn get(&self, name: &ProviderName) -> Option<Arc<Provider>> {
        self.catalogue.get(name).cloned()
    }

    /// Whether there is a spec of this name that was left out.
    #[must_use]
    pub fn is_left_out(&self, name: &ProviderName) -> bool {
        self.problem(name).is_some() && self.catalogue.get(name).is_none()
    }

    /// The version of the provider's spec; zero of one that is shipped.
    #[must_use]
    pub fn version(&self, name: &ProviderName) -> u64 {
        let stored = self.stored.get(name.as_str()).and_then(|stored| stored.entry.as_ref());
        stored.map_or(0, |entry| entry.version)
    }

    /// Whether a pause of the provider is over because it was ended by hand, or began under
    /// another spec.
    #[must_use]
    pub fn ends(&self, name: &ProviderName, pause: &Pause) -> bool {
        let resumed_at = self.resumed.get(name.as_str());
        pause.spec != self.version(name) || resumed_at.is_some_and(|at| pause.since <= *at)
    }

    /// Why the spec of this name is not in force, if it is not. A shipped one may be all the
    /// same.
    #[must_use]
    pub fn problem(&self, name: &ProviderName) -> Option<&str> {
        match self.stored.get(name.as_str()) {
            Some(stored) => stored.left_out.as_deref(),
            None => self.shipped_left_out.get(name.as_str()).map(String::as_str),
        }
    }

    /// The shipped specs with these, as far as they can be used.
    fn new(
        adjustments: &Adjustments,
        revision: u64,
        mut stored: BTreeMap<String, StoredSpec>,
    ) -> Result<Self, CatalogueError> {
        let own = stored.iter().map(|(name, spec)| {
            // A document that cannot be read is left out like any other that is wrong.
            let json = spec.json.clone().unwrap_or_default();
            OwnSpec { file: file_of(name), name: name.clone(), json }
        });
        let (catalogue, left_out) = Catalogue::load_with(adjustments, &own.collect::<Vec<_>>())?;
        let mut shipped_left_out = BTreeMap::new();
        for LeftOut { name, reason } in left_out {
            // Its cause is in it already.
            let reason = reason.to_string();
            let Some(spec) = stored.get_mut(&name) else {
                error!(provider.name = name, error = reason, "shipped provider spec left out");
                shipped_left_out.insert(name, reason);
                continue;
            };
            let reason = match (&spec.entry, &spec.json) {
                (Some(_), Some(_)) => reason,
                (Some(_), None) => "its document is missing".into(),
                (None, _) => "its entry was written by another release".into(),
            };
            error!(provider.name = name, error = reason, "invalid provider spec ignored");
            spec.left_out = Some(reason);
        }
        let resumed = BTreeMap::new();
        Ok(Self { revision, catalogue, stored, shipped_left_out, resumed })
    }
}

/// The specs of an index. Documents that are `known` are not read again.
async fn read(
    store: &Store,
    adjustments: &Adjustments,
    index: &SpecIndex,
    known: &BTreeMap<DocumentId, String>,
) -> Result<SpecsInForce, ProviderSpecsError> {
    let named = index.specs().filter_map(|(_, entry)| Some(entry?.document));
    let unknown: Vec<_> = named.filter(|id| !known.contains_key(id)).collect();
    let read = match unknown.is_empty() {
        true => BTreeMap::new(),
        false => store.spec_documents(&unknown).await?,
    };
    let mut stored = BTreeMap::new();
    for (name, entry) in index.specs() {
        let id = entry.as_ref().map(|entry| &entry.document);
        let json = id.and_then(|id| known.get(id).or_else(|| read.get(id))).cloned();
        stored.insert(name.to_owned(), StoredSpec { entry, json, left_out: None });
    }
    let specs = SpecsInForce::new(adjustments, index.revision, stored)?;
    Ok(SpecsInForce { resumed: index.resumes(), ..specs })
}

/// The name of a spec's document in errors.
#[must_use]
pub fn file_of(name: &str) -> String {
    format!("{name}.json")
}
