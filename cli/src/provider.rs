//! A provider spec checked, explained and tried out. Pure: texts in, texts out.

use std::time::Duration;

use anyhow::{Result, anyhow};
use chrono::{DateTime, Utc};
use domain::polling::Tracking;
use domain::provider::ProviderSpec;
use domain::provider::answer::REFUSES_A_SUBMIT;
use domain::provider::conversation::{Conversation, ReplayedExchange};
use domain::provider::key::KeyHost;
use domain::provider::spec::webhook::Unsigned;
use domain::provider::spec::{CancelMethod, ErrorClass, Operation, SubmitSafety};
use serde_json::Value;
use shared::store::MAX_SPEC_BYTES;

/// How many polls are shown.
const FIRST_POLLS: usize = 5;

/// A valid spec.
pub(crate) struct Checked {
    file: String,
    spec: ProviderSpec,
    document: Value,
    bytes: usize,
}

/// The result of a replay.
pub(crate) struct Replay {
    /// Every exchange and what was understood, with each mismatch below.
    pub(crate) text: String,
    /// The number of mismatches.
    pub(crate) mismatches: usize,
}

impl Checked {
    /// Reads a spec; the error says file, line and column, or the contradiction.
    pub(crate) fn parse(file: &str, json: &str) -> Result<Self> {
        // As one sentence: its source is in it already.
        let spec = ProviderSpec::parse(file, json).map_err(|error| anyhow!("{error}"))?;
        let document = serde_json::from_str(json)?;
        Ok(Self { file: file.to_owned(), spec, document, bytes: json.len() })
    }

    /// What the spec makes the relay do.
    pub(crate) fn meaning(&self) -> String {
        let rows = [
            ("provider", format!("{} ({}), {}", self.spec.name, self.spec.title, self.spec.docs)),
            ("submit", self.submit()),
            ("refused", self.refused()),
            ("status", self.status()),
            ("cancel", self.cancel()),
            ("lost", self.lost().to_owned()),
            ("callback", self.callback()),
            ("signature", self.signature()),
            ("limits", self.limits()),
            ("polls", self.polls(Tracking::PollOnly)),
            ("", format!("{} with a callback", self.polls(Tracking::WebhookFirst))),
            ("size", self.size()),
            ("put", self.put()),
            ("key", self.key()),
        ];
        let lines = rows.map(|(name, value)| format!("{name:<11}{value}"));
        lines.join("\n")
    }

    /// Replays a recorded conversation through the interpreter.
    pub(crate) fn replay(&self, file: &str, json: &str, now: DateTime<Utc>) -> Result<Replay> {
        let conversation = Conversation::parse(file, json).map_err(|error| anyhow!("{error}"))?;
        let replies = conversation.replay(&self.spec, now);
        let replies = replies.map_err(|error| anyhow!("{file}: {error}"))?;
        let lines = (1..).zip(&replies).flat_map(|(number, reply)| {
            let line = format!("{number:>3}  {:<9} {}", reply.about, understood(reply));
            let wrong = reply.mismatches.iter();
            let wrong = wrong.map(|mismatch| format!("     WRONG     {}", mismatch.sentence()));
            [line].into_iter().chain(wrong)
        });
        let text = lines.collect::<Vec<_>>().join("\n");
        Ok(Replay { text, mismatches: replies.iter().map(|reply| reply.mismatches.len()).sum() })
    }

    fn url(&self, path: &str) -> String {
        let base = self.spec.base_urls.get("default").map(|url| url.as_str().trim_end_matches('/'));
        format!("{}{path}", base.unwrap_or_default())
    }

    fn submit(&self) -> String {
        let submit = &self.spec.submit;
        let accepted: Vec<_> = submit.accepted.iter().map(u16::to_string).collect();
        format!("POST {}, accepted by {}", self.url(&submit.path), accepted.join(", "))
    }

