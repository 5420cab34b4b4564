//! Pictures, drawn here so that the page needs no script.

use maud::{Markup, html};

use super::data::{Detail, IncidentReport};
use super::text::{Clock, count, number, span};
use super::timeline::Cell;
use crate::event::Timestamp;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const PLOT: f64 = 190.0;
const BOTTOM: f64 = 40.0;
const MARK_ROW: f64 = 17.0;
/// Bars that a timeline has at most, about.
const BARS_MAX: i64 = 110;
const BAR_WIDTHS_S: [i64; 18] =
    [1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 604_800];
const TICK_WIDTHS_S: [i64; 16] = [1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200];

/// A timeline with what the caption needs to say.
pub(super) struct Picture {
    /// The drawing.
    pub svg: Markup,
    /// How wide a bar is, in seconds.
    pub bar_s: i64,
    /// Refusals that came after the right edge.
    pub refused_later: u64,
    /// The account was cleared after the right edge.
    pub cleared_later: bool,
}

/// What part of the time is drawn, and how.
struct Frame<'a> {
    clock: &'a Clock,
    from: i64,
    to: i64,
    bar_s: i64,
    up_max: u64,
    down_max: u64,
    /// Where the bars' ground begins: below the marks' labels.
    top: f64,
}

struct Mark {
    ts: Timestamp,
    label: String,
    class: &'static str,
}

/// Draws an incident's timeline. `number` makes the ids of its parts unique on the page.
pub(super) fn timeline(report: &IncidentReport, detail: &Detail, clock: &Clock, nth: usize, who: &str) -> Picture {
    let (from, to) = range(report);
    let own = detail.timeline.width_s();
    let seconds = (to.seconds() - from.seconds()).max(1);
    let fits = |w: &i64| *w >= own && w % own == 0 && *w * BARS_MAX >= seconds;
    let bar_s = BAR_WIDTHS_S.into_iter().find(fits).unwrap_or(own * (seconds / own / BARS_MAX).max(1));
    let bars = detail.timeline.merged(from, to, bar_s);
    let later = detail.timeline.merged(Timestamp((to.seconds() + own) * 1000), Timestamp(i64::MAX / 2), own);
    // Whole bars, so that the first and the last are not cut.
    let end = bars.keys().next_back().map_or(to.seconds(), |last| (last + bar_s).max(to.seconds()));
    let mut frame = Frame {
        clock,
        from: bars.keys().next().map_or(from.seconds(), |first| (*first).min(from.seconds())),
        to: end.max(from.seconds() + 1),
        bar_s,
        up_max: bars.values().map(|c| c.recipients.max(c.new)).max().unwrap_or(0).max(1),
        down_max: bars.values().map(|c| c.refused).max().unwrap_or(0),
        top: 0.0,
    };
    let marks = marks(report, clock, &frame);
    frame.top = 18.0 + MARK_ROW * marks.len() as f64;
    let incident = &report.incident;
    let total = report.total();
    let title_id = format!("chart-{nth}-title");
    let desc_id = format!("chart-{nth}-desc");
    let hatch_id = format!("chart-{nth}-hatch");
    let svg = html! {
        svg.timeline role="img" aria-labelledby={ (title_id) " " (desc_id) } viewBox={ "0 0 " (WIDTH) " " (frame.top + PLOT + BOTTOM) }
            xmlns="http://www.w3.org/2000/svg" {
            title id=(title_id) { "Recipients of " (who) " over time" }
            desc id=(desc_id) {
                "Bars for every " (span(bar_s)) ": recipients upwards, those never written to before darker, refused ones downwards. "
                "The burst began " (clock.full(incident.first_ts)) " and was flagged " (clock.full(incident.flag.ts)) ". "
                (count(report.before.recipients, "recipient")) " before the flag, " (number(report.after.recipients)) " after it, "
                (number(total.refused)) " refused in all."
            }
            defs {
                pattern id=(hatch_id) width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)" {
                    rect.hatch-ground width="5" height="5" {}
                    rect.hatch-line width="2.4" height="5" {}
                }
            }
            (frame.bands(report))
            (frame.axes())
            @for (class, path) in frame.series(&bars) { path class=(class) d=(path) {} }
            path fill={ "url(#" (hatch_id) ")" } class="bar-refused" d=(frame.refused(&bars)) {}
            line.zero x1=(LEFT) x2=(WIDTH - RIGHT) y1=(frame.zero()) y2=(frame.zero()) {}
            (frame.draw_marks(&marks))
            @for (start, cell) in &bars { (frame.hover(*start, cell)) }
        }
    };
    Picture {
        svg,
        bar_s,
        refused_later: later.values().map(|c| c.refused).sum(),
        cleared_later: incident.cleared.is_some_and(|c| c.seconds() > frame.to),
    }
}

