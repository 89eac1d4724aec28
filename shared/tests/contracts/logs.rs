//! docs/logging.md against the code: every message that a function can log is in its table,
//! with its level and its fields, and nothing else is.

use std::collections::BTreeSet;
use std::path::Path;

use crate::source;

const DOCUMENT: &str = "docs/logging.md";

/// A message as the code and the document give it: level, text, and fields in order.
type Message = (String, String, Vec<String>);

/// The messages of a file's text.
fn messages(code: &str) -> Vec<Message> {
    let levels = ["error", "warn", "info", "debug", "trace"];
    let mut found = Vec::new();
    for level in levels {
        for (at, start) in code.match_indices(&format!("{level}!(")) {
            let before = code[..at].chars().next_back().unwrap_or(' ');
            if before.is_alphanumeric() || before == '_' {
                continue;
            }
            let arguments = arguments(&code[at + start.len()..]);
            let (message, fields) = split(&arguments);
            found.push((level.to_uppercase(), message, fields));
        }
    }
    found
}

/// The arguments of a macro, whose text begins after the opening parenthesis.
fn arguments(text: &str) -> Vec<String> {
    let (mut arguments, mut depth, mut quoted, mut escaped) =
        (vec![String::new()], 0, false, false);
    for character in text.chars() {
        let last = arguments.last_mut().unwrap();
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => break,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                arguments.push(String::new());
                continue;
            }
            _ => {}
        }
        last.push(character);
    }
    arguments.iter().map(|argument| argument.trim().to_owned()).collect()
}

/// The message, and the names of the fields before it.
fn split(arguments: &[String]) -> (String, Vec<String>) {
    let is_text = |argument: &String| argument.starts_with('"');
    let at = arguments.iter().position(is_text);
    let at = at.unwrap_or_else(|| panic!("a log line without a message: {arguments:?}"));
    let field = |argument: &String| {
        let name = argument.split('=').next().unwrap_or_default();
        name.trim().trim_start_matches(['%', '?']).to_owned()
    };
    let message = arguments[at].trim_matches('"').to_owned();
    (message, arguments[..at].iter().map(field).collect())
}

/// The rows of the document's tables of messages: level, message, fields, meaning.
fn documented() -> BTreeSet<Message> {
    let text = source::text(DOCUMENT);
    let rows = text.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix('|')?.split('|').map(str::trim).collect();
        let [level, message, fields, ..] = cells[..] else { return None };
        let message = message.strip_prefix('`')?.strip_suffix('`')?;
        let fields = source::between(fields, "`", "`").into_iter().step_by(2);
        Some((level.to_owned(), message.to_owned(), fields.map(str::to_owned).collect()))
    });
    rows.collect()
}

#[test]
fn log_messages_are_documented() {
    let root = source::root();
    let functions = ["deliver", "jobs", "poller", "submit", "webhook"];
    let mut folders = vec![root.join("shared/src"), root.join("domain/src")];
    folders.extend(functions.map(|function| root.join(format!("functions/{function}/src"))));
    let is_test = |path: &Path| {
        let mut parts = path.strip_prefix(&root).unwrap().iter().map(|part| part.to_string_lossy());
        parts.any(|part| ["tests", "tests.rs", "test_server.rs"].contains(&&*part))
    };
    let documented = documented();
    let mut logged = BTreeSet::new();
    let mut problems = Vec::new();
    for (path, code) in folders.iter().flat_map(|folder| source::rust_below(folder)) {
        if is_test(&path) {
            continue;
        }
        for message in messages(&code) {
            if !documented.contains(&message) {
                let file = path.strip_prefix(&root).unwrap().display();
                problems.push(format!("{DOCUMENT} lacks {message:?} of {file}"));
            }
            logged.insert(message);
        }
    }
    let stale = documented.difference(&logged);
    problems
        .extend(stale.map(|message| format!("{DOCUMENT} has {message:?}, which is not logged")));
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
    assert!(logged.len() > 20, "the code was not read: {logged:?}");
}

#[test]
fn log_lines_are_read_from_code() {
    let code = r#"
        warn!(
            job.id = %id(&job, 1),
            shard,
            error = chain(&cause),
            "event \"publish\", failed ({shard})"
        );
        debug!("short");
        let not_one = my_warn!(x);
    "#;
    let fields = ["job.id", "shard", "error"].map(str::to_owned).into();
    let long = r#"event \"publish\", failed ({shard})"#;
    assert_eq!(
        messages(code),
        [
            ("WARN".to_owned(), long.to_owned(), fields),
            ("DEBUG".to_owned(), "short".to_owned(), vec![]),
        ]
    );
}
