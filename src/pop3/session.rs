//! A session: its states, AUTHORIZATION and TRANSACTION, and what they have in common, which are the settings, the channel,
//! and how many bad commands are borne with. [`During::Update`] leads to UPDATE, and nothing leads back.

pub use super::{
    authorization::{Authorization, Before, Opening, Securing},
    listing::Listing,
    transaction::{During, Sending, Transaction, Wanted},
    update::Leaving,
};
use super::{reply::Reply, unique_id::Template};

/// What holds for a maildrop.
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
    left: u8,
    all: u8,
}

impl Patience {
    /// For AUTHORIZATION.
    pub(super) const fn before_login() -> Self {
        Self { left: BAD_BEFORE_LOGIN, all: BAD_BEFORE_LOGIN }
    }

    /// For TRANSACTION, where a client has shown that it is one, and where an odd one would lose its deletions.
    pub(super) const fn after_login() -> Self {
        Self { left: BAD_AFTER_LOGIN, all: BAD_AFTER_LOGIN }
    }

    /// A bad command came. `false`: it was one too many.
    #[must_use]
    pub(super) const fn bear(&mut self) -> bool {
        self.left = self.left.saturating_sub(1);
        self.left > 0
    }

    /// A good command came.
    pub(super) const fn restore(&mut self) {
        self.left = self.all;
    }
}

/// Real clients make one or two mistakes while they find out what a server can do.
const BAD_BEFORE_LOGIN: u8 = 10;

/// Dovecot's number.
const BAD_AFTER_LOGIN: u8 = 20;
