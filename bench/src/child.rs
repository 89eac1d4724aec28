//! Child processes: this program in another role, which end when this process ends.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A child process. It exits when its stdin ends.
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

    /// Starts this program in the role `name` with additional environment variables.
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

    /// Waits for the next message of the child; its log is skipped.
    pub(crate) fn receive<T: DeserializeOwned>(&mut self) -> Result<T> {
        for line in self.output.by_ref() {
            if let Some(message) = line?.strip_prefix(MESSAGE_PREFIX) {
                return Ok(serde_json::from_str(message)?);
            }
        }
        bail!("the {} ended without a message", self.name)
    }
}

impl Drop for RoleProcess {
    fn drop(&mut self) {
        self.stdin = None;
        // It exits by itself, or has exited already.
        drop(self.child.wait());
    }
}

/// The prefix that distinguishes a message from the log.
const MESSAGE_PREFIX: &str = "message: ";

/// Sends a message to the parent as one line.
pub(crate) fn send(message: &impl Serialize) -> Result<()> {
    println!("{MESSAGE_PREFIX}{}", serde_json::to_string(message)?);
    Ok(())
}

/// Exits when the parent has ended.
pub(crate) fn exit_with_parent() {
    thread::spawn(|| {
        drop(std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
        std::process::exit(0);
    });
}
