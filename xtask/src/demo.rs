//! `cargo xtask demo`: shows renders from the submit to the signed webhook.
//!
//! There are two of them unless a provider is chosen: one that is only polled, and one whose
//! provider sends unsigned callbacks, which a status call confirms. Signed callbacks are believed.
//! Every step is read where a customer would see it: at the API, the bus and the receiver.

mod plan;
mod timeline;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::json;

pub(crate) use self::plan::Provider;
use self::plan::{Ending, RenderPlan, default_renders};
use self::timeline::{Step, Style};
use self::view::{
    BusEvent, Event, Job, ReceiverLog, SimulatedCallback, SimulatedRender, WebhookConfig,
};
use crate::artefacts::{self, Binaries, For};
use crate::http::{Api, Http};
use crate::process::Interrupt;
use crate::stack::{Address, ONE_SHARD, Policies, Stack};
use crate::venv::Venv;
use crate::workspace::Workspace;

/// The time after which a missing step counts as failed, also on a busy machine.
const DEADLINE: Duration = Duration::from_secs(180);

const POLL_INTERVAL: Duration = Duration::from_millis(150);

/// The name of the webhook receiver at the simulator.
const RECEIVER: &str = "demo";

/// Builds, deploys, shows the renders, and ends everything.
pub(crate) fn run(
    workspace: &Workspace,
    provider: Option<Provider>,
    interrupt: &Interrupt,
) -> Result<()> {
    let venv = Venv::ensure(workspace, interrupt)?;
    let binaries = artefacts::build(workspace, For::Running, interrupt)?;
    match provider {
        None => run_default(workspace, &venv, &binaries, interrupt)?,
        Some(provider) => {
            let title = format!("Render Relay: {provider}, from submit to signed webhook");
            run_renders(workspace, &venv, &binaries, &title, vec![provider.plan()], interrupt)?;
        }
    }
    println!(
        "
Next:
  cargo xtask demo --provider json2video    one render; also renderio, viralsync
  cargo xtask up      the same stack, left running, with URLs to call
  cargo xtask test    every check, with duplicates and failures end to end
  sam build && sam deploy --guided    the same template on AWS"
    );
    Ok(())
}

/// Shows a render of each kind on a stack with enforced policies. Fails with the names of missing
/// steps.
pub(crate) fn run_default(
    workspace: &Workspace,
    venv: &Venv,
    binaries: &Binaries,
    interrupt: &Interrupt,
) -> Result<()> {
    let title = "Render Relay: two renders, from submit to signed webhook";
    run_renders(workspace, venv, binaries, title, default_renders(), interrupt)
}

fn run_renders(
    workspace: &Workspace,
    venv: &Venv,
    binaries: &Binaries,
    title: &str,
    plans: Vec<RenderPlan>,
    interrupt: &Interrupt,
) -> Result<()> {
    let screen = Screen::new();
    let started = Instant::now();
    println!("{}", screen.style.bold(title));
    let stack = Stack::start(workspace, venv, binaries, Policies::Enforced, ONE_SHARD, interrupt)?;
    println!(
        "{}  template.yaml deployed into a local AWS, IAM policies enforced\n",
        timeline::seconds(started.elapsed())
    );

    let mut demo = Demo::open(&stack.address, plans, screen, started)?;
    let outcome = demo.watch(interrupt);
    demo.screen.clear();
    outcome?;
    demo.close()
}

/// The renders of a demo, and the steps that were seen.
struct Demo<'a> {
    address: &'a Address,
    http: Http,
    started: Instant,
    screen: Screen,
    renders: Vec<Render>,
}

struct Render {
    plan: RenderPlan,
    job_id: String,
    submitted_at: Instant,
    seen: BTreeSet<Step>,
    progress: Option<f64>,
    has_been_ended: bool,
}

/// A step that follows from a job's state and is visible elsewhere.
struct Effect {
    index: usize,
    step: Step,
    detail: String,
}

