//! `cargo xtask figures`: rewrites the figures in docs/cost.md from what was measured last.

use std::fs;

use anyhow::{Context, Result, bail};
use clap::Args;
use measurements::{Billed, DeliveryCost, JobCost, Measurement, PackageSizes, PollCost, Saved};

use crate::artefacts::megabytes;
use crate::workspace::Workspace;

const PAGE: &str = "docs/cost.md";

/// The end of every block.
const END: &str = "<!-- end -->";

/// How to treat the page.
#[derive(Args)]
pub(crate) struct Figures {
    /// Change nothing, and fail when the page states other figures than those measured last.
    #[arg(long)]
    check: bool,
}

/// Rewrites the blocks whose figures were measured in this checkout. The others stay.
pub(crate) fn run(figures: &Figures, workspace: &Workspace) -> Result<()> {
    let path = workspace.path(PAGE);
    let mut page = fs::read_to_string(&path).context("cannot read docs/cost.md")?;
    let blocks = [
        block::<PackageSizes>()?,
        block::<JobCost>()?,
        block::<PollCost>()?,
        block::<DeliveryCost>()?,
    ];
    let mut stale = Vec::new();
    for Block { name, command, measured } in blocks {
        let Some(Measured { origin, table }) = measured else {
            println!("{name:<10} not measured here: run `{command}`");
            continue;
        };
        println!("{name:<10} {origin}");
        let fresh = with_block(&page, name, &table)?;
        if fresh != page {
            stale.push(name);
            page = fresh;
        }
    }
    match (stale.is_empty(), figures.check) {
        (true, _) => println!("{PAGE} is up to date"),
        (false, true) => bail!("{PAGE} has other figures: {}", stale.join(", ")),
        (false, false) => {
            fs::write(&path, page).context("cannot write docs/cost.md")?;
            println!("{PAGE} has new figures: {}", stale.join(", "));
        }
    }
    Ok(())
}

struct Block {
    name: &'static str,
    command: &'static str,
    measured: Option<Measured>,
}

struct Measured {
    /// When and of which commit.
    origin: String,
    table: String,
}

fn block<M: Measurement + Render>() -> Result<Block> {
    let measured = measurements::load::<M>()?.map(|Saved { date, commit, figures }| Measured {
        origin: format!("measured on {date} at {commit}"),
        table: figures.render(),
    });
    Ok(Block { name: M::NAME, command: M::COMMAND, measured })
}

/// The text with this table in the block of this name.
fn with_block(text: &str, name: &str, table: &str) -> Result<String> {
    let start = format!("<!-- figures: {name} -->");
    let parts = text.split_once(&start).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some((before, after))
    });
    let (before, after) = parts.with_context(|| format!("{PAGE} has no block `{name}`"))?;
    Ok(format!("{before}{start}\n\n{table}\n{END}{after}"))
}

/// A table in Markdown. It has no date and no commit, so that it changes only with the figures.
trait Render {
    fn render(&self) -> String;
}

impl Render for PackageSizes {
    fn render(&self) -> String {
        let mut table = table(["largest function", "zip, MB", "unzipped, MB", "built for"]);
        if let Some(largest) = self.functions.iter().max_by_key(|it| it.zip_bytes) {
            push_row(
                &mut table,
                [
                    format!("`{}`", largest.function),
                    format!("{:.2}", megabytes(largest.zip_bytes)),
                    format!("{:.1}", megabytes(largest.binary_bytes)),
                    self.architecture.clone(),
                ],
            );
        }
        table
    }
}

impl Render for JobCost {
    fn render(&self) -> String {
        let rows = [
            ("DynamoDB write units", self.write_units),
            ("DynamoDB read units", self.read_units),
            ("HTTP API requests: the submit and the callback", self.api_requests),
            ("EventBridge events", self.events),
            ("SQS requests: a ticket sent, received and deleted", self.queue_requests),
            ("Lambda requests", self.invocations),
        ];
        let prices = format!("list prices of us-east-1, {}", self.prices_of);
        let mut table = table([&prices, "a job", "$ a million jobs"]);
        let mut total = 0.0;
        for (what, Billed { count, price }) in rows {
            // The total is that of the rounded prices, so that the rows add up to it.
            let cents = (100.0 * count * price).round();
            total += cents;
            let count = format!("{count:.1}");
            let count = count.trim_end_matches(".0").to_owned();
            push_row(&mut table, [what.to_owned(), count, dollars(cents)]);
        }
        push_row(&mut table, ["together".to_owned(), String::new(), dollars(total)]);
        table
    }
}

