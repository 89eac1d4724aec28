//! Changes of secrets, and many processes that follow them under SSM's quota.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_in_memory::interceptor::NoFaults;
use aws_in_memory::quotas::{Quotas, Throttle};
use aws_in_memory::{InMemoryAws, clock};
use futures_util::future::join_all;
use shared::secrets::{SecretChange, SecretName, Secrets};
use tokio::time::{Instant, sleep};

use crate::secrets::{key, read};

const SECOND: Duration = Duration::from_secs(1);

/// A stack with so many warm processes, under an account's quotas. None of them is about to renew
/// what it has.
async fn fleet(processes: usize) -> (InMemoryAws, Vec<Secrets>) {
    let aws = InMemoryAws::new(&[("webhook-secrets", "old"), ("providers/zvid/api-key", "old")]);
    let process = |_| aws.seen_by(Arc::new(NoFaults)).secrets();
    let fleet: Vec<Secrets> = (0..processes).map(process).collect();
    for secrets in &fleet {
        assert_eq!(read(secrets, &key("zvid")).await.unwrap(), "old");
    }
    sleep(30 * SECOND).await;
    aws.set_quotas(Quotas::default());
    (aws, fleet)
}

/// Stores a secret and announces it, as `relay` and the API do.
async fn store(aws: &InMemoryAws, name: &SecretName, text: &str) {
    let version = i64::try_from(aws.set_parameter(&name.path(), text)).unwrap();
    let id = aws.entropy().bytes().map(u64::from_be_bytes).unwrap();
    let change = SecretChange::made(id, clock::now()).with_version(version);
    aws.store().announce_secret_change(name, &change).await.unwrap();
}

fn calls(aws: &InMemoryAws, operation: &str) -> usize {
    aws.calls().iter().filter(|call| *call == operation).count()
}

/// When each process first uses the new key, and the most reads of SSM in any second. Each uses
/// it every `pause`, at an instant of its own.
async fn followed(aws: &InMemoryAws, fleet: &[Secrets], pause: Duration) -> (Duration, usize) {
    let start = Instant::now();
    let (reads, last) = (Mutex::new(Vec::new()), Mutex::new(Duration::ZERO));
    let process = async |number: usize, secrets: &Secrets| {
        let share = u32::try_from(number).unwrap();
        sleep(pause.mul_f64(f64::from(share) * 0.618_034 % 1.0)).await;
        loop {
            let text = read(secrets, &key("zvid")).await.unwrap();
            assert!(start.elapsed() < Duration::from_secs(60) || text == "new");
            if text == "new" {
                let mut last = last.lock().unwrap();
                *last = start.elapsed().max(*last);
                return;
            }
            sleep(pause).await;
        }
    };
    let watch = async {
        loop {
            reads.lock().unwrap().push(calls(aws, "GetParameters"));
            sleep(Duration::from_millis(100)).await;
        }
    };
    let all = join_all(fleet.iter().enumerate().map(|(number, secrets)| process(number, secrets)));
    tokio::select! { _ = all => {}, () = watch => {} }
    let reads = reads.into_inner().unwrap();
    let busiest = reads.iter().zip(reads.iter().skip(10)).map(|(before, after)| after - before);
    (last.into_inner().unwrap(), busiest.max().unwrap_or_default())
}

#[tokio::test(start_paused = true)]
async fn change_reaches_processes_within_half_the_quota() {
    println!(
        "| processes | until all have it | SSM reads | most in a second | table reads | writes |"
    );
    for (number, within) in [(1, 6.0), (20, 6.0), (200, 10.1), (1000, 60.0)] {
        let (aws, fleet) = fleet(number).await;
        let before =
            ["GetParameters", "GetItem", "UpdateItem"].map(|operation| calls(&aws, operation));
        store(&aws, &key("zvid"), "new").await;
        // Of a thousand each is used less often, which only saves the test's time.
        let pause = Duration::from_millis(if number == 1000 { 400 } else { 40 });
        let (took, busiest) = followed(&aws, &fleet, pause).await;
        let after =
            ["GetParameters", "GetItem", "UpdateItem"].map(|operation| calls(&aws, operation));
        let [reads, table_reads, writes] = [0, 1, 2].map(|n| after[n] - before[n]);
        println!("| {number} | {took:.1?} | {reads} | {busiest} | {table_reads} | {writes} |");
        assert!(took.as_secs_f64() <= within, "{number}: {took:?}");
        assert_eq!(reads, number, "one each");
        // A turn is used when the process is used next.
        let most = if number == 1000 { 30 } else { 21 };
        assert!(busiest <= most, "{number}: {busiest} in a second");
        let throttled = aws.throttles().get(&Throttle::ParameterRead).copied();
        assert_eq!(throttled, None, "{number}");
        // One turn each, two tries for the first one, and the announcement.
        assert!(writes <= number + 12, "{number}: {writes}");
    }
}

