//! `relay dlq`: the tickets in the dead-letter queue, and sending them back.
//!
//! It uses SQS with the operator's credentials, and not the stack's API: scopes could keep most
//! API keys out, but this must work when the API does not.

mod queues;

use anyhow::{Context, Result};
use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, Subcommand};
use domain::endpoint::Lane;
use domain::id::{EventId, JobId};
use shared::queue::Ticket;

use self::queues::{DeadLetter, DeadLetters, Queues};
use crate::show::aligned;

#[derive(Subcommand)]
pub(crate) enum Dlq {
    /// List deliveries whose tickets could not be processed.
    List(Filter),
    /// Send their tickets back to the delivery queue.
    Redrive(Filter),
}

#[derive(Args)]
pub(crate) struct Filter {
    /// The stack's name. Region and credentials come from the environment, as
    /// `aws configure export-credentials --format env` writes them.
    #[arg(long)]
    stack: String,
    /// Only those about this job.
    #[arg(long, value_parser = JobId::parse)]
    job: Option<JobId>,
    /// Only those about this event.
    #[arg(long, value_parser = EventId::parse)]
    event: Option<EventId>,
}

impl Filter {
    fn is_all(&self) -> bool {
        self.job.is_none() && self.event.is_none()
    }

    fn matches(&self, ticket: &Ticket) -> bool {
        self.job.as_ref().is_none_or(|job| ticket.job_id.as_ref() == Some(job))
            && self.event.as_ref().is_none_or(|event| ticket.event_id == *event)
    }
}

/// Runs the command; `print` prints a line.
pub(crate) fn run(dlq: &Dlq, print: impl Fn(String)) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    runtime.block_on(async {
        match dlq {
            Dlq::List(filter) => list(&Queues::of_stack(&filter.stack).await?, filter, print).await,
            Dlq::Redrive(filter) => {
                redrive(&Queues::of_stack(&filter.stack).await?, filter, print).await
            }
        }
    })
}

async fn list(queues: &Queues, filter: &Filter, print: impl Fn(String)) -> Result<()> {
    let mut letters = DeadLetters::default();
    let mut rows = vec![["job", "event", "attempt", "age", "message"].map(str::to_owned)];
    let found = async {
        while let Some(batch) = letters.more(queues).await? {
            let now = Utc::now();
            rows.extend(batch.iter().filter_map(|letter| row(letter, filter, now)));
            letters.leave(batch);
        }
        anyhow::Ok(())
    };
    let found = found.await;
    letters.release(queues).await;
    found?;
    print(counted(rows.len() - 1, "in the dead-letter queue"));
    if rows.len() > 1 {
        print(aligned(&rows));
    }
    Ok(())
}

/// Sends each message back once, even if it returns to the dead-letter queue meanwhile.
async fn redrive(queues: &Queues, filter: &Filter, print: impl Fn(String)) -> Result<()> {
    let mut letters = DeadLetters::default();
    let (mut sent, mut unreadable) = (0, 0);
    let outcome = async {
        while let Some(batch) = letters.more(queues).await? {
            for letter in batch {
                match serde_json::from_str::<Ticket>(&letter.body) {
                    Ok(ticket) if filter.matches(&ticket) => {
                        // `deliver` moves the ticket of a slow endpoint to its lane.
                        let ticket = ticket.in_lane(Lane::Quick);
                        queues.redrive(&letter, &serde_json::to_string(&ticket)?).await?;
                        sent += 1;
                        print(about(&ticket));
                    }
                    Ok(_) => letters.leave(vec![letter]),
                    Err(_) => {
                        unreadable += 1;
                        letters.leave(vec![letter]);
                    }
                }
            }
        }
        anyhow::Ok(())
    };
    let outcome = outcome.await;
    letters.release(queues).await;
    print(counted(sent, "sent back"));
    if unreadable > 0 && filter.is_all() {
        print(counted(unreadable, "left: they are no tickets"));
    }
    outcome
}

/// None for a message that the filter excludes.
fn row(letter: &DeadLetter, filter: &Filter, now: DateTime<Utc>) -> Option<[String; 5]> {
    let ticket = serde_json::from_str::<Ticket>(&letter.body);
    let [job, event, attempt] = match ticket {
        Ok(ticket) if filter.matches(&ticket) => columns(&ticket),
        // The text is of unknown origin and is not printed to a terminal.
        Err(_) if filter.is_all() => ["no ticket", "-", "-"].map(str::to_owned),
        Ok(_) | Err(_) => return None,
    };
    Some([job, event, attempt, age(now - letter.sent_at), letter.id.clone()])
}

fn columns(ticket: &Ticket) -> [String; 3] {
    let job = ticket.job_id.as_ref().map_or("a test", JobId::as_str);
    let attempt = ticket.attempt.saturating_add(1);
    [job.to_owned(), ticket.event_id.to_string(), attempt.to_string()]
}

fn about(ticket: &Ticket) -> String {
    let [job, event, attempt] = columns(ticket);
    format!("{job}  {event}  attempt {attempt}")
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 message {what}") } else { format!("{count} messages {what}") }
}

/// The age in its largest unit.
fn age(age: TimeDelta) -> String {
    match (age.num_days(), age.num_hours(), age.num_minutes()) {
        (days @ 1.., _, _) => format!("{days} d"),
        (_, hours @ 1.., _) => format!("{hours} h"),
        (_, _, minutes @ 1..) => format!("{minutes} min"),
        _ => format!("{} s", age.num_seconds().max(0)),
    }
}

#[cfg(test)]
mod tests;