    /// Which answers say that there is certainly no render.
    fn refused(&self) -> String {
        let usual = runs(&REFUSES_A_SUBMIT);
        let rules = self.spec.errors.iter();
        let rules = rules.filter(|rule| rule.on.is_none_or(|on| on == Operation::Submit));
        let rules = rules.map(|rule| {
            let http = runs(&rule.http);
            let text = rule.contains.as_ref().map(|text| format!(" with `{text}`"));
            let unclear = match rule.means {
                ErrorClass::Transient => " not",
                ErrorClass::Auth
                | ErrorClass::Invalid
                | ErrorClass::Quota
                | ErrorClass::Rate
                | ErrorClass::Busy
                | ErrorClass::NotFound => "",
            };
            format!("; {http}{}{unclear}", text.unwrap_or_default())
        });
        format!("by {usual}{}; else it is unclear", rules.collect::<String>())
    }

    fn status(&self) -> String {
        let status = &self.spec.status;
        let query = status.query.iter().zip(["?"].into_iter().chain(std::iter::repeat("&")));
        let query = query.map(|((name, value), separator)| format!("{separator}{name}={value}"));
        format!("GET {}{}", self.url(&status.path), query.collect::<String>())
    }

    fn cancel(&self) -> String {
        match &self.spec.cancel {
            Some(cancel) => {
                let method = match cancel.method {
                    CancelMethod::Post => "POST",
                    CancelMethod::Delete => "DELETE",
                };
                format!("{method} {}", self.url(&cancel.path))
            }
            None => "not possible".into(),
        }
    }

    fn lost(&self) -> &'static str {
        match self.spec.submit_safety {
            SubmitSafety::ClientId {} => "a submit without an answer is asked about by our own id",
            SubmitSafety::List(_) => "a submit without an answer is looked for in the list",
            SubmitSafety::Callback {} => "a submit without an answer is known by its callback only",
        }
    }

    fn callback(&self) -> String {
        let Some(webhook) = &self.spec.webhook else { return "none".into() };
        let per_job = webhook.per_job.map(|per_job| match per_job.by_default {
            true => "per job, by default",
            false => "per job, when asked for",
        });
        let account = webhook.account.as_ref().map(|_| "for the whole account");
        let kinds: Vec<_> = per_job.into_iter().chain(account).collect();
        let believed = match webhook.believes() {
            true => "believed when signed",
            false => "a hint to ask",
        };
        format!("{}; {believed}", kinds.join("; "))
    }

    fn signature(&self) -> String {
        let Some(webhook) = &self.spec.webhook else { return "none".into() };
        let word = |at: &str| {
            let found = self.document.pointer(&format!("/webhook/signature{at}"));
            found.and_then(Value::as_str).unwrap_or_default()
        };
        if webhook.signature.is_none() {
            return "none".into();
        }
        let place = [word("/carrier/header"), word("/carrier/field")].concat();
        let content = match word("/content") {
            "" => String::new(),
            content => format!(" of {content}"),
        };
        let unsigned = match webhook.unsigned {
            Unsigned::Hint => "a hint to ask",
            Unsigned::Refuse => "refused",
        };
        let method = format!("{} {}", word("/method/kind"), word("/method/hash"));
        format!("{}{content} in {place}; without it: {unsigned}", method.trim_end())
    }

    fn limits(&self) -> String {
        let limits = &self.spec.limits;
        let schedule = self.spec.poll_schedule();
        format!(
            "{} between polls, {} for a submit, {} for a status call, over after {}",
            seconds(schedule.floor),
            seconds(Duration::from_millis(limits.submit_timeout_ms.get().into())),
            seconds(Duration::from_millis(limits.status_timeout_ms.get().into())),
            seconds(schedule.deadline),
        )
    }

    fn polls(&self, tracking: Tracking) -> String {
        let schedule = self.spec.poll_schedule();
        let next = |age: &Duration| Some(schedule.next_after(tracking, *age, 0.5));
        let ages = std::iter::successors(next(&Duration::ZERO), next);
        let ages = ages.take_while(|age| *age < schedule.deadline).take(FIRST_POLLS);
        let ages: Vec<_> = ages.map(seconds).collect();
        match ages.is_empty() {
            true => "never".into(),
            false => format!("after {}, …", ages.join(", ")),
        }
    }

    /// The provider's name.
    pub(crate) fn name(&self) -> &str {
        self.spec.name.as_str()
    }

    fn size(&self) -> String {
        match self.bytes {
            0..=MAX_SPEC_BYTES => format!("{} bytes", self.bytes),
            _ => format!("{} bytes, more than {MAX_SPEC_BYTES}: no stack takes it", self.bytes),
        }
    }

    fn put(&self) -> String {
        format!("relay provider put {}", self.file)
    }

    fn key(&self) -> String {
        let hosts = self.spec.base_urls.values().filter_map(KeyHost::of);
        let mut hosts: Vec<_> = hosts.map(|host| format!("--host {host}")).collect();
        hosts.sort();
        hosts.dedup();
        format!("relay provider set-key {} --stack STACK {}", self.spec.name, hosts.join(" "))
    }
}

