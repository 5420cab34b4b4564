//! What waits at one endpoint: a lane for each incident, of which only the head is ever sent.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::record::{Delivery, DeliveryRecord, Last, State};

/// A delivery that waits or is under way.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) delivery: Delivery,
    /// Attempts of the schedule that are used up.
    pub(super) attempts: u32,
    pub(super) next_ms: i64,
    pub(super) last: Option<Last>,
    /// The number of its last attempt, 0 before the first: who was asked about longest ago is probed first.
    pub(super) tried: u64,
    /// Whether its message may no longer change: an attempt began, or may have begun before a restart.
    pub(super) sealed: bool,
}

impl Item {
    pub(super) fn record(&self, state: State) -> DeliveryRecord {
        DeliveryRecord {
            attempts: self.attempts,
            next_ms: self.next_ms,
            state,
            last: self.last.clone(),
            ..DeliveryRecord::new(&self.delivery)
        }
    }
}

/// The place of an item in its lane: by the alert, and behind it by when it was made.
pub(super) type Place = (u64, i64, String);
/// A head by when it is due: the earlier made first among those that are due together.
type Ready = (i64, i64, u64, String);

#[derive(Debug, Default)]
struct Lane {
    items: BTreeMap<Place, Item>,
    /// Whether one of them is under way.
    busy: bool,
}

impl Lane {
    fn ready(&self, incident: &str) -> Option<Ready> {
        let item = self.items.values().next().filter(|_| !self.busy)?;
        Some((
            item.next_ms.max(item.delivery.not_before_ms),
            item.delivery.created_ms,
            item.delivery.seq,
            incident.to_owned(),
        ))
    }
}

/// All lanes of an endpoint, with indexes.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: BTreeMap<String, Lane>,
    places: HashMap<String, (String, Place)>,
    /// Heads of lanes that are not busy.
    ready: BTreeSet<Ready>,
    /// By when it was made, what is not under way.
    ages: BTreeSet<(i64, String)>,
}

impl Lanes {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn get(&self, id: &str) -> Option<&Item> {
        let (incident, place) = self.places.get(id)?;
        self.lanes.get(incident)?.items.get(place)
    }

    pub(super) fn is_busy(&self, incident: &str) -> bool {
        self.lanes.get(incident).is_some_and(|lane| lane.busy)
    }

    /// The oldest that is not under way: when it was made, and its id.
    pub(super) fn oldest(&self) -> Option<(i64, &str)> {
        self.ages.first().map(|(created_ms, id)| (*created_ms, id.as_str()))
    }

    /// Changes a lane and keeps the index of heads.
    fn change<T>(&mut self, incident: &str, change: impl FnOnce(&mut Lane) -> T) -> T {
        if let Some(key) = self.lanes.get(incident).and_then(|lane| lane.ready(incident)) {
            self.ready.remove(&key);
        }
        let lane = self.lanes.entry(incident.to_owned()).or_default();
        let result = change(lane);
        if let Some(key) = lane.ready(incident) {
            self.ready.insert(key);
        }
        if lane.items.is_empty() {
            self.lanes.remove(incident);
        }
        result
    }

    /// Puts an item into its lane. What comes behind pulls forward: who must be sent sooner does not wait for quiet hours of
    /// those before it.
    pub(super) fn insert(&mut self, mut item: Item) {
        let Delivery { id, incident, seq, created_ms, not_before_ms, .. } = item.delivery.clone();
        let place = (seq, created_ms, id.clone());
        self.places.insert(id.clone(), (incident.clone(), place.clone()));
        self.ages.insert((created_ms, id));
        self.change(&incident, |lane| {
            lane.items.range_mut(..place.clone()).for_each(|(_, before)| hasten(before, not_before_ms));
            // After a restart they come in any order.
            if let Some(soonest) =
                lane.items.range(place.clone()..).map(|(_, after)| after.delivery.not_before_ms).min()
            {
                hasten(&mut item, soonest);
            }
            lane.items.insert(place, item);
        });
    }