/// The burst with some time around it: a quarter of its length before, less after, a minute at least.
fn range(report: &IncidentReport) -> (Timestamp, Timestamp) {
    let incident = &report.incident;
    let escalated = incident.escalated.as_ref().map_or(incident.flag.ts, |e| e.ts);
    let last = report.last_send.unwrap_or(incident.flag.ts).max(incident.flag.ts).max(escalated);
    let length = last.0.saturating_sub(incident.first_ts.0).max(0);
    let lead = (length / 4).max(60_000);
    let tail = (length / 10).max(60_000);
    (Timestamp(incident.first_ts.0.saturating_sub(lead)), Timestamp(last.0.saturating_add(tail)))
}

fn marks(report: &IncidentReport, clock: &Clock, frame: &Frame<'_>) -> Vec<Mark> {
    let incident = &report.incident;
    let mark = |ts: Timestamp, word: &str, class| Mark { ts, label: format!("{word} {}", clock.time(ts)), class };
    let mut marks = vec![mark(incident.first_ts, "first message", "mark-first")];
    let word = match incident.flag.severity {
        crate::core::alert::Severity::Warning => "flagged as warning",
        crate::core::alert::Severity::Critical => "flagged critical",
    };
    marks.push(mark(incident.flag.ts, word, "mark-flag"));
    if let Some(escalated) = &incident.escalated {
        marks.push(mark(escalated.ts, "became critical", "mark-escalated"));
    }
    if let Some(cleared) = incident.cleared.filter(|c| c.seconds() <= frame.to) {
        marks.push(mark(cleared, "cleared", "mark-cleared"));
    }
    marks
}

impl Frame<'_> {
    fn x(&self, second: f64) -> f64 {
        let share = (second - self.from as f64) / (self.to - self.from) as f64;
        round(LEFT + share.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT))
    }

    fn x_of(&self, ts: Timestamp) -> f64 {
        self.x(ts.0 as f64 / 1000.0)
    }

    /// One scale upwards and downwards, so that refused ones compare with sent ones.
    fn unit(&self) -> f64 {
        PLOT / (self.up_max + self.down_max) as f64
    }

    fn zero(&self) -> f64 {
        round(self.top + self.unit() * self.up_max as f64)
    }

    fn bar(&self, path: &mut String, start: i64, y: f64, height: f64) {
        use std::fmt::Write as _;
        let (x1, x2) = (self.x(start as f64), self.x((start + self.bar_s) as f64));
        let gap = if x2 - x1 > 4.0 { 1.0 } else { 0.0 };
        if height > 0.0 {
            // What happened at all must be seen: a hair at least.
            let _ = write!(
                path,
                "M{} {}h{}v{}h-{}z",
                x1,
                round(y),
                round(x2 - x1 - gap),
                round(height.max(0.8)),
                round(x2 - x1 - gap)
            );
        }
    }

    fn series(&self, bars: &std::collections::BTreeMap<i64, Cell>) -> [(&'static str, String); 2] {
        let (mut known, mut new) = (String::new(), String::new());
        let (unit, zero) = (self.unit(), self.zero());
        for (start, cell) in bars {
            let new_height = cell.new as f64 * unit;
            let known_height = cell.recipients.saturating_sub(cell.new) as f64 * unit;
            self.bar(&mut new, *start, zero - new_height, new_height);
            self.bar(&mut known, *start, zero - new_height - known_height, known_height);
        }
        [("bar-known", known), ("bar-new", new)]
    }

    fn refused(&self, bars: &std::collections::BTreeMap<i64, Cell>) -> String {
        let mut path = String::new();
        for (start, cell) in bars {
            self.bar(&mut path, *start, self.zero(), cell.refused as f64 * self.unit());
        }
        path
    }

    /// The time in which mail leaked before the flag, and the time in which it went on.
    fn bands(&self, report: &IncidentReport) -> Markup {
        let incident = &report.incident;
        let (first, flag) = (self.x_of(incident.first_ts), self.x_of(incident.flag.ts));
        let last = report.last_send.map_or(flag, |l| self.x_of(l).max(flag));
        // The strip above the bars shows the two even where bars cover the ground.
        let band = |side: &str, x1: f64, x2: f64| {
            html! {
                @if x2 > x1 {
                    rect class={ "band-" (side) } x=(x1) y=(self.top) width=(round(x2 - x1)) height=(PLOT) {}
                    rect class={ "strip-" (side) } x=(x1) y=(self.top - 11.0) width=(round(x2 - x1)) height="6" {}
                }
            }
        };
        let split = flag.max(first + 3.0);
        html! { (band("before", first, split)) (band("after", split, last)) }
    }

    fn axes(&self) -> Markup {
        let step = nice(self.up_max.max(self.down_max));
        let ups = (0..=self.up_max / step).map(|i| (i * step, -1.0));
        let downs = (1..=self.down_max / step).map(|i| (i * step, 1.0));
        let (unit, zero) = (self.unit(), self.zero());
        html! {
            @for (n, sign) in ups.chain(downs) {
                @let y = round(zero + sign * n as f64 * unit);
                line.grid x1=(LEFT) x2=(WIDTH - RIGHT) y1=(y) y2=(y) {}
                text.tick x=(LEFT - 7.0) y=(y + 4.0) text-anchor="end" { (number(n)) }
            }
            text.axis-name x="13" y=(round((self.top + zero) / 2.0)) text-anchor="middle" transform={ "rotate(-90 13 " (round((self.top + zero) / 2.0)) ")" } { "recipients" }
            @if self.down_max as f64 * unit > 44.0 {
                @let y = round((zero + self.top + PLOT) / 2.0);
                text.axis-name x="13" y=(y) text-anchor="middle" transform={ "rotate(-90 13 " (y) ")" } { "refused" }
            }
            (self.time_axis())
        }
    }

    fn time_axis(&self) -> Markup {
        let seconds = self.to - self.from;
        let step =
            TICK_WIDTHS_S.into_iter().find(|w| seconds / w <= 9).unwrap_or_else(|| (seconds / 86_400 / 9 + 1) * 86_400);
        let floor = self.top + PLOT;
        let mut day_before = String::new();
        let mut ticks = Vec::new();
        let offset = |s: i64| self.clock.offset_s(Timestamp(s.saturating_mul(1000)));
        let mut local = (self.from + offset(self.from)).div_euclid(step) * step;
        while ticks.len() < 24 {
            // The offset at the tick itself: clocks change within a log.
            let s = local - offset(local - offset(self.from));
            local += step;
            if s > self.to {
                break;
            }
            if s < self.from {
                continue;
            }
            let ts = Timestamp(s.saturating_mul(1000));
            let day = self.clock.day(ts);
            let date = (day != day_before).then(|| day.clone());
            let time = if step < 60 { self.clock.time(ts) } else { self.clock.minute(ts) };
            day_before = day;
            ticks.push((self.x_of(ts), time, date));
        }
        html! {
            @for (x, time, date) in &ticks {
                line.tick-mark x1=(x) x2=(x) y1=(floor) y2=(floor + 5.0) {}
                text.tick x=(x) y=(floor + 18.0) text-anchor="middle" { (time) }
                @if let Some(date) = date { text.tick.date x=(x) y=(floor + 32.0) text-anchor="middle" { (date) } }
            }
        }
    }

    fn draw_marks(&self, marks: &[Mark]) -> Markup {
        html! {
            @for (row, mark) in marks.iter().enumerate() {
                @let x = self.x_of(mark.ts);
                @let y = 12.0 + MARK_ROW * row as f64;
                // Towards the middle, where there is room.
                @let left = x > LEFT + (WIDTH - LEFT) * 0.7;
                line class={ "mark " (mark.class) } x1=(x) x2=(x) y1=(y - 9.0) y2=(self.top + PLOT) {}
                text class={ "mark-label " (mark.class) } x=(if left { x - 6.0 } else { x + 6.0 }) y=(y)
                    text-anchor=(if left { "end" } else { "start" }) { (mark.label) }
            }
        }
    }

    fn hover(&self, start: i64, cell: &Cell) -> Markup {
        let (x1, x2) = (self.x(start as f64), self.x((start + self.bar_s) as f64));
        let at = |s: i64| self.clock.time(Timestamp(s.saturating_mul(1000)));
        html! {
            rect.hover x=(x1) y=(self.top) width=(round((x2 - x1).max(0.5))) height=(PLOT) {
                title {
                    (at(start)) "–" (at(start + self.bar_s)) ": " (count(cell.recipients, "recipient")) ", "
                    (number(cell.new)) " new, " (number(cell.refused)) " refused"
                }
            }
        }
    }
}

