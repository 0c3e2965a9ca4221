//! What popgate logs while something is tried with it, searched for secrets: none may be in it, in no form that a log
//! is known to show (F-19).

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, LazyLock, Mutex},
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use memchr::memmem;
use popgate::telemetry::{self, Format, Settings};
use tracing::{Dispatch, subscriber::DefaultGuard};
use tracing_subscriber::util::SubscriberInitExt;

/// Everything that is logged on this thread, at TRACE, until it ends.
pub(crate) struct Overheard {
    log: Log,
    _guard: DefaultGuard,
}

#[derive(Clone)]
struct Log(Arc<Mutex<Searched>>);

/// A text that may be long: what has been searched is not kept.
struct Searched {
    forms: Vec<String>,
    octets: usize,
    /// What is to be searched; it begins with the end of what has been.
    text: Vec<u8>,
    found: BTreeSet<String>,
}

impl Overheard {
    /// From now on. The secrets should be so long that they are nowhere by chance.
    pub(crate) fn begin(secrets: &[&str]) -> Self {
        let forms = secrets.iter().flat_map(|secret| forms(secret)).collect();
        let log =
            Log(Arc::new(Mutex::new(Searched { forms, octets: 0, text: Vec::new(), found: BTreeSet::default() })));
        let (settings, writer) =
            (Settings { format: Format::Text, level: telemetry::level("trace").unwrap() }, log.clone());
        hear_all_threads();
        let guard = telemetry::subscriber(&settings, move || writer.clone(), false).set_default();
        Self { log, _guard: guard }
    }

    /// Ends it. The forms of secrets that were in what was logged, and how many octets that was.
    pub(crate) fn end(self) -> (BTreeSet<String>, usize) {
        let mut log = self.log.0.lock().unwrap();
        log.search();
        (log.found.clone(), log.octets)
    }

    /// Ends it; panics if a secret was in what was logged, or if nothing was.
    #[track_caller]
    pub(crate) fn holds_no_secret(self) {
        let (secrets, octets) = self.end();
        assert_eq!(secrets, BTreeSet::new());
        assert!(octets > 0, "nothing was logged");
    }
}

impl io::Write for Log {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let mut log = self.0.lock().unwrap();
        log.octets += octets.len();
        log.text.extend_from_slice(octets);
        if log.text.len() > AT_ONCE {
            log.search();
        }
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Searched {
    fn search(&mut self) {
        let Self { forms, text, found, .. } = self;
        found.extend(forms.iter().filter(|form| memmem::find(text, form.as_bytes()).is_some()).cloned());
        let longest = forms.iter().map(String::len).max().unwrap_or_default();
        text.drain(..text.len().saturating_sub(longest));
    }
}

/// To be called before a subscriber is to hear everything on its thread. Whether a line of code is of interest is asked
/// when the first thread comes to it, and then never again; as long as there is only one subscriber, only that thread's
/// is asked, and those of other tests have none. One more that is nobody's has all of them asked.
pub(crate) fn hear_all_threads() {
    static NOBODYS: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(tracing_subscriber::registry()));
    LazyLock::force(&NOBODYS);
}

/// The forms in which this is in a text.
pub(crate) fn forms_of(secret: &str, text: &str) -> Vec<String> {
    forms(secret).into_iter().filter(|form| text.contains(form.as_str())).collect()
}

/// How a secret may look: as it is, escaped, percent-encoded, as a list of numbers, in hexadecimal and in base64.
fn forms(secret: &str) -> Vec<String> {
    let each = |shown: fn(u8) -> String| secret.bytes().map(shown).collect::<Vec<_>>();
    let hexadecimal = each(|octet| format!("{octet:02x}"));
    let mut forms = vec![
        secret.to_string(),
        secret.escape_default().to_string(),
        secret.as_bytes().escape_ascii().to_string(),
        serde_json::to_string(secret).unwrap().trim_matches('"').to_owned(),
        percent(secret, |octet| format!("%{octet:02X}")),
        percent(secret, |octet| format!("%{octet:02x}")),
        each(|octet| octet.to_string()).join(", "),
        each(|octet| format!("{octet:x}")).join(", "),
        hexadecimal.concat(),
        hexadecimal.concat().to_uppercase(),
    ];
    // Base64, wherever in a group of three it begins: without the octets that depend on its neighbours.
    for (shift, own) in [(0, 0), (1, 4), (2, 4)] {
        let shifted = "_".repeat(shift) + secret;
        let end = shifted.len() / 3 * 4;
        forms.extend([STANDARD.encode(&shifted)[own..end].to_owned(), URL_SAFE.encode(&shifted)[own..end].to_owned()]);
    }
    forms
}

/// With everything that may have a meaning in a URL shown in another way.
pub(crate) fn percent(text: &str, shown: fn(u8) -> String) -> String {
    let show = |octet: u8| match octet {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(octet).to_string(),
        _ => shown(octet),
    };
    text.bytes().map(show).collect()
}

/// So many octets are searched at a time.
const AT_ONCE: usize = 1 << 18;

#[test]
fn what_another_thread_has_come_to_first_is_heard_here() {
    let log = Overheard::begin(&["Kanarienvogel"]);
    let say = || tracing::info!("Kanarienvogel");
    std::thread::spawn(say).join().unwrap();
    assert_eq!(log.log.0.lock().unwrap().octets, 0, "nobody listens there");
    say();
    assert_eq!(log.end().0, ["Kanarienvogel".to_owned()].into());
}

#[test]
fn a_secret_is_found_across_what_is_searched_at_once() {
    use std::io::Write as _;

    let log = Overheard::begin(&["Kanarienvogel"]);
    let mut writer = log.log.clone();
    writer.write_all(&vec![b'-'; AT_ONCE - 5]).unwrap();
    writer.write_all(b"Kanarien").unwrap();
    writer.write_all(b"vogel").unwrap();
    assert_eq!(log.end(), (["Kanarienvogel".to_owned()].into(), AT_ONCE + 8));
    assert_eq!(Overheard::begin(&["Kanarienvogel"]).end(), (BTreeSet::new(), 0));
}
