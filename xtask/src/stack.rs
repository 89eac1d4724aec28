//! The local stack: simulator, emulator, and the template deployed into it.
//!
//! ```text
//! functions ──> proxy (simulator) ──> emulator ──> functions
//!     └──────> providers, receivers (simulator) ──> API (emulator)
//! ```
//!
//! Tests count AWS requests at the proxy; [`Policies`] says when it is left out.
//!
//! A checkout has one stack at a time. Its holder has a file lock, which the system releases when
//! the process ends, and may remove what a crash left behind.

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::artefacts::{self, Binaries, For};
use crate::http::Http;
use crate::process::{self, ChildGuard, Interrupt};
use crate::venv::Venv;
use crate::workspace::Workspace;

/// Runs the emulator, and deploys the template into it.
const SCRIPT: &str = "xtask/python/local_stack.py";

/// Both servers usually start in less than a second; a busy machine takes longer.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// The most starts of the servers before a port conflict fails the command.
const MAX_STARTS: u32 = 3;

/// How long the functions wait for the emulator, in seconds: as long as they may run.
const EMULATED_ATTEMPT_SECONDS: &str = "25";

/// Short waits, so that a receiver may fail twice in a quick test.
const DELIVERY_SCHEDULE: &str = "0,1,1,2,2";

/// The providers of the simulator; each base URL ends with the name.
const PROVIDERS: [&str; 5] = ["json2video", "renderio", "shotstack", "viralsync", "zvid"];

/// A provider of the installation's own: it has ViralSync's API under another name, and a safety
/// poll after seconds instead of minutes.
const OWN_PROVIDER: &str = "studio";

/// The secrets of providers that have one secret for each account.
const ACCOUNT_SECRETS: [(&str, &str); 2] =
    [("renderio", "local-renderio-secret"), ("viralsync", "local-viralsync-secret")];

/// The secret of Zvid's webhooks. Zvid has one for each registered webhook, and the tests register
/// webhooks with this one.
const ZVID_SECRET: &str = "whsec_local-zvid-secret";

/// The template's default number of shards.
pub(crate) const ONE_SHARD: u32 = 1;

/// How the emulator treats the functions' IAM policies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policies {
    /// Refuses what a function's role does not allow. The emulator verifies signatures to know the
    /// role, so there is no proxy, which changes requests.
    Enforced,
    /// Allows everything, and the proxy records it.
    Recorded,
}

/// A running stack. It ends when it is dropped.
pub(crate) struct Stack {
    pub(crate) address: Address,
    /// The drop order is: children, their files, the lock.
    emulator: ChildGuard,
    simulator: ChildGuard,
    files: RuntimeFiles,
    _lock: File,
}

/// The addresses of the stack: the content of `.local/stack.json`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Address {
    pub(crate) api_url: String,
    pub(crate) api_key: String,
    /// The emulator itself; the functions use the proxy.
    pub(crate) aws_endpoint: String,
    pub(crate) ledger_endpoint: String,
    pub(crate) simulator_url: String,
    pub(crate) demo_queue_url: String,
    /// Names and URLs that only the tests use.
    #[serde(flatten)]
    pub(crate) rest: serde_json::Map<String, Value>,
}

/// `cargo xtask up`: runs a stack until Ctrl-C.
pub(crate) fn up(workspace: &Workspace, interrupt: &Interrupt) -> Result<()> {
    let venv = Venv::ensure(workspace, interrupt)?;
    let binaries = artefacts::build(workspace, For::Running, interrupt)?;
    let mut stack =
        Stack::start(workspace, &venv, &binaries, Policies::Recorded, ONE_SHARD, interrupt)?;
    stack.print_addresses();
    loop {
        if interrupt.wait(Duration::from_millis(500)).is_err() {
            println!("\nTaking the stack down.");
            return Ok(());
        }
        stack.check()?;
    }
}

impl Stack {
    pub(crate) fn start(
        workspace: &Workspace,
        venv: &Venv,
        binaries: &Binaries,
        policies: Policies,
        shards: u32,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let lock = lock_checkout(workspace)?;
        let files = RuntimeFiles {
            address: workspace.local("stack.json")?,
            children: workspace.local("children")?,
            state: workspace.local("emulator")?,
        };
        files.end_children()?;
        files.remove();
        fs::create_dir_all(&files.state)?;
        let mut starts = 1..=MAX_STARTS;
        let Servers { emulator, simulator, aws_endpoint, urls } = loop {
            let last = starts.next() == Some(MAX_STARTS);
            let begun = Servers::start(workspace, venv, binaries, policies, &files, interrupt);
            match begun {
                Err(error) if error.is::<PortLost>() && !last => {}
                begun => break begun?,
            }
        };

        let mut described =
            deploy(workspace, venv, binaries, &aws_endpoint, &urls.url, shards, interrupt)?;
        described.insert("awsEndpoint".into(), aws_endpoint.into());
        described.insert("ledgerEndpoint".into(), urls.aws.into());
        described.insert("simulatorUrl".into(), urls.url.into());
        described.insert("providerSecrets".into(), webhook_secrets());
        fs::write(&files.address, serde_json::to_vec_pretty(&described)?)?;
        let address = serde_json::from_value(described.into())?;
        Ok(Self { address, emulator, simulator, files, _lock: lock })
    }

