//! What the program says of itself on standard error, as text or as JSON. `MAILFUSE_LOG` says how much.
//!
//! Names of accounts and words of receivers come along, which strangers chose: an event stays one line of bounded length, without
//! control characters or what turns text around, whatever they hold.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal};

use rdkafka::config::RDKafkaLogLevel;
use serde::{Deserialize, Serialize};
use tracing::Subscriber;
use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::util::SubscriberInitExt;

/// The variable that holds the filter, such as `info` or `warn,kafka=debug`.
pub const VARIABLE: &str = "MAILFUSE_LOG";

/// Characters of a message or of a field; what is beyond is cut off.
const VALUE_CHARS_MAX: usize = 2048;
/// A longer line of JSON, in bytes, is looked through for values that are too long.
const LINE_BYTES_MAX: usize = 8192;
/// Stands for what was cut off.
const CUT: char = '…';

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
    let lines = tracing_subscriber::fmt().with_env_filter(filter);
    match format {
        Format::Text => {
            let fields = debug_fn(text_field).delimited(" ");
            Box::new(lines.with_writer(writer).fmt_fields(fields).with_ansi(colours).finish())
        }
        // Spans are not flattened: two that had a field of one name would make an object with the name twice.
        Format::Json => {
            let lines = lines.with_writer(JsonLines(writer));
            Box::new(lines.json().flatten_event(true).with_current_span(false).with_span_list(false).finish())
        }
    }
}

/// Whether a character ends a line, is obeyed by terminals, or turns the rest of the line around (UAX 9, 2).
fn deceives(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A field of a line of text: `name=value`, the message without its name.
fn text_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    match field.name() {
        "message" => {}
        // Where a line of `log` comes from is in its target.
        name if name.starts_with("log.") => return Ok(()),
        name if writer.has_ansi_escapes() => write!(writer, "\u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m")?,
        name => write!(writer, "{name}=")?,
    }
    write!(Plain { to: writer, left: VALUE_CHARS_MAX, is_cut: false }, "{value:?}")
}

/// Writes text on, made fit for a line.
struct Plain<'w, W> {
    to: &'w mut W,
    /// Characters that it may still have.
    left: usize,
    is_cut: bool,
}

impl<W: fmt::Write> fmt::Write for Plain<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.left == 0 {
                if !std::mem::replace(&mut self.is_cut, true) {
                    self.to.write_char(CUT)?;
                }
                return Ok(());
            }
            self.left -= 1;
            if deceives(c) { write!(self.to, "{}", c.escape_default())? } else { self.to.write_char(c)? }
        }
        Ok(())
    }
}

/// Makes writers of lines of JSON, see [`JsonLine`].
struct JsonLines<W>(W);

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for JsonLines<W> {
    type Writer = JsonLine<W::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        JsonLine(self.0.make_writer())
    }
}

/// Writes lines of JSON, each in one call, in which what deceives is escaped: JSON itself has only the first controls so.
struct JsonLine<W>(W);

impl<W: io::Write> io::Write for JsonLine<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let body = text.strip_suffix('\n').unwrap_or(&text);
        let shorter = if body.len() > LINE_BYTES_MAX { shortened(body) } else { None };
        let body = shorter.as_deref().unwrap_or(body);
        let mut out = String::with_capacity(body.len() + 1);
        for c in body.chars() {
            if deceives(c) {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            } else {
                out.push(c);
            }
        }
        out.push('\n');
        self.0.write_all(out.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// An object with its texts cut.
fn shortened(line: &str) -> Option<String> {
    let mut object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).ok()?;
    for value in object.values_mut() {
        if let serde_json::Value::String(text) = value
            && let Some((end, _)) = text.char_indices().nth(VALUE_CHARS_MAX)
        {
            text.truncate(end);
            text.push(CUT);
        }
    }
    serde_json::to_string(&object).ok()
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

    fn said_by(format: Format, filter: &str, colours: bool, what: impl Fn()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(format, EnvFilter::new(filter), colours, move || writer.clone());
        tracing::subscriber::with_default(subscriber, what);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn said(format: Format, filter: &str) -> String {
        said_by(format, filter, false, || {
            tracing::info!(partition = 3, "assigned\nand \"so\" on");
            kafka(RDKafkaLogLevel::Error, "FAIL", "connection refused");
            kafka(RDKafkaLogLevel::Debug, "FETCH", "a great many");
        })
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

    /// An account may be called anything; it is said as a field, in a field's own form, and in the message.
    #[test]
    fn whatever_a_name_holds_an_event_is_one_bounded_line_of_text_that_deceives_nobody() {
        let hostile = [
            "anna@example.org".to_owned(),
            "<script>alert(1)</script>".to_owned(),
            "\u{202e}gro.elpmaxe@anna\u{202c}\u{2066}\u{200f}\u{61c}".to_owned(),
            "a\r\n2026-01-01T00:00:00Z ERROR all is well\u{2028}b\u{85}c\u{7f}\u{0}".to_owned(),
            "\u{1b}[31mred\u{1b}[2J\u{9b}1m".to_owned(),
            "x".repeat(10_000),
            "\n".repeat(10_000),
            "\u{202e}".repeat(10_000),
            "\"\\".repeat(5_000),
        ];
        for name in &hostile {
            for format in [Format::Text, Format::Json] {
                let said = said_by(format, "info", false, || {
                    tracing::warn!(account = name.as_str(), shown = %name, as_is = ?name, "not renamed: {name}");
                });
                let line = said.strip_suffix('\n').unwrap();
                assert!(!line.chars().any(deceives), "{format:?}: {line:?}");
                assert!(line.len() < 64 * 1024, "{format:?}: {} bytes", line.len());
                if format == Format::Json {
                    let object: serde_json::Value = serde_json::from_str(line).unwrap();
                    let shown = object["shown"].as_str().unwrap();
                    let cut: String = name.chars().take(VALUE_CHARS_MAX).collect();
                    assert!(shown == name || shown == format!("{cut}{CUT}"), "{shown:?}");
                }
            }
        }
        // On a terminal the only escapes are our own.
        let said = said_by(Format::Text, "info", true, || {
            tracing::warn!(shown = %hostile[4], "{}", hostile[4]);
        });
        assert!(said.contains("\\u{1b}[31mred"), "{said:?}");
        assert!(!said.contains("\u{1b}[31m") && !said.contains("\u{1b}[2J") && !said.contains('\u{9b}'), "{said:?}");
    }
}
