//! Webhook receivers in other languages: `tests/receivers` installed in `.local/receivers`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::process::{self, Interrupt};
use crate::venv::Venv;
use crate::workspace::Workspace;

/// The lock file, the manifest and the program.
const NODE_FILES: [&str; 4] = [".npmrc", "package.json", "package-lock.json", "receiver.mjs"];

pub(crate) struct Receivers {
    root: PathBuf,
}

impl Receivers {
    /// Installs what is missing. The tests need it, because another implementation must verify our
    /// webhooks.
    pub(crate) fn ensure(workspace: &Workspace, interrupt: &Interrupt) -> Result<Self> {
        let root = workspace.path(".local/receivers");
        Venv::at(
            workspace,
            ".local/receivers/venv",
            "tests/receivers/requirements.txt",
            interrupt,
        )?;
        fs::copy(workspace.path("tests/receivers/receiver.py"), root.join("receiver.py"))?;
        demand_node()?;
        install_node_modules(&workspace.path("tests/receivers"), &root, interrupt)?;
        Ok(Self { root })
    }

    /// The folder of the programs.
    pub(crate) fn folder(&self) -> &Path {
        &self.root
    }
}

fn demand_node() -> Result<()> {
    let recent_enough = Command::new("node")
        .args(["-e", "process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    let npm = Command::new("npm")
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if recent_enough && npm {
        return Ok(());
    }
    bail!(
        "the tests have webhooks verified by Node's libraries, and there is no Node 20 or newer \
         with npm; install it (Debian, Ubuntu: `apt install nodejs npm`, macOS: `brew install \
         node`, others: nodejs.org)"
    )
}

fn install_node_modules(sources: &Path, root: &Path, interrupt: &Interrupt) -> Result<()> {
    // This file is copied last, so a half-made installation has another one or none.
    let installed = root.join("node_modules/.installed-lock.json");
    let wanted = fs::read(sources.join("package-lock.json"))?;
    for file in NODE_FILES {
        fs::copy(sources.join(file), root.join(file))?;
    }
    if fs::read(&installed).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    process::run(
        Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"])
            .current_dir(root),
        interrupt,
    )
    .context("cannot install tests/receivers/package-lock.json")?;
    fs::write(&installed, &wanted)?;
    Ok(())
}
