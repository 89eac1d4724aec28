//! AWS list prices of us-east-1 in dollars per million, on demand, without free tiers and
//! discounts. [`Usage`](crate::Usage) multiplies with them.

/// The day on which the prices were looked up.
pub(crate) const AS_OF: &str = "2026-11-21";

/// A DynamoDB write request unit: a write of up to 1 KiB, to the table or to an index.
pub(crate) const WRITE_UNIT: f64 = 0.625;

/// A DynamoDB read request unit: a consistent read of up to 4 KiB; any other costs half.
pub(crate) const READ_UNIT: f64 = 0.125;

/// A request of Lambda: an invocation.
pub(crate) const INVOCATION: f64 = 0.20;

/// A request to an HTTP API, up to 512 KiB.
pub(crate) const API_REQUEST: f64 = 1.00;

/// A request to a standard SQS queue, up to 64 KiB.
pub(crate) const QUEUE_REQUEST: f64 = 0.40;

/// A custom event of EventBridge, up to 64 KiB, alone or in a batch.
pub(crate) const EVENT: f64 = 1.00;
