//! What the process says about itself: records of tracing, as text or as JSON, one a line. async-imap's and rustls'
//! records arrive through the bridge from `log`. Spans and records are made where things happen, not here.

use std::{
    io::{self, IsTerminal},
    panic,
};

use tracing::{Metadata, Subscriber, error, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer, Registry,
    filter::{FilterExt, FilterFn, Targets},
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
    util::{SubscriberInitExt, TryInitError},
};

/// What is logged, and how.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    /// The form of a record.
    pub format: Format,
    /// Which records.
    pub level: Targets,
}

/// The form of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// For eyes.
    Text,
    /// For machines: one object a line.
    Json,
}

/// Reads a level such as `info`, or a list of levels by module such as `info,popgate::net=debug`. `None` if it is neither.
pub fn level(text: &str) -> Option<Targets> {
    // What is no level would be taken for the name of a module, and `inof` would silence everything else.
    let understood = |part: &str| part.contains('=') || part.parse::<LevelFilter>().is_ok_and(|_| !part.is_empty());
    text.split(',').all(|part| understood(part.trim())).then_some(())?;
    text.split(',').map(str::trim).collect::<Vec<_>>().join(",").parse().ok()
}

/// Logs to standard error from now on. Fails if something logs already.
pub fn start(settings: &Settings) -> Result<(), TryInitError> {
    subscriber(settings, io::stderr, io::stderr().is_terminal()).try_init()?;
    // Not its message, which may quote what was being worked on: a password, a mail.
    panic::set_hook(Box::new(|panic| error!(location = panic.location().map(display), "panic")));
    Ok(())
}

/// Writes the records that `settings` ask for to `writer`. Whatever they ask for, nothing is written that could show
/// what went over a line.
pub fn subscriber<W>(settings: &Settings, writer: W, colours: bool) -> impl Subscriber + Send + Sync + use<W>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // A standard error that is gone is no reason to end: without the call below, tracing would complain there, and panic.
    let layer = fmt::layer().with_writer(writer).with_ansi(colours).log_internal_errors(false);
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match settings.format {
        Format::Text => layer.boxed(),
        Format::Json => layer.json().flatten_event(true).with_span_list(false).boxed(),
    };
    let filter = settings.level.clone().and(FilterFn::new(is_safe));
    tracing_subscriber::registry().with(layer.with_filter(filter))
}

/// Whether a record cannot hold what went over a line: below these levels, these crates print it, passwords and mail
/// included.
fn is_safe(metadata: &Metadata<'_>) -> bool {
    let crate_name = metadata.target().split("::").next().unwrap_or_default();
    let lowest = match crate_name {
        "async_imap" | "imap_proto" => LevelFilter::DEBUG,
        "rustls" | "tokio_rustls" => LevelFilter::INFO,
        _ => LevelFilter::TRACE,
    };
    *metadata.level() <= lowest
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What is logged while `records` runs.
    fn logged(format: Format, level: &str, records: impl FnOnce()) -> String {
        let written = Arc::new(Mutex::new(Vec::new()));
        let settings = Settings { format, level: super::level(level).unwrap() };
        let sink = Sink(written.clone());
        let guard = subscriber(&settings, move || sink.clone(), false).set_default();
        records();
        drop(guard);
        String::from_utf8(written.lock().unwrap().clone()).unwrap()
    }

    #[derive(Clone)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(octets)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn no_filter_lets_out_what_went_over_a_line() {
        for level in ["trace", "async_imap=trace,imap_proto=trace,rustls=trace", "trace,async_imap::imap_stream=trace"]
        {
            let text = logged(Format::Text, level, || {
                // Directly, and through the bridge.
                tracing::trace!(target: "async_imap::imap_stream", "hunter2");
                tracing::debug!(target: "rustls::client", "hunter2");
                log::trace!(target: "async_imap::imap_stream", "hunter2");
                log::trace!(target: "async_imap", "hunter2");
                log::trace!(target: "imap_proto::parser", "hunter2");
                log::debug!(target: "rustls::client::hs", "hunter2");
                log::debug!(target: "async_imap", "harmless");
                log::info!(target: "rustls", "harmless");
            });
            assert!(!text.contains("hunter2"), "{level}: {text}");
            assert_eq!(text.matches("harmless").count(), 2, "{level}: {text}");
        }
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = logged(Format::Json, "info", || {
            let _span = tracing::info_span!("session", id = 7).entered();
            tracing::info!(user = "alice", "two\nlines");
            log::info!(target: "async_imap", "bridged");
            tracing::debug!("not asked for");
        });
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(lines[0]["message"], "two\nlines");
        assert_eq!(lines[0]["user"], "alice");
        assert_eq!(lines[0]["span"]["id"], 7);
        assert_eq!(lines[1]["target"], "async_imap");
    }

    #[test]
    fn levels() {
        for text in ["info", "off", "INFO", "debug, async_imap=off", "popgate::net=trace", "warn,popgate=debug"] {
            assert!(level(text).is_some(), "{text}");
        }
        for text in ["", "inof", "info,", "popgate", "popgate=loud", "info debug", "7"] {
            assert!(level(text).is_none(), "{text}");
        }
    }
}
