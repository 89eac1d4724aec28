//! Hints: callbacks that announce a render's end without proof, and so make us ask. Those about
//! one job are joined and spaced, because each costs a request to the provider.
//!
//! The callback that stores a hint asks the provider itself, and leaves what it does not learn
//! in time to the poller, which looks again a few times. [`HintDecision::of`] says what the next
//! callback does. A process may die between storing a hint and asking about it, so a hint says
//! what sees to it ([`FollowUp`]), and asking counts for no longer than it can take.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::id::RenderJobId;
use crate::time;

/// How long further hints of the same join a hint. The provider's own repeats come later.
pub const SPACING: TimeDelta = TimeDelta::seconds(10);

/// How long the callback that stored a hint may ask about it, with some room. After that its
/// process has died.
pub const ASKING: TimeDelta = TimeDelta::seconds(3);

/// How long a hint counts as a repeat of one that the poller already looked at.
const MEMORY: TimeDelta = TimeDelta::minutes(2);

/// The waits before the poller's looks. A provider's status API mostly lags behind its callbacks
/// by a few seconds; what it does not say within a minute is left to the safety polls.
const WAITS: [Duration; 4] = [
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(40),
];

/// The first look at a repeated hint: its quick looks were made for the hint before.
const FIRST_OF_REPEATED: usize = 2;

/// The longest wait that a provider can ask for between two looks. Polls are throttled by what it
/// asks for beyond that.
const LONGEST_WAIT: Duration = Duration::from_secs(900);

/// A job's latest hint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// The number of writes.
    pub version: u64,
    /// When it came; it tells a hint from the next.
    pub at: DateTime<Utc>,
    /// The render that it names, where the job did not know its own.
    pub render_job_id: Option<RenderJobId>,
    /// What sees to it.
    pub follow_up: FollowUp,
    /// Whether it repeats a hint that the poller already looked at.
    pub is_repeated: bool,
}

/// What sees to a hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowUp {
    /// The callback that stored it asks the provider.
    Asking,
    /// The same, and another callback sends the poller a wake-up call in case that one dies.
    Guarded,
    /// A wake-up call is sent: the poller looks.
    Queued,
}

/// What a callback does with a hint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HintDecision {
    /// Store this hint, and ask the provider.
    Ask(Hint),
    /// Store this hint, and send a wake-up call for when its asking must be over.
    Guard(Hint),
    /// Nothing: it joins a hint that is seen to.
    Join,
}

impl HintDecision {
    /// Decides about a hint that comes while `stored` is the job's latest. `render` is the render
    /// that it names, if the job does not know its own.
    #[must_use]
    pub fn of(stored: Option<&Hint>, render: Option<&RenderJobId>, now: DateTime<Utc>) -> Self {
        // As it is stored: a hint is known by its time.
        let now = time::from_millis(time::millis(now)).unwrap_or(now);
        let Some(stored) = stored else {
            return Self::Ask(Hint {
                version: 1,
                at: now,
                render_job_id: render.cloned(),
                follow_up: FollowUp::Asking,
                is_repeated: false,
            });
        };
        // Only a hint may know the render, so one that names another is none that was looked at.
        let names_another = render.is_some() && render != stored.render_job_id.as_ref();
        // Clocks disagree, and a hint must not hold others up by one that is fast.
        let age = (now - stored.at).abs();
        let is_looked_at = stored.follow_up == FollowUp::Queued && !names_another;
        let version = stored.version.saturating_add(1);
        let renewed = Hint {
            version,
            at: now,
            render_job_id: render.or(stored.render_job_id.as_ref()).cloned(),
            follow_up: FollowUp::Asking,
            is_repeated: is_looked_at && age < MEMORY,
        };
        if names_another || age >= SPACING {
            return Self::Ask(renewed);
        }
        match stored.follow_up {
            FollowUp::Asking | FollowUp::Guarded if age >= ASKING => Self::Ask(renewed),
            FollowUp::Asking => {
                Self::Guard(Hint { version, follow_up: FollowUp::Guarded, ..stored.clone() })
            }
            FollowUp::Guarded | FollowUp::Queued => Self::Join,
        }
    }
}

impl Hint {
    /// The hint once a wake-up call for it is sent; to be stored over this one.
    #[must_use]
    pub fn queued(&self) -> Self {
        let version = self.version.saturating_add(1);
        Self { version, follow_up: FollowUp::Queued, ..self.clone() }
    }

    /// The wait before the poller's first look, when the provider has just said that the render
    /// goes on or cannot be asked about yet.
    #[must_use]
    pub fn wait_after_answer(&self) -> Duration {
        wait_before_look(self.first_look(), None).unwrap_or_default()
    }

    /// The same, when the provider has not answered in time: it is asked at once with more time,
    /// unless it asks for a wait.
    #[must_use]
    pub fn wait_without_answer(&self, asked_for: Option<Duration>) -> Duration {
        match (self.is_repeated, asked_for) {
            (false, None) => Duration::ZERO,
            (_, _) => wait_before_look(self.first_look(), asked_for).unwrap_or_default(),
        }
    }