/// A bar in a table: `part` of `whole`.
pub(super) fn share(part: f64, whole: f64) -> Markup {
    let width = if whole > 0.0 && part.is_finite() { (part / whole).clamp(0.0, 1.0) * 80.0 } else { 0.0 };
    html! {
        svg.share viewBox="0 0 80 8" width="80" height="8" aria-hidden="true" {
            rect.share-ground width="80" height="8" {}
            rect.share-bar width=(round(width)) height="8" {}
        }
    }
}

/// A sample of a bar for the legend.
pub(super) fn swatch(class: &str, hatch: Option<&str>) -> Markup {
    html! {
        svg.swatch viewBox="0 0 14 14" width="14" height="14" aria-hidden="true" {
            @match hatch {
                Some(id) => rect class=(class) fill={ "url(#" (id) ")" } width="14" height="14" {},
                None => rect class=(class) width="14" height="14" {},
            }
        }
    }
}

/// A step of 1, 2 or 5 times a power of ten that gives at most five lines.
fn nice(max: u64) -> u64 {
    let mut step = 1;
    loop {
        for factor in [1, 2, 5] {
            if max / (step * factor) <= 4 {
                return step * factor;
            }
        }
        step *= 10;
        if step > u64::MAX / 100 {
            return step;
        }
    }
}

/// Tenths of a unit are enough, and keep the page small.
fn round(x: f64) -> f64 {
    (x * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_nice() {
        assert_eq!(nice(1), 1);
        assert_eq!(nice(4), 1);
        assert_eq!(nice(7), 2);
        assert_eq!(nice(31), 10);
        assert_eq!(nice(2_903), 1_000);
        assert!(nice(u64::MAX) > 0);
    }
}
