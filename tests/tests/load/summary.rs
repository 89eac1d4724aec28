//! A table of the jobs' outcomes by fault.

use std::collections::{BTreeMap, HashMap};

use domain::id::JobId;
use tests::SettledJob;

use crate::Trial;
use crate::faults::Fault;

#[derive(Default)]
struct Row {
    jobs: usize,
    completed: usize,
    failed: usize,
    polls: u32,
    attempts: usize,
    /// The times from a job's creation until it was settled, in milliseconds.
    took: Vec<i64>,
}

impl Row {
    fn add(&mut self, SettledJob { job, deliveries }: &SettledJob) {
        self.jobs += 1;
        match job.state.name() {
            "completed" => self.completed += 1,
            _ => self.failed += 1,
        }
        self.polls += job.attempt_count;
        self.attempts += deliveries.iter().map(|it| it.attempts.len()).sum::<usize>();
        let settled = job.settled_at.unwrap_or(job.created_at);
        self.took.push((settled - job.created_at).num_milliseconds());
    }

    fn line(&mut self, name: &str) -> String {
        self.took.sort_unstable();
        let seconds = |place: usize| self.took.get(place).map_or(0.0, |ms| *ms as f64 / 1e3);
        let (median, last) = (seconds(self.took.len() / 2), seconds(self.took.len().max(1) - 1));
        let Self { jobs, completed, failed, polls, attempts, .. } = self;
        format!(
            "{name:<22} {jobs:>6} {completed:>10} {failed:>7} {polls:>8} {attempts:>9} \
             {median:>9.1} {last:>9.1}\n"
        )
    }
}

pub(crate) fn table(trials: &[Trial], outcomes: &HashMap<JobId, SettledJob>) -> String {
    let mut rows = BTreeMap::<Fault, Row>::new();
    let mut all = Row::default();
    for trial in trials {
        let outcome = &outcomes[trial.test_job.job_id()];
        rows.entry(trial.fault).or_default().add(outcome);
        all.add(outcome);
    }
    let mut text = format!(
        "{:<22} {:>6} {:>10} {:>7} {:>8} {:>9} {:>9} {:>9}\n",
        "fault", "jobs", "completed", "failed", "polls", "attempts", "median s", "last s"
    );
    for (fault, mut row) in rows {
        text.push_str(&row.line(fault.name()));
    }
    text.push_str(&all.line("all"));
    text
}
