//! `cargo xtask test`: all checks before a merge, the quick ones first. CI runs only this.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::artefacts::{self, For};
use crate::demo;
use crate::process::{self, Interrupt};
use crate::receivers::Receivers;
use crate::stack::{ONE_SHARD, Policies, Stack};
use crate::venv::Venv;
use crate::workspace::Workspace;

/// The package whose tests need a stack.
const END_TO_END: &str = "tests";

/// The test that needs a stack of its own and receivers in other languages.
const RECEIVERS: &str = "receivers";

/// The test that changes the stack's number of shards.
const SHARDS: &str = "shards";

/// The number of shards in the end-to-end tests: more than one, so that what forgets a shard
/// fails.
const SHARDS_OF_TESTS: u32 = 4;

/// The test that takes too long for every change: `cargo xtask load`.
pub(crate) const LOAD: &str = "load";

/// The test without a stack: the bundle in one process, in virtual time.
pub(crate) const BUNDLE: &str = "bundle";

/// The test that prints what is verified of each provider.
const CONFORMANCE: &str = "conformance";

/// Prefixes of the packages that `domain` must not depend on, because it does no I/O.
const IMPURE: [&str; 5] = ["aws-", "hyper", "reqwest", "tokio", "ureq"];

/// Packages that are there for tests and measurements; no function is linked with one.
const FOR_TESTS: [&str; 7] = [
    "aws-in-memory",
    "bench",
    "dynamodb-in-memory",
    "measurements",
    "proptest",
    "simulator",
    "tests",
];

/// Features of dependencies that are there for tests: a package and its feature.
const TEST_FEATURES: [(&str, &str); 1] = [("tokio", "test-util")];

/// Runs every step until one fails, then says how far it came.
pub(crate) fn run(workspace: &Workspace, interrupt: &Interrupt) -> Result<()> {
    let mut report = Report { steps: Vec::new() };
    let outcome = steps(workspace, interrupt, &mut report);
    report.print();
    outcome
}

fn steps(workspace: &Workspace, interrupt: &Interrupt, report: &mut Report) -> Result<()> {
    let cargo = |arguments: &[&str]| process::run(workspace.cargo().args(arguments), interrupt);
    let shown =
        |test| cargo(&["test", "--workspace", "--locked", "--test", test, "--", "--nocapture"]);
    report.step("format", || cargo(&["fmt", "--all", "--check"]))?;
    report.step("clippy", || {
        cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"])
    })?;
    report.step("domain is pure", || domain_is_pure(workspace, interrupt))?;
    report.step("functions ship no tests", || functions_ship_no_tests(workspace, interrupt))?;
    let venv = report.step("python", || Venv::ensure(workspace, interrupt))?;
    let receivers = report.step("receivers", || Receivers::ensure(workspace, interrupt))?;
    report.step("template", || {
        let mut lint = venv.program("cfn-lint");
        process::run(lint.arg(workspace.path("template.yaml")), interrupt)
    })?;
    // Every call has all packages and selects targets: cargo unites the features of the packages
    // in a call, so fewer packages would compile most dependencies again.
    let tests = integration_tests(workspace, interrupt)?;
    report.step("unit tests", || {
        let alone = tests.iter().filter(|test| !test.needs_stack() && !test.is_shown());
        process::run(
            workspace
                .cargo()
                .args(["test", "--workspace", "--locked", "--lib", "--bins", "--examples"])
                .args(alone.flat_map(|test| ["--test", &test.name])),
            interrupt,
        )
    })?;
    report.step("conformance", || shown(CONFORMANCE))?;
    report.step("crash points and simulation", || shown(BUNDLE))?;
    report.step("oracles", || {
        cargo(&[
            "test",
            "--locked",
            "--manifest-path",
            "tests/oracles/Cargo.toml",
            "--target-dir",
            "target/oracles",
        ])
    })?;
    report.step("doc tests", || cargo(&["test", "--workspace", "--locked", "--doc"]))?;
    let binaries = report.step("build", || artefacts::build(workspace, For::Testing, interrupt))?;
    report.step("demo", || demo::run_default(workspace, &venv, &binaries, interrupt))?;
    let stack = report.step("stack up", || {
        Stack::start(workspace, &venv, &binaries, Policies::Recorded, SHARDS_OF_TESTS, interrupt)
    })?;
    report.step("end to end", || {
        let others = [RECEIVERS, LOAD, SHARDS];
        let on_stack =
            tests.iter().filter(|test| test.needs_stack() && !others.contains(&test.name.as_str()));
        process::run(
            workspace
                .cargo()
                .args(["test", "--workspace", "--locked"])
                .args(on_stack.flat_map(|test| ["--test", &test.name]))
                .env("RELAY_STACK", stack.file())
                // These tests mostly wait for the stack.
                .env("RUST_TEST_THREADS", "8"),
            interrupt,
        )
    })?;
    // It changes the stack under the feet of any other test.
    report.step("changed shards", || {
        process::run(
            workspace
                .cargo()
                .args(["test", "--workspace", "--locked", "--test", SHARDS])
                .env("RELAY_STACK", stack.file()),
            interrupt,
        )
    })?;
    report.step("stack down", || {
        drop(stack);
        Ok(())
    })?;
    // The secrets belong to the stack, so a test that changes them needs one of its own. The
    // policies are enforced to show that the change needs no more than what is allowed.
    let stack = report.step("stack up", || {
        Stack::start(workspace, &venv, &binaries, Policies::Enforced, ONE_SHARD, interrupt)
    })?;
    report.step("other receivers", || {
        process::run(
            workspace
                .cargo()
                .args(["test", "--workspace", "--locked", "--test", RECEIVERS])
                .env("RELAY_STACK", stack.file())
                .env("RELAY_RECEIVERS", receivers.folder()),
            interrupt,
        )
    })?;
    report.step("stack down", || {
        drop(stack);
        Ok(())
    })
}

