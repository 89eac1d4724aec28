use super::*;
use crate::failure::FailureCode;
use crate::fixtures::{changed, done, new_job, noon, observed, render_id};

/// `=` means that the state stays; `!` means that the transition has an event.
#[test]
fn job_transition_table() {
    let mut table = format!("{:15}", "");
    for kind in ReportKind::ALL {
        table += &format!("{:15}", format!("{kind:?}"));
    }
    for state in State::ALL {
        table += &format!("\n{:15}", state.name());
        for kind in ReportKind::ALL {
            let cell = match next(state, kind) {
                Move::Stay => "=".to_owned(),
                Move::To(to) => {
                    format!("{}{}", to.name(), if to.event().is_some() { "!" } else { "" })
                }
            };
            table += &format!("{cell:15}");
        }
    }
    let table: String = table.lines().map(|line| line.trim_end().to_owned() + "\n").collect();
    insta::assert_snapshot!(table, @r"
                   Accepted       Rejected       SubmitUnclear  Queued         Processing     Completed      Failed         Cancelled      TimedOut       DeadlinePassed
    submitting     queued!        failed!        submit_unknown queued!        processing!    completed!     failed!        cancelled!     timed_out!     failed!
    submit_unknown queued!        failed!        =              queued!        processing!    completed!     failed!        cancelled!     timed_out!     failed!
    queued         =              =              =              =              processing!    completed!     failed!        cancelled!     timed_out!     timed_out!
    processing     =              =              =              =              =              completed!     failed!        cancelled!     timed_out!     timed_out!
    completed      =              =              =              =              =              =              =              =              =              =
    failed         =              =              =              =              =              =              =              =              =              =
    cancelled      =              =              =              =              =              =              =              =              =              =
    timed_out      =              =              =              =              =              completed!     =              =              =              =
    ");
}

#[test]
fn job_runs_from_submit_to_completion() {
    let job = new_job();
    let job = changed(job.apply(&Report::Accepted(render_id("r-1")), 0, noon()));
    assert_eq!((job.state, job.version), (State::Queued, 2));
    assert_eq!(job.outbox, [], "queued is not subscribed to");

    let job = changed(job.apply(&observed(RenderStatus::Processing), 1, noon()));
    assert_eq!(job.state, State::Processing);

    let end = noon() + TimeDelta::seconds(9);
    let job = changed(job.apply(&observed(done()), 3, end));
    assert_eq!(job.state, State::Completed);
    assert_eq!(job.result.url.as_deref(), Some("https://cdn.example/video.mp4"));
    assert_eq!((job.attempt_count, job.last_checked_at), (3, Some(end)));
    assert_eq!(job.outbox, [OutboxEntry::new(EventName::Completed, State::Completed, end)]);
    let history: Vec<_> = job.timeline.iter().map(|line| line.state.name()).collect();
    assert_eq!(history, ["submitting", "queued", "processing", "completed"]);
    assert_eq!(job.ended_at(), Some(end));
}

#[test]
fn job_ignores_repeated_reports() {
    let broken = RenderStatus::Failed(Failure::new(FailureCode::RenderFailed, "no"));
    let reports = [
        Report::Accepted(render_id("r-1")),
        observed(RenderStatus::Queued),
        observed(RenderStatus::Processing),
        observed(done()),
        observed(broken),
        observed(RenderStatus::Cancelled),
        observed(RenderStatus::TimedOut),
        Report::SubmitUnclear,
        Report::DeadlinePassed,
    ];
    for report in reports {
        let once = changed(new_job().apply(&report, 1, noon()));
        assert_eq!(
            once.apply(&report, 2, noon()),
            Transition::Unchanged,
            "invariant 4: {report:?}"
        );
    }
}

#[test]
fn job_ended_emits_nothing_twice() {
    let mut job = changed(new_job().apply(&observed(done()), 1, noon()));
    job.outbox.clear();
    for kind in [RenderStatus::Processing, RenderStatus::Cancelled, done()] {
        let again = job.apply(&observed(kind), 9, noon());
        assert_eq!(again, Transition::Unchanged, "invariant 4: an ended job stays as it is");
    }
}

#[test]
fn job_timed_out_takes_late_completion() {
    let job = changed(new_job().apply(&Report::SubmitUnclear, 0, noon()));
    let job = changed(job.apply(&observed(RenderStatus::Processing), 1, noon()));
    let job = changed(job.apply(&Report::DeadlinePassed, 9, noon()));
    assert_eq!(job.failure.as_ref().map(|f| f.code), Some(FailureCode::TimedOut));

    let job = changed(job.apply(&observed(done()), 10, noon()));
    assert_eq!((job.state, &job.failure), (State::Completed, &None));
    let outbox: Vec<_> = job.outbox.iter().map(|n| (n.event, n.status)).collect();
    assert_eq!(
        outbox,
        [(EventName::Failed, State::TimedOut), (EventName::Completed, State::Completed)]
    );
}

#[test]
fn job_unconfirmed_fails_with_submit_unknown() {
    let job = changed(new_job().apply(&Report::SubmitUnclear, 0, noon()));
    let job = changed(job.apply(&Report::DeadlinePassed, 0, noon()));
    assert_eq!(job.failure.as_ref().map(|f| f.code), Some(FailureCode::SubmitUnknown));

    // The callback of an unconfirmed render is its only proof, however late.
    assert!(!job.is_final());
    assert_eq!(job.apply(&observed(RenderStatus::Processing), 0, noon()), Transition::Unchanged);
    let failed = job.outbox[0];
    let body = |job: &Job| crate::event::Event::of(job, &failed).to_body().unwrap();
    let completed = changed(job.apply(&observed(done()), 1, noon()));
    assert_eq!(completed.state, State::Completed);
    let says_unknown = |job: &Job| body(job).contains("submit_unknown");
    assert!(says_unknown(&job) && says_unknown(&completed), "a published event does not change");
}

#[test]
fn job_progress_changes_in_quarters() {
    let at = |progress| {
        Report::Observed(Observation {
            render_job_id: Some(render_id("r-1")),
            status: RenderStatus::Processing,
            provider_status: "active".into(),
            progress: Some(progress),
        })
    };
    let job = changed(new_job().apply(&at(0.1), 1, noon()));
    assert_eq!(job.apply(&at(0.24), 2, noon()), Transition::Unchanged);
    let job = changed(job.apply(&at(0.6), 3, noon()));
    assert_eq!(job.progress, Some(0.5));
    assert_eq!(job.apply(&at(0.3), 4, noon()), Transition::Unchanged, "never backwards");
    assert_eq!(changed(job.apply(&at(7.0), 5, noon())).progress, Some(1.0), "out of range");
}

#[test]
fn job_settles_once_with_empty_outbox() {
    let deadline = TimeDelta::minutes(30);
    let mut job = changed(new_job().apply(&observed(done()), 1, noon()));
    assert_eq!(job.settle(deadline, noon()), None, "invariant 2: its outbox is not empty");
    job.outbox.clear();
    let settled = job.settle(deadline, noon()).unwrap();
    assert_eq!(settled.settled_at, Some(noon()));
    assert_eq!(settled.settle(deadline, noon()), None);
}

#[test]
fn job_timed_out_settles_at_deadline() {
    let deadline = TimeDelta::minutes(30);
    // A provider's own time-out may still finish.
    let soft = observed(RenderStatus::TimedOut);
    let mut job = changed(new_job().apply(&soft, 1, noon()));
    job.outbox.clear();
    assert_eq!(job.settle(deadline, noon() + TimeDelta::minutes(29)), None);
    let late = noon() + TimeDelta::minutes(30);
    let settled = job.settle(deadline, late).unwrap();
    let completed = changed(settled.apply(&observed(done()), 2, late));
    assert_eq!(completed.settled_at, None, "it has news to tell");
}

#[test]
fn unconfirmed_job_settles_when_given_up() {
    let given_up = TimeDelta::hours(6);
    let unclear = changed(new_job().apply(&Report::SubmitUnclear, 0, noon()));
    let mut job = changed(unclear.apply(&Report::DeadlinePassed, 1, noon()));
    job.outbox.clear();
    assert_eq!(job.state, State::Failed);
    assert_eq!(job.settle(given_up, noon() + TimeDelta::hours(5)), None, "it may complete");
    assert!(job.settle(given_up, noon() + TimeDelta::hours(6)).is_some());
}

#[test]
fn job_checkpoints_at_doubling_ages() {
    let mut job = changed(new_job().apply(&Report::Accepted(render_id("r-1")), 0, noon()));
    let mut written = Vec::new();
    for age in 0..2000 {
        if let Some(checked) = job.checkpoint(7, noon() + TimeDelta::seconds(age)) {
            written.push(age);
            job = checked;
        }
    }
    assert_eq!(written, [120, 240, 480, 960, 1920]);
    assert_eq!(job.attempt_count, 7);
}

#[test]
fn job_is_final_unless_completion_counts() {
    let finals = State::ALL.map(|state| (state.name(), is_final(state, None)));
    assert_eq!(
        finals,
        [
            ("submitting", false),
            ("submit_unknown", false),
            ("queued", false),
            ("processing", false),
            ("completed", true),
            ("failed", true),
            ("cancelled", true),
            ("timed_out", false),
        ]
    );
    assert!(!is_final(State::Failed, Some(&Failure::submit_unknown())));
    let failure = Failure::new(FailureCode::RenderFailed, "no scenes");
    assert!(is_final(State::Failed, Some(&failure)));
}

#[test]
fn outbox_entry_leaves_when_both_ways_are_done() {
    let job = changed(new_job().apply(&observed(done()), 1, noon()));
    let on_bus = OutboxEntry { on_bus: true, ..job.outbox[0] };
    let delivery_queued = OutboxEntry { delivery_queued: true, ..job.outbox[0] };

    assert_eq!(job.mark_published(&[job.outbox[0]], EventSet::none()), job, "nothing is done");
    let half = job.mark_published(&[on_bus], EventSet::none());
    assert_eq!(half.outbox, [on_bus]);
    assert_eq!(half.settle(TimeDelta::zero(), noon()), None, "a half is not enough");
    // Another process did the other half, and knew nothing of this one.
    assert_eq!(half.mark_published(&[delivery_queued], EventSet::none()).outbox, []);
    assert_eq!(job.mark_published(&[on_bus, delivery_queued], EventSet::none()).outbox, []);

    let another = OutboxEntry { status: State::Failed, delivery_queued: true, ..on_bus };
    assert_eq!(
        job.mark_published(&[another], EventSet::none()).outbox,
        job.outbox,
        "that is another change"
    );
}

#[test]
fn event_without_receiver_is_remembered_once() {
    let job = changed(new_job().apply(&observed(done()), 1, noon()));
    let completed = EventSet::from(EventName::Completed);
    let queued = OutboxEntry { delivery_queued: true, ..job.outbox[0] };
    let half = job.mark_published(&[queued], completed);
    assert_eq!(half.without_receiver, completed);
    // What another process did meanwhile counts, not what this one saw.
    let theirs = job.mark_published(&[queued], EventSet::none());
    assert_eq!(theirs.mark_published(&[queued], completed).without_receiver, EventSet::none());

    let late = half.mark_delivered_late(completed).unwrap();
    assert_eq!((late.without_receiver, late.version), (EventSet::none(), half.version + 1));
    assert_eq!(late.mark_delivered_late(completed), None, "no write without news");
}

#[test]
fn changes_are_those_of_the_outbox() {
    let mut job = new_job();
    job.request.subscribed_events = EventName::ALL.into_iter().collect();
    let mut outbox = Vec::new();
    for (second, report) in [
        (1, Report::Accepted(render_id("r-1"))),
        (2, observed(RenderStatus::Processing)),
        (3, Report::DeadlinePassed),
        (4, observed(done())),
    ] {
        job = changed(job.apply(&report, 1, noon() + TimeDelta::seconds(second)));
        outbox.clone_from(&job.outbox);
    }
    assert_eq!(outbox.len(), 4);
    assert_eq!(job.changes(), outbox);
    job.request.subscribed_events = EventSet::none();
    assert_eq!(job.changes().len(), 4, "also what the client did not subscribe to");
    assert!(job.is_to_queue(EventName::Failed) && !job.is_to_queue(EventName::Cancelled));
}
