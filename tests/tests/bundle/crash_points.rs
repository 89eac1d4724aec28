//! One fault at every call of every invocation of every scenario. The run then continues as on AWS
//! until no work is left, and all checks run.
//!
//! A scenario is first run without a fault, which shows its invocations and their calls. It is
//! then run once for each call and each fault that applies to it. Runs are equal up to that call,
//! because they depend on nothing but their seed.
//!
//! A process that dies before a call leaves the same state as one that dies after the call before
//! it. Death after a read equals death before it, unless calls overlap. Each of these is run once.
//! The same holds for overtaking copies, except that a read counts for its answer; only a
//! parameter, which nothing changes meanwhile, is no point of its own.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::checks::lateness::{self, Acceptances};
use crate::faults::fault::{Fault, PlannedFault};
use crate::harness::bundle::{Bundle, RunSettings};
use crate::harness::invocation::CallRecord;
use crate::harness::parallel::in_parallel;
use crate::scenarios::{SCENARIOS, Scenario};

/// A fault in a scenario.
#[derive(Clone, Debug)]
struct FaultCase {
    scenario: &'static Scenario,
    invocation: usize,
    planned: PlannedFault,
    /// The function, the invocation and the call.
    at: String,
    /// The calls of the invocation up to the fault.
    before: Vec<CallRecord>,
    /// When webhooks are accepted without the fault.
    on_time: Arc<Acceptances>,
}

fn run(scenario: &Scenario, fault: Option<(usize, PlannedFault)>, duplicates: bool) -> Arc<Bundle> {
    let settings = RunSettings { fault, duplicates, ..RunSettings::default() };
    Bundle::run(settings, async |bundle| (scenario.run)(Arc::clone(bundle)).await)
}

/// All faults of a scenario, and the number of its crash points.
fn fault_cases(scenario: &'static Scenario, tried: &Tried) -> (usize, Vec<FaultCase>) {
    let bundle = run(scenario, None, false);
    let on_time = Arc::new(Acceptances::of(&bundle));
    let mut points = 0;
    let mut fault_cases = Vec::new();
    let mut idle = BTreeSet::new();
    for invocation in bundle.invocations() {
        let calls = invocation.calls();
        // All ticks without work are alike, so only the first is tried.
        let labels: Vec<String> = calls.iter().map(|call| call.label.clone()).collect();
        if invocation.is_tick && invocation.only_read() && !idle.insert(labels) {
            continue;
        }
        // Each call has a point before it and one after it.
        points += 2 * calls.len();
        for (number, call) in calls.iter().enumerate() {
            let faults = tried.at(call).into_iter().filter(|fault| fault.applies_to(call));
            for fault in faults.filter(|fault| is_distinct(*fault, &calls, number)) {
                fault_cases.push(FaultCase {
                    scenario,
                    invocation: invocation.number,
                    planned: PlannedFault { call: number, fault },
                    at: format!("{:?} {} {}", invocation.function, invocation.number, call.label),
                    before: calls.iter().take(number + 1).cloned().collect(),
                    on_time: Arc::clone(&on_time),
                });
            }
        }
    }
    (points, fault_cases)
}

/// Whether no other call has an equivalent fault.
fn is_distinct(fault: Fault, calls: &[CallRecord], number: usize) -> bool {
    let call = &calls[number];
    let next = calls.get(number + 1);
    let overlaps = !call.alone || next.is_some_and(|next| !next.alone);
    match fault {
        Fault::DiesBefore | Fault::OvertakenBefore | Fault::StallsBefore => {
            number == 0 || !call.alone
        }
        Fault::DiesAfter => !call.reads || overlaps,
        Fault::OvertakenAfter | Fault::StallsAfter => {
            !next.is_some_and(CallRecord::reads_parameter) || overlaps
        }
        Fault::Lost | Fault::Unanswered | Fault::Busy | Fault::Twice => true,
    }
}

/// The violations of a fault, as a report; none when all checks pass.
fn outcome(fault_case: &FaultCase) -> Option<String> {
    let bundle = run(fault_case.scenario, Some((fault_case.invocation, fault_case.planned)), false);
    let mut violations = bundle.checker.violations();
    let calls = bundle.invocations().get(fault_case.invocation).map(|it| it.calls());
    if !calls.is_some_and(|calls| calls.starts_with(&fault_case.before)) {
        violations.push("the run differs before the fault".into());
    }
    violations.extend(Acceptances::of(&bundle).later_than(&fault_case.on_time));
    violations.extend(lateness::dead_letters(&bundle));
    if violations.is_empty() {
        return None;
    }
    if let Ok(path) = std::env::var("CRASH_LOG") {
        std::fs::write(path, bundle.checker.log().text()).unwrap();
    }
    let mut report = format!(
        "{}, {:?} at {}:\n",
        fault_case.scenario.name, fault_case.planned.fault, fault_case.at
    );
    for violation in violations {
        writeln!(report, "  {violation}").unwrap();
    }
    Some(report)
}

fn scenarios() -> Vec<&'static Scenario> {
    let wanted = std::env::var("CRASH_SCENARIO").unwrap_or_default();
    let scenarios: Vec<_> =
        SCENARIOS.iter().filter(|scenario| scenario.name.contains(&wanted)).collect();
    assert!(!scenarios.is_empty(), "no scenario is named `{wanted}`");
    scenarios
}

