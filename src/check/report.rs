//! What `popgate check` finds out, as one document. The names of its fields are a contract with the programs that read it;
//! they are listed in the command's help.

use std::{net::IpAddr, time::SystemTime};

use humantime_serde::re::humantime::format_rfc3339_seconds;
use serde::Serialize;
use serde_json::Value as Json;

use crate::{
    config::{Setting, Source},
    net::tls,
    upstream::{Fault, Verdict},
};

/// The document.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// Whether clients could work with every upstream.
    pub usable: bool,
    /// Every key with its value.
    pub configuration: Vec<Entry>,
    /// The `dangerous_…` options that are in force.
    pub dangerous: Vec<String>,
    /// What in the configuration works otherwise than somebody might expect.
    pub warnings: Vec<String>,
    /// The IMAP servers.
    pub upstreams: Vec<Upstream>,
}

/// A key of the configuration.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Entry {
    /// In full: `listen.0.url`.
    pub key: String,
    /// What holds; null where nothing is set.
    pub value: Json,
    /// `default`, `file`, `environment` or `command line`.
    pub source: &'static str,
    /// Which file, variable or option.
    pub place: Option<String>,
}

/// An IMAP server.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Upstream {
    /// `imaps://imap.example.com:993`
    pub url: String,
    /// The domains whose users it serves; empty: everybody else's.
    pub domains: Vec<String>,
    /// Whether clients could work with it.
    pub usable: bool,
    /// What its name resolves to.
    pub addresses: Vec<IpAddr>,
    /// The handshake; null if there was none.
    pub tls: Option<Tls>,
    /// What it offers.
    pub capabilities: Capabilities,
    /// The ways that popgate takes with it; null if it said nothing.
    pub paths: Option<Paths>,
    /// What a POP3 client would see; null unless a user was given and everything went well.
    pub maildrop: Option<Maildrop>,
    /// What somebody should know.
    pub warnings: Vec<String>,
    /// Why it went no further; null if it went all the way.
    pub fault: Option<Trouble>,
}

/// A handshake.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Tls {
    /// Whether it succeeded, which it does only with a certificate that is good.
    pub accepted: bool,
    /// `TLS 1.3`; null if it failed.
    pub version: Option<&'static str>,
    /// The cipher suite; null if it failed.
    pub cipher: Option<String>,
    /// The server's certificate; null if it showed none.
    pub certificate: Option<Certificate>,
}

/// A certificate.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Certificate {
    /// Whose it is.
    pub subject: String,
    /// Who vouches for it.
    pub issuer: String,
    /// The names and addresses that it is for.
    pub names: Vec<String>,
    /// When it expires (RFC 3339).
    pub expires: String,
    /// In how many whole days; negative once it has.
    pub days_left: i64,
}

/// What a server says it can do.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Capabilities {
    /// To everybody; null if it said nothing.
    pub before_login: Option<Vec<String>>,
    /// To the user; null if nobody logged in.
    pub after_login: Option<Vec<String>>,
}

/// The ways that popgate takes, in words.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Paths {
    /// How users log in.
    pub login: String,
    /// How messages are listed.
    pub listing: String,
    /// How messages are deleted.
    pub deletion: String,
    /// What unique ids are made of.
    pub unique_ids: String,
}

/// What a POP3 client would see.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Maildrop {
    /// Who logged in, by the name that the server knows.
    pub user: String,
    /// The mailbox that was opened, by EXAMINE.
    pub mailbox: String,
    /// How many messages there are.
    pub messages: usize,
    /// Their size in all.
    pub octets: u64,
    /// UIDVALIDITY; null if the server's UIDs do not outlive a session.
    pub uidvalidity: Option<u32>,
    /// The first three messages.
    pub first: Vec<Message>,
    /// The last three of the others.
    pub last: Vec<Message>,
    /// Whether DELE would be accepted, as far as EXAMINE shows.
    pub dele_accepted: bool,
    /// What DELE would do.
    pub dele: String,
    /// The UIDs of messages that are not shown because the server does not give their size.
    pub unlisted: Vec<u32>,
    /// How many messages are not shown because of their flags.
    pub hidden: usize,
}

/// A message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Message {
    /// Its number in POP3.
    pub number: usize,
    /// Its size.
    pub octets: u64,
    /// Its unique id; null where UIDL is refused.
    pub unique_id: Option<String>,
}

/// Why something did not work.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Trouble {
    /// `denied`, `busy`, `passing`, `lasting` or `changed`.
    pub verdict: String,
    /// What happened.
    pub cause: String,
    /// What to do about it.
    pub advice: &'static str,
}

impl From<Setting> for Entry {
    fn from(setting: Setting) -> Self {
        let (source, place) = match setting.source {
            Source::Default => ("default", None),
            Source::File(name) => ("file", Some(name)),
            Source::Environment(name) => ("environment", Some(name)),
            Source::CommandLine(name) => ("command line", Some(name)),
        };
        Self { key: setting.key, value: setting.value, source, place }
    }
}

impl From<tls::Handshake> for Tls {
    fn from(handshake: tls::Handshake) -> Self {
        let tls::Handshake { version, cipher, certificate } = handshake;
        let certificate = certificate.map(|certificate| Certificate {
            days_left: certificate.days_left(SystemTime::now()),
            expires: format_rfc3339_seconds(certificate.not_after).to_string(),
            subject: certificate.subject,
            issuer: certificate.issuer,
            names: certificate.names,
        });
        Self { accepted: version.is_some(), version, cipher, certificate }
    }
}

impl Trouble {
    /// `tls`: how far the handshake came.
    pub(super) fn new(fault: Fault, tls: Option<&Tls>) -> Self {
        let advice = match fault.verdict {
            Verdict::Denied => "see whether user name and password are right; clients are told [AUTH]",
            Verdict::Lasting if tls.is_some_and(|tls| !tls.accepted && tls.certificate.is_some()) => {
                "see who issued the certificate: one of your own must be in upstream.ca, and it must bear the host's name"
            }
            Verdict::Lasting => "somebody must see to it; clients are told [SYS/PERM]",
            Verdict::Busy => "try again when no other session is open; clients are told [IN-USE]",
            Verdict::Passing | Verdict::Changed => "this may pass; clients are told [SYS/TEMP]",
        };
        Self { verdict: fault.verdict.to_string(), cause: fault.cause, advice }
    }
}
