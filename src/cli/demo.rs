//! `mailfuse demo`: a provider of our own making, a broker in this process, and the real consumer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use super::Failure;
use super::table::{printable, thousands};
use crate::config::Config;
use crate::core::alert::{Alert, Severity};
use crate::demo::{Plan, Provider};
use crate::event::{Event, Kind, Timestamp, encode};
use crate::kafka::outlet::now_ms;
use crate::kafka::restore::Allowed;
use crate::run::{Instance, Options};

/// Partitions of the events.
const PARTITIONS: i32 = 4;
/// Events that may be ahead of the consumer: the broker in this process keeps 5 MiB a partition and then forgets.
const AHEAD: u64 = 8_000;
/// The provider's present begins so long before the hijack, in event time.
const BEFORE_MS: i64 = 60_000;
/// Event time goes so much faster than the clock, once the past is learned.
const SPEED: i64 = 15;
/// What was flagged is watched for a little longer.
const AFTERWARDS: Duration = Duration::from_millis(500);
/// The whole must be over by then.
const LIMIT: Duration = Duration::from_secs(28);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Nothing needs to be installed: the broker is librdkafka's own mock, in this process. It has no transactions, so that this runs
without checkpoints; `mailfuse run` with a real Kafka has them. Everything else is the real thing: events are published to a
topic, the consumer reads them, learns, and writes its alert to another topic, where this command reads it.")]
pub(super) struct Arguments {
    /// Another number is another provider, with another account hijacked
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print the alert as it stands in the topic, too
    #[arg(long)]
    json: bool,
}

/// What the publisher has done so far, for whoever looks.
#[derive(Debug, Default)]
struct Progress {
    published: AtomicU64,
    live: AtomicBool,
    /// Recipients and messages of the hijack.
    spam_recipients: AtomicU64,
    spam_messages: AtomicU64,
    stop: AtomicBool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let began = Instant::now();
    let cluster = MockCluster::new(1).context("the broker in this process did not start")?;
    let mut config = Config::default();
    config.kafka.bootstrap_servers = cluster.bootstrap_servers();
    config.http.listen.clear();
    let topics = config.kafka.topics.clone();
    for (topic, partitions) in [(&topics.events, PARTITIONS), (&topics.alerts, 1), (&topics.rejects, 1)] {
        cluster.create_topic(topic, partitions, 1).with_context(|| format!("the topic {topic} was not made"))?;
    }
    // The hijack lies in the past by so much that nothing comes from the future.
    let plan = Plan::new(arguments.seed, Timestamp(now_ms() - 3_600_000));
    let provider = Provider::new(plan);
    let hijacked_at = provider.hijacked_at().ok_or_else(|| anyhow!("nobody is hijacked"))?;
    let victim = provider.victim().unwrap_or_default().to_owned();
    anstream::println!(
        "A provider with {} accounts, {} partitions, no checkpoints (the broker in this process has no transactions).",
        thousands(provider.accounts().count() as u64),
        PARTITIONS
    );

    let options = Options { config: config.clone(), path: None, allowed: Allowed::default(), is_stateless: true };
    let instance = Instance::start(options)?;
    let progress = Arc::new(Progress::default());
    let consumed = || (0..PARTITIONS).map(|p| instance.metrics().events.at(p).get()).sum::<u64>();
    let result = std::thread::scope(|scope| {
        let (progress, victim, events) = (&progress, &victim, &topics.events);
        let consumed = &consumed;
        let publisher =
            scope.spawn(move || publish(&config, events, provider, hijacked_at, victim, progress, consumed));
        let watched = watch(&topics.alerts, &cluster.bootstrap_servers(), began, victim, progress);
        progress.stop.store(true, Ordering::Release);
        let published = publisher.join().map_err(|_| anyhow!("the publisher ended by a bug"))?;
        published.and(watched)
    });
    let events = consumed();
    instance.stop()?;
    let (alert, json, leaked, messages) = result?;
    show(&alert, leaked, messages);
    if arguments.json {
        anstream::println!("\n{json}");
    }
    anstream::println!(
        "\n{} events in {:.0} s. Next: `mailfuse replay --help` for your logs, `mailfuse run --help` for your Kafka.",
        thousands(events),
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

/// The past as fast as it is read, then the present at its speed.
fn publish(
    config: &Config,
    topic: &str,
    provider: Provider,
    hijacked_at: Timestamp,
    victim: &str,
    progress: &Progress,
    consumed: &dyn Fn() -> u64,
) -> Result<(), anyhow::Error> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &config.kafka.bootstrap_servers)
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "2")
        .create()?;
    let present_ms = hijacked_at.0 - BEFORE_MS;
    let (mut value, mut since) = (Vec::new(), None);
    for event in provider {
        if progress.stop.load(Ordering::Acquire) {
            break;
        }
        if event.ts.0 >= present_ms {
            let since = *since.get_or_insert_with(|| {
                progress.live.store(true, Ordering::Release);
                anstream::println!(
                    "14 days of its mail are learned: {} events. Now it is live, {SPEED} times as fast as the clock.",
                    thousands(progress.published.load(Ordering::Relaxed))
                );
                Instant::now()
            });
            let due = Duration::from_millis(((event.ts.0 - present_ms) / SPEED) as u64);
            while since.elapsed() < due && !progress.stop.load(Ordering::Acquire) {
                producer.poll(due.saturating_sub(since.elapsed()).min(Duration::from_millis(20)));
            }
        }
        while progress.published.load(Ordering::Relaxed) > consumed() + AHEAD && !progress.stop.load(Ordering::Acquire)
        {
            producer.poll(Duration::from_millis(1));
        }
        value.clear();
        encode(&event, &mut value)?;
        send(&producer, topic, event.account.as_deref().unwrap_or_default(), &value)?;
        progress.published.fetch_add(1, Ordering::Relaxed);
        note_spam(&event, victim, hijacked_at, progress);
    }
    producer.flush(Duration::from_secs(2))?;
    Ok(())
}

