//! Sliding windows of one account: one timeline of counters, from which every window is summed.
//!
//! A window of span `S` moves in steps of `S / 12`, aligned to 1970: it holds the step of the account's clock and the eleven before
//! it, between 11/12 S and S of event time. Nothing is ever re-based on "now", so that the same events give the same sums
//! whenever they are read; a test holds this against a naive oracle.
//!
//! Each event is counted once, in a cell of the timeline; a window is the sum of the cells since its start. Two neighbours
//! become one as soon as no window tells them apart, nor ever will: where each window has both in one step, or has left both
//! behind. So no sum depends on when that is done, and about twelve cells to a window are enough.

use serde::Deserialize;

use super::codec::{Input, Unreadable, put, read_ahead};

/// Steps to a window.
pub const STEPS: u32 = 12;
/// Windows at most.
pub const WINDOWS_MAX: usize = 8;
/// A timeline of fewer cells is not looked through for such as can be one.
const COMPACT_FROM: u8 = 8;
/// Cells at most: when it is compacted, a timeline has one for each step of each window and one before them, and it grows to
/// twice that until it is compacted again.
const CELLS_MAX: usize = 2 * (STEPS as usize * WINDOWS_MAX + 1);

/// Damped counts are integers in units of 1/1024, so that a sum that loses its old cells is exact.
pub const UNIT: f64 = 1024.0;

/// The spans of the windows, in seconds, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spans {
    spans_s: Vec<u32>,
    /// The step of each.
    steps_s: Vec<u32>,
}

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
        let sane = spans_s.iter().all(|s| (STEPS..=366 * 86_400).contains(s));
        if (1..=WINDOWS_MAX).contains(&spans_s.len()) && ascending && sane {
            Ok(Self::of(spans_s))
        } else {
            Err(BadSpans)
        }
    }

    fn of(spans_s: Vec<u32>) -> Self {
        Self { steps_s: spans_s.iter().map(|&s| width_s(s)).collect(), spans_s }
    }

    /// The spans in seconds.
    pub fn all_s(&self) -> &[u32] {
        &self.spans_s
    }

    /// The longest span in seconds.
    pub fn longest_s(&self) -> u32 {
        self.spans_s.last().copied().unwrap_or(STEPS)
    }
}

impl Default for Spans {
    /// 1 min, 10 min, 1 h, 6 h, 24 h, 7 d.
    fn default() -> Self {
        Self::of(vec![60, 600, 3_600, 21_600, 86_400, 604_800])
    }
}

/// The step of a window, in seconds.
pub fn width_s(span_s: u32) -> u32 {
    (span_s / STEPS).max(1)
}

/// The first second that a window of `span_s` holds when the account's clock stands at `now_s`.
pub fn start_s(span_s: u32, now_s: u32) -> u32 {
    let width = width_s(span_s);
    ((now_s / width).saturating_sub(STEPS - 1)) * width
}

/// What is counted in a cell of the timeline, and summed over a window.
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

    /// Takes `o` away, field by field.
    pub(super) fn take(&mut self, o: &Self) {
        self.messages = self.messages.saturating_sub(o.messages);
        self.recipients = self.recipients.saturating_sub(o.recipients);
        self.volume = self.volume.saturating_sub(o.volume);
        self.new_recipients = self.new_recipients.saturating_sub(o.new_recipients);
        self.new_damped = self.new_damped.saturating_sub(o.new_damped);
        self.new_foreign = self.new_foreign.saturating_sub(o.new_foreign);
        self.refused_quarters = self.refused_quarters.saturating_sub(o.refused_quarters);
        self.refused = self.refused.saturating_sub(o.refused);
        self.answered = self.answered.saturating_sub(o.answered);
        self.complaints = self.complaints.saturating_sub(o.complaints);
    }

    pub(super) fn is_zero(&self) -> bool {
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

/// What was counted at a moment, and at the moments before it that no window tells from it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cell {
    pub(super) at_s: u32,
    pub(super) counters: Counters,
}

/// The timeline of one account, and the windows that are read from it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Windows {
    /// Oldest first.
    cells: Vec<Cell>,
    /// The timeline is compacted when it has this many cells (and [`COMPACT_FROM`]), which is twice what was left the last time:
    /// so an event pays for a few comparisons. Stored, that the cells depend on nothing but the account's events.
    compact_at: u8,
}

/// Where the windows begin, the account's clock standing somewhere.
struct Starts<'a> {
    /// Step of each window.
    steps_s: &'a [u32],
    starts_s: [u32; WINDOWS_MAX],
}

impl<'a> Starts<'a> {
    fn new(spans: &'a Spans, now_s: u32) -> Self {
        let mut starts_s = [0; WINDOWS_MAX];
        for (start, &step) in starts_s.iter_mut().zip(&spans.steps_s) {
            *start = (now_s / step).saturating_sub(STEPS - 1) * step;
        }
        Self { steps_s: &spans.steps_s, starts_s }
    }

    fn each(&self) -> impl DoubleEndedIterator<Item = (u32, u32)> + ExactSizeIterator {
        self.starts_s.iter().copied().zip(self.steps_s.iter().copied())
    }

    /// Whether any window holds this moment. That of the longest span nearly always reaches farthest back.
    fn hold(&self, at_s: u32) -> bool {
        self.each().rev().any(|(start_s, _)| at_s >= start_s)
    }

    /// Whether a window tells two moments apart, the first of which is not the later one. What it says no to stays so.
    fn tell_apart(&self, a_s: u32, b_s: u32) -> bool {
        a_s != b_s && self.each().any(|(start_s, step)| b_s >= start_s && (a_s < start_s || a_s / step != b_s / step))
    }
}

