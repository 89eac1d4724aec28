//! Tells the URLs of a render how it is doing, as stubbornly as the vendor
//! would, only faster.
//!
//! Every copy of a callback is its own task, so duplicates really race. A copy
//! is tried again until the vendor would be content with the answer; redirects
//! are answers, and never followed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::provider::{Departure, Destination, Occasion, Provider, Trip};
use crate::render::{CallbackAttempt, RenderId, RenderKey};
use crate::simulation::Simulation;

/// Attempts after the first. The vendors' schedules go on for up to an hour;
/// their first steps show everything there is to see.
const MAX_RETRIES: usize = 3;

/// Sends the callbacks of a render on their way, as many as it has URLs.
pub(crate) fn schedule(
    simulation: &Arc<Simulation>,
    provider: &'static dyn Provider,
    id: &RenderId,
    departures: &[Departure],
) {
    let now = Instant::now();
    let key = (provider.name(), id.clone());
    let destinations = match simulation.world().renders.get(&key) {
        Some(render) => render.destinations.clone(),
        None => return,
    };
    for destination in destinations {
        for departure in departures {
            let copy = CallbackCopy {
                simulation: Arc::clone(simulation),
                provider,
                key: key.clone(),
                destination: destination.clone(),
                occasion: departure.occasion,
            };
            let leaves_at = now + departure.after;
            tokio::spawn(async move {
                sleep_until(leaves_at).await;
                copy.deliver().await;
            });
        }
    }
}

struct CallbackCopy {
    simulation: Arc<Simulation>,
    provider: &'static dyn Provider,
    key: RenderKey,
    destination: Destination,
    occasion: Occasion,
}

impl CallbackCopy {
    async fn deliver(self) {
        let Some(random) = self.simulation.around.random() else { return };
        let delivery_id = RenderId::uuid(random);
        let Some(first_wait_ms) = self.first_wait_ms() else { return };
        let courier = self.provider.courier();
        let waits = scaled(courier.waits, first_wait_ms);
        let waits = std::iter::once(Duration::ZERO).chain(waits.take(MAX_RETRIES));
        for (retries, wait) in waits.enumerate() {
            sleep(wait).await;
            let trip = Trip {
                occasion: self.occasion,
                secret: self.destination.secret.as_ref(),
                delivery_id: delivery_id.clone(),
                attempt: retries + 1,
                at: self.simulation.around.now(),
            };
            match self.attempt(&trip, courier.answer_within).await {
                Some(status) if courier.is_done_after(status) => return,
                _ => {}
            }
        }
    }

    /// `None` when there is nothing to tell any more: the render has been
    /// forgotten, or was cancelled while this waited to tell something else.
    fn first_wait_ms(&self) -> Option<u32> {
        let world = self.simulation.world();
        let render = world.renders.get(&self.key)?;
        let is_news = render.cancelled_at.is_some() == (self.occasion == Occasion::Cancelled);
        is_news.then_some(render.scenario.callback_retry_ms)
    }

    /// Sends once, records it, and says what came back.
    async fn attempt(&self, trip: &Trip<'_>, answer_within: Duration) -> Option<StatusCode> {
        let callback = {
            let world = self.simulation.world();
            self.provider.callback(world.renders.get(&self.key)?, trip)
        };
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(&self.destination.url)
            .header(header::CONTENT_TYPE, callback.content_type);
        for (name, value) in callback.headers {
            request = request.header(name, value);
        }
        let answer = match request.body(Bytes::from(callback.body.clone())) {
            Err(error) => Err(error.to_string()),
            Ok(request) => timeout(answer_within, self.simulation.around.post(request))
                .await
                .unwrap_or_else(|_| Err("timeout".to_owned())),
        };
        let attempt = CallbackAttempt {
            at: trip.at.timestamp_millis(),
            url: self.destination.url.clone(),
            status: answer.as_ref().ok().map(StatusCode::as_u16),
            error: answer.as_ref().err().cloned(),
            body: callback.body,
        };
        if let Some(render) = self.simulation.world().renders.get_mut(&self.key) {
            render.callbacks.push(attempt);
        }
        answer.ok()
    }
}

/// The vendor's waits, shrunk so that the first becomes `first_ms`.
fn scaled(seconds: &'static [u32], first_ms: u32) -> impl Iterator<Item = Duration> {
    let first = seconds.first().copied().unwrap_or(1).max(1);
    seconds.iter().map(move |wait| {
        let ms = u64::from(*wait) * u64::from(first_ms) / u64::from(first);
        Duration::from_millis(ms)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider;

    #[test]
    fn the_vendors_rhythm_is_kept() {
        let rhythm = |name| -> Vec<u128> {
            let waits = provider::named(name).unwrap().courier().waits;
            scaled(waits, 500).take(MAX_RETRIES).map(|wait| wait.as_millis()).collect()
        };
        assert_eq!(rhythm("zvid"), [500, 1_000, 2_000]);
        assert_eq!(rhythm("shotstack"), [500, 1_687, 4_000]);
    }
}