/// The meaning of an answer: its kind first, then its members.
fn understood(reply: &ReplayedExchange) -> String {
    let there = reply.understood.iter().filter(|(_, value)| !value.is_null());
    let (kind, rest): (Vec<_>, Vec<_>) =
        there.partition(|(name, _)| ["is", "kind"].contains(&name.as_str()));
    let pairs = kind.into_iter().chain(rest).map(|(name, value)| match value {
        Value::String(text) if name == "is" => text.clone(),
        Value::String(text) => format!("{name} {text}"),
        other => format!("{name} {other}"),
    });
    pairs.collect::<Vec<_>>().join(", ")
}

/// Statuses as text, those in a row as one: `400-407, 429`.
fn runs(statuses: &[u16]) -> String {
    let mut runs: Vec<(u16, u16)> = Vec::new();
    for status in statuses {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *status => *last = *status,
            Some(_) | None => runs.push((*status, *status)),
        }
    }
    let runs = runs.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    runs.collect::<Vec<_>>().join(", ")
}

fn seconds(wait: Duration) -> String {
    format!("{} s", (wait.as_secs_f64() * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZVID: &str = include_str!("../../providers/zvid.json");
    const CONVERSATION: &str = include_str!("../../docs/examples/zvid-conversation.json");

    fn replay(conversation: &str) -> Replay {
        let checked = Checked::parse("zvid.json", ZVID).unwrap();
        checked.replay("c.json", conversation, DateTime::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn spec_is_explained() {
        let meaning = Checked::parse("zvid.json", ZVID).unwrap().meaning();
        let lines: Vec<_> = meaning.lines().filter(|line| !line.starts_with("size")).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        provider   zvid (Zvid), https://docs.zvid.io/
        submit     POST https://api.zvid.io/api/render/api-key, accepted by 200, 202
        refused    by 400-407, 410-415, 417, 421-422, 426, 428-429, 431, 451; else it is unclear
        status     GET https://api.zvid.io/api/jobs/{id}
        cancel     not possible
        lost       a submit without an answer is asked about by our own id
        callback   per job, when asked for; for the whole account; believed when signed
        signature  hmac sha256 of {timestamp}.{body} in x-zvid-signature; without it: a hint to ask
        limits     2 s between polls, 15 s for a submit, 10 s for a status call, over after 1800 s
        polls      after 2 s, 4 s, 7.5 s, 13.5 s, 19.5 s, …
                   after 180 s, 270 s, 405 s, 607.5 s, 907.5 s, … with a callback
        put        relay provider put zvid.json
        key        relay provider set-key zvid --stack STACK --host api.zvid.io
        ");
    }

    #[test]
    fn spec_size_limit_is_the_stacks() {
        // A stack takes 16 KiB.
        let size = |bytes: usize| {
            let padded = format!("{ZVID}{}", " ".repeat(bytes - ZVID.len()));
            let meaning = Checked::parse("zvid.json", &padded).unwrap().meaning();
            meaning.lines().find(|line| line.starts_with("size")).unwrap().to_owned()
        };
        assert!(size(16 * 1024).ends_with("16384 bytes"));
        let refused = size(16 * 1024 + 1);
        assert!(refused.ends_with("more than 16384: no stack takes it"), "{refused}");
    }

    #[test]
    fn spec_rules_about_refusals_are_explained() {
        let rules = "\"errors\": [
            {\"http\": [409, 503], \"pointer\": \"/e\", \"contains\": \"full\", \"means\": \"busy\"},
            {\"on\": \"submit\", \"http\": [422], \"means\": \"transient\"},
            {\"on\": \"status\", \"http\": [400], \"means\": \"not_found\"}
        ], \"limits\"";
        let spec = ZVID.replacen("\"limits\"", rules, 1);
        let meaning = Checked::parse("zvid.json", &spec).unwrap().meaning();
        let line = meaning.lines().find(|line| line.starts_with("refused")).unwrap();
        assert!(line.ends_with("451; 409, 503 with `full`; 422 not; else it is unclear"), "{line}");
    }

    #[test]
    fn conversation_is_shown_as_understood() {
        let replay = replay(CONVERSATION);
        assert_eq!(replay.mismatches, 0);
        insta::assert_snapshot!(replay.text, @r#"
          1  submit    rejected, class invalid, code provider_rejected, message "src" is required
          2  submit    accepted, renderJobId 5b6a0e2c-9d4f-8a13-b7c2-5e6f70819234
          3  status    unavailable, class rate, retryAfterSeconds 12
          4  status    observed, progress 0.4, providerStatus active, state processing
          5  callback  kind ended, jobId job_5b6a0e2c9d4f8a13b7c25e6f70819234, providerStatus completed, renderJobId 5b6a0e2c-9d4f-8a13-b7c2-5e6f70819234, resultUrl https://cdn.zvid.io/videos/summer.mp4, signature verified, state completed
          6  status    observed, providerStatus completed, resultUrl https://cdn.zvid.io/videos/summer.mp4, state completed
        "#);
    }

    #[test]
    fn mismatch_is_shown_below_its_exchange() {
        let wrong = CONVERSATION.replace("\"progress\": 0.4", "\"progress\": 0.5, \"typo\": 1");
        let replay = replay(&wrong);
        assert_eq!(replay.mismatches, 2);
        let wrong: Vec<_> = replay.text.lines().filter(|line| line.contains("WRONG")).collect();
        assert_eq!(
            wrong,
            [
                "     WRONG     progress: expected 0.5, got 0.4",
                "     WRONG     typo: expected 1, but there is no such member",
            ]
        );
    }

    #[test]
    fn spec_error_names_its_place() {
        let error = |json: &str| Checked::parse("acme.json", json).map(|_| ()).unwrap_err();
        let typo = ZVID.replace("\"limits\"", "\"limit\"");
        let typo = error(&typo).to_string();
        assert!(typo.starts_with("acme.json: unknown field `limit`, expected one of "), "{typo}");
        let line = 1 + ZVID.lines().position(|line| line.contains("\"limits\"")).unwrap();
        assert!(typo.ends_with(&format!(" at line {line} column 9")), "{typo}");
        let http = error(&ZVID.replace("https://api", "http://api")).to_string();
        assert_eq!(http, "acme.json: baseUrls.default is not https");
    }

    #[test]
    fn shipped_specs_are_explained() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../providers");
        for file in std::fs::read_dir(folder).unwrap() {
            let file = file.unwrap().path();
            if file.ends_with("schema.json") {
                continue;
            }
            let json = std::fs::read_to_string(&file).unwrap();
            let checked = Checked::parse("x.json", &json).unwrap();
            let meaning = checked.meaning();
            assert!(!meaning.contains("never"), "{meaning}");
            assert!(meaning.contains("{id}"), "{meaning}");
        }
    }
}
