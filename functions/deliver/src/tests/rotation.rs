//! A rotation at every instant, as receivers see it: each webhook is signed with exactly the
//! secrets that are in force when it is signed, by every process, or is put off.

use std::time::Duration;

use aws_in_memory::clock;
use chrono::TimeDelta;
use domain::signature::{LEAD, SignatureType, SigningSecrets};
use tokio::time::{Instant, advance};

use super::signing::{DeliverWorld, SHOP, Trouble, expected, first, seconds, secret, signature};

const PROCESSES: usize = 3;
const STEP: Duration = Duration::from_millis(500);

/// How many attempts were signed, and how many put off.
#[derive(Debug, Default)]
struct Tally {
    signed: usize,
    put_off: usize,
}

impl Tally {
    /// One attempt by this process: it is signed by the secrets in force, or put off.
    async fn attempt(&mut self, world: &mut DeliverWorld, process: usize, truth: &SigningSecrets) {
        match world.tried_by(process, SHOP, world.render()).await {
            Some(request) => {
                assert!(!signature(&request).is_empty());
                let at = clock::now();
                assert_eq!(
                    signature(&request),
                    expected(&request, truth),
                    "process {process}, {at}"
                );
                self.signed += 1;
            }
            None => self.put_off += 1,
        }
    }

    /// Attempts by all processes, one after another.
    async fn round(&mut self, world: &mut DeliverWorld, truth: &SigningSecrets) {
        for process in 0..PROCESSES {
            self.attempt(world, process, truth).await;
        }
    }
}

/// A stack with warm processes, and its secrets after a rotation with so much grace.
async fn rotated(grace: u64) -> (DeliverWorld, SigningSecrets, SigningSecrets) {
    let before = first(1);
    let mut world = DeliverWorld::of(&before, PROCESSES);
    let mut warm = Tally::default();
    warm.round(&mut world, &before).await;
    assert_eq!((warm.signed, warm.put_off), (PROCESSES, 0));
    advance(Duration::from_secs(3)).await;
    let after = before.rotate(secret(SignatureType::V1, 2), seconds(grace), clock::now()).unwrap();
    world.store_secrets(&after).await;
    (world, before, after)
}

#[tokio::test(start_paused = true)]
async fn rotation_is_exact_at_every_instant() {
    for grace in [0, 1, 60, 86_400] {
        let (mut world, _, truth) = rotated(grace).await;
        let (start, mut tally) = (Instant::now(), Tally::default());
        let end = LEAD.to_std().unwrap() + Duration::from_secs(grace);
        // Both boundaries to the millisecond, and much of what is between them.
        let mut instants: Vec<Duration> = (0..140).map(|step| STEP * step).collect();
        for boundary in [LEAD.to_std().unwrap(), end] {
            instants.extend(
                (0..40).step_by(5).map(|ms| boundary + Duration::from_millis(ms) - STEP / 25),
            );
            instants.extend((0..20).map(|step| boundary + STEP * step));
        }
        instants.sort_unstable();
        for at in instants {
            advance(at.saturating_sub(start.elapsed())).await;
            tally.round(&mut world, &truth).await;
        }
        assert_eq!(tally.put_off, 0, "grace {grace} s");
        assert!(start.elapsed() > end && tally.signed > 500, "grace {grace} s: {tally:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rotation_is_exact_whatever_cannot_be_read() {
    for (grace, begin, kind) in (0..6).map(|n| ([0, 1, 60][n % 3], [0, 40][n / 3], n % 3)) {
        let (mut world, before, truth) = rotated(grace).await;
        let trouble =
            [Trouble::Ssm, Trouble::Changes, Trouble::Late(before.reveal())][kind].clone();
        let start = Instant::now();
        let (mut during, mut after) = (Tally::default(), Tally::default());
        // With 0 it begins before any process has heard of the change.
        for _ in 0..begin / 2 {
            during.round(&mut world, &truth).await;
            advance(Duration::from_secs(2)).await;
        }
        world.troubles.set(trouble.clone());
        while start.elapsed() < Duration::from_secs(180) {
            during.round(&mut world, &truth).await;
            advance(Duration::from_secs(3)).await;
        }
        world.troubles.set(Trouble::None);
        advance(Duration::from_secs(10)).await;
        after.round(&mut world, &truth).await;
        let said = format!("grace {grace} s, {trouble:?} after {begin} s: {during:?}, {after:?}");
        assert!(during.signed >= 3 * PROCESSES && after.signed == PROCESSES, "{said}");
        assert_eq!(during.put_off > 0, begin == 0 || trouble == Trouble::Changes, "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn unread_rotation_puts_attempts_off() {
    for trouble in [Trouble::Ssm, Trouble::Changes] {
        let (mut world, _, truth) = rotated(0).await;
        world.troubles.set(trouble.clone());
        let (start, mut before, mut after) = (Instant::now(), Tally::default(), Tally::default());
        while start.elapsed() < Duration::from_secs(300) {
            let began = start.elapsed() >= LEAD.to_std().unwrap();
            let tally = if began { &mut after } else { &mut before };
            tally.round(&mut world, &truth).await;
            advance(Duration::from_secs(2)).await;
        }
        assert!(before.signed >= 3 * PROCESSES, "{trouble:?}: {before:?}");
        assert_eq!(after.signed, 0, "{trouble:?}: neither with the old one nor with none");
        assert!(after.put_off >= PROCESSES, "{trouble:?}: {after:?}");
        world.troubles.set(Trouble::None);
        advance(Duration::from_secs(10)).await;
        let mut healed = Tally::default();
        healed.round(&mut world, &truth).await;
        assert_eq!(healed.signed, PROCESSES, "{trouble:?}: {healed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn process_that_slept_signs_rightly() {
    for slept in [30, 50, 61, 3600, 90_000] {
        let (mut world, _, truth) = rotated(86_400 / 2).await;
        advance(Duration::from_secs(slept)).await;
        let mut tally = Tally::default();
        tally.round(&mut world, &truth).await;
        assert_eq!(tally.signed, PROCESSES, "after {slept} s");
    }
}

/// The one that rotates dies after its write, and announces nothing more.
#[tokio::test(start_paused = true)]
async fn crashed_rotation_is_exact_too() {
    for wrote in [false, true] {
        let before = first(1);
        let mut world = DeliverWorld::of(&before, PROCESSES);
        let mut tally = Tally::default();
        tally.round(&mut world, &before).await;
        let (now, new) = (clock::now(), secret(SignatureType::V1, 2));
        let after = before.rotate(new, seconds(0), now).unwrap();
        world.begin_rotation(now + LEAD).await;
        // Some read SSM between the announcement and the write.
        advance(Duration::from_secs(20)).await;
        tally.round(&mut world, &before).await;
        if wrote {
            world.aws.set_parameter("webhook-secrets", &after.reveal());
        }
        let truth = if wrote { after } else { before };
        let mut later = Tally::default();
        for _ in 0..100 {
            advance(Duration::from_secs(2)).await;
            later.round(&mut world, &truth).await;
        }
        assert!(later.signed > 75 * PROCESSES, "{later:?}");
        let last = truth.in_force(clock::now()).count();
        assert_eq!(last, 1);
        assert!(clock::now() - now > LEAD + TimeDelta::seconds(60));
    }
}
