//! The index: an SQLite database that questions are answered from. The `desk` topic is the truth; this can be deleted at any time,
//! and is made again.
//!
//! One thread writes ([`follow`]), in transactions of many records, each with the offset that it covers. Whoever asks opens the
//! file for reading; with the write-ahead log neither waits for the other.

pub mod follow;
pub mod moments;
pub mod query;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, params};

use super::notice::Said;
use super::record::{ALERT, AUDIT, DECISION, DELIVERY, GROUP, HOLD, HOOK, INCIDENT, LISTING, MEASURE, Record, WATCHED};

/// What brings a database from each version to the next. Never changed once released; a new version is added at the end.
const MIGRATIONS: [&str; 6] = [
    "
    CREATE TABLE place (one INTEGER PRIMARY KEY CHECK (one = 1), topic TEXT NOT NULL, next_offset INTEGER NOT NULL,
        at_ms INTEGER NOT NULL) STRICT;
    CREATE TABLE incidents (id TEXT PRIMARY KEY, n INTEGER NOT NULL, account TEXT NOT NULL, tenant TEXT NOT NULL,
        state TEXT NOT NULL, severity TEXT NOT NULL, flagged_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL,
        json TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE INDEX incidents_by_n ON incidents (n);
    CREATE INDEX incidents_by_account ON incidents (account, n);
    CREATE INDEX incidents_by_tenant ON incidents (tenant, n);
    CREATE TABLE alerts (n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, incident TEXT NOT NULL, account TEXT NOT NULL,
        kind TEXT NOT NULL, severity TEXT NOT NULL, json TEXT NOT NULL) STRICT;
    CREATE INDEX alerts_by_incident ON alerts (incident, n);
    CREATE INDEX alerts_by_account ON alerts (account, n);
    CREATE TABLE deliveries (n INTEGER PRIMARY KEY, endpoint TEXT NOT NULL, id TEXT NOT NULL, incident TEXT NOT NULL,
        state TEXT NOT NULL, json TEXT NOT NULL, UNIQUE (endpoint, id)) STRICT;
    CREATE TABLE groups (endpoint TEXT NOT NULL, id TEXT NOT NULL, json TEXT NOT NULL,
        PRIMARY KEY (endpoint, id)) STRICT, WITHOUT ROWID;
    CREATE INDEX deliveries_by_incident ON deliveries (incident, n);
    CREATE INDEX deliveries_by_state ON deliveries (state, n);
",
    "
    CREATE TABLE decisions (n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, scope TEXT NOT NULL, name TEXT NOT NULL,
        incident TEXT, until_ms INTEGER NOT NULL, json TEXT NOT NULL) STRICT;
    CREATE INDEX decisions_by_name ON decisions (name, n);
    CREATE TABLE audit (n INTEGER PRIMARY KEY, who TEXT NOT NULL, what TEXT NOT NULL, incident TEXT, account TEXT,
        json TEXT NOT NULL) STRICT;
    CREATE INDEX audit_by_incident ON audit (incident, n);
    CREATE INDEX audit_by_account ON audit (account, n);
    -- What was read before these tables were there is read again.
    DELETE FROM place;
",
    "
    CREATE TABLE measures (n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, subject TEXT NOT NULL,
        incident TEXT NOT NULL, state TEXT NOT NULL, until_ms INTEGER NOT NULL, json TEXT NOT NULL) STRICT;
    CREATE INDEX measures_by_subject ON measures (subject, n);
    CREATE INDEX measures_by_state ON measures (state, n);
    DELETE FROM place;
",
    "
    CREATE TABLE listings (n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, relay TEXT NOT NULL, zone TEXT NOT NULL,
        until_ms INTEGER, json TEXT NOT NULL) STRICT;
    CREATE INDEX listings_by_relay ON listings (relay, n);
    CREATE TABLE watched (relay TEXT PRIMARY KEY, json TEXT NOT NULL) STRICT, WITHOUT ROWID;
    DELETE FROM place;
",
    "
    ALTER TABLE place ADD COLUMN is_whole INTEGER NOT NULL DEFAULT 0;
",
    "
    CREATE TABLE calls (measure TEXT NOT NULL, hook TEXT NOT NULL, verb TEXT NOT NULL, json TEXT NOT NULL,
        PRIMARY KEY (measure, hook, verb)) STRICT, WITHOUT ROWID;
    CREATE TABLE hold (one INTEGER PRIMARY KEY CHECK (one = 1), json TEXT NOT NULL) STRICT;
    DELETE FROM place;
",
];

/// How long a statement waits for another process that holds the file, such as a backup.
const BUSY: Duration = Duration::from_secs(5);

/// Why the index cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// SQLite says no; with the cure.
    #[error("desk.database {}: {source}. {}", path.display(), cure(source))]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// Made by a newer program.
    #[error(
        "desk.database {}: version {found}, this program knows {}: use the newer program, or delete the file: it is made again",
        path.display(),
        MIGRATIONS.len()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: usize,
    },
    /// A record cannot be written as JSON.
    #[error("an incident cannot be written: {0}; this is a bug")]
    Json(#[from] serde_json::Error),
}