fn send(producer: &BaseProducer, topic: &str, key: &str, value: &[u8]) -> Result<(), anyhow::Error> {
    use rdkafka::error::RDKafkaErrorCode;
    let mut record = BaseRecord::to(topic).key(key).payload(value);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((e, back)) if e.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => {
                producer.poll(Duration::from_millis(5));
                record = back;
            }
            Err((e, _)) => return Err(e.into()),
        }
    }
}

/// What the thief has sent; the owner may write, too, but not in these minutes' numbers.
fn note_spam(event: &Event<'_>, victim: &str, hijacked_at: Timestamp, progress: &Progress) {
    let Kind::Send(sent) = &event.kind else { return };
    if event.account.as_deref() != Some(victim) || event.ts < hijacked_at {
        return;
    }
    if progress.spam_messages.fetch_add(1, Ordering::Relaxed) == 0 {
        anstream::println!("{}  {victim} is hijacked: its first spam message goes out.", event.ts);
    }
    progress.spam_recipients.fetch_add(sent.rcpts.count, Ordering::Relaxed);
}

/// Reads the alerts until the account is flagged as critical. Returns the alert, its bytes, and how many recipients and messages
/// of spam had been published when it was there.
fn watch(
    topic: &str,
    servers: &str,
    began: Instant,
    victim: &str,
    progress: &Progress,
) -> Result<(Alert, String, u64, u64), anyhow::Error> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("group.id", "demo")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "10")
        .create()?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning)?;
    consumer.assign(&list)?;
    while began.elapsed() < LIMIT {
        let Some(message) = consumer.poll(Duration::from_millis(50)) else {
            if progress.stop.load(Ordering::Acquire) {
                break;
            }
            continue;
        };
        let message = message?;
        let json = message.payload().unwrap_or_default();
        let alert: Alert = serde_json::from_slice(json)?;
        if !progress.live.load(Ordering::Acquire) {
            continue;
        }
        let (leaked, messages) =
            (progress.spam_recipients.load(Ordering::Relaxed), progress.spam_messages.load(Ordering::Relaxed));
        anstream::println!(
            "{}  {:?}: {}, score {:.1}",
            alert.ts,
            alert.severity,
            printable(&alert.account),
            alert.score
        );
        if alert.account == victim && alert.severity == Severity::Critical {
            std::thread::sleep(AFTERWARDS);
            return Ok((alert, String::from_utf8_lossy(json).into_owned(), leaked, messages));
        }
    }
    Err(anyhow!("no alert within {} s: is this machine very busy?", LIMIT.as_secs()))
}

fn show(alert: &Alert, leaked: u64, messages: u64) {
    anstream::println!("\n{}  (tenant {})", printable(&alert.account), printable(&alert.tenant));
    anstream::println!("  critical at {}, score {:.1}: stop this account", alert.ts, alert.score);
    for evidence in &alert.evidence {
        anstream::println!("    {:>5.1}  {}", evidence.weight, printable(&evidence.text));
    }
    if let Some(burst) = &alert.burst {
        anstream::println!(
            "  the burst when it was flagged: {} messages to {} recipients, {} never written to before, {} refused, from {}",
            burst.messages,
            burst.recipients,
            burst.new_recipients,
            burst.bounced,
            burst.client_ips.join(", ")
        );
    }
    let relays: Vec<String> =
        alert.relays.iter().map(|r| format!("{} ({} recipients)", printable(&r.relay), r.recipients)).collect();
    anstream::println!("  through {}", relays.join(", "));
    anstream::println!(
        "  leaked: {leaked} recipients in {messages} messages had gone out when the alert stood in the topic; the thief meant to send 400 messages"
    );
}
