//! A process that stands still between its lease and its post.

use std::future::ready;
use std::sync::Arc;

use aws_in_memory::clock;
use aws_in_memory::interceptor::{Call, CallInterceptor, Injected, Interception};
use chrono::TimeDelta;
use domain::delivery::Delivery;
use domain::event::TestEvent;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use shared::store::Wait;

use super::gone::{RECEIVER, batch_of, gone_receiver};
use super::*;

/// Time passes after a lease is stored.
#[derive(Debug)]
struct StandsStill(TimeDelta);

impl CallInterceptor for StandsStill {
    fn intercept<'a>(&'a self, call: &'a Call<'a>) -> BoxFuture<'a, Interception> {
        if call.body.pointer("/Item/lease").is_some() {
            clock::set(clock::now() + self.0);
        }
        ready(Injected::Answered.into()).boxed()
    }
}

/// A lease is 30 s, and an attempt may take 15.
#[tokio::test(start_paused = true)]
async fn attempt_late_in_its_lease_is_not_made() {
    for (stood_still, attempts) in [(14, 1), (16, 0), (31, 0)] {
        let (aws, deliverer) =
            gone_receiver(Arc::new(StandsStill(TimeDelta::seconds(stood_still))));
        let test = TestEvent::new([7; 16], clock::now());
        let delivery = Delivery::of_test(&test, RECEIVER, clock::now()).unwrap();
        aws.store().insert_delivery(&delivery, Wait::InQueue).await.unwrap();

        let response =
            handle(&deliverer, batch_of(&Ticket::next(&delivery)), clock::now).await.unwrap();

        let after = aws.store().delivery(None, &delivery.event_id).await.unwrap().unwrap();
        assert_eq!(after.attempts.len(), attempts, "{stood_still}");
        assert_eq!(back(response).len(), 1 - attempts, "its ticket comes back");
    }
}
