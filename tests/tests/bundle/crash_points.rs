//! Every call of every invocation of every story is where something goes wrong, once. Then the
//! bundle goes on as it would on AWS until everything is quiet, and is judged.
//!
//! First a story is run as it is, which shows its invocations and their calls. Then it is run
//! anew for each call and each thing that can befall it there. Runs are alike up to that call,
//! because nothing in them depends on anything but their seed.
//!
//! A process that ends before a call leaves the same behind as one that ends after the call
//! before it, and to end after a read is to end before it, unless calls overlap; so each of
//! these is run once. The same holds for being overtaken, where a read counts for what it
//! answers: only what nobody changes meanwhile, a parameter, is no point of its own.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::checks::lateness::{self, Taken};
use crate::faults::fault::{Fault, Planned};
use crate::harness::bundle::{Bundle, Settings};
use crate::harness::invocation::Made;
use crate::harness::parallel::in_parallel;
use crate::scenarios::{STORIES, Story};

/// Something that goes wrong in a story.
#[derive(Clone, Debug)]
struct Mishap {
    story: &'static Story,
    invocation: usize,
    planned: Planned,
    /// What it befalls, to name it.
    at: String,
    /// The calls of the invocation up to there.
    before: Vec<Made>,
    /// When webhooks are taken when nothing goes wrong.
    on_time: Arc<Taken>,
}

/// Runs a story, with what goes wrong in it.
fn run(story: &Story, fault: Option<(usize, Planned)>, twice: bool) -> Arc<Bundle> {
    let settings = Settings { fault, twice, ..Settings::default() };
    Bundle::run(settings, async |bundle| (story.tell)(Arc::clone(bundle)).await)
}

/// Everything that can go wrong in a story, once each.
fn mishaps(story: &'static Story, tried: &Tried) -> (usize, Vec<Mishap>) {
    let bundle = run(story, None, false);
    let on_time = Arc::new(Taken::of(&bundle));
    let mut points = 0;
    let mut mishaps = Vec::new();
    let mut idle = BTreeSet::new();
    for invocation in bundle.invocations() {
        let calls = invocation.calls();
        // A tick that finds nothing to do is like any other: the first stands for all.
        let labels: Vec<String> = calls.iter().map(|call| call.label.clone()).collect();
        if invocation.is_tick && invocation.only_read() && !idle.insert(labels) {
            continue;
        }
        // Before and after each of them.
        points += 2 * calls.len();
        for (number, call) in calls.iter().enumerate() {
            let faults = tried.at(call).into_iter().filter(|fault| fault.befalls(call));
            for fault in faults.filter(|fault| is_distinct(*fault, &calls, number)) {
                mishaps.push(Mishap {
                    story,
                    invocation: invocation.number,
                    planned: Planned { call: number, fault },
                    at: format!("{:?} {} {}", invocation.function, invocation.number, call.label),
                    before: calls.iter().take(number + 1).cloned().collect(),
                    on_time: Arc::clone(&on_time),
                });
            }
        }
    }
    (points, mishaps)
}

/// Whether a fault at a call is none that happens at another one too.
fn is_distinct(fault: Fault, calls: &[Made], number: usize) -> bool {
    let call = &calls[number];
    let next = calls.get(number + 1);
    let overlaps = !call.alone || next.is_some_and(|next| !next.alone);
    match fault {
        Fault::DiesBefore | Fault::OvertakenBefore | Fault::StallsBefore => {
            number == 0 || !call.alone
        }
        Fault::DiesAfter => !call.reads || overlaps,
        Fault::OvertakenAfter | Fault::StallsAfter => {
            !next.is_some_and(Made::reads_a_parameter) || overlaps
        }
        Fault::Lost | Fault::Unanswered | Fault::Busy | Fault::Twice => true,
    }
}

/// What a mishap led to that may not be; none when all is well.
fn outcome(mishap: &Mishap) -> Option<String> {
    let bundle = run(mishap.story, Some((mishap.invocation, mishap.planned)), false);
    let mut violations = bundle.watch.violations();
    let calls = bundle.invocations().get(mishap.invocation).map(|it| it.calls());
    if !calls.is_some_and(|calls| calls.starts_with(&mishap.before)) {
        violations.push("the run was another one before anything went wrong".into());
    }
    violations.extend(Taken::of(&bundle).later_than(&mishap.on_time));
    violations.extend(lateness::deaths(&bundle));
    if violations.is_empty() {
        return None;
    }
    if let Ok(path) = std::env::var("CRASH_LOG") {
        std::fs::write(path, bundle.watch.log().text()).unwrap();
    }
    let mut report =
        format!("{}, {:?} at {}:\n", mishap.story.name, mishap.planned.fault, mishap.at);
    for violation in violations {
        writeln!(report, "  {violation}").unwrap();
    }
    Some(report)
}

/// The stories whose name has `CRASH_STORY` in it.
fn stories() -> Vec<&'static Story> {
    let wanted = std::env::var("CRASH_STORY").unwrap_or_default();
    STORIES.iter().filter(|story| story.name.contains(&wanted)).collect()
}

#[test]
fn every_story_ends_well_when_nothing_goes_wrong() {
    for story in stories() {
        let bundle = run(story, None, false);
        let log = bundle.watch.log().text();
        assert_eq!(bundle.watch.violations(), [""; 0], "{}\n{log}", story.name);
        assert_eq!(lateness::deaths(&bundle), None, "{}", story.name);
        assert_eq!(Taken::of(&bundle).too_late(story.name), None, "{}", story.name);
    }
}