/// An integration test of a package.
struct IntegrationTest {
    package: String,
    name: String,
}

impl IntegrationTest {
    fn needs_stack(&self) -> bool {
        self.package == END_TO_END && self.name != BUNDLE
    }

    /// Whether it is a step of its own with visible output.
    fn is_shown(&self) -> bool {
        [CONFORMANCE, BUNDLE].contains(&&*self.name)
    }
}

fn integration_tests(workspace: &Workspace, interrupt: &Interrupt) -> Result<Vec<IntegrationTest>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        targets: Vec<Target>,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
        kind: Vec<String>,
    }
    let output = process::run_for_output(
        workspace.cargo().args(["metadata", "--locked", "--no-deps", "--format-version", "1"]),
        None,
        interrupt,
    )?;
    let metadata: Metadata = serde_json::from_str(&output)?;
    let mut tests = Vec::new();
    for package in metadata.packages {
        for target in package.targets {
            if target.kind.iter().any(|kind| kind == "test") {
                tests.push(IntegrationTest { package: package.name.clone(), name: target.name });
            }
        }
    }
    Ok(tests)
}

/// Fails when `domain` can do I/O: when it depends on a runtime or a client, or has a chrono with
/// a clock.
fn domain_is_pure(workspace: &Workspace, interrupt: &Interrupt) -> Result<()> {
    let tree = process::run_for_output(
        workspace
            .cargo()
            .args(["tree", "--locked", "--package", "domain"])
            .args(["--edges", "normal", "--prefix", "none", "--format", "{p}"]),
        None,
        interrupt,
    )?;
    if let Some(found) = tree.lines().find(|line| IMPURE.iter().any(|name| line.starts_with(name)))
    {
        bail!("domain depends on {found}");
    }

    // Cargo unites features over a workspace, so `domain` could use a clock that another package
    // enables. A separate workspace, in which chrono has only the features of `domain`, shows what
    // `domain` can do.
    let manifest = workspace.local("purity/Cargo.toml")?;
    let source = workspace.local("purity/src/lib.rs")?;
    let domain = workspace.path("domain");
    fs::write(
        &manifest,
        format!(
            "[workspace]\n\
             [package]\nname = \"purity\"\nedition = \"2024\"\n\
             [dependencies]\ndomain.path = {domain:?}\n\
             chrono = {{ version = \"*\", default-features = false }}\n"
        ),
    )?;
    fs::write(&source, "pub fn now() -> chrono::DateTime<chrono::Utc> { chrono::Utc::now() }\n")?;
    // The versions are the same and already downloaded.
    fs::copy(workspace.path("Cargo.lock"), workspace.local("purity/Cargo.lock")?)?;
    let probe = workspace
        .cargo()
        .args(["check", "--quiet", "--offline", "--manifest-path"])
        .arg(&manifest)
        .arg("--target-dir")
        .arg(workspace.path("target/purity"))
        .output()
        .context("cannot run cargo")?;
    let complaint = String::from_utf8_lossy(&probe.stderr);
    if probe.status.success() {
        bail!("domain can ask chrono for the time: a dependency of it switches chrono's clock on");
    }
    // Any other error means that the probe is broken.
    if complaint.contains("error[E0599]") && complaint.contains("`now`") {
        return Ok(());
    }
    bail!("cannot find out whether domain is pure:\n{complaint}")
}

