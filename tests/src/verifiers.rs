//! Receivers that are not ours: programs in other languages, with other people's libraries.
//! `tests/receivers` has them; `cargo xtask test` installs what they need.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// Much longer than a program takes to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// A program that receives webhooks and has several libraries verify each. Ends when it is
/// dropped.
#[derive(Debug)]
pub struct Verifier {
    /// What it is written in.
    pub language: &'static str,
    /// Which libraries verify `v1`.
    pub shared: &'static [&'static str],
    /// Which verify `v1a`.
    pub asymmetric: &'static [&'static str],
    url: String,
    child: Child,
    lines: Mutex<Lines>,
}

#[derive(Debug)]
struct Lines {
    to: ChildStdin,
    from: Receiver<String>,
}

/// What a receiver knows of the sender.
#[derive(Clone, Debug)]
pub enum Known {
    /// `whsec_…`
    Secret(String),
    /// `whpk_…`
    PublicKey(String),
}

impl Verifier {
    /// Starts one in each language.
    ///
    /// # Errors
    /// When they are not installed, or do not start.
    pub fn all() -> Result<[Self; 2]> {
        let folder = std::env::var_os("RELAY_RECEIVERS").context(
            "these tests need receivers that are not ours: run `cargo xtask test`, which \
             installs them, or set RELAY_RECEIVERS to the .local/receivers that it left",
        )?;
        let folder = PathBuf::from(folder);
        let mut python = Command::new(folder.join("venv/bin/python"));
        python.arg(folder.join("receiver.py"));
        let python =
            Self::start("python", python, &["standardwebhooks", "svix"], &["cryptography"])?;
        let mut node = Command::new("node");
        node.arg(folder.join("receiver.mjs"));
        let node = Self::start("node", node, &["standardwebhooks", "svix"], &["crypto"])?;
        Ok([python, node])
    }

    fn start(
        language: &'static str,
        mut command: Command,
        shared: &'static [&'static str],
        asymmetric: &'static [&'static str],
    ) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start the {language} receiver"))?;
        let to = child.stdin.take().context("stdin was not piped")?;
        let stdout = child.stdout.take().context("stdout was not piped")?;
        let (sender, from) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                drop(sender.send(line));
            }
        });
        let lines = Lines { to, from };
        let said = lines.next().with_context(|| format!("the {language} receiver"))?;
        let url = said.get("url").and_then(Value::as_str).context("it has no URL")?.to_owned();
        let lines = Mutex::new(lines);
        Ok(Self { language, shared, asymmetric, url, child, lines })
    }

    /// The URL of a receiver that knows this.
    ///
    /// # Errors
    /// When the program does not take it.
    pub fn receiver(&self, name: &str, known: &Known) -> Result<String> {
        let wanted = match known {
            Known::Secret(secret) => json!({"name": name, "secret": secret}),
            Known::PublicKey(key) => json!({"name": name, "publicKey": key}),
        };
        let mut lines = self.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        writeln!(lines.to, "{wanted}")?;
        let said = lines.next()?;
        ensure!(said == json!({"ready": name}), "the {} receiver says {said}", self.language);
        Ok(format!("{}/{name}", self.url))
    }

    /// Which libraries verify for somebody who knows this.
    #[must_use]
    pub fn libraries(&self, known: &Known) -> &'static [&'static str] {
        match known {
            Known::Secret(_) => self.shared,
            Known::PublicKey(_) => self.asymmetric,
        }
    }
}

impl Lines {
    fn next(&self) -> Result<Value> {
        let line = self.from.recv_timeout(PATIENCE).context("it says nothing")?;
        serde_json::from_str(&line).with_context(|| format!("it says {line}"))
    }
}

impl Drop for Verifier {
    fn drop(&mut self) {
        // It serves nobody any more, and what it is in the middle of is worth nothing.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
