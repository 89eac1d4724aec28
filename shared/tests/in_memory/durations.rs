//! How long renders take: [`shared::laws`] over the in-memory table.

use std::sync::Arc;
use std::time::Duration;

use aws_in_memory::InMemoryAws;
use aws_in_memory::interceptor::Injected;
use domain::id::ProviderName;
use shared::laws::Laws;

use crate::secrets::EveryCall;

fn zvid() -> ProviderName {
    ProviderName::parse("zvid").unwrap()
}

fn laws(aws: &InMemoryAws) -> Laws {
    aws.tracker().unwrap().laws
}

async fn minutes(count: u32) {
    tokio::time::advance(Duration::from_secs(60) * count).await;
}

#[tokio::test(start_paused = true)]
async fn observations_of_processes_add_up() {
    let aws = InMemoryAws::new(&[]);
    let [left, right, reader] = [(); 3].map(|()| laws(&aws));
    for process in [&left, &right] {
        for _ in 0..10 {
            process.saw(&zvid(), Duration::from_secs(10));
        }
    }
    minutes(1).await;
    left.write_down().await;
    assert_eq!(reader.durations(&zvid()).await, None, "ten are too few");
    right.write_down().await;
    assert_eq!(reader.durations(&zvid()).await, None, "read a moment ago");
    minutes(1).await;
    let durations = reader.durations(&zvid()).await.expect("twenty are enough");
    assert!(durations.percentile_95() < Duration::from_secs(40));
}

#[tokio::test(start_paused = true)]
async fn writes_are_a_minute_apart() {
    let aws = InMemoryAws::new(&[]);
    let laws = laws(&aws);
    let writes = || aws.calls().iter().filter(|it| *it == "PutItem").count();
    laws.saw(&zvid(), Duration::from_secs(10));
    laws.write_down().await;
    assert_eq!(writes(), 0);
    minutes(1).await;
    laws.write_down().await;
    assert_eq!(writes(), 1);
    laws.saw(&zvid(), Duration::from_secs(10));
    laws.write_down().await;
    minutes(3).await;
    assert_eq!(writes(), 1);
    laws.write_down().await;
    laws.write_down().await;
    assert_eq!(writes(), 2);
}

#[tokio::test(start_paused = true)]
async fn outage_loses_no_observation() {
    let aws = InMemoryAws::new(&[]);
    let interceptor = Arc::new(EveryCall::default());
    interceptor.set(Injected::Lost);
    let laws = laws(&aws.seen_by(interceptor.clone()));
    laws.saw(&zvid(), Duration::from_secs(10));
    minutes(1).await;
    laws.write_down().await;
    assert_eq!(laws.durations(&zvid()).await, None);

    interceptor.set(Injected::Answered);
    minutes(1).await;
    laws.write_down().await;
    let stored = aws.store().learnt(&zvid()).await.unwrap();
    assert_eq!(stored.map(|stored| stored.statistics.count()), Some(1), "kept");
}
