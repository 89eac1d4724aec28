//! The recorded calls to AWS and their cost.

pub(crate) mod capacity;

use serde::Serialize;

use crate::bounded_log::{BoundedLog, LogLimit};
use crate::ledger::capacity::Units;

/// An answered call to AWS.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Record {
    /// The number of the answer, counted from 1 without gaps.
    pub(crate) seq: u64,
    /// When the request arrived, in Unix milliseconds.
    pub(crate) at: i64,
    /// `dynamodb`, `sqs`, `events`, `ssm`, …
    pub(crate) service: String,
    /// `PutItem`, …; method and path where the protocol has no operation names.
    pub(crate) operation: String,
    /// Equal for all attempts of one SDK call.
    pub(crate) invocation: Option<String>,
    /// The first 64 KiB of the body as text.
    pub(crate) request: String,
    pub(crate) status: u16,
    /// The type of the error answer, such as `ConditionalCheckFailedException`.
    pub(crate) error: Option<String>,
    #[serde(flatten)]
    pub(crate) units: Units,
}

impl Record {
    pub(crate) fn mentions(&self, text: &str) -> bool {
        self.request.contains(text)
    }
}

#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) records: BoundedLog<Record>,
    /// The number of the latest record; 0 before the first.
    pub(crate) seq: u64,
}

impl Default for Ledger {
    fn default() -> Self {
        let limit = LogLimit { entries: 20_000, bytes: 256 * 1024 * 1024 };
        Self { records: BoundedLog::new(limit), seq: 0 }
    }
}

impl Ledger {
    pub(crate) fn add(&mut self, mut record: Record) {
        self.seq += 1;
        record.seq = self.seq;
        let bytes = record.request.len();
        self.records.push(record, bytes);
    }
}
