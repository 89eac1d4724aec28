//! Receivers in other languages, which verify with public webhook libraries. Their programs
//! are in `tests/receivers`; `cargo xtask test` installs their libraries.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// Much longer than a program takes to start on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(300);

/// A program that receives webhooks and verifies each with several libraries. Dropping the
/// value ends the program.
#[derive(Debug)]
pub struct ForeignReceiver {
    /// The program's language.
    pub language: &'static str,
    /// The libraries that verify `v1` signatures.
    pub shared: &'static [&'static str],
    /// The libraries that verify `v1a` signatures.
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

/// The key with which a receiver verifies webhooks.
#[derive(Clone, Debug)]
pub enum VerificationKey {
    /// A shared secret, `whsec_…`.
    Secret(String),
    /// A public key, `whpk_…`.
    PublicKey(String),
}

impl ForeignReceiver {
    /// Starts one program in each language.
    ///
    /// # Errors
    /// When a program is not installed or does not start.
    pub fn all() -> Result<[Self; 2]> {
        let folder = std::env::var_os("RELAY_RECEIVERS").context(
            "these tests need the Python and Node receivers: run `cargo xtask test`, which \
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
        let ready = lines.next().with_context(|| format!("the {language} receiver"))?;
        let url = ready.get("url").and_then(Value::as_str).context("it has no URL")?.to_owned();
        let lines = Mutex::new(lines);
        Ok(Self { language, shared, asymmetric, url, child, lines })
    }

    /// Creates a receiver that verifies with this key, and returns its URL.
    ///
    /// # Errors
    /// When the program does not create it.
    pub fn receiver(&self, name: &str, key: &VerificationKey) -> Result<String> {
        let command = match key {
            VerificationKey::Secret(secret) => json!({"name": name, "secret": secret}),
            VerificationKey::PublicKey(public) => json!({"name": name, "publicKey": public}),
        };
        let mut lines = self.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        writeln!(lines.to, "{command}")?;
        let answer = lines.next()?;
        ensure!(
            answer == json!({"ready": name}),
            "the {} receiver printed {answer}",
            self.language
        );
        Ok(format!("{}/{name}", self.url))
    }

    /// The libraries that verify with this kind of key.
    #[must_use]
    pub fn libraries(&self, key: &VerificationKey) -> &'static [&'static str] {
        match key {
            VerificationKey::Secret(_) => self.shared,
            VerificationKey::PublicKey(_) => self.asymmetric,
        }
    }
}

impl Lines {
    fn next(&self) -> Result<Value> {
        let line = self.from.recv_timeout(TIMEOUT).context("it prints nothing")?;
        serde_json::from_str(&line).with_context(|| format!("it printed {line}"))
    }
}

impl Drop for ForeignReceiver {
    fn drop(&mut self) {
        // An error means that the program has already ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
