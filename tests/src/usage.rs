//! The AWS usage of one job, and its price by the [list prices](crate::list_prices).

use std::fmt::{self, Display, Formatter};

use measurements::{Billed, JobCost};
use serde_json::Value;

use crate::list_prices::{
    API_REQUEST, AS_OF, EVENT, INVOCATION, QUEUE_REQUEST, READ_UNIT, WRITE_UNIT,
};
use crate::simulator::LedgerEntry;

/// The billed quantities of one job. It is displayed as a table of the price of a million such
/// jobs, without Lambda's compute time, which the tests do not measure.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// DynamoDB write request units of the table and its indexes.
    pub write_units: f64,
    /// DynamoDB read request units.
    pub read_units: f64,
    /// Events published to the bus.
    pub events: usize,
    /// Messages sent to a queue. Each is also received and deleted, and invokes a function
    /// alone, as is usual at low traffic.
    pub messages: usize,
    /// Requests to our API, including callbacks. Each invokes a function.
    pub api_requests: usize,
}

impl Usage {
    /// Adds up the functions' requests, which `api_requests` requests to our API caused.
    #[must_use]
    pub fn of(requests: &[LedgerEntry], api_requests: usize) -> Self {
        let mut usage = Self { api_requests, ..Self::default() };
        for request in requests {
            usage.read_units += request.read_units;
            usage.write_units += request.write_units;
            match request.operation.as_str() {
                "PutEvents" => usage.events += entries_of(request),
                "SendMessage" => usage.messages += 1,
                // A conditional write that fails is billed, but its units are not reported.
                _ if request.is_write() && request.status == 400 => usage.write_units += 1.0,
                _ => {}
            }
        }
        usage
    }

    /// The same quantities with their prices.
    #[must_use]
    pub fn cost(&self) -> JobCost {
        let billed = |count: f64, price: f64| Billed { count, price };
        JobCost {
            prices_of: AS_OF.to_owned(),
            write_units: billed(self.write_units, WRITE_UNIT),
            read_units: billed(self.read_units, READ_UNIT),
            api_requests: billed(self.api_requests as f64, API_REQUEST),
            events: billed(self.events as f64, EVENT),
            // A message is sent, received and deleted.
            queue_requests: billed(3.0 * self.messages as f64, QUEUE_REQUEST),
            invocations: billed((self.api_requests + self.messages) as f64, INVOCATION),
        }
    }
}

fn entries_of(request: &LedgerEntry) -> usize {
    let body: Value = serde_json::from_str(&request.request).unwrap_or_default();
    body.get("Entries").and_then(Value::as_array).map_or(0, Vec::len)
}

impl Display for Usage {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let cost = self.cost();
        let rows = [
            ("DynamoDB write unit", cost.write_units),
            ("DynamoDB read unit", cost.read_units),
            ("HTTP API request", cost.api_requests),
            ("EventBridge event", cost.events),
            ("SQS request", cost.queue_requests),
            ("Lambda request", cost.invocations),
        ];
        writeln!(out, "{:<20} {:>6} {:>9} {:>14}", "", "a job", "$/million", "$/million jobs")?;
        for (what, Billed { count, price }) in rows {
            writeln!(out, "{what:<20} {count:>6.1} {price:>9.3} {:>14.3}", count * price)?;
        }
        let total: f64 = rows.iter().map(|(_, it)| it.count * it.price).sum();
        writeln!(out, "{:<37} {total:>14.3}", "total, without Lambda's time")?;
        writeln!(out, "(list prices of us-east-1, {}; no logs, no traffic)", cost.prices_of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(operation: &str, body: &str, status: u16, units: [f64; 2]) -> LedgerEntry {
        let service = if operation.ends_with("Item") { "dynamodb" } else { "other" };
        LedgerEntry {
            seq: 1,
            at: 0,
            service: service.to_owned(),
            operation: operation.to_owned(),
            invocation: None,
            request: body.to_owned(),
            status,
            metered: status == 200,
            write_units: units[0],
            read_units: units[1],
            table_units: 0.0,
            index_units: [].into(),
        }
    }

    #[test]
    fn usage_shows_prices_per_million() {
        let usage = Usage::of(
            &[
                request("PutItem", "{}", 200, [10.0, 0.0]),
                request("PutItem", "{}", 400, [0.0, 0.0]),
                request("GetItem", "{}", 200, [0.0, 2.0]),
                request("PutEvents", r#"{"Entries": [{}, {}]}"#, 200, [0.0, 0.0]),
                request("SendMessage", "{}", 200, [0.0, 0.0]),
            ],
            2,
        );
        let expected =
            Usage { write_units: 11.0, read_units: 2.0, events: 2, messages: 1, api_requests: 2 };
        assert_eq!(usage, expected);
        let lines = [
            "                      a job $/million $/million jobs",
            "DynamoDB write unit    11.0     0.625          6.875",
            "DynamoDB read unit      2.0     0.125          0.250",
            "HTTP API request        2.0     1.000          2.000",
            "EventBridge event       2.0     1.000          2.000",
            "SQS request             3.0     0.400          1.200",
            "Lambda request          3.0     0.200          0.600",
            "total, without Lambda's time                  12.925",
        ];
        let shown = usage.to_string();
        let shown: Vec<&str> = shown.lines().collect();
        assert_eq!(shown[..lines.len()], lines);
    }
}
