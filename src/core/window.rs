//! Sliding windows of one account: counters in absolutely aligned cells, twelve to a window.
//!
//! A window of span `S` has cells of width `S / 12`, aligned to 1970, and holds the cell of the account's clock and the eleven
//! before it: between 11/12 S and S of event time. Nothing is ever re-based on "now", so that the same events give the same
//! sums whenever they are read; a test holds this against a naive oracle.

use serde::Deserialize;

use super::codec::{Input, Unreadable, put};

/// Cells to a window.
pub const CELLS: u32 = 12;

/// Damped counts are integers in units of 1/1024, so that a sum that loses its old cells is exact.
pub const UNIT: f64 = 1024.0;

/// The spans of the windows, in seconds, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spans(Vec<u32>);

/// Spans that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("windows must be 1 to 8 spans of 12 s to 366 days, ascending")]
pub struct BadSpans;

impl Spans {
    /// Takes 1 to 8 ascending spans of 12 s to 366 days.
    ///
    /// # Errors
    /// Where they are not that.
    pub fn new(spans_s: Vec<u32>) -> Result<Self, BadSpans> {
        let ascending = spans_s.windows(2).all(|w| w[0] < w[1]);
        let sane = spans_s.iter().all(|s| (CELLS..=366 * 86_400).contains(s));
        if (1..=8).contains(&spans_s.len()) && ascending && sane { Ok(Self(spans_s)) } else { Err(BadSpans) }
    }

    /// The spans in seconds.
    pub fn all_s(&self) -> &[u32] {
        &self.0
    }

    /// The longest span in seconds.
    pub fn longest_s(&self) -> u32 {
        self.0.last().copied().unwrap_or(CELLS)
    }
}

impl Default for Spans {
    /// 1 min, 10 min, 1 h, 6 h, 24 h, 7 d.
    fn default() -> Self {
        Self(vec![60, 600, 3_600, 21_600, 86_400, 604_800])
    }
}

/// The width of a cell of a window, in seconds.
pub fn width_s(span_s: u32) -> u32 {
    (span_s / CELLS).max(1)
}

/// The first second that a window of `span_s` holds when the account's clock stands at `now_s`.
pub fn start_s(span_s: u32, now_s: u32) -> u32 {
    let width = width_s(span_s);
    ((now_s / width).saturating_sub(CELLS - 1)) * width
}

/// What is counted in a cell, and summed over a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub struct Counters {
    /// Messages taken.
    pub messages: u32,
    /// Recipients of them.
    pub recipients: u32,
    /// Recipients of them, damped: log2(1+k) a message, in units of 1/1024.
    pub volume: u32,
    /// Recipients never written to before.
    pub new_recipients: u32,
    /// The same, damped.
    pub new_damped: u32,
    /// The part of it that came over a client network first seen within a day.
    pub new_foreign: u32,
    /// Refusals that speak about the account, weighted, in quarters.
    pub refused_quarters: u32,
    /// Refusals that speak about the account.
    pub refused: u32,
    /// Final answers: delivered, or such a refusal.
    pub answered: u32,
    /// Complaints of recipients.
    pub complaints: u32,
}

impl Counters {
    /// Adds up, field by field.
    pub fn add(&mut self, o: &Self) {
        self.messages = self.messages.saturating_add(o.messages);
        self.recipients = self.recipients.saturating_add(o.recipients);
        self.volume = self.volume.saturating_add(o.volume);
        self.new_recipients = self.new_recipients.saturating_add(o.new_recipients);
        self.new_damped = self.new_damped.saturating_add(o.new_damped);
        self.new_foreign = self.new_foreign.saturating_add(o.new_foreign);
        self.refused_quarters = self.refused_quarters.saturating_add(o.refused_quarters);
        self.refused = self.refused.saturating_add(o.refused);
        self.answered = self.answered.saturating_add(o.answered);
        self.complaints = self.complaints.saturating_add(o.complaints);
    }

    fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// Those that are usually there first: their bits fit into one byte.
    fn fields(&self) -> [u32; 10] {
        [
            self.messages,
            self.recipients,
            self.volume,
            self.new_recipients,
            self.new_damped,
            self.answered,
            self.new_foreign,
            self.refused_quarters,
            self.refused,
            self.complaints,
        ]
    }

    /// Packs what is not zero, with two bits of the caller's.
    pub(super) fn pack(&self, out: &mut Vec<u8>, bits: u8) {
        let fields = self.fields();
        let there = fields.iter().enumerate().fold(0u32, |there, (i, &n)| there | u32::from(n > 0) << i);
        put(out, there << 2 | u32::from(bits));
        for n in fields.into_iter().filter(|&n| n > 0) {
            put(out, n);
        }
    }