#[test]
fn scenarios_hold_without_faults() {
    for scenario in scenarios() {
        let bundle = run(scenario, None, false);
        let log = bundle.checker.log().text();
        assert_eq!(bundle.checker.violations(), [""; 0], "{}\n{log}", scenario.name);
        assert_eq!(lateness::dead_letters(&bundle), None, "{}", scenario.name);
        assert_eq!(Acceptances::of(&bundle).too_late(scenario.name), None, "{}", scenario.name);
    }
}

#[test]
fn scenarios_hold_under_duplicates() {
    for scenario in scenarios() {
        let bundle = run(scenario, None, true);
        let log = bundle.checker.log().text();
        assert_eq!(bundle.checker.violations(), [""; 0], "{}\n{log}", scenario.name);
    }
}

/// The faults that are tried.
struct Tried {
    /// At every call.
    everywhere: Vec<Fault>,
    /// At calls that change something at a provider or a receiver.
    outside: Vec<Fault>,
}

impl Tried {
    /// The faults that `CRASH_FAULTS` names. By default deaths and copies at every call, and lost
    /// calls and answers outside AWS; `outages.rs` covers failing AWS calls.
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

    fn everywhere(faults: impl IntoIterator<Item = Fault>) -> Self {
        Self { everywhere: faults.into_iter().collect(), outside: Vec::new() }
    }

    fn at(&self, call: &CallRecord) -> Vec<Fault> {
        let outside = self.outside.iter().filter(|_| !call.to_aws && !call.reads);
        self.everywhere.iter().chain(outside).copied().collect()
    }

    fn all(&self) -> Vec<Fault> {
        self.everywhere.iter().chain(&self.outside).copied().collect()
    }
}

/// Whether a comma-separated list names a fault; `Stalls` names both of its kind.
fn is_named(fault: Fault, names: &str) -> bool {
    let fault = format!("{fault:?}");
    let kind = fault.trim_end_matches("Before").trim_end_matches("After");
    names.split(',').any(|name| [fault.as_str(), kind].contains(&name.trim()))
}

#[test]
fn scenarios_hold_at_every_crash_point() {
    let (scenarios, tried) = (scenarios(), Tried::chosen());
    let faults = tried.all();
    let found = in_parallel(&scenarios, |scenario| fault_cases(scenario, &tried));
    let all: Vec<&FaultCase> = found.iter().flat_map(|(_, fault_cases)| fault_cases).collect();
    let failed = in_parallel(&all, |fault_case| outcome(fault_case));
    let failed: Vec<(&FaultCase, String)> =
        all.iter().copied().zip(failed).filter_map(|(it, failed)| Some((it, failed?))).collect();
    println!("\n{:<36} points{}  violations", "scenario", heading(&faults));
    for (scenario, (points, fault_cases)) in scenarios.iter().zip(&found) {
        let failed = failed
            .iter()
            .filter(|(fault_case, _)| fault_case.scenario.name == scenario.name)
            .count();
        println!(
            "{:<36} {points:>6}{}  {failed:>10}",
            scenario.name,
            counts(&faults, &fault_cases.iter().collect::<Vec<_>>())
        );
    }
    let points: usize = found.iter().map(|(points, _)| points).sum();
    let every = counts(&faults, &all);
    println!("{:<36} {points:>6}{every}  {:>10}", "all", failed.len());
    let failed: Vec<&str> = failed.iter().map(|(_, report)| report.as_str()).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Only the bus fails, and only for one invocation.
#[test]
fn exhaustion_is_published_despite_busy_bus() {
    let scenario =
        SCENARIOS.iter().find(|scenario| scenario.name == "endpoint_is_disabled").unwrap();
    let (_, mut fault_cases) = fault_cases(scenario, &Tried::everywhere([Fault::Busy]));
    fault_cases.retain(|fault_case| fault_case.at.contains("PutEvents"));
    assert!(fault_cases.iter().any(|it| it.at.contains("webhook.delivery.exhausted")));
    let failed = in_parallel(&fault_cases, outcome);
    let failed: Vec<String> = failed.into_iter().flatten().collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// The scenario with the most concurrency. `CRASH_FAULTS=Stalls` tries all scenarios.
#[test]
fn stalled_calls_lose_nothing() {
    let scenario =
        SCENARIOS.iter().find(|scenario| scenario.name == "callback_before_answer").unwrap();
    let (_, fault_cases) =
        fault_cases(scenario, &Tried::everywhere([Fault::StallsBefore, Fault::StallsAfter]));
    let failed = in_parallel(&fault_cases, outcome);
    let failed: Vec<String> = failed.into_iter().flatten().collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn heading(faults: &[Fault]) -> String {
    faults.iter().map(|fault| format!(" {:>15}", format!("{fault:?}"))).collect()
}

/// The number of cases of each fault.
fn counts(faults: &[Fault], fault_cases: &[&FaultCase]) -> String {
    let of =
        |fault| fault_cases.iter().filter(|fault_case| fault_case.planned.fault == fault).count();
    faults.iter().map(|fault| format!(" {:>15}", of(*fault))).collect()
}