/// Fails when a function's normal dependencies hold what only tests may use. They are those of
/// the call that builds the functions: all five together, and nothing beside them.
fn functions_ship_no_tests(workspace: &Workspace, interrupt: &Interrupt) -> Result<()> {
    let tree = process::run_for_output(
        workspace
            .cargo()
            .args(["tree", "--locked"])
            .args(artefacts::FUNCTIONS.iter().flat_map(|function| ["--package", function]))
            .args(["--edges", "normal", "--prefix", "none", "--format", "{p} | {f}"]),
        None,
        interrupt,
    )?;
    match for_tests(&tree) {
        Some(found) => bail!("a function depends on {found}"),
        None => Ok(()),
    }
}

/// The first line of `tree` that names what only tests may use. Each line is a package, its
/// version, a bar and its features.
fn for_tests(tree: &str) -> Option<&str> {
    tree.lines().find(|line| {
        let (package, features) = line.split_once(" | ").unwrap_or((line, ""));
        let name = package.split(' ').next().unwrap_or_default();
        // Packages that were shown above have `(*)` behind their features.
        let mut features = features.trim_end_matches(" (*)").split(',');
        FOR_TESTS.contains(&name)
            || features.any(|feature| TEST_FEATURES.contains(&(name, feature)))
    })
}

struct Report {
    steps: Vec<(&'static str, Duration, bool)>,
}

impl Report {
    fn step<T>(&mut self, name: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("\n== {name}");
        let started = Instant::now();
        let outcome = work();
        self.steps.push((name, started.elapsed(), outcome.is_ok()));
        outcome.context(name)
    }

    fn print(&self) {
        let names = self.steps.iter().map(|(name, ..)| name.len());
        let width = names.max().unwrap_or_default();
        println!("\n{:<width$} {:>8}", "step", "seconds");
        for (name, took, ok) in &self.steps {
            let outcome = if *ok { "ok" } else { "FAILED" };
            println!("{name:<width$} {:>8.1}  {outcome}", took.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_packages_and_features_are_found() {
        let product = "submit v0.1.0 (/r/functions/submit) | \n\
                       tokio v1.54.1 | default,rt,time\n\
                       aws-credential-types v1.3.1 | test-util (*)";
        assert_eq!(for_tests(product), None);
        for line in [
            "aws-in-memory v0.1.0 (/r/aws-in-memory) | ",
            "tokio v1.54.1 | rt,test-util,time",
            "tokio v1.54.1 | test-util (*)",
        ] {
            assert_eq!(for_tests(&format!("{product}\n{line}")), Some(line));
        }
    }
}
