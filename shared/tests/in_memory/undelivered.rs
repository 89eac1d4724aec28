//! Listing deliveries, page by page.

use aws_in_memory::InMemoryAws;
use aws_in_memory::builders::delivery;
use aws_in_memory::clock::now;
use chrono::TimeDelta;
use domain::delivery::{Delivery, DeliveryState, GiveUpReason, GivenUp};
use domain::id::JobId;
use shared::store::{ListOrder, Store, StoreError, TimeSpan, Wait};

const SHARDS: u32 = 3;

/// A delivery that was created so many minutes ago and given up. Neither its job's id nor
/// its event's grows with time.
fn given_up(minutes: u8) -> Delivery {
    let given_up = GivenUp { at: now(), reason: GiveUpReason::AttemptsExhausted };
    delivery()
        .job_id(JobId::from_bytes([minutes.wrapping_mul(101); 16]))
        .shard(u32::from(minutes) % SHARDS)
        .state(DeliveryState::GivenUp(given_up))
        .created_at(now() - TimeDelta::minutes(minutes.into()))
        .build()
}

fn last(minutes: i64) -> TimeSpan {
    TimeSpan { since: now() - TimeDelta::minutes(minutes), until: now() }
}

async fn all(store: &Store, span: TimeSpan, order: ListOrder, limit: u8) -> Vec<Delivery> {
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let page = store.undelivered(SHARDS, span, order, cursor.as_deref(), limit).await.unwrap();
        assert!(page.items.len() <= limit.into());
        found.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            return found;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn pages_show_each_delivery_once() {
    let store = InMemoryAws::new(&[]).store();
    let mut stored: Vec<Delivery> = (0..20).map(given_up).collect();
    for delivery in &stored {
        store.insert_delivery(delivery, Wait::InQueue).await.unwrap();
    }
    for limit in [1, 2, 3, 7, 100] {
        for order in [ListOrder::OldestFirst, ListOrder::NewestFirst] {
            let mut found = all(&store, last(60), order, limit).await;
            found.sort_by_key(|delivery| std::cmp::Reverse(delivery.created_at));
            assert_eq!(found, stored, "{limit} a page");
        }
    }
    stored.truncate(6);
    let mut found = all(&store, last(5), ListOrder::OldestFirst, 2).await;
    found.sort_by_key(|delivery| std::cmp::Reverse(delivery.created_at));
    assert_eq!(found, stored, "both ends of a span are in it");
}

#[tokio::test(start_paused = true)]
async fn redelivery_leaves_the_index() {
    let aws = InMemoryAws::new(&[]);
    let store = aws.store();
    let delivery = given_up(1);
    store.insert_delivery(&delivery, Wait::InQueue).await.unwrap();
    let announced = delivery.announced();
    store.commit_delivery(&announced, Wait::InQueue).await.unwrap();
    let found = all(&store, last(9), ListOrder::OldestFirst, 9).await;
    assert_eq!(found, std::slice::from_ref(&announced));

    let before = aws.table().consumed().write_units;
    let again = announced.recover(now()).unwrap();
    store.commit_delivery(&again, Wait::InQueue).await.unwrap();
    assert_eq!(all(&store, last(9), ListOrder::OldestFirst, 9).await, []);
    assert_eq!(aws.table().consumed().write_units - before, 2.0, "the item and its entry");
    let pending = store.deliveries_in_state("pending", last(9), None, 9).await.unwrap();
    assert_eq!((pending.items, pending.next), (vec![again], None));
}

#[tokio::test(start_paused = true)]
async fn foreign_cursor_is_refused() {
    let store = InMemoryAws::new(&[]).store();
    for minutes in 0..2 {
        let delivered = Delivery { state: DeliveryState::Delivered, ..given_up(minutes) };
        store.insert_delivery(&delivered, Wait::InQueue).await.unwrap();
    }
    let other = store.deliveries_in_state("delivered", last(9), None, 1).await.unwrap().next;
    for cursor in ["%%", other.unwrap().as_str()] {
        let page = store.undelivered(1, last(9), ListOrder::OldestFirst, Some(cursor), 9).await;
        assert!(matches!(page, Err(StoreError::Corrupt { kind: "page", .. })), "{cursor}");
    }
}
