//! Many orders at once, and what became of each.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use domain::delivery::{Delivery, DeliveryState};
use domain::id::JobId;
use domain::job::Job;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::queue::Ticket;
use tokio::time::{Instant, sleep};

use super::World;
use crate::bus::BusEvent;
use crate::closed_port::ClosedPort;
use crate::order::{Order, Provider};
use crate::simulator::{Render, Webhook};

/// Between two looks at those that are not over.
const PAUSE: Duration = Duration::from_millis(500);

/// How long nothing at all may be finished before something must be wrong. Longer than a
/// breaker that opened by chance holds a delivery.
const PATIENCE: Duration = Duration::from_secs(600);

/// How many jobs are looked at together.
const AT_A_LOOK: usize = 100;

/// How many of their deliveries at once.
const LOOKS: usize = 8;

/// A receiver that many orders share.
#[derive(Clone, Debug)]
pub struct Receiver {
    /// Where it listens.
    pub url: String,
    name: String,
}

/// A job that is settled, and its deliveries.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The job.
    pub job: Job,
    /// Its deliveries.
    pub deliveries: Vec<Delivery>,
}

impl Outcome {
    /// Whether every delivery was made or given up.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.deliveries.iter().all(|delivery| match delivery.state {
            DeliveryState::Delivered | DeliveryState::Exhausted(_) => true,
            DeliveryState::Pending { .. } | DeliveryState::GivenUp(_) => false,
        })
    }
}

impl World {
    /// A receiver that answers so, webhook by webhook, and afterwards 200.
    ///
    /// # Errors
    /// When an answer is none.
    pub async fn receiver(&self, name: &str, answers: &[Value]) -> Result<Receiver> {
        let name = format!("{}-{name}", self.mark);
        let behaviour = json!({"secret": self.webhook_secret, "answers": answers});
        let path = format!("/receivers/{name}");
        self.http.put(&self.control(&path), &behaviour).await?.expect(204)?;
        Ok(Receiver { url: format!("{}/receiver/{name}", self.stack.simulator_url), name })
    }

    /// A receiver that refuses connections until its port is opened; then it answers 200.
    ///
    /// # Errors
    /// When the system has no port left.
    pub async fn dead_receiver(&self, name: &str) -> Result<(Receiver, ClosedPort)> {
        let Receiver { name, url } = self.receiver(name, &[]).await?;
        let simulator = self.stack.simulator_url.strip_prefix("http://");
        let simulator = simulator.context("the simulator speaks http")?;
        let port = ClosedPort::reserve(simulator)?;
        let url = url.replacen(simulator, &port.address()?.to_string(), 1);
        Ok((Receiver { url, name }, port))
    }

    /// What a receiver got, oldest first.
    ///
    /// # Errors
    /// When the simulator does not answer.
    pub async fn received(&self, receiver: &Receiver) -> Result<Vec<Webhook>> {
        #[derive(Deserialize)]
        struct Received {
            received: Vec<Webhook>,
        }
        let path = format!("/receivers/{}", receiver.name);
        Ok(self.look::<Received>(&path).await?.received)
    }

    /// An order that nobody has placed yet, whose webhooks go to this receiver.
    ///
    /// # Errors
    /// When its mark is no idempotency key.
    pub fn order_to(&self, provider: Provider, receiver: &Receiver) -> Result<Order> {
        Order::new(provider, self.next_mark(), &receiver.url)
    }

    /// Stores a delivery of each order, so many at once, and then sends the tickets.
    ///
    /// # Errors
    /// When table or queue do not answer.
    pub async fn deliver_all(&self, orders: &[Order], at_once: usize) -> Result<()> {
        let left = stream::iter(orders).map(|order| self.leave_undelivered(order));
        let tickets: Vec<Ticket> = left.buffered(at_once).try_collect().await?;
        self.send_tickets(&tickets).await
    }

