//! POP3 sessions on upstream mailboxes: the one place where both languages are spoken. [`serve`] runs one session on a
//! line that somebody else has accepted.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use ipnet::IpNet;
use tokio_util::task::TaskTracker;

use crate::{
    net::{Accept, limits::Permit},
    upstream::Upstream,
};

mod authorize;
mod client;
mod counters;
mod guard;
mod refuse;
mod route;
mod send;
mod serve;
mod summary;

pub use counters::{Counters, Counts, Tally};
pub use route::{Domain, Maildrops, Route, Routes};
pub use serve::serve;

/// What holds for all sessions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// How long the answer to wrong credentials takes at least. It doubles with each that are new, up to 15 seconds.
    pub failure_delay: Duration,
    /// How long credentials that the upstream refused are refused without asking it again. Zero: not at all.
    pub denial_ttl: Duration,
    /// How many sessions a user may have at a time, where the [`Lock`] does not say one; 0: any number.
    pub sessions_per_user: usize,
    /// From where credentials are taken without TLS.
    pub plaintext_from: Vec<IpNet>,
}

/// When retrieved messages are flagged `\Seen`. TOP never counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Seen {
    /// At the end of the session; what RSET has taken back is left alone.
    #[default]
    Quit,
    /// As soon as a message has been sent.
    Retr,
    /// Not at all.
    Never,
}

/// Whether a user may have several sessions (RFC 1939 §4 says no).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Lock {
    /// Any number: deletion goes by UID, so that they do not harm one another, and a client that died does not lock its
    /// user out.
    #[default]
    None,
    /// One in this process.
    Gateway,
}

/// Who is at the other end of the line.
pub struct Peer {
    /// The other end of the line.
    pub address: SocketAddr,
    /// Where the client is: the same, unless a trusted proxy says something else.
    pub client: SocketAddr,
    /// The line is encrypted already (RFC 8314).
    pub encrypted: bool,
    /// The right to the connection, if connections are counted. It learns when the client has logged in.
    pub permit: Option<Permit>,
}

impl Peer {
    /// Whether both the client and the proxy that it may have come through are in one of the networks.
    fn is_within(&self, networks: &[IpNet]) -> bool {
        [self.address, self.client].iter().all(|address| {
            // An IPv4 client on an IPv6 socket is an IPv4 client.
            let address = address.ip().to_canonical();
            networks.iter().any(|network| network.contains(&address))
        })
    }
}

/// All that sessions share.
pub struct Gateway<U> {
    routes: Routes<U>,
    settings: Settings,
    acceptor: Option<Arc<dyn Accept>>,
    denials: guard::Denials,
    lasting: Lasting,
}

/// What a gateway and its successors share.
#[derive(Clone, Default)]
struct Lasting {
    places: guard::Places,
    guesses: Arc<guard::Guesses>,
    /// How many sessions there have been.
    sessions: Arc<AtomicU64>,
    counters: Arc<Counters>,
    updates: TaskTracker,
}

impl<U: Upstream> Gateway<U> {
    /// A gateway to these upstreams. STLS is offered if there is an `acceptor`.
    pub fn new(routes: Routes<U>, settings: Settings, acceptor: Option<Arc<dyn Accept>>) -> Self {
        let denials = guard::Denials::new(settings.denial_ttl);
        Self { routes, settings, acceptor, denials, lasting: Lasting::default() }
    }

    /// A gateway to other upstreams, for sessions that begin from now on. Who has a session here has it there, and
    /// who has guessed wrong has it behind him; what an upstream has refused is asked again.
    pub fn successor(&self, routes: Routes<U>, settings: Settings, acceptor: Option<Arc<dyn Accept>>) -> Self {
        Self { lasting: self.lasting.clone(), ..Self::new(routes, settings, acceptor) }
    }

    /// What sessions have come to, here and at predecessors and successors.
    pub const fn counters(&self) -> &Arc<Counters> {
        &self.lasting.counters
    }

    /// The sessions that are making their changes, here and at predecessors and successors: what must be waited for even
    /// when sessions are broken off.
    pub const fn updates(&self) -> &TaskTracker {
        &self.lasting.updates
    }
}

#[cfg(test)]
mod tests;
