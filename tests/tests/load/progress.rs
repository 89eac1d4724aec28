//! A progress bar on a terminal, and a line at each tenth elsewhere.

use std::cell::Cell;
use std::io::{IsTerminal, Write as _, stdout};
use std::time::Instant;

const WIDTH: usize = 40;

pub(crate) struct ProgressBar {
    what: &'static str,
    of: usize,
    began: Instant,
    done: Cell<usize>,
    printed: Cell<usize>,
}

impl ProgressBar {
    pub(crate) fn of(what: &'static str, of: usize) -> Self {
        Self { what, of, began: Instant::now(), done: Cell::new(0), printed: Cell::new(0) }
    }

    pub(crate) fn one_more(&self) {
        self.at(self.done.get() + 1);
    }

    pub(crate) fn at(&self, done: usize) {
        self.done.set(done);
        let filled = done * WIDTH / self.of.max(1);
        let bar = format!("{}{}", "█".repeat(filled), "░".repeat(WIDTH - filled.min(WIDTH)));
        let seconds = self.began.elapsed().as_secs();
        let line = format!("{:<10} {bar} {done:>6} of {} after {seconds} s", self.what, self.of);
        if stdout().is_terminal() {
            print!("\r{line}");
            drop(stdout().flush());
            if done == self.of {
                println!();
            }
        } else if filled / 4 > self.printed.get() {
            self.printed.set(filled / 4);
            println!("{line}");
        }
    }
}