impl<'a> Demo<'a> {
    /// Configures the simulator and submits the jobs.
    fn open(
        address: &'a Address,
        plans: Vec<RenderPlan>,
        screen: Screen,
        started: Instant,
    ) -> Result<Self> {
        let mut demo = Self { address, http: Http::new(), started, screen, renders: Vec::new() };
        let simulator = &address.simulator_url;
        let receiver = format!("{simulator}/receiver/{RECEIVER}");
        let config: WebhookConfig =
            demo.api().put("/v1/webhook-config", &json!({"url": receiver}))?;
        demo.http.put(
            &format!("{simulator}/_control/receivers/{RECEIVER}"),
            &json!({"secret": config.secret, "answers": []}),
        )?;
        for plan in plans {
            let RenderPlan { provider, tag, .. } = plan;
            let scenario = format!("{simulator}/_control/scenarios/{provider}/{tag}");
            demo.http.put(&scenario, &plan.scenario)?;
            let job: Job = demo.api().post("/v1/jobs", &plan.submission)?;
            let detail = job.job_id.clone();
            demo.renders.push(Render {
                plan,
                job_id: job.job_id,
                submitted_at: Instant::now(),
                seen: BTreeSet::new(),
                progress: None,
                has_been_ended: false,
            });
            demo.record_step(demo.renders.len() - 1, Step::Submitted, &detail);
        }
        Ok(demo)
    }

