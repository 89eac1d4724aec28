use std::cell::RefCell;

use aws_in_memory::InMemoryAws;
use aws_in_memory::interceptor::{FaultyOperation, Injected};
use serde_json::json;

use super::*;

const JOB: &str = "job_07070707070787078707070707070707";
const EVENT: &str = "evt_6ea8b3ec403ad47bb01c266209b2989e";

fn letter(body: String) -> DeadLetter {
    DeadLetter { id: "m-1".into(), body, sent_at: DateTime::UNIX_EPOCH, receipt: "r-1".into() }
}

fn ticket() -> DeadLetter {
    letter(format!(r#"{{"jobId":"{JOB}","eventId":"{EVENT}","attempt":3,"lane":"slow"}}"#))
}

fn filter(job: Option<&str>, event: Option<&str>) -> Filter {
    Filter {
        stack: "s".into(),
        job: job.map(|id| JobId::parse(id).unwrap()),
        event: event.map(|id| EventId::parse(id).unwrap()),
    }
}

fn shown(letter: &DeadLetter, filter: &Filter) -> Option<String> {
    let now = DateTime::UNIX_EPOCH + TimeDelta::minutes(150);
    row(letter, filter, now).map(|cells| cells.join("|"))
}

#[test]
fn dead_letter_shows_delivery_attempt_and_age() {
    let all = filter(None, None);
    assert_eq!(shown(&ticket(), &all), Some(format!("{JOB}|{EVENT}|4|2 h|m-1")));
    let test = letter(format!(r#"{{"eventId":"{EVENT}","attempt":0}}"#));
    assert_eq!(shown(&test, &all), Some(format!("a test|{EVENT}|1|2 h|m-1")));
}

#[test]
fn unreadable_dead_letter_shows_no_text() {
    let strange = letter("\u{1b}[2J whsec_secret".into());
    assert_eq!(shown(&strange, &filter(None, None)).as_deref(), Some("no ticket|-|-|2 h|m-1"));
    assert_eq!(shown(&strange, &filter(Some(JOB), None)), None);
}

#[test]
fn dead_letters_are_filtered_by_job_and_event() {
    let other = "job_00000000000040008000000000000000";
    assert!(shown(&ticket(), &filter(Some(JOB), Some(EVENT))).is_some());
    assert_eq!(shown(&ticket(), &filter(Some(other), None)), None);
    let test = letter(format!(r#"{{"eventId":"{EVENT}","attempt":0}}"#));
    assert_eq!(shown(&test, &filter(Some(JOB), None)), None);
    assert!(shown(&test, &filter(None, Some(EVENT))).is_some());
}

/// The visible bodies in the dead-letter queue, and all that were sent back.
fn where_letters_are(aws: &InMemoryAws) -> (Vec<String>, Vec<String>) {
    let seen = aws.dead_letter_queue().take_in_order().unwrap_or_default();
    let sent_back = aws.delivery_queue().sent().into_iter().map(|sent| sent.body);
    (seen.records.into_iter().filter_map(|it| it.body).collect(), sent_back.collect())
}

async fn add_dead_letters(aws: &InMemoryAws, bodies: &[&str]) {
    let client = aws_sdk_sqs::Client::new(&aws.config());
    for body in bodies {
        let send = client.send_message().queue_url("https://sqs/dead-deliveries");
        send.message_body(*body).send().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn dlq_list_changes_nothing() {
    let aws = InMemoryAws::new(&[]);
    let bodies: Vec<String> = (0..25).map(|_| ticket().body).collect();
    add_dead_letters(&aws, &bodies.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let lines = RefCell::<Vec<String>>::default();
    let all = filter(None, None);
    list(&Queues::of(&aws), &all, |line| lines.borrow_mut().push(line)).await.unwrap();
    assert_eq!(lines.borrow()[0], "25 messages in the dead-letter queue");
    assert_eq!(lines.borrow()[1].lines().count(), 26);
    assert_eq!(aws.dead_letter_queue().len(), 25);
    assert_eq!(where_letters_are(&aws).0.len(), 10, "ten can be received at once");
    assert_eq!(aws.delivery_queue().sent(), []);
}

#[tokio::test(start_paused = true)]
async fn redrive_sends_tickets_only_to_quick_lane() {
    let aws = InMemoryAws::new(&[]);
    add_dead_letters(&aws, &[&ticket().body, "{}"]).await;
    let lines = RefCell::<Vec<String>>::default();
    let all = filter(None, None);
    redrive(&Queues::of(&aws), &all, |line| lines.borrow_mut().push(line)).await.unwrap();
    let quick = format!(r#"{{"jobId":"{JOB}","eventId":"{EVENT}","attempt":3,"lane":"quick"}}"#);
    assert_eq!(where_letters_are(&aws), (vec!["{}".to_owned()], vec![quick]));
    let expected = [
        format!("{JOB}  {EVENT}  attempt 4"),
        "1 message sent back".to_owned(),
        "1 message left: they are no tickets".to_owned(),
    ];
    assert_eq!(lines.into_inner(), expected);
}

fn over_limit() -> Injected {
    Injected::Refused(400, json!({"__type": "com.amazonaws.sqs#OverLimit"}))
}

#[tokio::test(start_paused = true)]
async fn interrupted_redrive_loses_nothing() {
    for (operation, sent) in [("SendMessage", 0), ("DeleteMessage", 1)] {
        let aws = InMemoryAws::new(&[]);
        add_dead_letters(&aws, &[&ticket().body]).await;
        let refusing = aws.seen_by(FaultyOperation::new(operation, over_limit()));
        let all = filter(None, None);
        redrive(&Queues::of(&refusing), &all, drop).await.unwrap_err();
        assert_eq!(aws.delivery_queue().sent().len(), sent, "{operation}");
        tokio::time::advance(std::time::Duration::from_secs(900)).await;
        assert_eq!(where_letters_are(&aws).0, [ticket().body], "{operation}");
    }
}

#[test]
fn age_has_one_unit() {
    let ages = [0, 59, 60, 3_600, 86_400 * 3].map(|s| age(TimeDelta::seconds(s)));
    assert_eq!(ages, ["0 s", "59 s", "1 min", "1 h", "3 d"]);
    assert_eq!(age(TimeDelta::seconds(-5)), "0 s", "the clocks differ");
}