/// What an operator can do.
fn cure(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "The disk is full: make room; it goes on by itself",
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            "The file or its folder cannot be written: look at owner, rights and mount; it goes on by itself"
        }
        Some(ErrorCode::CannotOpen) => {
            "The file cannot be opened: does its folder exist? Look at owner, rights and mount; it goes on by itself"
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            "The file is damaged: it is set aside, and made again from the topics"
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "Another process holds the file: each instance needs one of its own"
        }
        _ => "Where it stays so, delete the file: it is made again from the topics",
    }
}

impl Error {
    /// Whether the file is beyond help.
    pub fn is_damaged(&self) -> bool {
        matches!(self, Self::Sqlite { source, .. } if matches!(
            source.sqlite_error_code(),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        ))
    }
}

/// How far an index is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Which topic it was made from.
    pub topic: String,
    /// The offset of the next record.
    pub next_offset: i64,
    /// When it was written, in milliseconds since 1970.
    pub at_ms: i64,
    /// Whether that was the topic's end then.
    pub is_whole: bool,
}

/// The writing end.
#[derive(Debug)]
pub struct Index {
    connection: Connection,
    path: PathBuf,
}

impl Index {
    /// Opens the file, makes it where it is missing, and brings it to this program's version.
    ///
    /// # Errors
    /// Where it cannot be used; what is missing in rights or room passes.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Sqlite { path: path.to_owned(), source };
        let connection = Connection::open(path).map_err(failed)?;
        let mut index = Self { connection, path: path.to_owned() };
        index.prepare().map_err(failed)?;
        index.migrate()?;
        Ok(index)
    }

    fn prepare(&self) -> Result<(), rusqlite::Error> {
        let c = &self.connection;
        c.busy_timeout(BUSY)?;
        c.pragma_update(None, "journal_mode", "wal")?;
        // What a crash of the machine takes is read from the topic again.
        c.pragma_update(None, "synchronous", "normal")?;
        c.pragma_update(None, "journal_size_limit", 64 << 20)?;
        c.set_prepared_statement_cache_capacity(32);
        Ok(())
    }

    fn migrate(&mut self) -> Result<(), Error> {
        let path = self.path.clone();
        let failed = |source| Error::Sqlite { path: path.clone(), source };
        let found: usize = self
            .connection
            .pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))
            .map_err(failed)?
            .try_into()
            .unwrap_or(usize::MAX);
        if found > MIGRATIONS.len() {
            return Err(Error::Newer { path, found });
        }
        for (n, step) in MIGRATIONS.iter().enumerate().skip(found) {
            let t = self.connection.transaction().map_err(failed)?;
            t.execute_batch(step).map_err(failed)?;
            t.pragma_update(None, "user_version", (n + 1) as i64).map_err(failed)?;
            t.commit().map_err(failed)?;
        }
        Ok(())
    }

    /// How far it is; `None` where it is empty.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn place(&self) -> Result<Option<Place>, Error> {
        self.connection
            .query_row("SELECT topic, next_offset, at_ms, is_whole FROM place", [], |row| {
                Ok(Place { topic: row.get(0)?, next_offset: row.get(1)?, at_ms: row.get(2)?, is_whole: row.get(3)? })
            })
            .optional()
            .map_err(|e| self.failed(e))
    }

    /// Takes records in, and how far they reach; all of it or nothing.
    ///
    /// # Errors
    /// Where it cannot be written; then it is as it was.
    pub fn apply(&mut self, records: &[Record], place: &Place) -> Result<(), Error> {
        let path = self.path.clone();
        let failed = |source| Error::Sqlite { path: path.clone(), source };
        let t = self.connection.transaction().map_err(failed)?;
        for record in records {
            write(&t, record, &failed)?;
        }
        t.prepare_cached("INSERT OR REPLACE INTO place VALUES (1, ?1, ?2, ?3, ?4)")
            .and_then(|mut s| s.execute(params![place.topic, place.next_offset, place.at_ms, place.is_whole]))
            .map_err(failed)?;
        t.commit().map_err(failed)
    }

    /// Empties it.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn clear(&mut self) -> Result<(), Error> {
        self.connection
            .execute_batch(
                "BEGIN; DELETE FROM place; DELETE FROM incidents; DELETE FROM alerts; DELETE FROM deliveries;
                DELETE FROM groups; DELETE FROM decisions; DELETE FROM audit; DELETE FROM measures;
                DELETE FROM listings; DELETE FROM watched; DELETE FROM calls; DELETE FROM hold; COMMIT",
            )
            .map_err(|e| self.failed(e))
    }

    fn failed(&self, source: rusqlite::Error) -> Error {
        Error::Sqlite { path: self.path.clone(), source }
    }
}