#[test]
fn every_story_ends_well_when_everything_comes_twice() {
    for story in stories() {
        let bundle = run(story, None, true);
        let log = bundle.watch.log().text();
        assert_eq!(bundle.watch.violations(), [""; 0], "{}\n{log}", story.name);
    }
}

/// Which faults are tried out.
struct Tried {
    /// At every call.
    everywhere: Vec<Fault>,
    /// Where a provider or a receiver is asked for something, which nobody may repeat blindly.
    outside: Vec<Fault>,
}

impl Tried {
    /// Those that are named in `CRASH_FAULTS`, or the ends and the copies, and broken
    /// connections to the outside; of AWS calls that fail there are stories of their own
    /// (`trouble.rs`).
    fn chosen() -> Self {
        let ends = [Fault::DiesBefore, Fault::DiesAfter];
        let copies = [Fault::OvertakenBefore, Fault::OvertakenAfter];
        match std::env::var("CRASH_FAULTS") {
            Err(_) => Self {
                everywhere: ends.into_iter().chain(copies).collect(),
                outside: vec![Fault::Lost, Fault::Unanswered],
            },
            Ok(names) => {
                let all = Fault::ALL.into_iter();
                Self::everywhere(all.filter(|it| is_named(*it, &names)))
            }
        }
    }

    /// These at every call.
    fn everywhere(faults: impl IntoIterator<Item = Fault>) -> Self {
        Self { everywhere: faults.into_iter().collect(), outside: Vec::new() }
    }

    fn at(&self, call: &Made) -> Vec<Fault> {
        let outside = self.outside.iter().filter(|_| !call.to_aws && !call.reads);
        self.everywhere.iter().chain(outside).copied().collect()
    }

    fn all(&self) -> Vec<Fault> {
        self.everywhere.iter().chain(&self.outside).copied().collect()
    }
}

/// Whether a fault is among names that are separated by commas; `Stalls` names both of its kind.
fn is_named(fault: Fault, names: &str) -> bool {
    let fault = format!("{fault:?}");
    let kind = fault.trim_end_matches("Before").trim_end_matches("After");
    names.split(',').any(|name| [fault.as_str(), kind].contains(&name.trim()))
}

#[test]
fn every_story_ends_well_whatever_goes_wrong_wherever() {
    let (stories, tried) = (stories(), Tried::chosen());
    let faults = tried.all();
    let found = in_parallel(&stories, |story| mishaps(story, &tried));
    let all: Vec<&Mishap> = found.iter().flat_map(|(_, mishaps)| mishaps).collect();
    let failed = in_parallel(&all, |mishap| outcome(mishap));
    let failed: Vec<(&Mishap, String)> =
        all.iter().copied().zip(failed).filter_map(|(it, failed)| Some((it, failed?))).collect();
    println!("\n{:<36} points{}  violations", "story", heading(&faults));
    for (story, (points, mishaps)) in stories.iter().zip(&found) {
        let failed = failed.iter().filter(|(mishap, _)| mishap.story.name == story.name).count();
        println!(
            "{:<36} {points:>6}{}  {failed:>10}",
            story.name,
            counts(&faults, &mishaps.iter().collect::<Vec<_>>())
        );
    }
    let points: usize = found.iter().map(|(points, _)| points).sum();
    let every = counts(&faults, &all);
    println!("{:<36} {points:>6}{every}  {:>10}", "all", failed.len());
    let failed: Vec<&str> = failed.iter().map(|(_, report)| report.as_str()).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Nothing but the bus fails, and only while one function calls it.
#[test]
fn a_webhook_that_its_receiver_refuses_is_told_of_though_the_bus_is_busy() {
    let story = STORIES.iter().find(|story| story.name == "disabled").unwrap();
    let (_, mut mishaps) = mishaps(story, &Tried::everywhere([Fault::Busy]));
    mishaps.retain(|mishap| mishap.at.contains("PutEvents"));
    assert!(mishaps.iter().any(|it| it.at.contains("webhook.delivery.exhausted")));
    let failed = in_parallel(&mishaps, outcome);
    let failed: Vec<String> = failed.into_iter().flatten().collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// The story in which most comes at once; `CRASH_FAULTS=Stalls` tries all.
#[test]
fn what_meets_in_the_middle_of_a_call_is_not_lost() {
    let story = STORIES.iter().find(|story| story.name == "called_back_before_the_answer").unwrap();
    let (_, mishaps) =
        mishaps(story, &Tried::everywhere([Fault::StallsBefore, Fault::StallsAfter]));
    let failed = in_parallel(&mishaps, outcome);
    let failed: Vec<String> = failed.into_iter().flatten().collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn heading(faults: &[Fault]) -> String {
    faults.iter().map(|fault| format!(" {:>15}", format!("{fault:?}"))).collect()
}

/// How many of the mishaps are of each kind.
fn counts(faults: &[Fault], mishaps: &[&Mishap]) -> String {
    let of = |fault| mishaps.iter().filter(|mishap| mishap.planned.fault == fault).count();
    faults.iter().map(|fault| format!(" {:>15}", of(*fault))).collect()
}
