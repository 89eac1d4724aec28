//! The configuration of the default receiver: its URL, events, headers and limits.

use serde_json::Value;

use super::RequestError;
use super::job::events as event_set;
use super::members::Members;
use crate::address::{ReceiverUrl, TargetPolicy};
use crate::endpoint::EndpointLimits;
use crate::event::{EventName, EventSet};
use crate::headers::{CustomHeaders, HeadersError, ReceiverHeaders};

/// A checked configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct ReceiverSettings {
    /// The URL that webhooks are posted to.
    pub url: ReceiverUrl,
    /// The events that it gets, out of those that a job subscribes to.
    pub events: EventSet,
    /// The headers that every attempt carries besides our own; none without any.
    pub headers: Option<ReceiverHeaders>,
    /// The rate limit and the limit of attempts in flight.
    pub limits: EndpointLimits,
}

/// Why a body is not a valid configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// It is not an object, or a member is wrong.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The address policy refuses the URL.
    #[error("`url`: {0}")]
    Url(String),
    /// A header must not be set, or is malformed.
    #[error("`headers` {0}")]
    Headers(#[from] HeadersError),
}

impl ReceiverSettings {
    /// Reads and checks a request body. A missing member means its default: all events, no
    /// headers, no limits.
    ///
    /// # Errors
    /// The first problem of the body; the error never contains a header's value.
    pub fn parse(body: &[u8], policy: &TargetPolicy) -> Result<Self, SettingsError> {
        let what = "a webhook configuration";
        let known = ["url", "events", "headers", "maxInFlight", "ratePerSecond"];
        let mut members = Members::parse(body, &known, what)?;
        let url = members.required("url", |value| match value {
            Value::String(url) => Ok(url),
            _ => Err("must be a string".into()),
        })?;
        let url = ReceiverUrl::parse(&url, policy)
            .map_err(|error| SettingsError::Url(error.to_string()))?;
        let events = members.optional("events", event_set)?;
        let headers = members.optional("headers", Ok)?;
        let headers = headers.map(CustomHeaders::from_json).transpose()?;
        let headers = headers.filter(|headers| !headers.is_empty());
        let headers = headers.map(|headers| ReceiverHeaders::new(url.as_str(), headers));
        let most = members.optional("maxInFlight", |value| {
            EndpointLimits::new(Some(number(&value)), None).map_err(|error| error.to_string())
        })?;
        let rate = members.optional("ratePerSecond", |value| {
            EndpointLimits::new(None, Some(number(&value))).map_err(|error| error.to_string())
        })?;
        Ok(Self {
            limits: EndpointLimits {
                max_in_flight: most.and_then(|limits| limits.max_in_flight),
                per_second: rate.and_then(|limits| limits.per_second),
            },
            url,
            events: events.unwrap_or_else(|| EventName::ALL.into_iter().collect()),
            headers: headers.transpose()?,
        })
    }
}

/// The whole number, or 0, which is refused as a limit.
fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const URL: &str = "https://shop.example/hooks";

    fn parse(body: &Value) -> Result<ReceiverSettings, SettingsError> {
        ReceiverSettings::parse(body.to_string().as_bytes(), &TargetPolicy::public())
    }

    #[test]
    fn receiver_settings_have_defaults() {
        let settings = parse(&json!({"url": URL})).unwrap();
        assert_eq!(settings.url.as_str(), URL);
        assert!(EventName::ALL.into_iter().all(|event| settings.events.contains(event)));
        assert_eq!(settings.headers, None);
        let null = json!({"url": URL, "events": null, "headers": null});
        assert_eq!(parse(&null).unwrap(), settings);
        assert_eq!(parse(&json!({"url": URL, "headers": {}})).unwrap(), settings);
    }

    #[test]
    fn receiver_settings_keep_events_and_headers() {
        let body = json!({
            "url": URL,
            "events": ["video.render.failed"],
            "headers": {"Authorization": "Bearer abc"},
        });
        let settings = parse(&body).unwrap();
        assert_eq!(settings.events, EventSet::from_iter([EventName::Failed]));
        let headers = settings.headers.unwrap();
        let names: Vec<_> = headers.for_receiver(URL).unwrap().names().map(str::to_owned).collect();
        assert_eq!(names, ["authorization"]);
    }

    #[test]
    fn receiver_settings_name_wrong_members() {
        for (body, problem) in [
            (json!({}), "`url` is missing"),
            (json!({"url": 5}), "`url` must be a string"),
            (json!({"url": URL, "events": []}), "`events` must name at least one event"),
            (
                json!({"url": URL, "headers": []}),
                "`headers` must be an object whose members are strings",
            ),
            (
                json!({"url": URL, "maxInFlight": 51}),
                "`maxInFlight` must be a whole number from 1 to 50",
            ),
            (
                json!({"url": URL, "ratePerSecond": 0.5}),
                "`ratePerSecond` must be a whole number from 1 to 100",
            ),
            (
                json!({"url": URL, "secret": "x"}),
                "`secret` is not a member of a webhook configuration",
            ),
        ] {
            assert_eq!(parse(&body).unwrap_err().to_string(), problem);
        }
        let test = json!({"url": URL, "events": ["webhook.test"]});
        assert!(parse(&test).is_err(), "a test is always sent");
        let forbidden = parse(&json!({"url": URL, "headers": {"Host": "x"}})).unwrap_err();
        assert_eq!(forbidden, SettingsError::Headers(HeadersError::Forbidden("host".into())));
        let near = parse(&json!({"url": "http://shop.example/hooks"})).unwrap_err();
        assert!(matches!(near, SettingsError::Url(_)), "{near}");
    }
}