    /// Waits until nothing is left to do for any of the orders' jobs. Gives up when none of
    /// them gets there for ten minutes. Tells how many are over whenever more are.
    ///
    /// # Errors
    /// When it gives up; the error says where those stand that are left.
    pub async fn all_over(
        &self,
        orders: &[Order],
        on_progress: impl Fn(usize),
    ) -> Result<HashMap<JobId, Outcome>> {
        let mut left: Vec<JobId> = orders.iter().map(|order| order.job_id().clone()).collect();
        let mut over = HashMap::new();
        let mut deadline = Instant::now() + PATIENCE;
        loop {
            let before = over.len();
            // Looking is not free: those that are not over keep the others' places.
            let first = left.get(..AT_A_LOOK).unwrap_or(&left);
            for outcome in self.settled_of(first).await?.into_iter().filter(Outcome::is_over) {
                over.insert(outcome.job.id.clone(), outcome);
            }
            left.retain(|id| !over.contains_key(id));
            on_progress(over.len());
            if left.is_empty() {
                return Ok(over);
            }
            if over.len() - before == AT_A_LOOK {
                continue;
            }
            if over.len() > before {
                deadline = Instant::now() + PATIENCE;
            } else if Instant::now() > deadline {
                let standing = self.standing(&left).await?;
                bail!("{} of {} jobs are not over:\n{standing}", left.len(), orders.len());
            }
            sleep(PAUSE).await;
        }
    }

    /// Those of the jobs that are settled, with their deliveries wherever they stand.
    ///
    /// # Errors
    /// When the table does not answer.
    pub async fn settled_of(&self, ids: &[JobId]) -> Result<Vec<Outcome>> {
        let store = self.store();
        let settled = store.jobs(ids).await?.into_iter().filter(|job| job.settled_at.is_some());
        let looks = stream::iter(settled).map(async |job| {
            let deliveries = store.deliveries(&job.id).await?;
            anyhow::Ok(Outcome { job, deliveries })
        });
        looks.buffer_unordered(LOOKS).try_collect().await
    }

    /// Those of the orders' jobs that are still among the active ones.
    ///
    /// # Errors
    /// When the table does not answer.
    pub async fn active_of(&self, orders: &[Order]) -> Result<Vec<String>> {
        let mut active = self.table.active().await?;
        let ours: BTreeSet<&str> = orders.iter().map(|order| order.job_id().as_str()).collect();
        active.retain(|id| ours.contains(id.as_str()));
        Ok(active)
    }

    /// How often each of this world's orders was rendered, by its mark.
    ///
    /// # Errors
    /// When the simulator does not answer.
    pub async fn renders_by_mark(&self) -> Result<HashMap<String, usize>> {
        let renders: Vec<Render> = self.look(&format!("/renders?tag={}", self.mark)).await?;
        let mut count = HashMap::new();
        for render in renders {
            let body = render.body.to_string();
            let place = body.find(&self.mark).context("a render of nobody's")?;
            // All marks are as long as the next one.
            let mark = body.get(place..place + self.next_mark().len()).unwrap_or_default();
            *count.entry(mark.to_owned()).or_default() += 1;
        }
        Ok(count)
    }

    /// All events that a subscriber of the bus got so far of this world's renders, and those
    /// of everybody's deliveries.
    ///
    /// # Errors
    /// When the subscription does not answer.
    pub async fn all_events(&self) -> Result<Vec<BusEvent>> {
        self.subscription.events().await
    }

    /// Where jobs stand, the first few of them.
    async fn standing(&self, ids: &[JobId]) -> Result<String> {
        let store = self.store();
        let mut lines = Vec::new();
        for id in ids.iter().take(10) {
            let (job, deliveries) = (store.job(id).await?, store.deliveries(id).await?);
            let Some(job) = job else {
                lines.push(format!("{id} is not there"));
                continue;
            };
            let states = deliveries.iter().map(|it| (it.state, it.attempts.len()));
            lines.push(format!(
                "{id} of {} ({}) is {}, settled {:?}, deliveries {:?}",
                job.request.provider,
                job.request.source_record_id,
                job.state.name(),
                job.settled_at,
                states.collect::<Vec<_>>()
            ));
        }
        Ok(lines.join("\n"))
    }
}
