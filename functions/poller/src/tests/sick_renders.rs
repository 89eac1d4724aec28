//! Renders that their provider cannot tell of, beside healthy ones: the simulation runs the
//! poller in virtual time with any share of them, on a quiet and on a busy shard, and compares
//! how late the ends of the healthy ones are found with a run that has no others.
//!
//! A plain run samples the rows. `SICK_SHARD` (`Quiet`, `Busy` or `Limited`) runs all rows of one
//! shard, `SICK_SEEDS` sets the seeds of each row.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use aws_in_memory::random::Random;
use domain::id::{JobId, RenderJobId};
use domain::job::Report;
use domain::polling::Tracking;

use super::world::{PollerWorld, ProviderMode};

/// The mean delay of the healthy may be this much of that without sick ones.
const MOST: f64 = 1.2;

/// How long the jobs of a run keep coming, in seconds, and how long it goes on afterwards.
const COMING_S: f64 = 240.0;
const AFTER_S: f64 = 420.0;

/// The shares of sick renders, in percent.
const SHARES: [usize; 6] = [0, 10, 30, 50, 70, 90];

/// Why a render cannot be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    ServerError,
    Unreadable,
    TooLarge,
    TooSlow,
    Unauthorized,
    Forbidden,
    RateLimited,
    ListFails,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::ServerError,
        Self::Unreadable,
        Self::TooLarge,
        Self::TooSlow,
        Self::Unauthorized,
        Self::Forbidden,
        Self::RateLimited,
        Self::ListFails,
    ];

    fn mode(self) -> ProviderMode {
        match self {
            Self::ServerError | Self::ListFails => ProviderMode::Fails(500),
            Self::Unreadable => ProviderMode::Unreadable,
            Self::TooLarge => ProviderMode::TooLarge,
            Self::TooSlow => ProviderMode::Hangs,
            Self::Unauthorized => ProviderMode::Fails(401),
            Self::Forbidden => ProviderMode::Fails(403),
            Self::RateLimited => ProviderMode::RetryAfter(429, 3_600),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shard {
    /// Ten jobs.
    Quiet,
    /// Two hundred jobs.
    Busy,
    /// As many, of a provider that allows 300 requests a minute.
    Limited,
}

impl Shard {
    fn jobs(self) -> usize {
        match self {
            Self::Quiet => 10,
            Self::Busy | Self::Limited => 200,
        }
    }
}

/// One job of a run.
#[derive(Clone, Debug)]
struct Planned {
    id: JobId,
    comes_s: f64,
    takes_s: f64,
    is_sick: bool,
}

/// The jobs of a seed, in the order in which they come.
fn plan(shard: Shard, share: usize, seed: u64) -> Vec<Planned> {
    let mut random = Random::new(seed);
    let mut seconds = |most: u64| random.below(most * 1_000) as f64 / 1_000.0;
    let (all, sick) = (shard.jobs(), shard.jobs() * share / 100);
    let mut jobs: Vec<Planned> = (0..all)
        .map(|number| {
            let mut bytes = [7; 16];
            bytes[0] = u8::try_from(number).unwrap();
            bytes[1] = u8::try_from(seed).unwrap();
            Planned {
                id: JobId::from_bytes(bytes),
                comes_s: seconds(240),
                takes_s: 20.0 + seconds(220),
                is_sick: number < sick,
            }
        })
        .collect();
    jobs.sort_by(|a, b| a.comes_s.total_cmp(&b.comes_s));
    jobs
}

/// What a run showed.
#[derive(Debug, Default)]
struct Outcome {
    /// How long after their ends the healthy renders were found, in seconds.
    delays: Vec<f64>,
    /// The ages at which each sick render was asked about.
    sick: Vec<Vec<f64>>,
    requests: usize,
}

fn provider(kind: Kind, shard: Shard) -> &'static str {
    match (kind, shard) {
        (Kind::ListFails, _) => "json2video",
        (_, Shard::Limited) => "shotstack",
        (_, Shard::Quiet | Shard::Busy) => "zvid",
    }
}

async fn run(kind: Kind, shard: Shard, jobs: &[Planned]) -> Outcome {
    let world = PollerWorld::new();
    let provider = provider(kind, shard);
    if kind == Kind::ListFails {
        world.set_lists(kind.mode());
    }
    let mut at_s = 0.0;
    for job in jobs {
        world.run(job.comes_s - at_s).await;
        at_s = job.comes_s;
        let report = match job.is_sick && kind == Kind::ListFails {
            true => Report::SubmitUnclear,
            false => Report::Accepted(RenderJobId::parse(&job.id.as_uuid()).unwrap()),
        };
        if job.is_sick && kind != Kind::ListFails {
            world.set_sick(&job.id, kind.mode());
        }
        world.submit_reported((job.id.clone(), report), provider, job.takes_s).await;
    }
    world.run(COMING_S + AFTER_S - at_s).await;
    let mut outcome = Outcome { requests: world.polls().len(), ..Outcome::default() };
    for job in jobs {
        if job.is_sick {
            outcome.sick.push(world.polled_at(&job.id));
            continue;
        }
        let found = world.settled_at(&job.id).await;
        let found = found.unwrap_or(COMING_S + AFTER_S - job.comes_s);
        outcome.delays.push(found - job.takes_s);
    }
    outcome
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn worst(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

/// The delays of the healthy renders of a plan in a run without the others.
type Alone = BTreeMap<(&'static str, usize, usize, u64), Vec<f64>>;

/// One row of the table: the seeds of one kind, share and shard together.
async fn row(
    (kind, shard, share): (Kind, Shard, usize),
    seeds: u64,
    known: &mut Alone,
) -> (f64, Vec<Outcome>) {
    let (mut delays, mut alone, mut requests, mut outcomes) = (Vec::new(), Vec::new(), 0, vec![]);
    for seed in 1..=seeds {
        let jobs = plan(shard, share, seed);
        let healthy: Vec<Planned> = jobs.iter().filter(|job| !job.is_sick).cloned().collect();
        let outcome = run(kind, shard, &jobs).await;
        let key = (provider(kind, shard), shard.jobs(), share, seed);
        if let Entry::Vacant(unknown) = known.entry(key) {
            unknown.insert(run(kind, shard, &healthy).await.delays);
        }
        alone.extend(known[&key].iter().copied());
        delays.extend(outcome.delays.iter().copied());
        requests += outcome.requests;
        outcomes.push(outcome);
    }
    let ratio = mean(&delays) / mean(&alone);
    println!(
        "{:<13}{share:>4} %  {:<8}{:>8.2} {:>7.2}{:>10.2} {:>7.2}{ratio:>8.2}{requests:>10}",
        format!("{kind:?}"),
        format!("{shard:?}"),
        mean(&delays),
        worst(&delays),
        mean(&alone),
        worst(&alone),
    );
    (ratio, outcomes)
}

/// Why the sick renders of a run were not asked about ever more rarely, if they were not: at most
/// twelve times in five minutes, and with waits that grow.
fn asked_too_often(kind: Kind, outcome: &Outcome) -> Option<String> {
    // One list call may stand for every job.
    let sick = outcome.sick.iter().filter(|_| kind != Kind::ListFails);
    let is_wrong = |ages: &&Vec<f64>| {
        let waits: Vec<f64> = ages.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let (early, late) = waits.split_at(waits.len() / 2);
        // The longest waits are the same but for what delays a poll. One that named a wait is asked
        // about before it is over once the pause of an outage ends, or by a new poller.
        let is_rarer = match kind {
            Kind::RateLimited => ages.len() <= 5,
            _ => late.is_empty() || worst(late) > 0.9 * worst(early),
        };
        let in_five_minutes = ages.iter().filter(|age| **age < 300.0).count();
        ages.is_empty() || in_five_minutes > 12 || !is_rarer
    };
    sick.clone().find(is_wrong).map(|ages| format!("{kind:?}: asked at {ages:.1?}"))
}

/// The rows of a plain run: of every kind on a quiet shard, and the worst on busy ones.
fn is_sampled(kind: Kind, shard: Shard, share: usize) -> bool {
    match shard {
        Shard::Quiet => matches!(share, 30 | 90),
        Shard::Busy => matches!((kind, share), (Kind::ServerError, 50) | (Kind::TooSlow, 70)),
        Shard::Limited => matches!((kind, share), (Kind::RateLimited, 70)),
    }
}

#[tokio::test(start_paused = true)]
async fn sick_renders_delay_no_healthy_one() {
    let seeds = std::env::var("SICK_SEEDS").ok().and_then(|text| text.parse().ok());
    let only = std::env::var("SICK_SHARD").ok();
    println!("kind         share   shard       mean   worst     alone   worst   ratio  requests");
    let (mut wrong, mut known) = (Vec::new(), Alone::new());
    for shard in [Shard::Quiet, Shard::Busy, Shard::Limited] {
        for (kind, share) in Kind::ALL.into_iter().flat_map(|kind| SHARES.map(|it| (kind, it))) {
            let is_wanted = match &only {
                Some(only) => *only == format!("{shard:?}"),
                None => is_sampled(kind, shard, share),
            };
            // No shipped provider has both a list and a limit.
            if !is_wanted || (kind, shard) == (Kind::ListFails, Shard::Limited) {
                continue;
            }
            let seeds = seeds.unwrap_or(if shard == Shard::Quiet { 2 } else { 1 });
            let (ratio, outcomes) = row((kind, shard, share), seeds, &mut known).await;
            if ratio > MOST {
                wrong.push(format!("{kind:?} {share} % {shard:?}: {ratio:.2}"));
            }
            wrong.extend(outcomes.iter().filter_map(|it| asked_too_often(kind, it)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Poll-only: one render whose status call answers 500 for ever, and three minutes later five
/// that end.
#[tokio::test(start_paused = true)]
async fn lone_sick_render_delays_none() {
    let world = PollerWorld::new();
    let sick = world.submit("zvid", Tracking::PollOnly, 1e6).await;
    world.set_sick(&sick, ProviderMode::Fails(500));
    world.run(180.0).await;
    let mut healthy = Vec::new();
    for number in 0..5 {
        let takes_s = 5.0 + 7.0 * f64::from(number);
        let id = world.submit("zvid", Tracking::PollOnly, takes_s).await;
        healthy.push((id, takes_s));
    }
    world.run(600.0).await;
    for (id, takes_s) in &healthy {
        let found = world.settled_at(id).await.expect("found");
        assert!(found < takes_s + 10.0, "found after {found} s, ended at {takes_s} s");
    }
    let asked = world.polled_at(&sick);
    assert!((3..=14).contains(&asked.len()), "{asked:.0?}");
    assert!(asked.last().unwrap() > &400.0, "it is not forgotten: {asked:.0?}");
}
