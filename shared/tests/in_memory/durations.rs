//! How long renders take: [`shared::duration_models`] over the in-memory table.

use std::sync::Arc;
use std::time::Duration;

use aws_in_memory::InMemoryAws;
use aws_in_memory::interceptor::Injected;
use domain::id::ProviderName;
use shared::duration_models::DurationModels;

use crate::secrets::EveryCall;

fn zvid() -> ProviderName {
    ProviderName::parse("zvid").unwrap()
}

fn duration_models(aws: &InMemoryAws) -> DurationModels {
    aws.tracker().unwrap().duration_models
}

async fn minutes(count: u32) {
    tokio::time::advance(Duration::from_secs(60) * count).await;
}

#[tokio::test(start_paused = true)]
async fn observations_of_processes_add_up() {
    let aws = InMemoryAws::new(&[]);
    let [left, right, reader] = [(); 3].map(|()| duration_models(&aws));
    for process in [&left, &right] {
        for _ in 0..10 {
            process.record(&zvid(), Duration::from_secs(10));
        }
    }
    minutes(1).await;
    left.flush().await;
    assert_eq!(reader.model(&zvid()).await, None, "ten are too few");
    right.flush().await;
    assert_eq!(reader.model(&zvid()).await, None, "read a moment ago");
    minutes(1).await;
    let duration_model = reader.model(&zvid()).await.expect("twenty are enough");
    assert!(duration_model.percentile_95() < Duration::from_secs(40));
}

#[tokio::test(start_paused = true)]
async fn writes_are_a_minute_apart() {
    let aws = InMemoryAws::new(&[]);
    let duration_models = duration_models(&aws);
    let writes = || aws.calls().iter().filter(|it| *it == "PutItem").count();
    duration_models.record(&zvid(), Duration::from_secs(10));
    duration_models.flush().await;
    assert_eq!(writes(), 0);
    minutes(1).await;
    duration_models.flush().await;
    assert_eq!(writes(), 1);
    duration_models.record(&zvid(), Duration::from_secs(10));
    duration_models.flush().await;
    minutes(3).await;
    assert_eq!(writes(), 1);
    duration_models.flush().await;
    duration_models.flush().await;
    assert_eq!(writes(), 2);
}

#[tokio::test(start_paused = true)]
async fn outage_loses_no_observation() {
    let aws = InMemoryAws::new(&[]);
    let interceptor = Arc::new(EveryCall::default());
    interceptor.set(Injected::Lost);
    let duration_models = duration_models(&aws.seen_by(interceptor.clone()));
    duration_models.record(&zvid(), Duration::from_secs(10));
    minutes(1).await;
    duration_models.flush().await;
    assert_eq!(duration_models.model(&zvid()).await, None);

    interceptor.set(Injected::Answered);
    minutes(1).await;
    duration_models.flush().await;
    let stored = aws.store().duration_statistics(&zvid()).await.unwrap();
    assert_eq!(stored.map(|stored| stored.statistics.count()), Some(1), "kept");
}