    /// The number of the poller's first look at it.
    #[must_use]
    pub fn first_look(&self) -> usize {
        if self.is_repeated { FIRST_OF_REPEATED } else { 0 }
    }
}

/// The wait before the look of this number, of which 0 is the first; none after the last.
/// `asked_for` is the wait that the provider asks for.
#[must_use]
pub fn wait_before_look(look: usize, asked_for: Option<Duration>) -> Option<Duration> {
    let wait = WAITS.get(look)?;
    Some(asked_for.map_or(*wait, |asked_for| asked_for.max(*wait)).min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::noon;

    fn at(seconds: i64) -> DateTime<Utc> {
        noon() + TimeDelta::seconds(seconds)
    }

    fn render(id: &str) -> RenderJobId {
        RenderJobId::parse(id).unwrap()
    }

    fn first() -> Hint {
        let HintDecision::Ask(hint) = HintDecision::of(None, None, noon()) else { panic!("asks") };
        hint
    }

    fn after(stored: &Hint, seconds: i64) -> HintDecision {
        HintDecision::of(Some(stored), None, at(seconds))
    }

    fn asks(decision: HintDecision) -> Hint {
        match decision {
            HintDecision::Ask(hint) => hint,
            HintDecision::Guard(_) | HintDecision::Join => panic!("{decision:?}"),
        }
    }

    #[test]
    fn hint_first_is_asked_about() {
        let hint = first();
        assert_eq!((hint.version, hint.at, hint.follow_up), (1, noon(), FollowUp::Asking));
        assert!(!hint.is_repeated);
    }

    #[test]
    fn hint_while_another_is_asked_guards_it() {
        let stored = first();
        let HintDecision::Guard(guarded) = after(&stored, 1) else { panic!("guards") };
        assert_eq!((guarded.version, guarded.at), (2, noon()));
        assert_eq!(guarded.follow_up, FollowUp::Guarded);
        assert_eq!(after(&guarded, 2), HintDecision::Join, "one guard is enough");
    }

    #[test]
    fn hint_of_dead_process_is_taken_over() {
        let stored = first();
        let HintDecision::Guard(guarded) = after(&stored, 1) else { panic!("guards") };
        for stored in [stored, guarded] {
            let hint = asks(after(&stored, 3));
            assert_eq!((hint.at, hint.follow_up), (at(3), FollowUp::Asking));
            assert!(!hint.is_repeated, "the poller has not looked");
        }
    }

    #[test]
    fn hint_joins_for_ten_seconds() {
        let queued = first().queued();
        for seconds in [0, 3, 9] {
            assert_eq!(after(&queued, seconds), HintDecision::Join, "{seconds}");
        }
        assert!(asks(after(&queued, 10)).is_repeated);
        assert!(!asks(after(&queued, 120)).is_repeated);
    }

    #[test]
    fn hint_of_the_future_holds_none_up() {
        let queued = first().queued();
        assert_eq!(after(&queued, -5), HintDecision::Join);
        assert_eq!(asks(after(&queued, -3600)).at, at(-3600));
    }

    #[test]
    fn hint_naming_another_render_is_new() {
        let (one, other) = (render("r-1"), render("r-2"));
        let stored = asks(HintDecision::of(None, Some(&one), noon())).queued();
        assert_eq!(HintDecision::of(Some(&stored), Some(&one), at(1)), HintDecision::Join);
        assert_eq!(after(&stored, 1), HintDecision::Join);
        let hint = asks(HintDecision::of(Some(&stored), Some(&other), at(1)));
        assert_eq!((hint.render_job_id.as_ref(), hint.is_repeated), (Some(&other), false));
    }

    #[test]
    fn looks_grow_rarer_and_end() {
        let seconds = |look| wait_before_look(look, None).map(|wait| wait.as_secs());
        assert_eq!([0, 1, 2, 3, 4].map(seconds), [Some(2), Some(5), Some(15), Some(40), None]);
        assert_eq!(first().first_look(), 0);
        let repeated = asks(after(&first().queued(), 10));
        assert_eq!(seconds(repeated.first_look()), Some(15), "as rare as the hints");
    }

    #[test]
    fn look_waits_as_the_provider_asks() {
        let wait = |asked| wait_before_look(0, Some(Duration::from_secs(asked))).unwrap().as_secs();
        assert_eq!([wait(1), wait(30), wait(7200)], [2, 30, 900]);
        let (first, asked) = (first(), Some(Duration::from_secs(30)));
        assert_eq!(first.wait_without_answer(None), Duration::ZERO, "it has more time then");
        assert_eq!(first.wait_without_answer(asked), Duration::from_secs(30));
        assert_eq!(first.wait_after_answer(), Duration::from_secs(2));
    }
}