/// The word by which serde writes a value that is one.
fn word(value: &impl serde::Serialize) -> Result<String, serde_json::Error> {
    Ok(serde_json::to_value(value)?.as_str().unwrap_or_default().to_owned())
}

/// Hook, measure and verb of the key of a call, behind what all such keys begin with.
fn call(key: &str) -> Option<(&str, &str, &str)> {
    let (hook, rest) = key.split_once('/')?;
    let (measure, verb) = rest.split_once('/')?;
    Some((hook, measure, verb))
}

fn write(t: &Transaction<'_>, record: &Record, failed: &dyn Fn(rusqlite::Error) -> Error) -> Result<(), Error> {
    let done = match record {
        Record::Alert(kept) => {
            let a = &kept.alert;
            let json = serde_json::to_string(a)?;
            let (kind, severity) = match a {
                Said::Account(alert) => (word(&alert.kind)?, word(&alert.severity)?),
                Said::Fleet(notice) => (word(&notice.kind)?, word(&notice.severity)?),
            };
            t.prepare_cached("INSERT OR REPLACE INTO alerts VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)").and_then(|mut s| {
                s.execute(params![kept.n as i64, a.id(), a.incident(), a.account(), kind, severity, json])
            })
        }
        Record::Incident(i) => {
            let (severity, json) = (word(&i.severity)?, serde_json::to_string(i)?);
            let n = i.alerts.first().map_or(0, |s| s.n) as i64;
            t.prepare_cached("INSERT OR REPLACE INTO incidents VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)").and_then(
                |mut s| {
                    let (state, flagged_ms) = (i.state.name(), i.flagged.0);
                    s.execute(params![i.id, n, i.account, i.tenant, state, severity, flagged_ms, i.updated_ms, json])
                },
            )
        }
        Record::Gone(key) => {
            if let Some(id) = key.strip_prefix(ALERT) {
                t.prepare_cached("DELETE FROM alerts WHERE id = ?1").and_then(|mut s| s.execute([id]))
            } else if let Some(id) = key.strip_prefix(INCIDENT) {
                t.prepare_cached("DELETE FROM incidents WHERE id = ?1").and_then(|mut s| s.execute([id]))
            } else if let Some((endpoint, id)) = key.strip_prefix(DELIVERY).and_then(|k| k.split_once('/')) {
                t.prepare_cached("DELETE FROM deliveries WHERE endpoint = ?1 AND id = ?2")
                    .and_then(|mut s| s.execute([endpoint, id]))
            } else if let Some((endpoint, id)) = key.strip_prefix(GROUP).and_then(|k| k.split_once('/')) {
                t.prepare_cached("DELETE FROM groups WHERE endpoint = ?1 AND id = ?2")
                    .and_then(|mut s| s.execute([endpoint, id]))
            } else if let Some(id) = key.strip_prefix(DECISION) {
                t.prepare_cached("DELETE FROM decisions WHERE id = ?1").and_then(|mut s| s.execute([id]))
            } else if let Some(id) = key.strip_prefix(MEASURE) {
                t.prepare_cached("DELETE FROM measures WHERE id = ?1").and_then(|mut s| s.execute([id]))
            } else if let Some(id) = key.strip_prefix(LISTING) {
                t.prepare_cached("DELETE FROM listings WHERE id = ?1").and_then(|mut s| s.execute([id]))
            } else if let Some(relay) = key.strip_prefix(WATCHED) {
                t.prepare_cached("DELETE FROM watched WHERE relay = ?1").and_then(|mut s| s.execute([relay]))
            } else if let Some((hook, measure, verb)) = key.strip_prefix(HOOK).and_then(call) {
                t.prepare_cached("DELETE FROM calls WHERE measure = ?1 AND hook = ?2 AND verb = ?3")
                    .and_then(|mut s| s.execute([measure, hook, verb]))
            } else if key == HOLD {
                t.prepare_cached("DELETE FROM hold").and_then(|mut s| s.execute([]))
            } else if let Some(n) = key.strip_prefix(AUDIT).and_then(|n| n.parse::<i64>().ok()) {
                t.prepare_cached("DELETE FROM audit WHERE n = ?1").and_then(|mut s| s.execute([n]))
            } else {
                return Ok(());
            }
        }
        Record::Decision(d) => {
            let json = serde_json::to_string(d)?;
            let until_ms = d.until.unwrap_or(d.from).0;
            t.prepare_cached("INSERT OR REPLACE INTO decisions VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)").and_then(
                |mut s| s.execute(params![d.n as i64, d.id, d.scope.name(), d.name, d.incident, until_ms, json]),
            )
        }
        Record::Audit(e) => {
            let json = serde_json::to_string(e)?;
            t.prepare_cached("INSERT OR REPLACE INTO audit VALUES (?1, ?2, ?3, ?4, ?5, ?6)").and_then(|mut s| {
                s.execute(params![e.n as i64, e.who, e.what, e.about.incident, e.about.account, json])
            })
        }
        Record::Delivery(d) => {
            let (state, json) = (word(&d.state)?, serde_json::to_string(d)?);
            t.prepare_cached(
                "INSERT INTO deliveries (endpoint, id, incident, state, json) VALUES (?1, ?2, ?3, ?4, ?5)
                    ON CONFLICT (endpoint, id) DO UPDATE SET state = excluded.state, json = excluded.json",
            )
            .and_then(|mut s| s.execute(params![d.endpoint, d.id, d.incident, state, json]))
        }
        Record::Group(g) => {
            let json = serde_json::to_string(g)?;
            t.prepare_cached("INSERT OR REPLACE INTO groups VALUES (?1, ?2, ?3)")
                .and_then(|mut s| s.execute(params![g.endpoint, g.id, json]))
        }
        Record::Measure(m) => {
            let json = serde_json::to_string(m)?;
            t.prepare_cached(
                "INSERT INTO measures (id, kind, subject, incident, state, until_ms, json) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                    ON CONFLICT (id) DO UPDATE SET state = excluded.state, until_ms = excluded.until_ms, json = excluded.json",
            )
            .and_then(|mut s| {
                s.execute(params![m.id, m.kind.name(), m.subject, m.incident, m.state.name(), m.until_ms, json])
            })
        }
        Record::Listing(l) => {
            let json = serde_json::to_string(l)?;
            t.prepare_cached(
                "INSERT INTO listings (id, relay, zone, until_ms, json) VALUES (?1, ?2, ?3, ?4, ?5)
                    ON CONFLICT (id) DO UPDATE SET until_ms = excluded.until_ms, json = excluded.json",
            )
            .and_then(|mut s| s.execute(params![l.id, l.relay, l.zone, l.until.map(|until| until.0), json]))
        }
        Record::Watched(w) => {
            let json = serde_json::to_string(w)?;
            t.prepare_cached("INSERT OR REPLACE INTO watched VALUES (?1, ?2)")
                .and_then(|mut s| s.execute(params![w.relay, json]))
        }
        Record::Hook(c) => {
            let json = serde_json::to_string(c)?;
            t.prepare_cached("INSERT OR REPLACE INTO calls VALUES (?1, ?2, ?3, ?4)")
                .and_then(|mut s| s.execute(params![c.measure, c.hook, c.verb.name(), json]))
        }
        Record::Hold(h) => {
            let json = serde_json::to_string(h)?;
            t.prepare_cached("INSERT OR REPLACE INTO hold VALUES (1, ?1)").and_then(|mut s| s.execute([json]))
        }
        Record::Anomaly(_) | Record::Endpoint(_) | Record::Behind(_) | Record::Renamed(_) | Record::Unknown => {
            return Ok(());
        }
    };
    done.map(|_| ()).map_err(failed)
}

