//! Builds: the functions and the simulator to run, and the functions to deploy.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use zip::write::{SimpleFileOptions, ZipWriter};

use crate::process::{self, Interrupt};
use crate::workspace::Workspace;

/// The packages below `functions/`. Each is a binary of the same name.
pub(crate) const FUNCTIONS: [&str; 5] = ["submit", "poller", "webhook", "deliver", "jobs"];

/// The largest zip in bytes. A larger one would slow cold starts down.
const LARGEST_ZIP: u64 = 3_500_000;

const MEGABYTE: f64 = 1_000_000.0;

/// Binaries by the name of their package.
pub(crate) type Binaries = BTreeMap<String, PathBuf>;

/// What a build is for. Cargo unites the features of the packages in one call, so another set of
/// packages compiles most dependencies again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    /// Only what runs, for the quickest start.
    Running,
    /// Everything, as in `cargo test --workspace`, so that both share a build.
    Testing,
    /// The functions with the release profile.
    Deploying,
}

/// Builds, and returns the paths of the binaries.
pub(crate) fn build(
    workspace: &Workspace,
    purpose: For,
    interrupt: &Interrupt,
) -> Result<Binaries> {
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--locked", "--message-format=json-render-diagnostics"]);
    let simulator = match purpose {
        For::Running => Some("simulator"),
        For::Testing => {
            cargo.args(["--workspace", "--all-targets"]);
            Some("simulator")
        }
        For::Deploying => {
            cargo.arg("--release");
            None
        }
    };
    if purpose != For::Testing {
        for package in FUNCTIONS.into_iter().chain(simulator) {
            cargo.args(["--package", package]);
        }
    }
    let messages = process::run_for_output(&mut cargo, None, interrupt)?;
    let binaries: Binaries = messages.lines().filter_map(binary).collect();
    for package in FUNCTIONS.into_iter().chain(simulator) {
        if !binaries.contains_key(package) {
            bail!("cargo built no binary `{package}`");
        }
    }
    Ok(binaries)
}

/// The binary in a line of cargo's output, if there is one.
fn binary(line: &str) -> Option<(String, PathBuf)> {
    #[derive(Deserialize)]
    struct Message {
        target: Target,
        profile: Profile,
        executable: PathBuf,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
        kind: Vec<String>,
    }
    #[derive(Deserialize)]
    struct Profile {
        test: bool,
    }
    let message: Message = serde_json::from_str(line).ok()?;
    let runs = !message.profile.test && message.target.kind.iter().any(|kind| kind == "bin");
    runs.then_some((message.target.name, message.executable))
}

/// `cargo xtask package`: builds the functions for this machine's architecture, zips them into
/// `target/package/`, and fails when a zip is too large.
pub(crate) fn package(workspace: &Workspace, interrupt: &Interrupt) -> Result<()> {
    let binaries = build(workspace, For::Deploying, interrupt)?;
    let folder = workspace.path("target/package");
    fs::create_dir_all(&folder)?;
    println!("{:<10} {:>10} {:>10}", "function", "binary MB", "zip MB");
    let mut too_large = Vec::new();
    for (function, binary) in &binaries {
        let archive = folder.join(format!("{function}.zip"));
        zip(File::open(binary)?, File::create(&archive)?)
            .with_context(|| format!("cannot write {}", archive.display()))?;
        let zipped = fs::metadata(&archive)?.len();
        println!(
            "{function:<10} {:>10.2} {:>10.2}",
            megabytes(fs::metadata(binary)?.len()),
            megabytes(zipped)
        );
        if zipped > LARGEST_ZIP {
            too_large.push(function.as_str());
        }
    }
    println!("in {}", folder.display());
    if too_large.is_empty() {
        return Ok(());
    }
    bail!("larger than {} MB: {}", megabytes(LARGEST_ZIP), too_large.join(", "))
}

/// Writes the zip that Lambda expects for `provided.al2023`: an executable `bootstrap`.
fn zip(mut binary: impl io::Read, archive: impl io::Write + io::Seek) -> Result<()> {
    let mut zip = ZipWriter::new(archive);
    // Without a modification time the same binary makes the same zip.
    let options = SimpleFileOptions::default().unix_permissions(0o755).compression_level(Some(9));
    zip.start_file("bootstrap", options)?;
    io::copy(&mut binary, &mut zip)?;
    zip.finish()?;
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "shown with two digits")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / MEGABYTE
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use zip::ZipArchive;

    use super::*;

    #[test]
    fn only_binaries_are_recognised() {
        let bin = r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"submit"},"profile":{"test":false},"executable":"/t/submit"}"#;
        assert_eq!(binary(bin), Some(("submit".into(), "/t/submit".into())));
        for other in [
            bin.replace("\"test\":false", "\"test\":true"),
            bin.replace("[\"bin\"]", "[\"lib\"]").replace("\"/t/submit\"", "null"),
            r#"{"reason":"build-finished","success":true}"#.into(),
        ] {
            assert_eq!(binary(&other), None, "{other}");
        }
    }

    #[test]
    fn zip_holds_one_bootstrap_executable() {
        let mut archive = Cursor::new(Vec::new());
        zip(&b"\x7fELF"[..], &mut archive).unwrap();

        let mut archive = ZipArchive::new(archive).unwrap();
        assert_eq!(archive.len(), 1);
        let bootstrap = archive.by_index(0).unwrap();
        assert_eq!(bootstrap.name().unwrap(), "bootstrap");
        assert_eq!(bootstrap.unix_mode(), Some(0o100_755));
        assert_eq!(io::read_to_string(bootstrap).unwrap(), "\x7fELF");
    }
}
