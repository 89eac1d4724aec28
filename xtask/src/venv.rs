//! Python environments with exactly the packages of a `requirements.txt`.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::process::{self, Interrupt};
use crate::workspace::Workspace;

/// The tested version is tried first, then newer ones.
const PYTHONS: [&str; 4] = ["python3.11", "python3.12", "python3.13", "python3"];

pub(crate) struct Venv {
    root: PathBuf,
}

impl Venv {
    /// The environment of the local AWS.
    pub(crate) fn ensure(workspace: &Workspace, interrupt: &Interrupt) -> Result<Self> {
        Self::at(workspace, ".local/venv", "xtask/requirements.txt", interrupt)
    }

    /// Makes the environment if it is out of date.
    pub(crate) fn at(
        workspace: &Workspace,
        place: &str,
        listed: &str,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let venv = Self { root: workspace.path(place) };
        let requirements = workspace.path(listed);
        let wanted = fs::read(&requirements)?;
        // This copy is written last, so a half-made environment has none.
        let installed = venv.root.join("requirements.txt");
        if fs::read(&installed).is_ok_and(|found| found == wanted) {
            return Ok(venv);
        }

        println!("Installing {listed} in {place} (once, about half a minute) ...");
        let python = find_python()?;
        if venv.root.exists() {
            fs::remove_dir_all(&venv.root)?;
        }
        fs::create_dir_all(&venv.root)?;
        process::run(Command::new(python).args(["-m", "venv"]).arg(&venv.root), interrupt)
            .context(
                "cannot make a Python environment; on Debian and Ubuntu install python3-venv",
            )?;
        process::run(
            venv.python()
                .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
                .args(["--require-hashes", "--requirement"])
                .arg(&requirements),
            interrupt,
        )
        .with_context(|| format!("cannot install {listed}"))?;
        fs::write(&installed, &wanted)?;
        Ok(venv)
    }

    pub(crate) fn python(&self) -> Command {
        Command::new(self.root.join("bin/python"))
    }

    /// A program of an installed package.
    pub(crate) fn program(&self, name: &str) -> Command {
        Command::new(self.root.join("bin").join(name))
    }
}

fn find_python() -> Result<&'static str> {
    let recent_enough = |python: &&str| {
        Command::new(python)
            .args(["-c", "import sys; sys.exit(sys.version_info < (3, 11))"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    match PYTHONS.into_iter().find(recent_enough) {
        Some(python) => Ok(python),
        None => bail!(
            "this needs Python 3.11 or newer, and none of {} is one; \
             install it (Debian, Ubuntu: `apt install python3 python3-venv`, \
             macOS: `brew install python@3.11`)",
            PYTHONS.join(", ")
        ),
    }
}
