//! `mailfuse publish`: logs and events into the topic that `mailfuse run` reads.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::feed::{self, Came, Reading, RejectsFile, Seen};
use super::replay::{FormatArgument, parse_time};
use super::stop::Stop;
use super::table::{count, printable, thousands};
use super::{Failure, summary, usage};
use crate::config::Config;
use crate::event::{Event, encode};
use crate::input::{Place, Source};
use crate::kafka::Kafka;
use crate::kafka::publish::{Pace, Pacer, Publisher, key, producer_config, record};

/// Every so many events their place is kept, for telling from where on to publish again…
const MARK_EVERY: usize = 256;
/// …as long as they can still fail: two million events, more than the producer's queue holds.
const MARKS_MAX: usize = 8192;
/// Nobody waits longer than this before looking whether to stop.
const NAP_MAX: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each event becomes a record of the topic `kafka.topics.events`: its value the event as the contract has it (a line that is
an event already goes as it is), its key the account, placed as Java's clients place it. Files are merged by time.
Events are published once and in order; those of an account stay in one partition.

Examples:
  mailfuse publish --config mailfuse.toml /var/log/mail.log
  tail -F /var/log/mail.log | mailfuse publish --config mailfuse.toml -     a feed, for want of a better one
  mailfuse publish --speed 60x yesterday.jsonl.gz                           a day in 24 minutes

Exit status: 0 all published, 1 not all (what has arrived stays), 2 wrong usage or configuration.")]
pub(super) struct Arguments {
    /// Logs or events: plain, gzip, zstd, xz or bzip2; `-` is standard input. Several are merged by time
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Configuration; `mailfuse config` prints the defaults
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What the files hold; told from their content where it is `auto`
    #[arg(long, value_enum, default_value_t = FormatArgument::Auto)]
    format: FormatArgument,
    /// Year of each file's first line where stamps have none, as for `replay`
    #[arg(long, value_name = "YEAR", value_parser = clap::value_parser!(i16).range(1970..=2100))]
    year: Option<i16>,
    /// Zone of stamps that name none, as Europe/Berlin
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    tz: String,
    /// Reject events after this time. Without it, an event more than a year from the ones around it is rejected
    #[arg(long, value_name = "TIME")]
    not_after: Option<String>,
    /// Publish at most so many events a second, evenly: 5000/s
    #[arg(long, value_name = "N/s", value_parser = rate, conflicts_with = "speed")]
    rate: Option<f64>,
    /// Publish as the events happened, so many times as fast: 60x
    #[arg(long, value_name = "Nx", value_parser = speed)]
    speed: Option<f64>,
    /// Keep rejected records with where they came from, one JSON object a line. They are not published
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// No summary on standard error
    #[arg(long, short)]
    quiet: bool,
}

fn rate(text: &str) -> Result<f64, String> {
    positive(text.strip_suffix("/s").unwrap_or(text)).ok_or_else(|| "write events a second: 5000/s".to_owned())
}

fn speed(text: &str) -> Result<f64, String> {
    positive(text.strip_suffix('x').unwrap_or(text)).ok_or_else(|| "write a factor: 60x".to_owned())
}

fn positive(text: &str) -> Option<f64> {
    text.parse().ok().filter(|n: &f64| n.is_finite() && *n > 0.0)
}

/// What has been handed to the producer.
#[derive(Debug, Default)]
struct Sent {
    events: usize,
    bytes: u64,
    last: Option<Place>,
    /// Number and place of some of them, oldest first.
    marks: VecDeque<(usize, Place)>,
    /// Events that no record can hold: how many, and the first.
    too_large: u64,
    first_too_large: Option<Place>,
}

/// The publishing, shared with whoever ends it.
struct Job {
    publisher: Publisher,
    topic: String,
    partitions: usize,
    begun: Instant,
    sent: Mutex<Sent>,
}

