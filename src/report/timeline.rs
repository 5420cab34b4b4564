//! Recipients over time, kept coarser as they get more.

use std::collections::BTreeMap;

use crate::event::Timestamp;

/// Widths that a timeline can have, in seconds. Each is a multiple of the one before, so cells can be merged.
const WIDTHS_S: [i64; 14] = [1, 5, 15, 30, 60, 300, 900, 1800, 3600, 10_800, 21_600, 43_200, 86_400, 604_800];

/// One stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cell {
    /// Recipients of messages sent in it.
    pub recipients: u64,
    /// Those never written to before, counted where their message was sent.
    pub new: u64,
    /// Recipients refused in it.
    pub refused: u64,
}

impl Cell {
    fn merge(&mut self, o: Self) {
        self.recipients += o.recipients;
        self.new += o.new;
        self.refused += o.refused;
    }
}

/// Cells by their number since 1970; those where nothing happened are absent.
#[derive(Debug, Clone)]
pub struct Timeline {
    cells: BTreeMap<i64, Cell>,
    step: usize,
    cap: usize,
}

impl Timeline {
    /// An empty one that keeps at most `cap` cells.
    pub fn new(cap: usize) -> Self {
        Self { cells: BTreeMap::new(), step: 0, cap: cap.max(8) }
    }

    /// How wide a cell is, in seconds.
    pub fn width_s(&self) -> i64 {
        WIDTHS_S.get(self.step).copied().unwrap_or(604_800)
    }

    /// Adds what happened at `ts`.
    pub fn add(&mut self, ts: Timestamp, what: Cell) {
        let number = ts.seconds().div_euclid(self.width_s());
        self.cells.entry(number).or_default().merge(what);
        while self.cells.len() > self.cap && self.step + 1 < WIDTHS_S.len() {
            self.coarsen();
        }
        // Four hundred years of weeks are 20,000 cells; beyond the last width the oldest go.
        while self.cells.len() > self.cap {
            self.cells.pop_first();
        }
    }

    fn coarsen(&mut self) {
        let old = self.width_s();
        self.step += 1;
        let factor = self.width_s() / old;
        let mut merged: BTreeMap<i64, Cell> = BTreeMap::new();
        for (number, cell) in std::mem::take(&mut self.cells) {
            merged.entry(number.div_euclid(factor)).or_default().merge(cell);
        }
        self.cells = merged;
    }

    /// The cells that begin in `from..=to`, merged into cells of `width_s`, which must be a multiple of
    /// [`Self::width_s`]; each with the second at which it begins.
    pub fn merged(&self, from: Timestamp, to: Timestamp, width_s: i64) -> BTreeMap<i64, Cell> {
        let own = self.width_s();
        let factor = (width_s / own).max(1);
        let first = from.seconds().div_euclid(own);
        let last = to.seconds().div_euclid(own).max(first);
        let mut out: BTreeMap<i64, Cell> = BTreeMap::new();
        for (number, cell) in self.cells.range(first..=last) {
            out.entry(number.div_euclid(factor) * factor * own).or_default().merge(*cell);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_bounded_and_loses_nothing() {
        let mut t = Timeline::new(64);
        for i in 0..5_000i64 {
            t.add(Timestamp(i * 7_000), Cell { recipients: 2, new: 1, refused: 0 });
        }
        assert!(t.cells.len() <= 64, "{}", t.cells.len());
        let all = t.merged(Timestamp(0), Timestamp(i64::MAX / 2), t.width_s() * 4);
        assert_eq!(all.values().map(|c| c.recipients).sum::<u64>(), 10_000);
        assert_eq!(all.values().map(|c| c.new).sum::<u64>(), 5_000);
    }

    #[test]
    fn widths_divide_each_other() {
        for pair in WIDTHS_S.windows(2) {
            assert_eq!(pair[1] % pair[0], 0, "{pair:?}");
        }
    }
}