    /// The counters, and the caller's two bits.
    pub(super) fn unpack(from: &mut Input<'_>) -> Result<(Self, u8), Unreadable> {
        let head = from.u32()?;
        if head >> 12 != 0 {
            return Err(Unreadable("unknown counters"));
        }
        let mut fields = [0; 10];
        for (i, n) in fields.iter_mut().enumerate() {
            if head & 4 << i != 0 {
                *n = from.u32()?;
            }
        }
        let [messages, recipients, volume, new_recipients, new_damped, answered, new_foreign, rest @ ..] = fields;
        let [refused_quarters, refused, complaints] = rest;
        let counters = Self {
            messages,
            recipients,
            volume,
            new_recipients,
            new_damped,
            new_foreign,
            refused_quarters,
            refused,
            answered,
            complaints,
        };
        Ok((counters, (head & 3) as u8))
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Cell {
    /// Seconds since 1970, divided by the width.
    index: u32,
    counters: Counters,
}

/// One window: at most twelve cells, oldest first, none empty.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
struct Window {
    cells: Vec<Cell>,
}

/// All windows of one account.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct Windows(Vec<Window>);

impl Windows {
    /// Reads the newest cell of each window; see [`super::shard::Shard::look_ahead`].
    pub(super) fn look_ahead(&self) -> u64 {
        self.0.iter().filter_map(|w| w.cells.last()).map(|c| u64::from(c.index)).sum()
    }

    /// Counts `what` at `at_s` in every window that still holds it, the account's clock standing at `now_s >= at_s`.
    /// Returns false where none does.
    pub fn add(&mut self, spans: &Spans, now_s: u32, at_s: u32, what: &Counters) -> bool {
        if self.0.len() != spans.0.len() {
            self.0.resize_with(spans.0.len(), Window::default);
        }
        let mut held = false;
        for (window, &span) in self.0.iter_mut().zip(&spans.0) {
            let width = width_s(span);
            let first = (now_s / width).saturating_sub(CELLS - 1);
            let index = at_s / width;
            if index < first {
                continue;
            }
            held = true;
            window.expire(first);
            window.add(index, what);
        }
        held
    }

    /// The sums of window `i` when the account's clock stands at `now_s`.
    pub fn sum(&self, spans: &Spans, i: usize, now_s: u32) -> Counters {
        let mut sum = Counters::default();
        let (Some(window), Some(&span)) = (self.0.get(i), spans.0.get(i)) else { return sum };
        let first = (now_s / width_s(span)).saturating_sub(CELLS - 1);
        for cell in window.cells.iter().filter(|c| c.index >= first) {
            sum.add(&cell.counters);
        }
        sum
    }

    /// Takes new recipients, refusals and complaints out of every window: what a closed incident has accounted for must
    /// not open the next one. Messages and recipients stay.
    pub fn forgive(&mut self) {
        for window in &mut self.0 {
            for cell in &mut window.cells {
                let c = &mut cell.counters;
                *c = Counters {
                    messages: c.messages,
                    recipients: c.recipients,
                    volume: c.volume,
                    ..Counters::default()
                };
            }
            window.cells.retain(|c| !c.counters.is_zero());
        }
    }

    /// Drops what no window holds any more. Changes no sum.
    pub fn shrink(&mut self, spans: &Spans, now_s: u32) {
        for (window, &span) in self.0.iter_mut().zip(&spans.0) {
            window.expire((now_s / width_s(span)).saturating_sub(CELLS - 1));
            window.cells.shrink_to_fit();
        }
    }

    /// Cells nearly always count what the one before them counts, be it in the window before.
    pub(super) fn pack(&self, out: &mut Vec<u8>) {
        put(out, self.0.len() as u64);
        let mut before = Counters::default();
        for window in &self.0 {
            put(out, window.cells.len() as u64);
            let mut index = 0u32;
            for cell in &window.cells {
                let same = cell.counters == before;
                put(out, u64::from(cell.index.wrapping_sub(index)) << 1 | u64::from(same));
                if !same {
                    cell.counters.pack(out, 0);
                }
                (index, before) = (cell.index, cell.counters);
            }
        }
    }

    pub(super) fn unpack(from: &mut Input<'_>) -> Result<Self, Unreadable> {
        let len = from.count(8, 1)?;
        let mut windows = Vec::with_capacity(len);
        let mut before = Counters::default();
        for _ in 0..len {
            let len = from.count(CELLS as usize, 1)?;
            let mut cells = Vec::with_capacity(len);
            let mut index = 0u32;
            for _ in 0..len {
                let head = from.number()?;
                let by = u32::try_from(head >> 1).map_err(|_| Unreadable("a number of more than 32 bits"))?;
                index = index.checked_add(by).ok_or(Unreadable("a number of more than 32 bits"))?;
                if head & 1 == 0 {
                    (before, _) = Counters::unpack(from)?;
                }
                cells.push(Cell { index, counters: before });
            }
            windows.push(Window { cells });
        }
        Ok(Self(windows))
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.0.capacity() * size_of::<Window>()
            + self.0.iter().map(|w| w.cells.capacity() * size_of::<Cell>()).sum::<usize>()
    }
}

impl Window {
    fn expire(&mut self, first: u32) {
        let gone = self.cells.iter().take_while(|c| c.index < first).count();
        if gone > 0 {
            self.cells.drain(..gone);
        }
    }

    fn add(&mut self, index: u32, what: &Counters) {
        // Nearly always the newest cell; a late event looks for its own.
        let at = self.cells.iter().rposition(|c| c.index <= index);
        match at {
            Some(i) if self.cells[i].index == index => self.cells[i].counters.add(what),
            _ => self.cells.insert(at.map_or(0, |i| i + 1), Cell { index, counters: *what }),
        }
    }
}
