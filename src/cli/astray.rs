//! Stamps from nowhere: one event of 2100 in a file of 2024 must not move any clock, and needs no look at a clock to be told.

use crate::event::{Event, Reject, Timestamp};
use crate::input::Place;

/// An event this far from the ones around it is not believed unless the next one agrees, in milliseconds: a year and a day.
const FAR_MS: i64 = 366 * 86_400_000;

/// Holds back an event that jumps, and the very first one, until the next one agrees.
#[derive(Debug, Default)]
pub(super) struct Astray {
    newest: Option<Timestamp>,
    held: Option<(Event<'static>, Place)>,
}

/// What is to be done with an event.
#[derive(Debug)]
pub(super) enum Belief {
    /// Nothing is held: pass it on.
    Pass,
    /// Pass on this one first.
    Confirmed(Box<Event<'static>>),
    /// The one that was held is rejected; pass this one on.
    Rejected(Place, Reject),
    /// It is held; it has been rejected, or the one held before it, where a reject is given.
    Held(Option<(Place, Reject)>),
}

impl Astray {
    /// Looks at the next event. `place` is asked for only where the event must be held.
    pub(super) fn look(&mut self, event: &Event<'_>, place: impl FnOnce() -> Place) -> Belief {
        let ts = event.ts;
        let near = |a: Timestamp, b: Timestamp| a.0.abs_diff(b.0) <= FAR_MS as u64;
        if self.held.is_none()
            && let Some(newest) = self.newest
        {
            if near(ts, newest) {
                self.newest = Some(newest.max(ts));
                return Belief::Pass;
            }
            if ts < newest {
                return Belief::Held(Some((place(), Reject::Astray { ts, near: newest })));
            }
            self.held = Some((event.clone().into_owned(), place()));
            return Belief::Held(None);
        }
        match self.held.take() {
            Some((held, _)) if near(ts, held.ts) => {
                self.newest = Some(held.ts.max(ts));
                Belief::Confirmed(Box::new(held))
            }
            Some((held, at)) => {
                let reject = Reject::Astray { ts: held.ts, near: ts };
                match self.newest {
                    Some(newest) if near(ts, newest) => {
                        self.newest = Some(newest.max(ts));
                        Belief::Rejected(at, reject)
                    }
                    _ => {
                        self.held = Some((event.clone().into_owned(), place()));
                        Belief::Held(Some((at, reject)))
                    }
                }
            }
            None => {
                self.held = Some((event.clone().into_owned(), place()));
                Belief::Held(None)
            }
        }
    }

    /// The end of the input: an only event is believed, a last one that jumps is not.
    pub(super) fn finish(&mut self) -> Result<Option<Event<'static>>, (Place, Reject)> {
        match (self.held.take(), self.newest) {
            (Some((held, place)), Some(newest)) => Err((place, Reject::Astray { ts: held.ts, near: newest })),
            (Some((held, _)), None) => Ok(Some(held)),
            (None, _) => Ok(None),
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
            match astray.look(&event, || Place { source: "f".into(), line: i as u64 }) {
                Belief::Pass => passed.push(year(ts)),
                Belief::Confirmed(held) => passed.extend([year(held.ts), year(ts)]),
                Belief::Rejected(place, why) => {
                    reject(place, why);
                    passed.push(year(ts));
                }
                Belief::Held(Some((place, why))) => reject(place, why),
                Belief::Held(None) => {}
            }
        }
        match astray.finish() {
            Ok(held) => passed.extend(held.map(|h| year(h.ts))),
            Err((place, why)) => reject(place, why),
        }
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
