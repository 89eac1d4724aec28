//! A log that keeps the newest entries within a limit on number and size, so that a long run does
//! not exhaust memory.

use std::collections::VecDeque;

/// The limits of a [`BoundedLog`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogLimit {
    pub(crate) entries: usize,
    /// The limit on the sum of the entries' sizes.
    pub(crate) bytes: usize,
}

#[derive(Debug)]
pub(crate) struct BoundedLog<T> {
    entries: VecDeque<(T, usize)>,
    bytes: usize,
    limit: LogLimit,
}

impl<T> BoundedLog<T> {
    pub(crate) fn new(limit: LogLimit) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, limit }
    }

    /// Appends an entry of this size, and returns the entries that were dropped for it, the oldest
    /// first. The new entry stays.
    pub(crate) fn push(&mut self, entry: T, bytes: usize) -> Vec<T> {
        self.entries.push_back((entry, bytes));
        self.bytes += bytes;
        let mut dropped = Vec::new();
        while self.entries.len() > 1
            && (self.entries.len() > self.limit.entries || self.bytes > self.limit.bytes)
        {
            if let Some((oldest, bytes)) = self.entries.pop_front() {
                self.bytes -= bytes;
                dropped.push(oldest);
            }
        }
        dropped
    }

    /// The entries, the oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().map(|(entry, _)| entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(recent: &BoundedLog<u32>) -> Vec<u32> {
        recent.iter().copied().collect()
    }

    #[test]
    fn oldest_entry_leaves_when_full() {
        let mut recent = BoundedLog::new(LogLimit { entries: 2, bytes: 100 });
        assert!(recent.push(1, 1).is_empty());
        assert!(recent.push(2, 1).is_empty());
        assert_eq!(recent.push(3, 1), [1]);
        assert_eq!(kept(&recent), [2, 3]);
    }

    #[test]
    fn oldest_entries_leave_above_size() {
        let mut recent = BoundedLog::new(LogLimit { entries: 10, bytes: 10 });
        recent.push(1, 4);
        recent.push(2, 4);
        assert_eq!(recent.push(3, 9), [1, 2]);
        assert_eq!(kept(&recent), [3]);
    }

    #[test]
    fn newest_entry_always_stays() {
        let mut recent = BoundedLog::new(LogLimit { entries: 10, bytes: 10 });
        assert!(recent.push(1, 11).is_empty());
        assert_eq!(kept(&recent), [1]);
    }
}
