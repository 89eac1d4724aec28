//! The facts that were checked, and how many hold.

use std::fmt;

/// How many facts hold, by kind and provider.
#[derive(Default)]
pub(crate) struct Matrix {
    groups: Vec<&'static str>,
    providers: Vec<String>,
    cells: Vec<Cell>,
    misses: Vec<String>,
}

struct Cell {
    group: &'static str,
    provider: String,
    /// Whether the provider has such a thing.
    has_it: bool,
    passed: u32,
    missed: u32,
}

impl Matrix {
    /// The following checks are about this kind of fact and this provider.
    pub(crate) fn begin(&mut self, group: &'static str, provider: &str, has_it: bool) {
        if !self.groups.contains(&group) {
            self.groups.push(group);
        }
        if !self.providers.iter().any(|known| known == provider) {
            self.providers.push(provider.to_owned());
        }
        let provider = provider.to_owned();
        self.cells.push(Cell { group, provider, has_it, passed: 0, missed: 0 });
    }

    /// Counts one fact. `case` distinguishes it from the others of its kind.
    pub(crate) fn check(&mut self, case: &str, found: &str, expected: &str) {
        let cell = self.cells.last_mut().unwrap();
        if found == expected {
            cell.passed += 1;
        } else {
            cell.missed += 1;
            self.misses.push(format!(
                "{}, {}, {case}\n  found:    {found}\n  expected: {expected}",
                cell.provider, cell.group
            ));
        }
    }

    /// The facts that do not hold, and each kind of which the spec has something and the facts
    /// nothing, or the other way round.
    pub(crate) fn misses(&self) -> Vec<String> {
        let unproved = self.cells.iter().filter_map(|cell| {
            let facts = cell.passed + cell.missed > 0;
            (facts != cell.has_it).then(|| {
                let (spec, facts) = if facts { ("nothing", "some") } else { ("something", "none") };
                let Cell { group, provider, .. } = cell;
                format!("{provider}, {group}: the spec has {spec} of it, the facts have {facts}")
            })
        });
        self.misses.iter().cloned().chain(unproved).collect()
    }

    fn cell(&self, group: &str, provider: &str) -> String {
        let mut cells = self.cells.iter();
        let cell = cells.find(|cell| cell.group == group && cell.provider == provider);
        match cell {
            Some(Cell { missed: 0, passed: 0, .. }) | None => "-".to_owned(),
            Some(Cell { missed: 0, passed, .. }) => passed.to_string(),
            Some(Cell { missed, .. }) => format!("{missed} MISSED"),
        }
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{:<18}", "facts that hold")?;
        for provider in &self.providers {
            write!(f, " {provider:>10}")?;
        }
        for group in &self.groups {
            write!(f, "\n{group:<18}")?;
            for provider in &self.providers {
                write!(f, " {:>10}", self.cell(group, provider))?;
            }
        }
        write!(f, "\n{:<18}", "all")?;
        for provider in &self.providers {
            let of_it = self.cells.iter().filter(|cell| cell.provider == *provider);
            write!(f, " {:>10}", of_it.map(|cell| cell.passed).sum::<u32>())?;
        }
        let passed: u32 = self.cells.iter().map(|cell| cell.passed).sum();
        write!(f, "\n{passed} facts hold, {} do not", self.misses().len())
    }
}