    /// The file with the addresses of the stack.
    pub(crate) fn file(&self) -> &Path {
        &self.files.address
    }

    /// Fails when the emulator or the simulator has exited.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.emulator.check()?;
        self.simulator.check()
    }

    fn print_addresses(&self) {
        let Address { api_url, api_key, aws_endpoint, simulator_url, .. } = &self.address;
        println!(
            "\
The stack is up; Ctrl-C takes it down.

  API        {api_url}
  API key    {api_key}
  AWS        {aws_endpoint}
  simulator  {simulator_url}
  logs       .local/log/   all addresses: .local/stack.json

Try:
  curl -s '{api_url}/v1/jobs' \\
    -H 'authorization: Bearer {api_key}' \\
    -d '{{\"provider\":\"zvid\",\"sourceRecordId\":\"product-123\",\"payload\":{{\"name\":\"hello\",\"duration\":10,\"visuals\":[]}}}}'
  curl -s '{api_url}/v1/jobs?sourceRecordId=product-123' \\
    -H 'authorization: Bearer {api_key}'
  RELAY_STACK={} cargo test -p tests --test end_to_end",
            self.files.address.display()
        );
    }
}

/// The emulator and the simulator, which have to know each other's address.
struct Servers {
    emulator: ChildGuard,
    simulator: ChildGuard,
    aws_endpoint: String,
    urls: SimulatorUrls,
}

/// The emulator exited during its start, which happens when another process took its port.
#[derive(Debug, thiserror::Error)]
#[error("the emulator did not start; see {0}")]
struct PortLost(String);

impl Servers {
    fn start(
        workspace: &Workspace,
        venv: &Venv,
        binaries: &Binaries,
        policies: Policies,
        files: &RuntimeFiles,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let script = workspace.path(SCRIPT);
        let deadline = Instant::now() + START_TIMEOUT;
        let port = free_port()?;
        let aws_endpoint = format!("http://127.0.0.1:{port}");
        let binary = binaries.get("simulator").context("the simulator was not built")?;
        let mut simulator = ChildGuard::spawn(
            "simulator",
            Command::new(binary)
                .args(["--listen", "127.0.0.1:0", "--aws-listen", "127.0.0.1:0"])
                .args(["--aws-upstream", &aws_endpoint])
                .stdout(Stdio::piped())
                .stderr(File::create(workspace.local("log/simulator.log")?)?),
        )?;
        files.note(simulator.id(), binary)?;
        let line =
            simulator.first_line(deadline, interrupt).context("see .local/log/simulator.log")?;
        let urls: SimulatorUrls = serde_json::from_str(&line)?;

        let mut command = emulator(venv, &script, &files.state, port);
        match policies {
            Policies::Enforced => {
                command.env("AUTH", "true").env("AWS_ENDPOINT_URL", &aws_endpoint)
            }
            Policies::Recorded => command.env("AWS_ENDPOINT_URL", &urls.aws),
        };
        let log = workspace.local("log/emulator.log")?;
        process::log_to(&mut command, &File::create(&log)?)?;
        let mut emulator = ChildGuard::spawn("emulator", &mut command)?;
        files.note(emulator.id(), &script)?;
        let http = Http::new();
        for (provider, secret) in ACCOUNT_SECRETS {
            let url = format!("{}/_control/secrets/{provider}", urls.url);
            http.put(&url, &json!({"secret": secret}))?;
        }
        while !http.answers(&format!("{aws_endpoint}/_ministack/health")) {
            if emulator.check().is_err() {
                return Err(PortLost(log.display().to_string()).into());
            }
            if Instant::now() > deadline {
                bail!("the emulator does not answer; see {}", log.display());
            }
            interrupt.wait(Duration::from_millis(20))?;
        }
        Ok(Self { emulator, simulator, aws_endpoint, urls })
    }
}

#[derive(Deserialize)]
struct SimulatorUrls {
    url: String,
    aws: String,
}

/// The emulator without this process's environment. Every function inherits its environment, so a
/// variable that the template forgets would go unnoticed. The caller adds `AWS_ENDPOINT_URL`,
/// which every function uses.
fn emulator(venv: &Venv, script: &Path, state: &Path, port: u16) -> Command {
    let mut command = venv.python();
    command
        .arg(script)
        .arg("serve")
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("HOME", state)
        .env("TMPDIR", state)
        .env("BIND_HOST", "127.0.0.1")
        .env("MINISTACK_HOST", "127.0.0.1")
        .env("GATEWAY_PORT", port.to_string())
        .env("IOT_MTLS_ENABLED", "0")
        // The emulator is a single process and slow on a busy machine.
        .env("AWS_ATTEMPT_SECONDS", EMULATED_ATTEMPT_SECONDS)
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test");
    command
}