/// Why the reading ended before its end.
enum Halt {
    /// Somebody asked.
    Stopped,
    /// A record did not arrive: then the next ones will not either.
    Failed,
    /// The producer takes nothing more.
    Refused(KafkaError),
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = match &arguments.config {
        Some(path) => Config::load(path).map_err(usage)?,
        None => Config::default(),
    };
    let reading = reading(arguments)?;
    if arguments.files.iter().filter(|f| f.as_os_str() == "-").count() > 1 {
        return Err(usage(anyhow!("standard input (-) can be read only once")));
    }
    let mut rejects = arguments.rejects.as_deref().map(RejectsFile::create).transpose()?;
    let job = Arc::new(Job::new(&config.kafka)?);
    let late = Arc::clone(&job);
    let (patience, quiet) = (config.kafka.timeout(), arguments.quiet);
    let stop = Stop::on_signal(move || {
        late.publisher.flush(Some(patience));
        if !quiet {
            anstream::eprint!("{}", late.text());
        }
        anstream::eprintln!("mailfuse: {}", late.stopped());
    })?;
    let mut pacer = arguments.rate.map(Pace::Rate).or_else(|| arguments.speed.map(Pace::Speed)).map(Pacer::new);
    let (mut halt, mut buffers) = (None, Buffers::default());
    let mut seen = Seen::default();
    let sources = arguments.files.iter().map(Source::path).collect();
    let title = "publishing";
    let read = feed::read_into(&mut seen, sources, &reading, &config, title, rejects.as_mut(), &mut |event, came| {
        job.publish(event, came, &stop, pacer.as_mut(), &mut buffers).map_err(|why| {
            halt = Some(why);
            Failure::Failed(anyhow!("halted"))
        })
    });
    if !stop.end() {
        // The other thread is at its last words.
        loop {
            std::thread::park();
        }
    }
    job.publisher.flush(halt.as_ref().map(|_| patience));
    if let Some(rejects) = rejects {
        rejects.finish()?;
    }
    if !arguments.quiet {
        let mut text = job.text();
        summary::rejected_part(&mut text, &seen);
        if seen.unknown_kinds > 0 {
            let kinds = count(seen.unknown_kinds, "event");
            let _ = writeln!(text, "          {kinds} of kinds that this version does not know, not published");
        }
        anstream::eprint!("{text}");
    }
    match (halt, read) {
        (None, Err(failure)) => return Err(failure),
        (halt, _) => job.verdict(halt)?,
    }
    seen.to_the_end()
}

fn reading(arguments: &Arguments) -> Result<Reading, Failure> {
    let zone = feed::zone(&arguments.tz)?;
    let not_after =
        match &arguments.not_after {
            None => None,
            Some(text) => Some(parse_time(text, &zone).ok_or_else(|| {
                usage(anyhow!("--not-after {text}: no time; write 2024-07-10T12:00:00Z or 2024-07-10"))
            })?),
        };
    Ok(Reading {
        format: arguments.format.format(),
        year: arguments.year,
        zone_name: arguments.tz.clone(),
        zone,
        since: None,
        until: None,
        not_after,
        hash: false,
    })
}

