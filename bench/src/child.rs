//! Processes of our own: this program again, in another role, for as long as we live.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A child that ends when we do: it leaves when its stdin ends.
pub(crate) struct Role {
    name: &'static str,
    child: Child,
    tether: Option<ChildStdin>,
    said: Lines<BufReader<ChildStdout>>,
}

impl Role {
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
        let tether = child.stdin.take();
        let stdout = child.stdout.take().context("stdout was not piped")?;
        Ok(Self { name, child, tether, said: BufReader::new(stdout).lines() })
    }

    /// The next thing that the child tells, waited for; its log is passed over.
    pub(crate) fn hear<T: DeserializeOwned>(&mut self) -> Result<T> {
        for line in self.said.by_ref() {
            if let Some(told) = line?.strip_prefix(MARK) {
                return Ok(serde_json::from_str(told)?);
            }
        }
        bail!("the {} ended without a word", self.name)
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        self.tether = None;
        // It is leaving, and nothing is lost when it was gone already.
        drop(self.child.wait());
    }
}

/// What tells a line for the parent from the log.
const MARK: &str = "told: ";

/// Tells the parent something, in one line.
pub(crate) fn tell(something: &impl Serialize) -> Result<()> {
    println!("{MARK}{}", serde_json::to_string(something)?);
    Ok(())
}

/// Ends this process when its parent has ended.
pub(crate) fn leave_with_parent() {
    thread::spawn(|| {
        drop(std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
        std::process::exit(0);
    });
}
