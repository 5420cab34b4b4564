//! Stamps from nowhere: one event of 2100 in a file of 2024 must not move any clock, and needs no look at a clock to be told.

use super::feed::Came;
use crate::event::{Event, Reject, Timestamp, encode};
use crate::input::Place;

/// An event this far from the ones around it is not believed unless the next one agrees, in milliseconds: a year and a day.
const FAR_MS: i64 = 366 * 86_400_000;

/// Events held at once: two that disagree, so that the third can tell which of them is astray.
const HELD_MAX: usize = 2;

/// Holds back an event that jumps, and the very first one, until another one agrees.
#[derive(Debug, Default)]
pub(super) struct Astray {
    newest: Option<Timestamp>,
    held: Vec<Held>,
}

/// An event that waits for another one to agree.
#[derive(Debug)]
pub(super) struct Held {
    pub event: Event<'static>,
    pub place: Place,
    /// The line, where the event was one.
    pub line: Option<Vec<u8>>,
}

/// What is to be done with an event.
#[derive(Debug)]
pub(super) enum Belief {
    /// Pass it on.
    Pass,
    /// What is to be done with the ones that were held; then pass it on, unless it is held or rejected itself.
    Settled(Box<Settled>),
}

/// What has become of held events.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// Believed after all: to be passed on first.
    pub confirmed: Option<Held>,
    /// Not believed: where, why, and its line, or else the event as the contract writes it, for whoever wants to mend and
    /// replay it.
    pub rejected: Vec<(Place, Reject, Vec<u8>)>,
    /// Whether the event that was looked at is to be passed on.
    pub pass: bool,
}

fn near(a: Timestamp, b: Timestamp) -> bool {
    a.0.abs_diff(b.0) <= FAR_MS as u64
}

/// Empty where the contract has no form for it.
fn record(event: &Event<'_>, line: Option<&[u8]>) -> Vec<u8> {
    if let Some(line) = line {
        return line.to_vec();
    }
    let mut line = Vec::new();
    match encode(event, &mut line) {
        Ok(()) => line.trim_ascii_end().to_vec(),
        Err(_) => Vec::new(),
    }
}

impl Held {
    fn reject(self, near: Timestamp) -> (Place, Reject, Vec<u8>) {
        let record = record(&self.event, self.line.as_deref());
        (self.place, Reject::Astray { ts: self.event.ts, near }, record)
    }
}

impl Astray {
    /// Looks at the next event. The place is asked for only where the event must be held or rejected.
    pub(super) fn look(&mut self, event: &Event<'_>, came: &Came<'_>) -> Belief {
        let ts = event.ts;
        if let Some(newest) = self.newest
            && near(ts, newest)
        {
            self.newest = Some(newest.max(ts));
            return match self.held.is_empty() {
                true => Belief::Pass,
                false => {
                    Belief::Settled(Box::new(Settled { confirmed: None, rejected: self.reject_held(ts), pass: true }))
                }
            };
        }
        let mut settled = Settled::default();
        if let Some(i) = self.held.iter().position(|held| near(held.event.ts, ts)) {
            let confirmed = self.held.remove(i);
            self.newest = Some(confirmed.event.ts.max(ts));
            settled = Settled { rejected: self.reject_held(ts), confirmed: Some(confirmed), pass: true };
        } else if let Some(newest) = self.newest.filter(|newest| ts < *newest) {
            let why = Reject::Astray { ts, near: newest };
            settled.rejected.push(((came.place)(), why, record(event, came.line)));
        } else {
            if self.held.len() == HELD_MAX {
                settled.rejected.push(self.held.remove(0).reject(ts));
            }
            self.held.push(Held {
                event: event.clone().into_owned(),
                place: (came.place)(),
                line: came.line.map(<[u8]>::to_vec),
            });
        }
        Belief::Settled(Box::new(settled))
    }

    fn reject_held(&mut self, near: Timestamp) -> Vec<(Place, Reject, Vec<u8>)> {
        self.held.drain(..).map(|held| held.reject(near)).collect()
    }

    /// The end of the input: an only event is believed, a last one that jumps is not.
    pub(super) fn finish(&mut self) -> Settled {
        match self.newest {
            Some(newest) => Settled { rejected: self.reject_held(newest), ..Settled::default() },
            None if self.held.is_empty() => Settled::default(),
            None => {
                let confirmed = self.held.remove(0);
                Settled { rejected: self.reject_held(confirmed.event.ts), confirmed: Some(confirmed), pass: false }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::event::{Auth, Kind};

    fn years(years: &[i64]) -> (Vec<i64>, Vec<(u64, &'static str)>) {
        let (mut astray, mut passed, mut rejected) = (Astray::default(), Vec::new(), Vec::new());
        let year = |ts: Timestamp| 1970 + ts.0 / (365 * 86_400_000);
        let mut reject = |place: Place, reject: Reject| rejected.push((place.line, reject.reason()));
        for (i, y) in years.iter().enumerate() {
            let kind = Kind::Auth(Auth { client_ip: None, ok: true, method: None });
            let ts = Timestamp((y - 1970) * 365 * 86_400_000 + i as i64);
            let event = Event { ts, account: Some(Cow::Borrowed("a")), id: None, tenant: None, kind };
            let place = || Place { source: "f".into(), line: i as u64 };
            let settled = match astray.look(&event, &Came { place: &place, line: None }) {
                Belief::Pass => Settled { pass: true, ..Settled::default() },
                Belief::Settled(settled) => *settled,
            };
            settled.rejected.into_iter().for_each(|(place, why, _)| reject(place, why));
            passed.extend(settled.confirmed.map(|h| year(h.event.ts)));
            passed.extend(settled.pass.then(|| year(ts)));
        }
        let end = astray.finish();
        passed.extend(end.confirmed.map(|h| year(h.event.ts)));
        end.rejected.into_iter().for_each(|(place, why, _)| reject(place, why));
        (passed, rejected)
    }

    #[test]
    fn only_what_the_next_event_confirms_is_believed() {
        assert_eq!(years(&[2012, 2012, 2012]), (vec![2012, 2012, 2012], vec![]));
        assert_eq!(years(&[2012]), (vec![2012], vec![]));
        assert_eq!(years(&[2012, 2100, 2012, 2012]), (vec![2012, 2012, 2012], vec![(1, "future")]));
        assert_eq!(years(&[2012, 2012, 2100]), (vec![2012, 2012], vec![(2, "future")]));
        assert_eq!(years(&[2012, 2012, 1970, 2012]), (vec![2012, 2012, 2012], vec![(2, "bad_ts")]));
        assert_eq!(years(&[1970, 2012, 2012]), (vec![2012, 2012], vec![(0, "bad_ts")]));
        assert_eq!(years(&[2100, 2012, 2012]), (vec![2012, 2012], vec![(0, "future")]));
        assert_eq!(years(&[2012, 2012, 2015, 2015]), (vec![2012, 2012, 2015, 2015], vec![]), "a pause of years");
    }
}
