//! The output: tables with aligned columns, and a line for each target.

use std::fmt;

use anyhow::{Result, bail};

/// A table. The first column is text, the others are numbers.
pub(crate) struct TextTable {
    rows: Vec<Vec<String>>,
}

impl TextTable {
    pub(crate) fn new<const N: usize>(head: [&str; N]) -> Self {
        Self { rows: vec![head.map(str::to_owned).to_vec()] }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }
}

impl fmt::Display for TextTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).enumerate();
            let cells: Vec<String> = cells
                .map(|(column, (cell, &width))| match column {
                    0 => format!("{cell:<width$}"),
                    _ => format!("{cell:>width$}"),
                })
                .collect();
            writeln!(f, "{}", cells.join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// The targets, and how many were missed.
#[derive(Default)]
pub(crate) struct Targets {
    missed: usize,
}

impl Targets {
    /// Prints whether `measured` is at most `limit`.
    pub(crate) fn at_most(&mut self, what: &str, measured: f64, limit: f64) {
        // A NaN counts as missed.
        let met = measured <= limit;
        self.missed += usize::from(!met);
        let word = if met { "met   " } else { "MISSED" };
        println!("{word}  {what}: {measured:.2}, target: at most {limit:.2}");
    }

    /// Prints whether `measured` is at least `limit`.
    pub(crate) fn at_least(&mut self, what: &str, measured: f64, limit: f64) {
        let met = measured >= limit;
        self.missed += usize::from(!met);
        let word = if met { "met   " } else { "MISSED" };
        println!("{word}  {what}: {measured:.2}, target: at least {limit:.2}");
    }

    /// Fails when a target was missed.
    pub(crate) fn conclude(self) -> Result<()> {
        match self.missed {
            0 => Ok(()),
            missed => bail!("{missed} targets missed"),
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "shown with one digit")]
pub(crate) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1_000_000.0
}

/// The median; the lower of two. NaN for an empty list.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    quantile(values, 0.5)
}

/// The smallest value that this share of the values does not exceed. NaN for an empty list.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a rank within a list"
)]
pub(crate) fn quantile(values: impl IntoIterator<Item = f64>, share: f64) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align() {
        let mut table = TextTable::new(["what", "n"]);
        table.row(["a long name".into(), "1".into()]);
        table.row(["b".into(), "1000".into()]);
        insta::assert_snapshot!(table, @r"
        what            n
        a long name     1
        b            1000
        ");
    }

    #[test]
    fn quantiles_are_measured_values() {
        let hundred = || (1..=100).map(f64::from);
        assert_eq!(median(hundred()), 50.0);
        assert_eq!(quantile(hundred(), 0.99), 99.0);
        assert_eq!(quantile(hundred(), 1.0), 100.0);
        assert_eq!(median([3.0]), 3.0);
        assert!(median([]).is_nan());
    }

    #[test]
    fn aim_is_missed_only_above_limit() {
        let mut targets = Targets::default();
        targets.at_most("equal", 1.3, 1.3);
        assert_eq!(targets.missed, 0);
        targets.at_most("above", 1.31, 1.3);
        targets.at_most("unknown", f64::NAN, 1.3);
        assert!(targets.conclude().is_err());
    }
}