/// Memory that is used again for each event.
#[derive(Default)]
struct Buffers {
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Job {
    fn new(kafka: &Kafka) -> Result<Self, Failure> {
        let publisher = Publisher::new(&producer_config(kafka).map_err(usage)?).map_err(usage)?;
        let topic = kafka.topics.events.clone();
        let partitions = publisher.partitions(&topic, kafka.timeout()).map_err(|error| {
            anyhow!("{}", publisher.explain(&format!("asking {} for topics", kafka.bootstrap_servers), &error))
        })?;
        let Some(partitions) = partitions else {
            return Err(Failure::Failed(anyhow!("there is no topic `{topic}`: `mailfuse topics create` makes it")));
        };
        Ok(Self { publisher, topic, partitions, begun: Instant::now(), sent: Mutex::default() })
    }

    fn sent(&self) -> MutexGuard<'_, Sent> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(
        &self,
        event: &Event<'_>,
        came: &Came<'_>,
        stop: &Stop,
        pacer: Option<&mut Pacer>,
        buffers: &mut Buffers,
    ) -> Result<(), Halt> {
        if let Some(pacer) = pacer {
            self.pace(pacer.next(event.ts.0), stop)?;
        }
        let value = match came.line {
            Some(line) => line,
            None => {
                buffers.value.clear();
                // An event without a form in the contract is one that no reader makes; its log line is not lost by this.
                if encode(event, &mut buffers.value).is_err() {
                    debug_assert!(false, "a reader made an event that cannot be written");
                    return Ok(());
                }
                &buffers.value
            }
        };
        let number = self.sent().events;
        let mut offered = record(&self.topic, number, key(event, &mut buffers.key), Some(value));
        loop {
            if stop.is_asked() {
                return Err(Halt::Stopped);
            }
            match self.publisher.offer(offered) {
                Ok(None) => break,
                Ok(Some(back)) => {
                    self.look()?;
                    self.publisher.wait();
                    offered = back;
                }
                Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                    let mut sent = self.sent();
                    sent.too_large += 1;
                    sent.first_too_large.get_or_insert_with(came.place);
                    return Ok(());
                }
                Err(error) => return Err(Halt::Refused(error)),
            }
        }
        self.sent().add(value.len(), (came.place)());
        if number.is_multiple_of(MARK_EVERY) {
            self.publisher.hear();
            self.look()?;
        }
        Ok(())
    }

    /// Whether everything has arrived, so far as is known.
    fn look(&self) -> Result<(), Halt> {
        if self.publisher.failed() > 0 { Err(Halt::Failed) } else { Ok(()) }
    }

    fn pace(&self, wait: Duration, stop: &Stop) -> Result<(), Halt> {
        let until = Instant::now() + wait;
        loop {
            if stop.is_asked() {
                return Err(Halt::Stopped);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(NAP_MAX));
            self.publisher.hear();
            self.look()?;
        }
    }

    /// What has been done, for the person who started it.
    fn text(&self) -> String {
        let sent = self.sent();
        let arrived = (sent.events as u64).saturating_sub(self.publisher.failed());
        let seconds = self.begun.elapsed().as_secs_f64().max(0.001);
        format!(
            "Published {} ({} MB) to {} ({}) in {seconds:.1} s: {} a second\n",
            count(arrived, "event"),
            thousands(sent.bytes / 1_000_000),
            self.topic,
            count(self.partitions as u64, "partition"),
            thousands((arrived as f64 / seconds) as u64),
        )
    }

    fn stopped(&self) -> String {
        let (last, failed) = (self.sent().last.clone(), self.publisher.failed());
        match last {
            None => "stopped before the first event".to_owned(),
            Some(last) if failed == 0 => {
                format!("stopped; everything up to {} has arrived", printable(&last.to_string()))
            }
            Some(last) => format!("stopped at {}; {}", printable(&last.to_string()), self.lost()),
        }
    }

    /// How many did not arrive, and from where on.
    fn lost(&self) -> String {
        let failed = count(self.publisher.failed(), "event");
        let first = self.publisher.first_failed().map_or(0, |f| f.number);
        match self.sent().mark_before(first) {
            Some(place) => format!("{failed} did not arrive; everything before {} did", printable(&place.to_string())),
            None => format!("{failed} did not arrive"),
        }
    }

    /// A failure where not everything has arrived.
    fn verdict(&self, halt: Option<Halt>) -> Result<(), Failure> {
        if let Some(Halt::Stopped) = halt {
            return Err(anyhow!("{}", self.stopped()).into());
        }
        let error = match halt {
            Some(Halt::Refused(error)) => Some(error),
            _ => self.publisher.first_failed().map(|f| f.error),
        };
        if let Some(error) = error {
            let what = format!("{}: {}", self.topic, self.lost());
            return Err(anyhow!("{}", self.publisher.explain(&what, &error)).into());
        }
        let sent = self.sent();
        if let Some(first) = &sent.first_too_large {
            return Err(anyhow!(
                "{} too large for a record, the first at {}: raise message.max.bytes in [kafka.properties], and \
                 max.message.bytes of the topic",
                count(sent.too_large, "event"),
                printable(&first.to_string()),
            )
            .into());
        }
        Ok(())
    }
}

impl Sent {
    fn add(&mut self, bytes: usize, place: Place) {
        if self.events.is_multiple_of(MARK_EVERY) {
            if self.marks.len() == MARKS_MAX {
                self.marks.pop_front();
            }
            self.marks.push_back((self.events, place.clone()));
        }
        self.events += 1;
        self.bytes += bytes as u64;
        self.last = Some(place);
    }

    /// A place at or shortly before the event of this number.
    fn mark_before(&self, number: usize) -> Option<&Place> {
        self.marks.iter().rev().find(|(n, _)| *n <= number).map(|(_, place)| place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_speeds() {
        assert_eq!((rate("5000/s"), rate("0.5"), speed("60x")), (Ok(5000.0), Ok(0.5), Ok(60.0)));
        for wrong in ["", "0", "-1/s", "nan", "inf", "5/m"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_place_to_begin_again_is_never_behind_what_failed() {
        let mut sent = Sent::default();
        for line in 1..=600 {
            sent.add(10, Place { source: "f".into(), line });
        }
        let line = |number| sent.mark_before(number).map(|place| place.line);
        assert_eq!((line(0), line(255), line(256), line(599)), (Some(1), Some(1), Some(257), Some(513)));
    }
}