    fn api(&self) -> Api<'_> {
        Api { http: &self.http, url: &self.address.api_url, key: &self.address.api_key }
    }

    /// Waits until every expected step was seen, or until the deadline.
    fn watch(&mut self, interrupt: &Interrupt) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        while !self.missing().is_empty() && Instant::now() < deadline {
            // Effects are read before the job and printed after it, so that no effect appears
            // before its cause.
            let mut effects = self.answered_callbacks()?;
            effects.extend(self.events_on_bus()?);
            effects.extend(self.delivered_webhooks()?);
            for index in 0..self.renders.len() {
                self.look_at_job(index)?;
            }
            for Effect { index, step, detail } in effects {
                self.record_step(index, step, &detail);
            }
            self.draw_progress();
            self.end_renders()?;
            interrupt.wait(POLL_INTERVAL)?;
        }
        Ok(())
    }

    fn look_at_job(&mut self, index: usize) -> Result<()> {
        let Some(render) = self.renders.get(index) else { return Ok(()) };
        let job: Job = self.api().get(&format!("/v1/jobs/{}", render.job_id))?;
        for entry in &job.timeline {
            let detail = match (entry.state.as_str(), &job.render_job_id, &job.result_url) {
                ("queued", Some(id), _) => format!("the provider calls it {id}"),
                ("completed", _, Some(url)) => url.clone(),
                _ => String::new(),
            };
            match entry.state.as_str() {
                "queued" => self.record_step(index, Step::Queued, &detail),
                "processing" => self.record_step(index, Step::Processing, &detail),
                "completed" => self.record_step(index, Step::Completed, &detail),
                "failed" | "cancelled" | "timed_out" => {
                    bail!("job {} has {}: {:?}", job.job_id, entry.state, job.failure)
                }
                // `submitting` and `submit_unknown` lead to one of the others.
                _ => {}
            }
        }
        if let Some(render) = self.renders.get_mut(index) {
            render.progress = job.progress.filter(|_| job.state == "processing");
        }
        Ok(())
    }

    /// Ends the renders that are due to end.
    fn end_renders(&mut self) -> Result<()> {
        let simulator = &self.address.simulator_url;
        for render in self.renders.iter_mut().filter(|render| !render.has_been_ended) {
            let is_time = match render.plan.ending {
                Ending::Scripted => false,
                Ending::After(age, step) => {
                    render.submitted_at.elapsed() >= age && render.seen.contains(&step)
                }
                Ending::AtProgress(least) => render.progress >= Some(least),
            };
            if is_time {
                let RenderPlan { provider, tag, .. } = render.plan;
                self.http.post(&format!("{simulator}/_control/renders/{provider}/{tag}/end"))?;
                render.has_been_ended = true;
            }
        }
        Ok(())
    }

    /// Callbacks that were answered 2xx. A provider that was never polled was believed, any other
    /// was confirmed.
    fn answered_callbacks(&self) -> Result<Vec<Effect>> {
        let mut effects = Vec::new();
        for (index, render) in self.renders.iter().enumerate() {
            let RenderPlan { provider, tag, .. } = render.plan;
            let simulator = &self.address.simulator_url;
            let url = format!("{simulator}/_control/renders?provider={provider}&tag={tag}");
            let known: Vec<SimulatedRender> = self.http.get(&url)?;
            for render in known {
                let answered = |call: &SimulatedCallback| matches!(call.status, Some(200..=299));
                if !render.callbacks.iter().any(answered) {
                    continue;
                }
                let (step, detail) = match render.polls {
                    0 => (Step::Believed, "its signature holds, so the provider was not asked"),
                    _ => (Step::Confirmed, "it was unsigned, so the provider was asked"),
                };
                effects.push(Effect { index, step, detail: detail.to_owned() });
            }
        }
        Ok(effects)
    }

    fn events_on_bus(&self) -> Result<Vec<Effect>> {
        let Address { aws_endpoint, demo_queue_url, .. } = self.address;
        let mut effects = Vec::new();
        for message in self.http.peek_queue(aws_endpoint, demo_queue_url)? {
            let BusEvent { detail_type, detail: event } = serde_json::from_str(&message)?;
            if let Some(index) = self.index_of(&event.job_id) {
                let detail = format!("{detail_type} {}", event.event_id);
                effects.push(Effect { index, step: Step::OnBus, detail });
            }
        }
        Ok(effects)
    }

    fn delivered_webhooks(&self) -> Result<Vec<Effect>> {
        let simulator = &self.address.simulator_url;
        let url = format!("{simulator}/_control/receivers/{RECEIVER}");
        let log: ReceiverLog = self.http.get(&url)?;
        let mut effects = Vec::new();
        for post in log.received {
            let event: Event = serde_json::from_str(&post.body)?;
            let Some(index) = self.index_of(&event.job_id) else { continue };
            if post.verified != Some(true) {
                bail!("the receiver could not verify a webhook: {:?}", post.verify_error);
            }
            let detail = "signature verified".to_owned();
            effects.push(Effect { index, step: Step::Delivered, detail });
        }
        Ok(effects)
    }

    fn index_of(&self, job_id: &str) -> Option<usize> {
        self.renders.iter().position(|render| render.job_id == job_id)
    }

    /// Prints a step when it is seen first.
    fn record_step(&mut self, index: usize, step: Step, detail: &str) {
        let Some(render) = self.renders.get_mut(index) else { return };
        if !render.seen.insert(step) {
            return;
        }
        let after = self.started.elapsed();
        self.screen.clear();
        println!(
            "{}",
            timeline::line(self.screen.style, after, render.plan.provider, step, detail)
        );
    }

    fn draw_progress(&mut self) {
        let bars: Vec<_> = self
            .renders
            .iter()
            .filter_map(|render| Some(timeline::progress(render.plan.provider, render.progress?)))
            .collect();
        if !bars.is_empty() {
            self.screen.draw(&timeline::seconds(self.started.elapsed()), &bars.join("   "));
        }
    }

    /// The missing steps by provider.
    fn missing(&self) -> BTreeMap<&'static str, Vec<Step>> {
        self.renders
            .iter()
            .map(|render| {
                let unseen = |step: &&Step| !render.seen.contains(step);
                (
                    render.plan.provider,
                    render.plan.expected.iter().filter(unseen).copied().collect(),
                )
            })
            .filter(|(_, unseen): &(_, Vec<_>)| !unseen.is_empty())
            .collect()
    }

    fn close(&self) -> Result<()> {
        let style = self.screen.style;
        let missing = self.missing();
        println!();
        if missing.is_empty() {
            let done = match self.renders.len() {
                1 => "render done and delivered".to_owned(),
                count => format!("{count} renders done and delivered"),
            };
            let after = timeline::seconds(self.started.elapsed());
            println!("{} in {}", style.green(&done), after.trim());
            return Ok(());
        }
        for (provider, steps) in missing {
            println!("{}", style.red(&format!("missing  {}", timeline::missing(provider, &steps))));
        }
        bail!("not every step happened within {} s; see .local/log/", DEADLINE.as_secs())
    }
}

/// Standard output. The last line is redrawn on a terminal, and otherwise printed again when it
/// changes.
struct Screen {
    terminal: bool,
    style: Style,
    drawn: bool,
    last_line: String,
}

impl Screen {
    fn new() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let style = if terminal && wanted { Style::Coloured } else { Style::Plain };
        Self { terminal, style, drawn: false, last_line: String::new() }
    }

    fn draw(&mut self, after: &str, line: &str) {
        if self.terminal {
            self.clear();
            print!("{after}  {line}");
            // The next `println!` reports an error of the terminal.
            drop(std::io::stdout().flush());
            self.drawn = true;
        } else if self.last_line != line {
            println!("{after}  {line}");
            line.clone_into(&mut self.last_line);
        }
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            print!("\r\x1b[2K");
        }
    }
}