impl Render for PollCost {
    fn render(&self) -> String {
        let Self { poll_ratio, busy_shard, large_shard } = self;
        let mut table = table(["polling", ""]);
        let mut row = |what: &str, figure| push_row(&mut table, [what.to_owned(), figure]);
        row("a poll's processor time by a bare client's", format!("{poll_ratio:.1}"));
        row(
            "polls a second of a busy shard's poller",
            thousands((busy_shard.polls_per_second / 10.0).round() * 10.0),
        );
        row(
            "its processor time by a bare client's",
            // The ratio differs from run to run.
            format!("{:.0} to {:.0}", busy_shard.ratio.floor(), busy_shard.ratio.floor() + 1.0),
        );
        row("its peak memory, MB", format!("{:.0}", megabytes(busy_shard.peak_bytes)));
        row("active jobs of a large shard", thousands(f64::from(large_shard.jobs)));
        row(
            "read units for each, until the first poll",
            format!("{:.1}", large_shard.read_units_per_job),
        );
        row("peak memory until then, MB", format!("{:.0}", megabytes(large_shard.peak_bytes)));
        table
    }
}

impl Render for DeliveryCost {
    fn render(&self) -> String {
        let mut table = table([
            "processor time of a delivery by a bare client's; connections, body",
            "checked, signed and posted",
            "whole invocation",
        ]);
        for it in &self.cases {
            push_row(
                &mut table,
                [
                    it.case.clone(),
                    format!("{:.1}", it.core_ratio),
                    format!("{:.1}", it.handler_ratio),
                ],
            );
        }
        table
    }
}

/// The head of a table whose first column is text and whose others are numbers.
fn table<const N: usize>(head: [&str; N]) -> String {
    let mut table = String::new();
    push_row(&mut table, head.map(str::to_owned));
    table.push_str("|---|");
    table.push_str(&"---:|".repeat(N - 1));
    table.push('\n');
    table
}

fn push_row<const N: usize>(table: &mut String, cells: [String; N]) {
    for cell in cells {
        let space = if cell.is_empty() { "" } else { " " };
        table.push_str(&format!("|{space}{cell} "));
    }
    table.push_str("|\n");
}

fn dollars(cents: f64) -> String {
    format!("{:.2}", cents / 100.0)
}

/// A whole number below a million, with a comma.
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    match digits.len().checked_sub(3).map(|at| digits.split_at(at)) {
        Some((head, tail)) if !head.is_empty() => format!("{head},{tail}"),
        _ => digits,
    }
}

#[cfg(test)]
mod tests {
    use measurements::{BusyShard, LargeShard};
    use serde_json::json;

    use super::*;

    #[test]
    fn block_shows_saved_figures() {
        let saved: Saved<JobCost> = serde_json::from_value(json!({
            "date": "2026-11-21",
            "commit": "92577a8",
            "figures": {
                "prices_of": "2026-11-21",
                "write_units": {"count": 11.0, "price": 0.625},
                "read_units": {"count": 2.0, "price": 0.125},
                "api_requests": {"count": 2.0, "price": 1.0},
                "events": {"count": 1.0, "price": 1.0},
                "queue_requests": {"count": 3.0, "price": 0.4},
                "invocations": {"count": 3.5, "price": 0.2},
            },
        }))
        .unwrap();
        let text = "before\n<!-- figures: capacity -->\nold\n<!-- end -->\nafter";

        let fresh = with_block(text, JobCost::NAME, &saved.figures.render()).unwrap();

        let expected = "before\n\
            <!-- figures: capacity -->\n\n\
            | list prices of us-east-1, 2026-11-21 | a job | $ a million jobs |\n\
            |---|---:|---:|\n\
            | DynamoDB write units | 11 | 6.88 |\n\
            | DynamoDB read units | 2 | 0.25 |\n\
            | HTTP API requests: the submit and the callback | 2 | 2.00 |\n\
            | EventBridge events | 1 | 1.00 |\n\
            | SQS requests: a ticket sent, received and deleted | 3 | 1.20 |\n\
            | Lambda requests | 3.5 | 0.70 |\n\
            | together | | 12.03 |\n\n\
            <!-- end -->\n\
            after";
        assert_eq!(fresh, expected);
        assert_eq!(with_block(&fresh, JobCost::NAME, &saved.figures.render()).unwrap(), fresh);
        assert!(with_block(text, "other", "").is_err());
    }

    #[test]
    fn polling_figures_are_rounded() {
        let cost = PollCost {
            poll_ratio: 1.449,
            busy_shard: BusyShard { polls_per_second: 998.7, ratio: 3.6, peak_bytes: 43_400_000 },
            large_shard: LargeShard {
                jobs: 100_000,
                read_units_per_job: 0.512,
                peak_bytes: 96_500_001,
            },
        };
        let table = cost.render();
        let figures: Vec<&str> =
            table.lines().skip(2).filter_map(|row| row.split(" | ").nth(1)).collect();
        assert_eq!(figures, ["1.4 |", "1,000 |", "3 to 4 |", "43 |", "100,000 |", "0.5 |", "97 |"]);
    }

    #[test]
    fn page_has_every_block() {
        let page = include_str!("../../docs/cost.md");
        let markers: Vec<&str> = page.lines().filter(|line| line.starts_with("<!--")).collect();
        let names = [PackageSizes::NAME, JobCost::NAME, PollCost::NAME, DeliveryCost::NAME];
        let expected: Vec<String> = names
            .iter()
            .flat_map(|name| [format!("<!-- figures: {name} -->"), END.to_owned()])
            .collect();
        assert_eq!(markers, expected);
    }
}
