//! The active desk: takes alerts, and writes what they amount to. One loop; it ends when the desk does, and begins anew from the
//! topics whenever something goes wrong.

mod catch_up;
mod directed;
mod forget;
mod hooks;
mod listings;
mod member;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, TopicPartitionList};

use super::book::Book;
use super::deliver::{Deliveries, Lost};
use super::exposed::Exposed;
use super::feedback::clerk::{Clerk, Control, NoControl};
use super::heartbeat::Heart;
use super::heirs::Heirs;
use super::measures::{Exposure, Measures, Unexposed, Written};
use super::notice::{Notice, Said};
use super::pulse::Pulse;
use super::record::{ALERT, Record};
use super::sender::{Hands, chance};
use super::shared::{self, Role, Shared};
use super::webhook::outcome::Outcome;
use crate::directory::Directory;
use crate::kafka::changelog::{self, Changelog, Place};
use crate::kafka::client;
use crate::kafka::group::seek;
use crate::kafka::outlet::now_ms;
use crate::kafka::restore::{self, Read, Reader};
use forget::FORGET;
use member::{Context, consumer};

/// Alerts that are taken in one transaction, at most.
const BATCH: usize = 500;
/// A poll that finds nothing takes this long, and with messages under way so long.
const POLL: Duration = Duration::from_millis(100);
const POLL_SENDING: Duration = Duration::from_millis(5);
/// How often it is shown how things stand.
const SHOW: Duration = Duration::from_millis(500);
/// The wait before it is tried again.
const AGAIN: Duration = Duration::from_secs(3);

/// Who says what the desk says.
const BY: &str = concat!("mailfuse ", env!("CARGO_PKG_VERSION"), " (desk)");

