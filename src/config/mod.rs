//! The configuration, checked and complete: layers of TOML files, environment and command line, merged by figment and
//! turned into what the rooms want to be told. Nothing is a text to be parsed any more afterwards. What each key means
//! is said in `config/popgate.toml`, the manual; it is not repeated here.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use ipnet::IpNet;

use crate::{
    gateway::{self, Domain, Maildrops},
    net::Endpoint,
    telemetry,
    upstream::{cache, imap, warm},
};

pub use self::{
    effective::{Setting, Source},
    problem::{Error, Problem},
};

mod check;
mod effective;
mod keys;
mod layers;
mod problem;
mod raw;
pub(crate) mod url;

/// What the process is told to do.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// Where clients are awaited; never empty, and on each of them somebody can log in.
    pub listeners: Vec<Listener>,
    /// The certificate for pop3s and STLS. There is one if a listener needs it.
    pub tls: Option<Tls>,
    /// The IMAP server of users whose domain is in no route. There may be none if there are routes.
    pub upstream: Option<Upstream>,
    /// The IMAP servers of users of some domains; no domain is in two of them.
    pub routes: Vec<Route>,
    /// What is added, with an `@`, to user names without a domain.
    pub append_domain: Option<String>,
    /// What holds for all sessions.
    pub gateway: gateway::Settings,
    /// What is remembered of mailboxes.
    pub cache: cache::Settings,
    /// How many may come.
    pub limits: Limits,
    /// How the process ends.
    pub drain: Drain,
    /// Where the administrator is answered by HTTP, if anywhere.
    pub admin: Option<Endpoint>,
    /// What is logged, and how.
    pub log: telemetry::Settings,
    /// The names of the `dangerous_…` options that are switched on, to be logged at each start.
    pub dangerous: Vec<String>,
    /// What works otherwise than somebody might expect, in sentences to be logged at each start.
    pub warnings: Vec<String>,
}

/// A place where clients are awaited.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listener {
    /// The host is an address or a name that is resolved when listening begins; port 0 lets the system choose one.
    pub endpoint: Endpoint,
    /// TLS from the first octet (pop3s, RFC 8314). Otherwise STLS is offered where there is a certificate.
    pub tls: bool,
    /// From where PROXY headers are believed, and required.
    pub proxies: Vec<IpNet>,
}

/// Two PEM files that were readable and belonged together when the configuration was loaded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tls {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// An IMAP server, and what holds for the maildrops on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Upstream {
    /// Where it is, and what is done there.
    pub server: imap::Settings,
    /// A PEM file of certificates that are trusted besides the system's when the server shows its own.
    pub ca: Option<PathBuf>,
    /// What sessions on it do.
    pub maildrops: Maildrops,
    /// How long lines to it stay open when their sessions are over.
    pub warm: warm::Settings,
}

/// An IMAP server for users of some domains.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// What stands behind the last `@` of their names; never empty.
    pub domains: Vec<Domain>,
    /// The server.
    pub upstream: Upstream,
}

/// How many may come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Connections at a time.
    pub sessions: usize,
    /// Connections at a time of one address that have not logged in (IPv6: of one /64, and four times as many of one /48).
    pub sessions_per_address: usize,
    /// TLS handshakes at a time.
    pub handshakes_in_flight: usize,
    /// Log-ins a second that reach one IMAP server.
    pub logins_per_second: u32,
}

/// How the process ends once it is told to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Drain {
    /// How long connections are still taken; not longer than `deadline`.
    pub accept_grace: Duration,
    /// How long sessions may go on, from the same moment.
    pub deadline: Duration,
}

/// What was said on the command line. It outranks everything else.
#[derive(Clone, Default, Debug)]
pub struct CommandLine {
    /// The URLs of `--listen`; they replace the list of the files.
    pub listen: Vec<String>,
    /// The URL of `--upstream`.
    pub upstream: Option<String>,
    /// The file of `--upstream-ca`.
    pub upstream_ca: Option<String>,
    /// `section.key=value`, of `--set`.
    pub set: Vec<String>,
}

impl Config {
    /// Merges the layers, the later over the earlier: built-in defaults, `files` in their order, those of the
    /// environment's variables that are called `POPGATE_SECTION__KEY`, the command line. A relative path counts from
    /// the directory of the file that it stands in, elsewhere from the current directory.
    pub fn load(
        files: &[PathBuf],
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        command_line: &CommandLine,
    ) -> Result<Self, Error> {
        Ok(Self::load_settings(files, environment, command_line)?.0)
    }

    /// The same, with every key's value and where it stands.
    pub fn load_settings(
        files: &[PathBuf],
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        command_line: &CommandLine,
    ) -> Result<(Self, Vec<Setting>), Error> {
        let layers = layers::Layers::gather(files, environment, command_line)?;
        let config = check::check(&layers.raw()?, &layers)?;
        Ok((config, effective::settings(&layers)))
    }
}
