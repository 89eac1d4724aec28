//! Builds: the functions and the simulator to run, and the functions to deploy.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use measurements::{FunctionSize, PackageSizes};
use serde::Deserialize;
use zip::write::{SimpleFileOptions, ZipWriter};

use crate::process::{self, Interrupt};
use crate::workspace::Workspace;

/// The packages below `functions/`. Each is a binary of the same name.
pub(crate) const FUNCTIONS: [&str; 5] = ["submit", "poller", "webhook", "deliver", "jobs"];

/// The largest zip in bytes. A larger one would slow cold starts down.
const MAX_ZIP: u64 = 4_000_000;

/// Binaries by the name of their package.
pub(crate) type Binaries = BTreeMap<String, PathBuf>;

/// What a build is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    /// The functions and the simulator: the quickest way to a stack.
    Running,
    /// The same, and everything that `cargo test --workspace` runs.
    Testing,
    /// The functions with the release profile.
    Deploying,
}

/// Builds, and returns the paths of the binaries.
///
/// Cargo unites the features of all packages that one call names. So the functions are always
/// built by a call of their own, with the features that ship: beside the tests they would get
/// tokio's `test-util` and more. That is one more compilation of all that depends on tokio,
/// the AWS clients among it, which nothing can share with the tests as long as these pause the
/// clock. It happens once: a test run, the demo and `up` use the same. The simulator ships
/// nowhere. A test run takes it from the build of all targets, which the tests need in any
/// case.
pub(crate) fn build(
    workspace: &Workspace,
    purpose: For,
    interrupt: &Interrupt,
) -> Result<Binaries> {
    let mut binaries = match purpose {
        For::Running => built(workspace, &["--package", "simulator"], interrupt)?,
        For::Testing => built(workspace, &["--workspace", "--all-targets"], interrupt)?,
        For::Deploying => Binaries::new(),
    };
    binaries.retain(|package, _| package == "simulator");
    if purpose != For::Deploying && binaries.is_empty() {
        bail!("cargo built no binary `simulator`");
    }
    let packages = FUNCTIONS.iter().flat_map(|package| ["--package", package]);
    let release = (purpose == For::Deploying).then_some("--release");
    let arguments: Vec<&str> = release.into_iter().chain(packages).collect();
    let functions = built(workspace, &arguments, interrupt)?;
    for package in FUNCTIONS {
        let Some(binary) = functions.get(package) else {
            bail!("cargo built no binary `{package}`");
        };
        let binary = match purpose {
            For::Running | For::Testing => set_aside(workspace, package, binary)?,
            For::Deploying => binary.clone(),
        };
        binaries.insert(package.to_owned(), binary);
    }
    Ok(binaries)
}

/// The binaries that one call of `cargo build` makes.
fn built(workspace: &Workspace, arguments: &[&str], interrupt: &Interrupt) -> Result<Binaries> {
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--locked", "--message-format=json-render-diagnostics"]).args(arguments);
    let messages = process::run_for_output(&mut cargo, None, interrupt)?;
    Ok(messages.lines().filter_map(binary).collect())
}

/// Copies a function's binary to where no other call of cargo replaces it: `cargo test` builds
/// the functions too, with the features of the tests, and a stack may be started after it.
fn set_aside(workspace: &Workspace, package: &str, binary: &Path) -> Result<PathBuf> {
    let folder = workspace.path("target/functions");
    fs::create_dir_all(&folder)?;
    let copy = folder.join(package);
    // A function of a stack that runs may still be open: its file is replaced, not written to.
    let fresh = folder.join(format!("{package}.new"));
    fs::copy(binary, &fresh)
        .and_then(|_| fs::rename(&fresh, &copy))
        .with_context(|| format!("cannot copy {} to {}", binary.display(), copy.display()))?;
    Ok(copy)
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
    let mut functions = Vec::new();
    let mut too_large = Vec::new();
    for (function, binary) in &binaries {
        let archive = folder.join(format!("{function}.zip"));
        zip(File::open(binary)?, File::create(&archive)?)
            .with_context(|| format!("cannot write {}", archive.display()))?;
        let (binary_bytes, zip_bytes) =
            (fs::metadata(binary)?.len(), fs::metadata(&archive)?.len());
        println!("{function:<10} {:>10.2} {:>10.2}", megabytes(binary_bytes), megabytes(zip_bytes));
        if zip_bytes > MAX_ZIP {
            too_large.push(function.as_str());
        }
        functions.push(FunctionSize { function: function.clone(), binary_bytes, zip_bytes });
    }
    measurements::save(PackageSizes { architecture: ARCH.to_owned(), functions })?;
    println!("in {}", folder.display());
    if too_large.is_empty() {
        return Ok(());
    }
    bail!("larger than {} MB: {}", megabytes(MAX_ZIP), too_large.join(", "))
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
pub(crate) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1_000_000.0
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
