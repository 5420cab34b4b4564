//! What the program says of itself on standard error, as text or as JSON. `MAILFUSE_LOG` says how much.

use std::io::{self, IsTerminal};

use rdkafka::config::RDKafkaLogLevel;
use serde::{Deserialize, Serialize};
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

/// The variable that holds the filter, such as `info` or `warn,kafka=debug`.
pub const VARIABLE: &str = "MAILFUSE_LOG";

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One object a line, with `timestamp`, `level`, `target`, `message` and the event's own fields beside them.
    Json,
}

/// Writes to standard error from here on what [`VARIABLE`] lets through, else `filter`. What other libraries say through `log` comes
/// along. Only the first call counts.
pub fn init(format: Format, filter: &str) {
    let asked = std::env::var(VARIABLE).ok().filter(|f| !f.is_empty());
    let (filter, wrong) = match asked.as_deref().map(EnvFilter::try_new) {
        Some(Ok(asked)) => (asked, None),
        Some(Err(e)) => (EnvFilter::new(filter), Some(e)),
        None => (EnvFilter::new(filter), None),
    };
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    // A test that runs the program twice in one process has the first one's.
    if subscriber(format, filter, colours, io::stderr).try_init().is_ok()
        && let Some(e) = wrong
    {
        tracing::warn!("{VARIABLE} is no filter: {e}");
    }
}

fn subscriber<W>(format: Format, filter: EnvFilter, colours: bool, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match format {
        Format::Text => Box::new(lines.with_ansi(colours).finish()),
        // Spans are not flattened: two that had a field of one name would make an object with the name twice.
        Format::Json => {
            Box::new(lines.json().flatten_event(true).with_current_span(false).with_span_list(false).finish())
        }
    }
}

/// Passes on a line of librdkafka, under the target `kafka`: for `ClientContext::log`.
///
/// Its errors are warnings here: it tries again by itself, and nothing is lost until a delivery or a commit fails, which the
/// caller sees and says.
pub fn kafka(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(target: "kafka", facility, "{message}");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => tracing::warn!(target: "kafka", facility, "{message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(target: "kafka", facility, "{message}"),
        RDKafkaLogLevel::Debug => tracing::debug!(target: "kafka", facility, "{message}"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn said(format: Format, filter: &str) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(format, EnvFilter::new(filter), false, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(partition = 3, "assigned\nand \"so\" on");
            kafka(RDKafkaLogLevel::Error, "FAIL", "connection refused");
            kafka(RDKafkaLogLevel::Debug, "FETCH", "a great many");
        });
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_is_one_flat_object_a_line() {
        let said = said(Format::Json, "info");
        let lines: Vec<serde_json::Value> = said.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{said}");
        assert_eq!(lines[0]["message"], "assigned\nand \"so\" on");
        assert_eq!(lines[0]["partition"], 3);
        assert_eq!(lines[0]["level"], "INFO");
        assert!(lines[0]["timestamp"].as_str().unwrap().ends_with('Z'), "{said}");
        assert_eq!(
            (&lines[1]["target"], &lines[1]["level"], &lines[1]["facility"]),
            (&"kafka".into(), &"WARN".into(), &"FAIL".into())
        );
    }

    #[test]
    fn text_has_no_colours_where_there_is_no_terminal_and_the_filter_knows_kafka() {
        let said = said(Format::Text, "error,kafka=debug");
        assert_eq!(said.lines().count(), 2, "{said}");
        assert!(said.contains("WARN kafka: connection refused facility=\"FAIL\""), "{said}");
        assert!(said.contains("DEBUG kafka: a great many") && !said.contains('\u{1b}'), "{said}");
    }
}