/// Why the desk begins anew.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error(transparent)]
    Read(#[from] restore::Error),
    #[error(transparent)]
    Write(#[from] changelog::Error),
    #[error("what was decided cannot be told to the detectors: {0}")]
    Control(#[from] NoControl),
    #[error("{0}")]
    Broker(String),
    #[error("a record cannot be written: {0}; this is a bug")]
    Json(#[from] serde_json::Error),
    #[error("the system gives no threads to send with: {0}")]
    Threads(#[from] std::io::Error),
}

/// Until the desk ends.
pub(super) fn run(shared: &Shared) {
    let mut said = shared::Said::default();
    while !shared.is_stopping() {
        match work(shared) {
            Ok(()) => {}
            Err(Error::Write(changelog::Error::Fenced(why))) => {
                shared.metrics.fenced.inc();
                tracing::info!("another instance is the active desk: {why}");
                shared.set_role(Role::Standby);
                shared.wait(AGAIN);
            }
            Err(_) if shared.is_stopping() => {}
            Err(e) => {
                shared.metrics.desk_failures.inc();
                let why = e.to_string();
                if said.is_news(&why) {
                    tracing::error!("the desk cannot go on, and tries again: {why}");
                }
                shared.set_role(Role::Waiting { why });
                shared.wait(AGAIN);
            }
        }
    }
    shared.set_role(Role::Standby);
}

fn work(shared: &Shared) -> Result<(), Error> {
    let (kafka, t) = (&shared.kafka, &shared.kafka.topics);
    let reader = Reader::new(kafka)?;
    for topic in [&t.alerts, &t.desk] {
        let partitions = reader.partitions(topic)?;
        if partitions != 1 {
            return Err(Error::Broker(format!(
                "{topic} has {partitions} partitions, it must have one: `mailfuse topics check` says more"
            )));
        }
    }
    let consumer = consumer(shared)?;
    let mut active: Option<Active<'_>> = None;
    while !shared.is_stopping() {
        let wait = match &active {
            Some(active) if active.has_news() => Duration::ZERO,
            Some(active) if active.hands.under_way() > 0 => POLL_SENDING,
            _ => POLL,
        };
        let polled = consumer.poll(wait);
        if !consumer.context().is_ours.load(Ordering::Acquire) {
            if active.take().is_some() {
                tracing::info!("the desk stands by: another instance has the alerts");
            }
            shared.set_role(Role::Standby);
            continue;
        }
        let active = match &mut active {
            Some(active) => active,
            none => {
                shared.set_role(Role::Taking);
                let begun = Active::begin(shared, &reader, &consumer)?;
                shared.set_role(Role::Active);
                none.insert(begun)
            }
        };
        let is_idle = polled.is_none();
        match polled {
            Some(Ok(message)) => active.take(&message),
            Some(Err(KafkaError::PartitionEOF(_))) => active.at_end = true,
            None => {}
            Some(Err(e)) => {
                return Err(Error::Broker(
                    consumer.context().trouble.explain(&format!("{} is not readable", t.alerts), &e),
                ));
            }
        }
        active.hear();
        active.show(&consumer);
        if active.taken >= BATCH || active.clerk.has_news() || (is_idle && (active.has_news() || active.is_due())) {
            active.write(&consumer)?;
        }
        // Nothing is sent before it is recorded that it is to be sent.
        if !active.has_news() {
            active.catch_up(&consumer)?;
        }
        if !active.has_news() {
            active.begin_hooks();
            active.send();
        }
    }
    if let Some(active) = &mut active
        && active.has_news()
    {
        active.write(&consumer)?;
    }
    Ok(())
}

/// The desk while the alerts are its own.
struct Active<'a> {
    shared: &'a Shared,
    changelog: Changelog,
    book: Book,
    /// What the next transaction writes.
    records: Vec<Record>,
    /// What it says itself.
    notices: Vec<Notice>,
    deliveries: Deliveries,
    clerk: Clerk,
    relays: Measures,
    running: Option<hooks::Running>,
    lists: listings::Lists,
    reader: &'a Reader,
    hands: Hands,
    heirs: Heirs,
    /// The directory whose renames were taken, and when.
    followed: (Arc<Directory>, Instant),
    pulse: Option<Pulse<'a>>,
    /// Where in the desk topic the next alert stands for each endpoint that is behind.
    places: BTreeMap<String, i64>,
    /// When it was looked there.
    looked: Instant,
    /// When it was shown how things stand.
    shown: Instant,
    /// Alerts since the last one.
    taken: usize,
    next_offset: i64,
    /// Nothing is left to be taken.
    at_end: bool,
    has_moved: bool,
    forgot: Instant,
    /// What the next transaction forgets before an endpoint that is behind has had it.
    lost: Vec<Lost>,
}

impl<'a> Active<'a> {
    /// Fences the desk before, reads what it left, and goes on where it stopped.
    fn begin(shared: &'a Shared, reader: &'a Reader, consumer: &BaseConsumer<Context>) -> Result<Self, Error> {
        let began = Instant::now();
        let (kafka, t) = (&shared.kafka, &shared.kafka.topics);
        let ours = || consumer.context().is_ours.load(Ordering::Acquire) && !shared.is_stopping();
        let place = Place { id: kafka.group.clone(), from: t.alerts.clone(), into: t.desk.clone(), partition: 0 };
        let changelog = Changelog::open(kafka, place, &ours)?;
        let hands = Hands::new(&shared.in_force)?;
        let mut deliveries = Deliveries::new(&shared.settings.endpoints(), &shared.settings.link);
        let (mut book, mut clerk) = (Book::default(), Clerk::default());
        let exposure: Box<dyn Exposure> = match shared.relays.needs_no_signals() {
            true => Box::<Unexposed>::default(),
            false => Box::new(Exposed::start(kafka, &shared.relays)?),
        };
        let mut relays = Measures::new(&shared.relays, exposure, BY);
        let (mut records, mut calls, mut lists) = (0u64, BTreeMap::new(), listings::Lists::default());
        let (low, high) = reader.range(&t.desk, 0)?;
        if high > low {
            reader.read(&t.desk, 0, low, &ours, &mut |message| {
                records += 1;
                if let Some(record) = read(shared, message) {
                    deliveries.restore(&record);
                    clerk.restore(&record);
                    relays.restore(&record);
                    lists.restore(&record);
                    match &record {
                        Record::Hook(call) => drop(calls.insert(call.record_key(), (**call).clone())),
                        Record::Gone(key) => drop(calls.remove(key)),
                        _ => {}
                    }
                    book.restore(record);
                }
                Ok(Read::On)
            })?;
        }
        book.restored();
        if let Err(e) = clerk.look(reader, &t.control, &ours) {
            tracing::warn!(
                "{}: what was decided cannot be read, and nothing can be decided until it can: {e}",
                t.control
            );
        }
        let wanting = deliveries.restored(now_ms());
        if !wanting.is_empty() {
            // What waits to be delivered is little of what there is: it is read again rather than kept in mind.
            reader.read(&t.desk, 0, low, &ours, &mut |message| {
                let key = message.key().unwrap_or_default();
                let id = key.strip_prefix(ALERT.as_bytes()).and_then(|id| std::str::from_utf8(id).ok());
                if let Some(&messages) = id.and_then(|id| wanting.get(id))
                    && let Some(Record::Alert(kept)) = read(shared, message)
                {
                    deliveries.give(kept.alert, messages);
                }
                Ok(Read::On)
            })?;
        }
        let next_offset = start(reader, &t.alerts)?;
        let mut list = TopicPartitionList::new();
        list.add_partition(&t.alerts, 0);
        seek(consumer, &t.alerts, 0, next_offset, &ours)
            .and_then(|()| consumer.resume(&list))
            .map_err(|e| Error::Broker(format!("{}: offset {next_offset} cannot be gone to: {e}", t.alerts)))?;
        shared.alerts_next.store(next_offset, Ordering::Release);
        shared.metrics.desk_open_incidents.set(book.open() as i64);
        tracing::info!(
            incidents = book.len(),
            open = book.open(),
            records,
            next_offset,
            ms = began.elapsed().as_millis() as u64,
            "this is the active desk"
        );
        let ended = lists.begin(shared)?;
        let forgot = Instant::now().checked_sub(FORGET).unwrap_or(began);
        Ok(Self {
            shared,
            changelog,
            book,
            records: ended.records,
            notices: ended.notices,
            deliveries,
            clerk,
            relays,
            running: hooks::Running::new(&shared.relays, calls, &shared.metrics)?,
            lists,
            reader,
            hands,
            heirs: Heirs::default(),
            followed: (Arc::default(), forgot),
            pulse: Pulse::begin(shared, now_ms())?,
            places: BTreeMap::new(),
            looked: forgot,
            shown: forgot,
            taken: 0,
            next_offset,
            at_end: false,
            has_moved: false,
            forgot,
            lost: Vec::new(),
        })
    }

    fn take(&mut self, message: &BorrowedMessage<'_>) {
        // Fetched before it was sought.
        if message.offset() < self.next_offset {
            return;
        }
        match serde_json::from_slice::<Said>(message.payload().unwrap_or_default()) {
            Ok(Said::Account(alert)) if alert.heartbeat => {
                if let Some(pulse) = &mut self.pulse {
                    pulse.answer(&alert, now_ms());
                }
            }
            Ok(Said::Account(alert)) => {
                self.book.know(self.shared.directory.directory());
                let taken = self.book.take((*alert).clone(), now_ms(), BY);
                let is_news = !taken.records.is_empty();
                self.notices.extend(taken.notices);
                self.record(taken.records);
                if is_news {
                    let written = self.relays.take(&alert, &self.book, self.clerk.ledger(), now_ms());
                    self.write_down(written);
                }
            }
            Ok(Said::Fleet(notice)) => {
                let record = self.book.take_notice(*notice, now_ms());
                self.record(record.into_iter().collect());
            }
            Err(e) => unreadable(self.shared, message, &format!("no alert: {e}")),
        }
        (self.taken, self.at_end) = (self.taken + 1, false);
        self.next_offset = message.offset() + 1;
        self.has_moved = true;
    }

    /// Notes what is to be written, and of an alert among it to whom it goes.
    fn record(&mut self, records: Vec<Record>) {
        for record in records {
            if let Record::Alert(kept) = &record {
                self.shared.metrics.desk_alerts.inc();
                let said = Arc::new(kept.alert.clone());
                let mut told = self.book.incident(said.thread()).map(|i| i.told.clone()).unwrap_or_default();
                let about = self.book.about(&said);
                let deliveries = self.deliveries.take(&said, kept.n, &about, &mut told, now_ms());
                self.records.push(record);
                self.records.extend(deliveries);
                self.book.tell(said.thread(), told);
                // Of an alert it comes behind it anyway.
                if let Said::Fleet(notice) = &*said {
                    let incident = self.book.incident(notice.thread()).cloned().map(Box::new);
                    self.records.extend(incident.map(Record::Incident));
                }
            } else if let Record::Incident(incident) = &record {
                // As it is by now: it comes behind its alert, and knows who was told.
                let now = self.book.incident(&incident.id).cloned().map(Box::new);
                self.records.extend(now.map(Record::Incident));
            } else {
                self.records.push(record);
            }
        }
    }

    fn write_down(&mut self, written: Written) {
        self.time(&written);
        self.records.extend(written.records);
        self.notices.extend(written.notices);
    }

    /// Whether there is something to write.
    fn has_news(&self) -> bool {
        self.has_moved || !self.records.is_empty() || self.clerk.has_news()
    }

    /// Takes in what has ended, what is too old, and what people want.
    fn hear(&mut self) {
        let now_ms = now_ms();
        for ended in self.hands.ended() {
            self.shared.metrics.delivery(&ended.endpoint, ended.outcome.label());
            match &mut self.pulse {
                Some(pulse) if Heart::is_of(ended.attempt) => {
                    pulse.done(ended.attempt, &ended.outcome, now_ms);
                    if let Some(why) = ended.outcome.why() {
                        self.deliveries.no_heartbeat(&ended.endpoint, why, now_ms);
                    }
                    if ended.outcome == Outcome::Gone {
                        self.records.extend(self.deliveries.disable(&ended.endpoint, now_ms));
                    }
                }
                _ => {
                    let records = self.deliveries.done(ended.attempt, &ended.outcome, now_ms, &mut chance);
                    self.records.extend(records);
                }
            }
        }
        if let Some(pulse) = &mut self.pulse {
            pulse.tick(now_ms);
        }
        if self.deliveries.next_ms().is_some_and(|at| at <= now_ms) {
            self.records.extend(self.deliveries.expire(now_ms));
        }
        while let Ok(command) = self.shared.commands().try_recv() {
            // By the clock as it is now: a decision begins soon after.
            let now_ms = crate::kafka::outlet::now_ms();
            let written = self.clerk.grant(command, &mut self.book, &mut self.deliveries, &mut self.relays, now_ms);
            self.write_down(written);
        }
        self.hand_over();
        let written = self.relays.look(&self.book, self.clerk.ledger(), now_ms);
        self.write_down(written);
        self.see_to_hooks();
        self.see_to_lists();
    }

    /// Shows how the endpoints do, and how much is still to be taken.
    fn show(&mut self, consumer: &BaseConsumer<Context>) {
        if self.shown.elapsed() > SHOW {
            self.shown = Instant::now();
            self.shared.show(&self.deliveries, self.book.next());
            // Behind the last alert the end of a transaction may stand, which nobody is given.
            let end = if self.at_end { self.next_offset } else { consumer.context().end.load(Ordering::Relaxed) };
            self.shared.metrics.desk_lag_messages.set((end - self.next_offset).max(0));
        }
    }

    fn send(&mut self) {
        let now_ms = now_ms();
        let mut beats = self.pulse.as_mut().map(|pulse| pulse.due(now_ms)).unwrap_or_default();
        beats.retain(|(attempt, _)| !self.deliveries.is_disabled(&attempt.endpoint));
        let customer = |incident: &str| self.book.incident(incident).and_then(|i| i.directory.clone());
        for (attempt, message) in beats.into_iter().chain(self.deliveries.due(now_ms, &customer)) {
            self.hands.send(&attempt, &message);
        }
    }

    /// Writes what was taken, and how far it reaches.
    fn write(&mut self, consumer: &BaseConsumer<Context>) -> Result<(), Error> {
        if self.is_due() {
            self.forget();
            if !self.has_news() {
                return Ok(());
            }
        }
        let ours = || consumer.context().is_ours.load(Ordering::Acquire);
        let control = self.clerk.control(self.reader, &self.shared.kafka.topics.control, &ours, now_ms())?;
        let membership = consumer.context().membership.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(group) = &*membership else {
            return Err(Error::Broker("the group does not say who we are".to_owned()));
        };
        self.changelog.begin()?;
        let written =
            self.put(&control, &ours).and_then(|()| Ok(self.changelog.commit(self.next_offset, group, &ours)?));
        if let Err(e) = written {
            // Whoever goes on, be it we, begins with what the topic has.
            let _ = self.changelog.abort(&ours);
            return Err(e);
        }
        self.shared.count_given_up(&self.records);
        self.records.clear();
        self.say_what_was_lost();
        for notice in self.notices.drain(..) {
            tracing::info!(incident = notice.incident, accounts = notice.accounts.len(), "{:?}", notice.kind);
        }
        (self.taken, self.has_moved) = (0, false);
        self.clerk.stored(now_ms());
        self.shared.alerts_next.store(self.next_offset, Ordering::Release);
        self.shared.metrics.desk_open_incidents.set(self.book.open() as i64);
        Ok(())
    }

    fn put(&mut self, control: &[Control], ours: &dyn Fn() -> bool) -> Result<(), Error> {
        let topics = &self.shared.kafka.topics;
        for record in &self.records {
            let value = record.value()?;
            self.changelog.put(record.key().as_bytes(), value.as_deref(), ours)?;
        }
        for notice in &self.notices {
            let value = serde_json::to_vec(notice)?;
            self.changelog.put_beside(&topics.alerts, notice.incident.as_bytes(), Some(&value), ours)?;
        }
        for (key, value) in control {
            self.changelog.put_beside(&topics.control, key.as_bytes(), value.as_deref(), ours)?;
        }
        Ok(())
    }
}

/// Where to go on with the alerts.
fn start(reader: &Reader, alerts: &str) -> Result<i64, Error> {
    let (low, high) = reader.range(alerts, 0)?;
    Ok(match reader.committed(alerts, 0)? {
        None => low,
        Some(next) if (low..=high).contains(&next) => next,
        Some(next) if next < low => {
            tracing::error!("{alerts}: alerts from offset {next} to {low} were deleted before the desk took them");
            low
        }
        Some(next) => {
            tracing::error!(
                "{alerts}: offset {next} is not there yet, the topic was made anew: it is read from its beginning"
            );
            low
        }
    })
}

/// A record of the desk topic. One that cannot be read is named and passed over: the others are not worse for it.
pub(super) fn read(shared: &Shared, message: &BorrowedMessage<'_>) -> Option<Record> {
    match Record::read(message.key().unwrap_or_default(), message.payload()) {
        Ok(record) => Some(record),
        Err(e) => {
            unreadable(shared, message, &e.to_string());
            None
        }
    }
}

fn unreadable(shared: &Shared, message: &BorrowedMessage<'_>, why: &str) {
    shared.metrics.desk_unreadable.inc();
    tracing::error!(
        "{}:{}:{}: {why}; it is passed over: `mailfuse topics check`, and look at who else writes there",
        message.topic(),
        message.partition(),
        message.offset()
    );
}