impl Windows {
    /// A timeline of these cells, oldest first, as of the account's clock.
    pub(super) fn of(cells: Vec<Cell>, spans: &Spans, now_s: u32) -> Self {
        let mut windows = Self { cells, compact_at: 0 };
        windows.compact(spans, now_s);
        windows
    }

    /// Reads the newest cell; see [`super::shard::Shard::look_ahead`].
    pub(super) fn look_ahead(&self) -> u64 {
        read_ahead(&self.cells, 2, |c| c.at_s.into())
    }

    /// Counts `what` at `at_s`, the account's clock standing at `now_s >= at_s`. Returns false where no window holds that moment
    /// any more: then it is not counted.
    pub fn add(&mut self, spans: &Spans, now_s: u32, at_s: u32, what: &Counters) -> bool {
        if self.cells.len() >= usize::from(self.compact_at.max(COMPACT_FROM)) {
            self.compact(spans, now_s);
        }
        let starts = Starts::new(spans, now_s);
        if !starts.hold(at_s) {
            return false;
        }
        // Nearly always behind the newest; a late event looks for its place.
        let at = self.cells.iter().rposition(|c| c.at_s <= at_s).map_or(0, |i| i + 1);
        if let Some(before) = at.checked_sub(1).map(|i| &mut self.cells[i])
            && !starts.tell_apart(before.at_s, at_s)
        {
            before.at_s = at_s;
            before.counters.add(what);
        } else if let Some(next) = self.cells.get_mut(at)
            && !starts.tell_apart(at_s, next.at_s)
        {
            next.counters.add(what);
        } else {
            self.cells.insert(at, Cell { at_s, counters: *what });
        }
        true
    }

    /// The sums of all windows when the account's clock stands at `now_s`, in the order of their spans.
    pub fn sums(&self, spans: &Spans, now_s: u32) -> [Counters; WINDOWS_MAX] {
        let mut sums = [Counters::default(); WINDOWS_MAX];
        let (mut sum, mut left, mut before_s) = (Counters::default(), self.cells.iter().rev().peekable(), u32::MAX);
        for ((start_s, _), out) in Starts::new(spans, now_s).each().zip(&mut sums) {
            if start_s > before_s {
                // Of two spans that are nearly the same the longer one may begin later.
                (sum, left) = (Counters::default(), self.cells.iter().rev().peekable());
            }
            while let Some(cell) = left.next_if(|c| c.at_s >= start_s) {
                sum.add(&cell.counters);
            }
            (*out, before_s) = (sum, start_s);
        }
        sums
    }

    /// The sums of window `i` when the account's clock stands at `now_s`.
    pub fn sum(&self, spans: &Spans, i: usize, now_s: u32) -> Counters {
        self.sums(spans, now_s).get(i).copied().unwrap_or_default()
    }

    /// Takes new recipients, refusals and complaints out of every window: what a closed incident has accounted for must
    /// not open the next one. Messages and recipients stay.
    pub fn forgive(&mut self) {
        for Cell { counters: c, .. } in &mut self.cells {
            *c = Counters { messages: c.messages, recipients: c.recipients, volume: c.volume, ..Counters::default() };
        }
        self.cells.retain(|c| !c.counters.is_zero());
    }

    /// Drops what no window holds any more, and makes one of neighbours that no window tells apart. Changes no sum. Called at
    /// fixed points of the account's own events only.
    pub fn compact(&mut self, spans: &Spans, now_s: u32) {
        let starts = Starts::new(spans, now_s);
        let gone = self.cells.iter().take_while(|c| !starts.hold(c.at_s)).count();
        self.cells.drain(..gone);
        self.cells.dedup_by(|b, a| {
            let same = !starts.tell_apart(a.at_s, b.at_s);
            if same {
                a.counters.add(&b.counters);
                a.at_s = b.at_s;
            }
            same
        });
        self.compact_at = (2 * self.cells.len()).min(CELLS_MAX) as u8;
    }

    /// Newest first, from the account's clock. Cells often count what the one after them counts.
    pub(super) fn pack(&self, out: &mut Vec<u8>, clock_s: u32) {
        out.push(self.compact_at);
        put(out, self.cells.len() as u64);
        let mut after = Cell { at_s: clock_s, counters: Counters::default() };
        for cell in self.cells.iter().rev() {
            let same = cell.counters == after.counters;
            put(out, u64::from(after.at_s.wrapping_sub(cell.at_s)) << 1 | u64::from(same));
            if !same {
                cell.counters.pack(out, 0);
            }
            after = *cell;
        }
    }

    pub(super) fn unpack(from: &mut Input<'_>, clock_s: u32) -> Result<Self, Unreadable> {
        let compact_at = from.byte()?;
        if usize::from(compact_at) > CELLS_MAX {
            return Err(Unreadable("more cells than windows need"));
        }
        let len = from.count(CELLS_MAX, 1)?;
        let mut cells = Vec::with_capacity(len);
        let mut after = Cell { at_s: clock_s, counters: Counters::default() };
        for _ in 0..len {
            let head = from.number()?;
            let by = u32::try_from(head >> 1).map_err(|_| Unreadable("a number of more than 32 bits"))?;
            after.at_s = after.at_s.checked_sub(by).ok_or(Unreadable("a time before 1970"))?;
            if head & 1 == 0 {
                (after.counters, _) = Counters::unpack(from)?;
            }
            cells.push(after);
        }
        cells.reverse();
        Ok(Self { cells, compact_at })
    }

    /// Cells of the timeline.
    pub fn cells(&self) -> usize {
        self.cells.len()
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.cells.capacity() * size_of::<Cell>()
    }
}
