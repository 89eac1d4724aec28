//! Waiting for one turn of the scheduler.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};

use futures_util::future::poll_fn;
use futures_util::task::{ArcWake, waker};

/// Whether the scheduler has come round, and whom that wakes.
struct Round {
    is_over: AtomicBool,
    waiting: Waker,
}

impl ArcWake for Round {
    fn wake_by_ref(round: &Arc<Self>) {
        round.is_over.store(true, Ordering::SeqCst);
        round.waiting.wake_by_ref();
    }
}

/// Waits until all tasks that are ready now have run. Unlike tokio's `yield_now` this may be
/// polled by several waiters in between: a second poll is not a second turn.
pub(super) async fn next_turn() {
    let mut round: Option<Arc<Round>> = None;
    poll_fn(|context| match &round {
        Some(round) if round.is_over.load(Ordering::SeqCst) => Poll::Ready(()),
        Some(_) => Poll::Pending,
        None => {
            let waiting = context.waker().clone();
            let begun = Arc::new(Round { is_over: AtomicBool::new(false), waiting });
            let waker = waker(Arc::clone(&begun));
            let yielded = pin!(tokio::task::yield_now());
            round = Some(begun);
            yielded.poll(&mut std::task::Context::from_waker(&waker)).map(drop)
        }
    })
    .await;
}
