//! What the states of a session have in common: the settings, the channel, and how many bad commands are borne with. The
//! states themselves are [`authorization`](super::authorization) and [`transaction`](super::transaction); UPDATE is what
//! follows [`During::Update`].

pub use super::{
    authorization::{Authorization, Before, Opening, Securing},
    line::{Expects, Input},
    listing::Listing,
    transaction::{During, Leaving, Sending, Transaction, Wanted},
};
use super::{reply::Reply, unique_id::Template};

/// What is the same for all sessions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// How unique ids are written.
    pub unique_ids: Template,
    /// Whether messages that were retrieved are to be flagged `\Seen` at the end: they are noted in
    /// [`Changes::seen`](crate::mail::Changes::seen) then, and in what `retrieved` returns.
    pub seen: bool,
}

/// The line to the client, as it is now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Channel {
    /// TLS is on.
    pub encrypted: bool,
    /// There is a certificate, so that STLS is possible.
    pub stls: bool,
    /// Credentials may be sent over it.
    pub login: bool,
}

impl Channel {
    /// Whether STLS may be said now.
    pub(super) const fn offers_stls(self) -> bool {
        self.stls && !self.encrypted
    }

    /// The answer to whoever tries to log in where [`login`](Self::login) is off. Without `[AUTH]`: the credentials are
    /// not at fault, and nobody has looked at them.
    pub(super) fn refusal(self) -> Reply {
        if self.offers_stls() { Reply::tls_required() } else { Reply::no_login_from_here() }
    }
}

/// How many bad commands in a row are borne with: a peer that speaks nonsense is no POP3 client.
pub(super) struct Patience {
    left: u16,
    all: u16,
    forgiven: u16,
}

impl Patience {
    /// For AUTHORIZATION.
    pub(super) const fn before_login() -> Self {
        Self::new(BAD_BEFORE_LOGIN)
    }

    /// For TRANSACTION, where a client has shown that it is one, and where an odd one would lose its deletions.
    pub(super) const fn after_login() -> Self {
        Self::new(BAD_AFTER_LOGIN)
    }

    const fn new(all: u16) -> Self {
        Self { left: all, all, forgiven: 0 }
    }

    /// A bad command came. `false`: it was one too many.
    #[must_use]
    pub(super) const fn bear(&mut self) -> bool {
        if self.forgiven > 0 {
            self.forgiven -= 1;
            return true;
        }
        self.left -= 1;
        self.left > 0
    }

    /// A good command came.
    pub(super) const fn restore(&mut self) {
        *self = Self::new(self.all);
    }

    /// A log-in failed. What was sent ahead in the hope of a better end is not the client's fault, and one cannot see
    /// where it ends.
    pub(super) const fn forgive(&mut self) {
        *self = Self { forgiven: SENT_AHEAD, ..Self::new(self.all) };
    }
}

/// Real clients make one or two mistakes while they find out what a server can do.
const BAD_BEFORE_LOGIN: u16 = 10;

/// Dovecot's number.
const BAD_AFTER_LOGIN: u16 = 20;

/// More commands than any known client sends ahead (mpop: 100), fewer than would be fun to send for nothing.
const SENT_AHEAD: u16 = 1000;
