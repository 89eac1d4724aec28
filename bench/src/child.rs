//! Processes of our own: this program again, in another role, for as long as we live.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A child that ends when we do: it leaves when its stdin ends.
pub(crate) struct RoleProcess {
    name: &'static str,
    child: Child,
    stdin: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

impl RoleProcess {
    /// Starts this program in the role `name`.
    pub(crate) fn start(name: &'static str, arguments: &[String]) -> Result<Self> {
        Self::start_in(name, arguments, &[])
    }

    /// The same with more in its environment.
    pub(crate) fn start_in(
        name: &'static str,
        arguments: &[String],
        environment: &[(&str, String)],
    ) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["role", name])
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start the {name}"))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("stdout was not piped")?;
        Ok(Self { name, child, stdin, output: BufReader::new(stdout).lines() })
    }

    /// The next thing that the child tells, waited for; its log is passed over.
    pub(crate) fn receive<T: DeserializeOwned>(&mut self) -> Result<T> {
        for line in self.output.by_ref() {
            if let Some(message) = line?.strip_prefix(MESSAGE_PREFIX) {
                return Ok(serde_json::from_str(message)?);
            }
        }
        bail!("the {} ended without a word", self.name)
    }
}

impl Drop for RoleProcess {
    fn drop(&mut self) {
        self.stdin = None;
        // It is leaving, and nothing is lost when it was gone already.
        drop(self.child.wait());
    }
}

/// What tells a line for the parent from the log.
const MESSAGE_PREFIX: &str = "message: ";

/// Tells the parent something, in one line.
pub(crate) fn send(message: &impl Serialize) -> Result<()> {
    println!("{MESSAGE_PREFIX}{}", serde_json::to_string(message)?);
    Ok(())
}

/// Ends this process when its parent has ended.
pub(crate) fn exit_with_parent() {
    thread::spawn(|| {
        drop(std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
        std::process::exit(0);
    });
}
