//! The output of the demo as text: one line for each step, a progress bar and a summary.

use std::time::Duration;

/// The width of a progress bar, in characters.
const BAR: usize = 30;

/// A step of a job, in the order of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Submitted,
    Queued,
    Processing,
    Believed,
    Confirmed,
    Completed,
    OnBus,
    Delivered,
}

impl Step {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Queued => "queued",
            Self::Processing => "processing",
            Self::Believed => "callback believed",
            Self::Confirmed => "callback confirmed",
            Self::Completed => "completed",
            Self::OnBus => "event on the bus",
            Self::Delivered => "webhook delivered",
        }
    }

    /// Whether the step is a result for the customer.
    fn is_result(self) -> bool {
        matches!(self, Self::Completed | Self::OnBus | Self::Delivered)
    }
}

/// The style of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Coloured,
}

impl Style {
    pub(super) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(super) fn dim(self, text: &str) -> String {
        if text.is_empty() { String::new() } else { self.paint("2", text) }
    }

    pub(super) fn red(self, text: &str) -> String {
        self.paint("31", text)
    }

    pub(super) fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Coloured => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

/// A line about one step, `after` the begin of the demo.
pub(super) fn line(
    style: Style,
    after: Duration,
    provider: &str,
    step: Step,
    detail: &str,
) -> String {
    let name = format!("{:<18}", step.name());
    let name = if step.is_result() { style.green(&name) } else { name };
    let line = format!("{}  {provider:<10}  {name}  {}", seconds(after), style.dim(detail));
    line.trim_end().to_owned()
}

/// A line about the progress of a render, from 0 to 1.
pub(super) fn progress(provider: &str, share: f64) -> String {
    format!("{provider:<10}  {} {}", bar(share), percent(share))
}

/// A bar for a share, which is limited to 0 and 1.
fn bar(share: f64) -> String {
    let filled = (1..=BAR).filter(|&cell| share * cells(BAR) + 0.5 >= cells(cell)).count();
    format!("[{}{}]", "#".repeat(filled), "-".repeat(BAR - filled))
}

#[allow(clippy::cast_precision_loss, reason = "a bar has few cells")]
fn cells(count: usize) -> f64 {
    count as f64
}

/// A percentage, right-aligned.
fn percent(share: f64) -> String {
    format!("{:>3.0} %", share * 100.0)
}

/// Seconds with one digit, wide enough for 15 minutes.
pub(super) fn seconds(after: Duration) -> String {
    format!("{:>6.1} s", after.as_secs_f64())
}

/// A line about the missing steps of one job.
pub(super) fn missing(provider: &str, steps: &[Step]) -> String {
    let names: Vec<_> = steps.iter().map(|step| step.name()).collect();
    format!("{provider}: {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_align() {
        let after = |tenths: u64| Duration::from_millis(tenths * 100);
        let lines = [
            line(Style::Plain, after(2), "zvid", Step::Submitted, "job_1"),
            line(Style::Plain, after(123), "json2video", Step::Delivered, "signature verified"),
            line(Style::Plain, after(124), "shotstack", Step::Queued, ""),
        ];
        assert_eq!(
            lines.join("\n"),
            "   0.2 s  zvid        submitted           job_1
  12.3 s  json2video  webhook delivered   signature verified
  12.4 s  shotstack   queued"
        );
    }

    #[test]
    fn colour_keeps_width() {
        let plain = line(Style::Plain, Duration::ZERO, "zvid", Step::Completed, "https://v");
        let coloured = line(Style::Coloured, Duration::ZERO, "zvid", Step::Completed, "https://v");
        let mut stripped = coloured.clone();
        for code in ["\x1b[32m", "\x1b[2m", "\x1b[0m"] {
            stripped = stripped.replace(code, "");
        }
        assert_ne!(coloured, plain);
        assert_eq!(stripped, plain);
    }

    #[test]
    fn bar_fills_within_bounds() {
        let filled = |share| bar(share).matches('#').count();
        assert_eq!(filled(0.0), 0);
        assert_eq!(filled(0.5), 15);
        assert_eq!(filled(1.0), BAR);
        assert_eq!((filled(-3.0), filled(7.0), filled(f64::NAN)), (0, BAR, 0));
        assert_eq!(bar(0.4).len(), BAR + 2);
    }

    #[test]
    fn percentages_have_fixed_width() {
        assert_eq!([percent(0.0), percent(0.651), percent(1.0)], ["  0 %", " 65 %", "100 %"]);
    }

    #[test]
    fn missing_steps_are_named() {
        assert_eq!(
            missing("zvid", &[Step::OnBus, Step::Delivered]),
            "zvid: event on the bus, webhook delivered"
        );
    }
}