/// Deploys the template, and returns its names and URLs as in `.local/stack.json`.
fn deploy(
    workspace: &Workspace,
    venv: &Venv,
    binaries: &Binaries,
    aws_endpoint: &str,
    simulator_url: &str,
    shards: u32,
    interrupt: &Interrupt,
) -> Result<serde_json::Map<String, Value>> {
    let request = json!({
        "endpoint": aws_endpoint,
        "template": workspace.path("template.yaml"),
        "binaries": binaries,
        "parameters": {
            "Architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" },
            "LocalEndpoint": aws_endpoint,
            "DeliverySchedule": DELIVERY_SCHEDULE,
            "ProviderBaseUrls": base_urls(simulator_url),
            "AllowInsecureTargets": "true",
            "PollerShards": shards.to_string(),
            "DeliveryConcurrency": "5",
            "SlowDeliveryConcurrency": "20",
        },
        "providerSpecs": {OWN_PROVIDER: own_spec(workspace)?},
        "keyHost": simulator_url.trim_start_matches("http://"),
        "webhookSecrets": webhook_secrets(),
    });
    let script = workspace.path(SCRIPT);
    let described = process::run_for_output(
        venv.python().arg(script).arg("deploy"),
        Some(&request.to_string()),
        interrupt,
    )
    .context("cannot deploy template.yaml; see .local/log/emulator.log")?;
    Ok(serde_json::from_str(&described)?)
}

fn base_urls(simulator_url: &str) -> String {
    let simulated = PROVIDERS.map(|name| (name, name)).into_iter();
    let all = simulated.chain([(OWN_PROVIDER, "viralsync")]);
    all.map(|(name, api)| format!("{name}={simulator_url}/{api}")).collect::<Vec<_>>().join(",")
}

/// The spec of [`OWN_PROVIDER`], as an owner would put it.
fn own_spec(workspace: &Workspace) -> Result<String> {
    let text = fs::read(workspace.path("providers/viralsync.json"))?;
    let mut spec: serde_json::Map<String, Value> = serde_json::from_slice(&text)?;
    spec.insert("name".into(), OWN_PROVIDER.into());
    spec.insert("title".into(), "Studio".into());
    let limits = spec.get_mut("limits").and_then(Value::as_object_mut);
    limits.context("the spec has no limits")?.insert("safetyPollSeconds".into(), 2.into());
    Ok(Value::from(spec).to_string())
}

/// The secrets of callbacks by provider.
fn webhook_secrets() -> Value {
    let [_, (_, viralsyncs)] = ACCOUNT_SECRETS;
    let others = [("zvid", ZVID_SECRET), (OWN_PROVIDER, viralsyncs)];
    let all = ACCOUNT_SECRETS.into_iter().chain(others);
    all.map(|(provider, secret)| (provider.to_owned(), Value::from(secret))).collect()
}

fn lock_checkout(workspace: &Workspace) -> Result<File> {
    let lock = File::create(workspace.local("lock")?)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => {
            bail!("another `cargo xtask` has a stack up in this checkout; end it first")
        }
        Err(fs::TryLockError::Error(error)) => Err(error).context("cannot lock .local/lock"),
    }
}

/// A free port. It is below the range of outgoing connections, so that other processes hardly ever
/// take it before the emulator does; if one does, the servers are started again.
fn free_port() -> Result<u16> {
    const PORTS: u16 = 10_000;
    const FIRST: u16 = 20_000;
    let random = RandomState::new().hash_one(());
    let start = u16::try_from(random % u64::from(PORTS))?;
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let mut ports = (0..PORTS).map(|step| FIRST + (start + step) % PORTS);
    ports.find(is_free).context("no port is free")
}

/// The files of a stack in `.local/`. The next stack removes those of a crashed one.
struct RuntimeFiles {
    /// `stack.json`.
    address: PathBuf,
    /// One line for each child: its process group and its program, by which a process id that the
    /// system has reused is recognised.
    children: PathBuf,
    /// The emulator's home with the unzipped functions.
    state: PathBuf,
}

impl RuntimeFiles {
    fn note(&self, leader: u32, program: &Path) -> Result<()> {
        let noted = fs::read_to_string(&self.children).unwrap_or_default();
        fs::write(&self.children, format!("{noted}{leader} {}\n", program.display()))?;
        Ok(())
    }

    fn end_children(&self) -> Result<()> {
        let Ok(noted) = fs::read_to_string(&self.children) else { return Ok(()) };
        for (leader, program) in noted.lines().filter_map(|line| line.split_once(' ')) {
            let shown = Command::new("ps").args(["-o", "args=", "-p", leader]).output()?;
            if String::from_utf8_lossy(&shown.stdout).contains(program) {
                process::kill_group(leader.parse()?, "KILL");
            }
        }
        Ok(())
    }

    /// Missing files are no error.
    fn remove(&self) {
        drop(fs::remove_file(&self.address));
        drop(fs::remove_file(&self.children));
        drop(fs::remove_dir_all(&self.state));
    }
}

impl Drop for RuntimeFiles {
    fn drop(&mut self) {
        self.remove();
    }
}