/// Opens the file for reading.
///
/// # Errors
/// Where it is not there or cannot be read.
pub fn reader(path: &Path) -> Result<Connection, Error> {
    let failed = |source| Error::Sqlite { path: path.to_owned(), source };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    Ok(connection)
}

/// Copies the database to another file, while it is written, and looks whether the copy is sound. In one step: what is read in
/// several begins anew whenever somebody writes in between, and in a storm never ends. Who writes does not wait for it.
///
/// # Errors
/// Where either file cannot be used.
pub fn backup(path: &Path, to: &Path) -> Result<(), Error> {
    let failed = |source| Error::Sqlite { path: to.to_owned(), source };
    let from = reader(path)?;
    let mut copy = Connection::open(to).map_err(failed)?;
    copy.busy_timeout(BUSY).map_err(failed)?;
    copy_whole(&from, &mut copy).map_err(failed)?;
    let sound: String = copy.query_row("PRAGMA quick_check", [], |row| row.get(0)).map_err(failed)?;
    if sound != "ok" {
        return Err(failed(rusqlite::Error::InvalidColumnName(sound)));
    }
    Ok(())
}

fn copy_whole(from: &Connection, copy: &mut Connection) -> Result<(), rusqlite::Error> {
    let backup = Backup::new(from, copy)?;
    let until = Instant::now() + BUSY;
    loop {
        match backup.step(-1)? {
            StepResult::Done => return Ok(()),
            _ if Instant::now() < until => std::thread::sleep(Duration::from_millis(20)),
            _ => {
                let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
                return Err(rusqlite::Error::SqliteFailure(busy, None));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desk::book::Book;

    fn records() -> Vec<Record> {
        let mut book = Book::default();
        let alerts = include_str!("../../../schemas/examples/alerts.jsonl").lines();
        let account = |l: &&str| l.contains("\"account.");
        alerts.filter(account).flat_map(|l| book.take(serde_json::from_str(l).unwrap(), 7, "").records).collect()
    }

    fn place(next_offset: i64) -> Place {
        Place { topic: "desk".to_owned(), next_offset, at_ms: 5, is_whole: next_offset % 2 == 1 }
    }

    #[test]
    fn a_database_is_migrated_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("desk.sqlite");
        let mut index = Index::open(&path).unwrap();
        assert_eq!(index.place().unwrap(), None);
        index.apply(&records(), &place(9)).unwrap();
        drop(index);
        let index = Index::open(&path).unwrap();
        assert_eq!(index.place().unwrap(), Some(place(9)));
        let version: i64 = index.connection.pragma_query_value(None, "user_version", |r| r.get(0)).unwrap();
        assert_eq!(version, MIGRATIONS.len() as i64);
        // A newer one is left alone.
        index.connection.pragma_update(None, "user_version", 99).unwrap();
        drop(index);
        let error = Index::open(&path).unwrap_err().to_string();
        assert!(error.contains("version 99") && error.contains("delete the file"), "{error}");
    }

    #[test]
    fn a_measure_shows_what_its_hooks_answered_and_a_hold_is_there_until_it_is_over() {
        use crate::relays::measure::Kind;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("desk.sqlite");
        let mut index = Index::open(&path).unwrap();
        let pull = crate::relays::hands::tests::measure("m-1", Kind::Pull, "out-1", 0);
        let record = |key: &str, value: serde_json::Value| {
            Record::read(key.as_bytes(), Some(value.to_string().as_bytes())).unwrap()
        };
        let call = |verb: &str, said: &str| {
            let value = serde_json::json!({ "v": 1, "hook": "h", "measure": "m-1", "verb": verb, "stage": "later",
                "attempts": 3, "at_ms": 7, "not_before_ms": 9, "said": said });
            record(&format!("hook/h/m-1/{verb}"), value)
        };
        let hold = record("hold", serde_json::json!({ "v": 1, "until_ms": 100, "by": "ann", "note": "we look" }));
        let all = [
            Record::Measure(Box::new(pull)),
            call("pull", "ended"),
            call("restore", "no"),
            call("restore", "no \"such\""),
            hold,
        ];
        index.apply(&all, &place(1)).unwrap();
        let measures = |q: &query::Measures| -> Vec<serde_json::Value> {
            let page = query::measures(&reader(&path).unwrap(), q, 1).unwrap();
            page.items.iter().map(|json| serde_json::from_str(json.get()).unwrap()).collect()
        };
        let hooks = measures(&query::Measures::default())[0]["hooks"].clone();
        let wanted = serde_json::json!({ "hook": "h", "verb": "restore", "stage": "later", "attempts": 3, "at_ms": 7,
            "not_before_ms": 9, "said": "no \"such\"" });
        assert_eq!((hooks.as_array().unwrap().len(), &hooks[1]), (2, &wanted), "{hooks}");
        let one = query::measure(&reader(&path).unwrap(), "m-1").unwrap().unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(one.get()).unwrap()["hooks"], hooks);
        let of = |tenant: &str| query::Measures { tenant: Some(tenant.to_owned()), ..query::Measures::default() };
        assert_eq!((measures(&of("")).len(), measures(&of("x.example")).len()), (1, 0));
        let held = |now_ms| query::hold(&reader(&path).unwrap(), now_ms).unwrap().map(|h| h.by);
        assert_eq!((held(99).as_deref(), held(100)), (Some("ann"), None));

        let gone = ["hook/h/m-1/pull", "hold"].map(|key| Record::Gone(key.to_owned()));
        index.apply(&gone, &place(2)).unwrap();
        assert_eq!((held(1), measures(&of(""))[0]["hooks"].as_array().unwrap().len()), (None, 1));
        index.clear().unwrap();
        index.apply(&all[..1], &place(3)).unwrap();
        assert_eq!(measures(&query::Measures::default())[0]["hooks"], serde_json::json!([]), "as none was called");
    }

    #[test]
    fn a_copy_is_whole_and_made_while_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let (path, to) = (folder.path().join("a"), folder.path().join("b"));
        let mut index = Index::open(&path).unwrap();
        let many: Vec<Record> = (0..5_000).flat_map(|_| records()).enumerate().map(renamed).collect();
        let alerts: Vec<Record> = many.into_iter().filter(|r| matches!(r, Record::Alert(_))).collect();
        let (first, rest) = alerts.split_at(alerts.len() / 2);
        index.apply(first, &place(first.len() as i64)).unwrap();
        let pages: i64 = index.connection.pragma_query_value(None, "page_count", |r| r.get(0)).unwrap();
        assert!(pages > 2_000, "a copy in parts would take many: {pages}");
        let (done, ended) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let (path, to) = (&path, &to);
            let copying = scope.spawn(move || {
                let copied = backup(path, to);
                done.send(()).unwrap();
                copied
            });
            // One alert a transaction, as fast as can be, each with its place, until the copy is there.
            let (mut written, began) = (first.len(), Instant::now());
            for alert in rest.iter().cycle() {
                written += usize::from(written < alerts.len());
                index.apply(std::slice::from_ref(alert), &place(written as i64)).unwrap();
                if ended.try_recv().is_ok() {
                    break;
                }
                assert!(began.elapsed() < Duration::from_secs(120), "the copy does not end while it is written");
            }
            copying.join().unwrap().unwrap();
            assert!(written > first.len(), "it was written meanwhile");
        });
        let n = |path: &Path, what: &str| -> i64 { reader(path).unwrap().query_row(what, [], |r| r.get(0)).unwrap() };
        let (copied, place) = (n(&to, "SELECT count(*) FROM alerts"), n(&to, "SELECT next_offset FROM place"));
        assert_eq!(copied, place, "of one moment");
        assert!(copied >= first.len() as i64);
        // It is a database like the other.
        assert!(Index::open(&to).unwrap().place().unwrap().is_some());
        assert!(backup(&folder.path().join("none"), &to).is_err());
    }

    #[test]
    fn what_cannot_be_written_is_left_as_it_was_and_goes_on_when_it_can() {
        let folder = tempfile::tempdir().unwrap();
        let mut index = Index::open(&folder.path().join("desk.sqlite")).unwrap();
        let pages: i64 = index.connection.pragma_query_value(None, "page_count", |r| r.get(0)).unwrap();
        let many: Vec<Record> = (0..200).flat_map(|_| records()).enumerate().map(renamed).collect();
        for (limit, lift, words) in [
            (("max_page_count", pages + 2), ("max_page_count", 1 << 30), "make room"),
            (("query_only", 1), ("query_only", 0), "cannot be written"),
        ] {
            index.connection.pragma_update(None, limit.0, limit.1).unwrap();
            let error = index.apply(&many, &place(3)).unwrap_err();
            assert!(error.to_string().contains(words) && !error.is_damaged(), "{error}");
            index.connection.pragma_update(None, lift.0, lift.1).unwrap();
            assert_eq!(index.place().unwrap(), None);
        }
        index.apply(&many, &place(3)).unwrap();
        assert_eq!(index.place().unwrap(), Some(place(3)));
    }

    /// Alerts of other incidents.
    fn renamed((n, record): (usize, Record)) -> Record {
        match record {
            Record::Alert(mut kept) => {
                kept.n = n as u64;
                if let Said::Account(alert) = &mut kept.alert {
                    alert.id = format!("a-{n}");
                }
                Record::Alert(kept)
            }
            other => other,
        }
    }

    #[test]
    fn trouble_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("desk.sqlite");
        std::fs::write(&path, [b'x'; 4096]).unwrap();
        let error = Index::open(&path).unwrap_err();
        assert!(error.is_damaged(), "{error}");
        assert!(error.to_string().contains("set aside"), "{error}");
        let error = Index::open(&folder.path().join("no/such")).unwrap_err();
        assert!(!error.is_damaged() && error.to_string().contains("folder"), "{error}");
    }
}
