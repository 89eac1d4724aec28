//! A provider, the facts about it, and the job that both are about.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use chrono::{DateTime, TimeZone, Utc};
use domain::event::EventSet;
use domain::id::{JobId, RenderJobId, RequestId, SourceRecordId};
use domain::job::{Job, StoredRequest};
use domain::polling::Tracking;
use domain::provider::catalogue::{Adjustments, Catalogue, Provider};
use serde_json::{Map, Value};

use crate::facts::Facts;

pub(crate) const CALLBACK_URL: &str = "https://relay.example/v1/webhooks/p/job/token";

/// A provider and the facts about it.
pub(crate) struct TestedProvider {
    pub(crate) provider: Provider,
    pub(crate) facts: Facts,
    /// The words of all providers, in lower case.
    pub(crate) all_words: Rc<BTreeSet<String>>,
}

impl TestedProvider {
    pub(crate) fn name(&self) -> &str {
        self.provider.spec.name.as_str()
    }

    /// The spec as it is written.
    pub(crate) fn document(&self) -> Value {
        let file = format!("../providers/{}.json", self.name());
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    pub(crate) fn render(&self) -> RenderJobId {
        RenderJobId::parse(&self.facts.render).unwrap()
    }

    /// The job as it is before its provider was asked.
    pub(crate) fn job(&self) -> Job {
        let request = StoredRequest {
            provider: self.provider.spec.name.clone(),
            source_record_id: SourceRecordId::parse("product-123").unwrap(),
            payload_version: None,
            metadata: Map::new(),
            submitted_to: self.provider.base_url.clone(),
            callback_url: None,
            subscribed_events: EventSet::terminal(),
            fingerprint: [1; 32],
            record: RequestId::of_job(&job_id()),
            tracking: Tracking::PollOnly,
            duration_model: None,
            shard: 0,
        };
        Job::new(job_id(), request, noon())
    }
}

pub(crate) fn noon() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 5, 24, 12, 0, 0).unwrap()
}

pub(crate) fn job_id() -> JobId {
    JobId::from_bytes([7; 16])
}

/// All providers that ship. There are facts about each, and about no other.
pub(crate) fn subjects() -> Vec<TestedProvider> {
    let catalogue = Catalogue::load(&Adjustments::default()).unwrap();
    let names: BTreeSet<String> = catalogue.names().map(ToString::to_string).collect();
    let files: BTreeSet<String> = fs::read_dir(data())
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, files, "the providers that ship, and the facts in domain/tests/data");
    let facts: Vec<Facts> = names.iter().map(|name| facts(name)).collect();
    let words = facts.iter().flat_map(|facts| facts.words.values().flatten());
    let all_words: Rc<BTreeSet<String>> = Rc::new(words.map(|word| word.to_lowercase()).collect());
    catalogue
        .names()
        .zip(facts)
        .map(|(name, facts)| TestedProvider {
            provider: catalogue.get(name).unwrap().as_ref().clone(),
            facts,
            all_words: Rc::clone(&all_words),
        })
        .collect()
}

fn facts(name: &str) -> Facts {
    let text = fs::read_to_string(data().join(format!("{name}.json"))).unwrap();
    let text = text
        .replace("{jobId}", job_id().as_str())
        .replace("{jobUuid}", &job_id().as_uuid())
        .replace("{callbackUrl}", CALLBACK_URL);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}
