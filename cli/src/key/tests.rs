use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::thread::JoinHandle;

use aws_in_memory::InMemoryAws;
use aws_in_memory::clock::now;
use aws_in_memory::interceptor::{FaultyOperation, Injected};
use clap::Parser;

use super::*;

#[derive(Parser)]
struct KeyCli {
    #[command(subcommand)]
    command: KeyCommand,
}

fn command(line: &str) -> KeyCommand {
    let words = std::iter::once("key").chain(line.split(' '));
    KeyCli::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).command
}

/// What a command printed: its result, and what was said about it.
#[derive(Debug, Default)]
struct Printed {
    result: RefCell<Vec<String>>,
    notes: RefCell<Vec<String>>,
}

impl Printed {
    fn by<T>(run: impl FnOnce(&Output<'_>) -> T) -> (T, Self) {
        let printed = Self::default();
        let answer = run(&Output {
            result: &|line| printed.result.borrow_mut().push(line),
            note: &|line| printed.notes.borrow_mut().push(line),
        });
        (answer, printed)
    }

    fn result(&self) -> String {
        self.result.borrow().join("\n")
    }

    fn notes(&self) -> String {
        self.notes.borrow().join("\n")
    }
}

async fn in_memory(aws: &InMemoryAws, line: &str) -> Result<(String, String)> {
    let printed = Printed::default();
    let output = Output {
        result: &|line| printed.result.borrow_mut().push(line),
        note: &|line| printed.notes.borrow_mut().push(line),
    };
    in_table(&command(line), &aws.store(), now(), &output).await?;
    Ok((printed.result(), printed.notes()))
}

#[tokio::test]
async fn created_key_alone_is_the_result() {
    let aws = InMemoryAws::new(&[]);
    let line = "create --table t --name shop --owner ops --scope submit,admin --scope read";
    let (key, notes) = in_memory(&aws, line).await.unwrap();
    assert!(key.starts_with("rr_") && key.len() == 67 && !notes.contains(&key), "{key} {notes}");
    let keys = aws.store().api_keys().await.unwrap().keys;
    let record = keys.of(&key).unwrap();
    assert_eq!((record.name.as_str(), record.owner.as_str()), ("shop", "ops"));
    assert_eq!(record.scopes.to_string(), "submit, read, admin");
    assert_eq!(record.created_by, KeyCreator::Operator);
    assert!(notes.contains(record.id.as_str()) && notes.contains("submit, read, admin"), "{notes}");
    let default = in_memory(&aws, "create --table t --name other --owner ops").await.unwrap();
    let keys = aws.store().api_keys().await.unwrap().keys;
    assert_eq!(keys.of(&default.0).unwrap().scopes.to_string(), "submit, read");
}

#[tokio::test]
async fn key_name_is_not_given_twice() {
    let aws = InMemoryAws::new(&[]);
    let line = "create --table t --name shop --owner ops";
    let (key, _) = in_memory(&aws, line).await.unwrap();
    let error = in_memory(&aws, line).await.unwrap_err();
    assert!(error.to_string().contains("relay key revoke shop"), "{error}");
    let keys = aws.store().api_keys().await.unwrap().keys;
    assert!(keys.of(&key).is_some(), "the first one stays");
    let lost = aws.seen_by(FaultyOperation::new("PutItem", Injected::Lost));
    let error = in_memory(&lost, "create --table t --name b --owner o").await.unwrap_err();
    assert!(format!("{error:#}").contains("relay key list"), "{error:#}");
}

#[tokio::test]
async fn key_is_revoked_by_name_or_id() {
    let aws = InMemoryAws::new(&[]);
    for name in ["one", "two", "three"] {
        in_memory(&aws, &format!("create --table t --name {name} --owner ops")).await.unwrap();
    }
    let (_, notes) = in_memory(&aws, "revoke two --table t").await.unwrap();
    assert!(notes.contains("two"), "{notes}");
    let left = aws.store().api_keys().await.unwrap().keys;
    let one = left.iter().find(|record| record.name.as_str() == "one").unwrap();
    in_memory(&aws, &format!("revoke {} --table t", one.id)).await.unwrap();
    let left = aws.store().api_keys().await.unwrap().keys;
    let left: Vec<&str> = left.iter().map(|record| record.name.as_str()).collect();
    assert_eq!(left, ["three"], "no other key was touched");
    assert!(in_memory(&aws, "revoke two --table t").await.is_err(), "it is gone");
}

#[tokio::test]
async fn unreadable_key_is_listed_and_removed() {
    let aws = InMemoryAws::new(&[]);
    in_memory(&aws, "create --table t --name good --owner ops").await.unwrap();
    let broken = json!({"pk": {"S": "api-keys"}, "sk": {"S": "broken"}});
    aws.table().answer("PutItem", &json!({"TableName": "t", "Item": broken}));
    let (listed, notes) = in_memory(&aws, "list --table t").await.unwrap();
    assert!(listed.contains("good") && !listed.contains("broken"), "{listed}");
    assert!(notes.starts_with("\"broken\" is not in force"), "{notes}");
    in_memory(&aws, "revoke broken --table t").await.unwrap();
    assert_eq!(aws.table().items().len(), 1);
}

#[test]
fn key_options_are_checked() {
    for wrong in [
        "create --name a --owner o --scope all",
        "create --name key_1 --owner o",
        "create --name a",
        "revoke",
    ] {
        let words = std::iter::once("key").chain(wrong.split(' '));
        assert!(KeyCli::try_parse_from(words).is_err(), "{wrong}");
    }
    let no_api = || bail!("give --url or set RELAY_URL");
    let (error, _) = Printed::by(|output| run(&command("list"), no_api, output).unwrap_err());
    let error = format!("{error:#}");
    assert!(error.contains("--table") && error.contains("RELAY_URL"), "{error}");
}

/// A server that answers each request with the next of `answers`, and returns the requests'
/// first lines and bodies.
fn server(answers: Vec<(u16, Value)>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let served = std::thread::spawn(move || {
        let answered = answers.into_iter().map(|(status, body)| {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(&stream);
            let mut first = String::new();
            reader.read_line(&mut first).unwrap();
            let mut length = 0;
            loop {
                let mut header = String::new();
                reader.read_line(&mut header).unwrap();
                let header = header.trim().to_ascii_lowercase();
                if let Some(text) = header.strip_prefix("content-length:") {
                    length = text.trim().parse().unwrap();
                }
                if header.is_empty() {
                    break;
                }
            }
            let mut sent = vec![0; length];
            reader.read_exact(&mut sent).unwrap();
            let (body, close) = (body.to_string(), "connection: close");
            let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n{close}", body.len());
            (&stream).write_all(format!("{head}\r\n\r\n{body}").as_bytes()).unwrap();
            let first = first.trim().trim_end_matches(" HTTP/1.1").to_owned();
            format!("{first} {}", String::from_utf8(sent).unwrap()).trim().to_owned()
        });
        answered.collect()
    });
    (url, served)
}

/// Runs a command through the API that gives these answers.
fn through(line: &str, answers: Vec<(u16, Value)>) -> (Result<()>, Printed, Vec<String>) {
    let (url, served) = server(answers);
    let (outcome, printed) =
        Printed::by(|output| run(&command(line), || Ok(Api::new(&url, "rr_admin")), output));
    (outcome, printed, served.join().unwrap())
}

fn record() -> Value {
    json!({
        "keyId": format!("key_{}", "7".repeat(32)), "name": "shop", "owner": "ops",
        "scopes": ["submit", "read"], "createdAt": "2026-05-24T12:00:00.000Z",
        "createdBy": "operator",
    })
}

#[test]
fn key_is_created_through_the_api() {
    let mut made = record();
    made["key"] = "rr_secret".into();
    let (outcome, printed, asked) = through("create --name shop --owner ops", vec![(201, made)]);
    outcome.unwrap();
    assert_eq!(printed.result(), "rr_secret");
    assert!(!printed.notes().contains("rr_secret") && printed.notes().contains("key_777"));
    let body = asked[0].strip_prefix("POST /v1/keys ").unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body, json!({"name": "shop", "owner": "ops", "scopes": ["submit", "read"]}));
}

#[test]
fn key_is_revoked_by_name_through_the_api() {
    let id = format!("key_{}", "7".repeat(32));
    let page = json!({"keys": [record()]});
    let answers = vec![(200, page.clone()), (200, record())];
    let (outcome, _, asked) = through("revoke shop", answers);
    outcome.unwrap();
    assert_eq!(asked, ["GET /v1/keys".to_owned(), format!("DELETE /v1/keys/{id}")]);
    let (outcome, _, asked) = through(&format!("revoke {id}"), vec![(200, record())]);
    outcome.unwrap();
    assert_eq!(asked, [format!("DELETE /v1/keys/{id}")]);
    let (outcome, _, _) = through("revoke other", vec![(200, page)]);
    assert!(outcome.unwrap_err().to_string().contains("no key `other`"));
}

#[test]
fn keys_are_listed_in_columns() {
    let (outcome, printed, _) = through("list", vec![(200, json!({"keys": [record()]}))]);
    outcome.unwrap();
    insta::assert_snapshot!(printed.result(), @r"
    key                                   name  owner  scopes        created                   by
    key_77777777777777777777777777777777  shop  ops    submit, read  2026-05-24T12:00:00.000Z  operator
    ");
}