/// They have taken their turns, and are frozen when these come.
#[tokio::test(start_paused = true)]
async fn processes_that_slept_take_new_turns() {
    let (aws, fleet) = fleet(200).await;
    store(&aws, &key("zvid"), "new").await;
    sleep(6 * SECOND).await;
    for secrets in &fleet {
        drop(read(secrets, &key("zvid")).await);
    }
    sleep(40 * SECOND).await;
    let (took, busiest) = followed(&aws, &fleet, Duration::from_millis(100)).await;
    assert!(took <= 15 * SECOND && busiest <= 21, "{took:?}, {busiest} in a second");
}

#[tokio::test(start_paused = true)]
async fn unannounced_process_asks_ssm_nothing() {
    let (aws, fleet) = fleet(20).await;
    store(&aws, &SecretName::WebhookSecrets, "new").await;
    let before = (calls(&aws, "GetParameters"), calls(&aws, "UpdateItem"));
    for _ in 0..60 {
        for secrets in &fleet {
            assert_eq!(read(secrets, &key("zvid")).await.unwrap(), "old");
        }
        sleep(SECOND).await;
    }
    assert_eq!((calls(&aws, "GetParameters"), calls(&aws, "UpdateItem")), before);
}

/// Ten a second, spread over fifty processes of which each handles one now and then.
#[tokio::test(start_paused = true)]
async fn forged_signatures_cost_next_to_nothing() {
    let (aws, fleet) = fleet(50).await;
    let before = ["GetParameters", "UpdateItem", "GetItem"].map(|it| calls(&aws, it));
    for forged in 0..600 {
        let looked = fleet[forged * 7 % fleet.len()].look_again(&key("zvid"), []).await;
        assert!(!looked, "nothing has changed");
        sleep(Duration::from_millis(100)).await;
    }
    let after = ["GetParameters", "UpdateItem", "GetItem"].map(|it| calls(&aws, it));
    let [reads, writes, table_reads] = [0, 1, 2].map(|n| after[n] - before[n]);
    println!(
        "600 forged in a minute: {reads} reads of SSM, {writes} writes, {table_reads} reads of the table"
    );
    assert!((5..=7).contains(&reads), "{reads}");
    assert!(writes <= 2 * reads + 2, "{writes}: the others know of the look");
    assert!(table_reads <= 350, "{table_reads}");
    let changes = aws.store().secret_changes(shared::store::Consistency::Strong).await.unwrap();
    assert_eq!(changes.revision, 0, "what has not changed is not announced");
}

#[tokio::test(start_paused = true)]
async fn change_by_hand_is_found_and_followed() {
    let (aws, fleet) = fleet(200).await;
    aws.set_parameter("providers/zvid/api-key", "new");
    // The first look is too early after one about nothing; the next one finds it.
    assert!(fleet[0].look_again(&key("zvid"), []).await);
    assert_eq!(read(&fleet[0], &key("zvid")).await.unwrap(), "new", "in the same request");
    assert!(!fleet[1].look_again(&key("zvid"), []).await, "one of the stack in ten seconds");
    let (took, busiest) = followed(&aws, &fleet[1..], Duration::from_millis(100)).await;
    assert!(took <= 11 * SECOND && busiest <= 21, "{took:?}, {busiest} in a second");
    let changes = aws.store().secret_changes(shared::store::Consistency::Strong).await.unwrap();
    assert_eq!(changes.revision, 1);
}

/// A stranger's forged callbacks for one provider hide no change of another's secret.
#[tokio::test(start_paused = true)]
async fn look_takes_other_secrets_along() {
    let aws = InMemoryAws::new(&[("providers/zvid/api-key", "z"), ("providers/acme/api-key", "a")]);
    let [looks, other] = [aws.secrets(), aws.secrets()];
    for secrets in [&looks, &other] {
        for name in ["zvid", "acme"] {
            read(secrets, &key(name)).await.unwrap();
        }
    }
    aws.set_parameter("providers/acme/api-key", "changed");
    assert!(!looks.look_again(&key("zvid"), [key("zvid"), key("acme")]).await);
    sleep(6 * SECOND).await;
    read(&other, &key("acme")).await.unwrap();
    sleep(SECOND).await;
    assert_eq!(read(&other, &key("acme")).await.unwrap(), "changed");
}