    /// Sends an item and those before it not later than so.
    pub(super) fn hasten(&mut self, id: &str, not_before_ms: i64) {
        let Some((incident, place)) = self.places.get(id).cloned() else { return };
        self.change(&incident, |lane| {
            lane.items.range_mut(..=place).for_each(|(_, item)| hasten(item, not_before_ms));
        });
    }

    pub(super) fn update(&mut self, id: &str, update: impl FnOnce(&mut Item)) {
        let Some((incident, place)) = self.places.get(id).cloned() else { return };
        self.change(&incident, |lane| lane.items.get_mut(&place).map(update));
    }

    pub(super) fn remove(&mut self, id: &str) -> Option<Item> {
        let (incident, place) = self.places.remove(id)?;
        let item = self.change(&incident, |lane| lane.items.remove(&place))?;
        self.ages.remove(&(item.delivery.created_ms, id.to_owned()));
        Some(item)
    }

    /// The head that is due first, with when.
    pub(super) fn first(&self) -> Option<(i64, &Item)> {
        self.ready.first().and_then(|(at, .., incident)| Some((*at, self.head(incident)?)))
    }

    /// The head to probe with, of those that nothing holds: the one that was tried longest ago, so that a message that a
    /// receiver cannot take does not keep all others from showing that it is back.
    pub(super) fn to_probe(&self, now_ms: i64) -> Option<&Item> {
        let heads = self.ready.iter().filter_map(|(.., incident)| self.head(incident));
        heads
            .filter(|item| item.delivery.not_before_ms <= now_ms)
            .min_by_key(|item| (item.tried, item.delivery.created_ms, item.delivery.seq))
    }

    /// When a probe has something to send: at `from_ms`, or when the first is no longer held.
    pub(super) fn probe_ms(&self, from_ms: i64) -> Option<i64> {
        let mut first: Option<i64> = None;
        for item in self.ready.iter().filter_map(|(.., incident)| self.head(incident)) {
            let at = item.delivery.not_before_ms.max(from_ms);
            if at == from_ms {
                return Some(at);
            }
            first = Some(first.map_or(at, |first| first.min(at)));
        }
        first
    }

    fn head(&self, incident: &str) -> Option<&Item> {
        self.lanes.get(incident)?.items.values().next()
    }

    /// Marks an item as under way.
    pub(super) fn begin(&mut self, id: &str, attempt: u64) {
        let Some((incident, place)) = self.places.get(id).cloned() else { return };
        let created_ms = self.change(&incident, |lane| {
            lane.busy = true;
            let item = lane.items.get_mut(&place)?;
            (item.tried, item.sealed) = (attempt, true);
            Some(item.delivery.created_ms)
        });
        self.ages.remove(&(created_ms.unwrap_or_default(), id.to_owned()));
    }

    /// The item is no longer under way.
    pub(super) fn end(&mut self, id: &str) {
        let Some((incident, place)) = self.places.get(id).cloned() else { return };
        let created_ms = self.change(&incident, |lane| {
            lane.busy = false;
            lane.items.get(&place).map(|item| item.delivery.created_ms)
        });
        self.ages.extend(created_ms.map(|created_ms| (created_ms, id.to_owned())));
    }

    /// Makes everything due now, except what is held.
    pub(super) fn all_due(&mut self, now_ms: i64) {
        for lane in self.lanes.values_mut() {
            // What is recorded of one that is held must still say until when.
            lane.items.values_mut().for_each(|i| i.next_ms = i.next_ms.min(now_ms.max(i.delivery.not_before_ms)));
        }
        self.ready = self.lanes.iter().filter_map(|(incident, lane)| lane.ready(incident)).collect();
    }
}

fn hasten(item: &mut Item, not_before_ms: i64) {
    item.delivery.not_before_ms = item.delivery.not_before_ms.min(not_before_ms);
    if item.attempts == 0 && item.last.is_none() {
        item.next_ms = item.next_ms.min(not_before_ms);
    }
}
