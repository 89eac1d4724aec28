//! Child processes that end with this one.
//!
//! There are two kinds. A guarded child serves in the background, and its stdin is a pipe from
//! this process. When this process exits, panics or is killed, the kernel closes the pipe, and the
//! child exits at the end of its stdin. A foreground child does a finite job that this process
//! waits for. Both have a process group of their own, so that Ctrl-C reaches only this process,
//! which then ends the children in order.

use std::cell::Cell;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How long a guarded child may take to exit before it is killed. A healthy one exits at once,
/// unless the machine is busy.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(30);

/// Ctrl-C, SIGTERM and SIGHUP, which can be waited for.
pub(crate) struct Interrupt {
    signals: Receiver<()>,
    seen: Cell<bool>,
}

/// The user or the system asks this process to stop.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;

impl Interrupt {
    pub(crate) fn install() -> Result<Self> {
        let (sender, signals) = mpsc::channel();
        ctrlc::set_handler(move || {
            // Fails only when the receiver is gone, at the end of the process.
            let _ = sender.send(());
        })?;
        Ok(Self { signals, seen: Cell::new(false) })
    }

    /// Waits, or returns early when an interrupt arrives.
    pub(crate) fn wait(&self, pause: Duration) -> Result<(), Interrupted> {
        if !self.seen.get() && self.signals.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            return Ok(());
        }
        self.seen.set(true);
        Err(Interrupted)
    }
}

/// A background child that cannot outlive this process.
pub(crate) struct ChildGuard {
    name: &'static str,
    child: Child,
    /// Closing it makes the child exit.
    stdin: Option<ChildStdin>,
}

impl ChildGuard {
    /// Starts `command`, which must end when its stdin does.
    pub(crate) fn spawn(name: &'static str, command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start the {name}"))?;
        let stdin = child.stdin.take();
        Ok(Self { name, child, stdin })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Fails when the child has exited.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the {} has ended by itself ({status})", self.name),
        }
    }

    /// The first line that the child prints, waited for until `deadline`.
    pub(crate) fn first_line(
        &mut self,
        deadline: Instant,
        interrupt: &Interrupt,
    ) -> Result<String> {
        let stdout = self.child.stdout.take().context("stdout was not piped")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            // Read to the end, so that the child never blocks on a full pipe.
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                drop(sender.send(line));
            }
        });
        loop {
            if let Ok(line) = lines.try_recv() {
                return Ok(line);
            }
            self.check()?;
            if Instant::now() > deadline {
                bail!("the {} printed nothing", self.name);
            }
            interrupt.wait(POLL_INTERVAL)?;
        }
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        self.stdin = None;
        let deadline = Instant::now() + SHUTDOWN_GRACE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                kill_group(self.child.id(), "KILL");
                drop(self.child.wait());
                return;
            }
            thread::park_timeout(POLL_INTERVAL);
        }
    }
}

/// Runs a command to its end. Its output is inherited.
pub(crate) fn run(command: &mut Command, interrupt: &Interrupt) -> Result<()> {
    let status = wait(command.stdin(Stdio::null()).process_group(0), None, interrupt)?.0;
    if status.success() {
        return Ok(());
    }
    bail!("{} ended with {status}", describe(command))
}

/// Runs a command to its end, and returns its standard output.
pub(crate) fn run_for_output(
    command: &mut Command,
    input: Option<&str>,
    interrupt: &Interrupt,
) -> Result<String> {
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let (status, output) =
        wait(command.stdin(stdin).stdout(Stdio::piped()).process_group(0), input, interrupt)?;
    if status.success() {
        return Ok(output);
    }
    bail!("{} ended with {status}", describe(command))
}

fn wait(
    command: &mut Command,
    input: Option<&str>,
    interrupt: &Interrupt,
) -> Result<(ExitStatus, String)> {
    let mut child =
        command.spawn().with_context(|| format!("cannot start {}", describe(command)))?;
    let reader =
        child.stdout.take().map(|stdout| thread::spawn(|| std::io::read_to_string(stdout)));
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        stdin.write_all(input.as_bytes())?;
    }
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if let Err(interrupted) = interrupt.wait(POLL_INTERVAL) {
            kill_group(child.id(), "TERM");
            child.wait()?;
            return Err(interrupted.into());
        }
    };
    let output = match reader.map(thread::JoinHandle::join) {
        None => String::new(),
        Some(Ok(output)) => output?,
        Some(Err(_)) => bail!("the reader of {} broke", describe(command)),
    };
    Ok((status, output))
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args().take(2));
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    format!("`{}`", words.join(" "))
}

/// Signals a process group. The standard library can only kill one process.
pub(crate) fn kill_group(leader: u32, signal: &str) {
    let killed = Command::new("kill")
        .args([&format!("-{signal}"), "--", &format!("-{leader}")])
        .stderr(Stdio::null())
        .status();
    // The group may be gone already.
    drop(killed);
}

/// Writes both outputs of a child to a log file.
pub(crate) fn log_to(command: &mut Command, log: &File) -> Result<()> {
    command.stdout(log.try_clone()?).stderr(log.try_clone()?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn guarded_child_exits_on_drop() {
        let mut child = Command::new("sh");
        child.args(["-c", "cat; echo left"]).stdout(Stdio::piped());
        let mut child = ChildGuard::spawn("cat", &mut child).unwrap();
        child.check().unwrap();
        let id = child.id().to_string();
        let mut output = child.child.stdout.take().unwrap();
        drop(child);
        let mut printed = String::new();
        output.read_to_string(&mut printed).unwrap();
        assert_eq!(printed, "left\n", "it had to be killed");
        let found = Command::new("ps").args(["-p", &id]).stdout(Stdio::null()).status().unwrap();
        assert!(!found.success());
    }

    #[test]
    fn early_exit_is_reported() {
        let mut none = ChildGuard::spawn("door", &mut Command::new("true")).unwrap();
        none.child.wait().unwrap();
        let error = none.check().unwrap_err().to_string();
        assert!(error.starts_with("the door has ended by itself"), "{error}");
    }

    #[test]
    fn group_kill_reaches_grandchildren() {
        let mut parent = Command::new("sh")
            .args(["-c", "sleep 600 & echo started; wait"])
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut output = parent.stdout.take().unwrap();
        output.read_exact(&mut [0; 8]).unwrap();

        kill_group(parent.id(), "KILL");

        parent.wait().unwrap();
        // It ends only when no process holds the other end, so the grandchild is gone too.
        assert_eq!(output.read(&mut [0; 1]).unwrap(), 0);
    }
}
