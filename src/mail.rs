//! The nouns that both protocols share: messages by UID, the listing fixed at log-in, what a session asks to be
//! changed, and who logs in. No protocol, no I/O.

use std::{collections::BTreeMap, fmt, net::IpAddr, num::NonZeroU32};

use zeroize::Zeroize;

/// The unique identifier of a message within one UIDVALIDITY (RFC 3501 §2.3.1.1). Never 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Uid(NonZeroU32);

impl Uid {
    /// The UID with this value, or `None` for 0, which is no UID.
    pub const fn new(value: u32) -> Option<Self> {
        match NonZeroU32::new(value) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// The number as it stands on the wire.
    pub const fn value(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The generation of a mailbox's UIDs (RFC 3501 §2.3.1.1). Never 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct UidValidity(NonZeroU32);

impl UidValidity {
    /// The UIDVALIDITY with this value, or `None` for 0, which is none.
    pub const fn new(value: u32) -> Option<Self> {
        match NonZeroU32::new(value) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// The number as it stands on the wire.
    pub const fn value(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for UidValidity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Something that is never printed and is overwritten when dropped. It has no `Debug` and no `Display`, so a struct that
/// holds one cannot derive them by accident.
#[derive(Clone)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Takes the value into custody.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself. Every call is a place to look at when asking where a secret can go.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Who logs in, and with what.
#[derive(Clone)]
pub struct Credentials {
    /// The user name, exact as the client gave it; never empty, no control characters.
    pub user: String,
    /// What proves it.
    pub proof: Proof,
    /// Where the client is, if the server behind is to know it. It proves nothing.
    pub address: Option<IpAddr>,
}

impl Credentials {
    /// Those of a client of whom no server is told where it is.
    pub const fn new(user: String, proof: Proof) -> Self {
        Self { user, proof, address: None }
    }
}

/// What proves that a client is who it says.
#[derive(Clone)]
pub enum Proof {
    /// A password, octet for octet; it may be any octets but NUL, CR and LF.
    Password(Secret<Vec<u8>>),
    /// An OAuth2 bearer token (RFC 6750): printable ASCII.
    Token {
        /// The token.
        token: Secret<String>,
        /// The mechanism the client chose, which is tried first upstream.
        mechanism: TokenMechanism,
    },
}

impl Proof {
    /// The password or the token itself.
    pub fn expose(&self) -> &[u8] {
        match self {
            Self::Password(password) => password.expose(),
            Self::Token { token, .. } => token.expose().as_bytes(),
        }
    }
}

/// The two SASL mechanisms that carry a bearer token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenMechanism {
    /// Google's and Microsoft's own: `user=…^Aauth=Bearer …^A^A`.
    XOAuth2,
    /// RFC 7628.
    OAuthBearer,
}

/// One message as the listing knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    /// Its UID.
    pub uid: Uid,
    /// Its size in octets as the upstream reports it (RFC822.SIZE). Some servers report it wrong, so it is never used to
    /// judge whether a message is complete.
    pub octets: u64,
}

/// Whether a session may delete, decided when the mailbox is opened so that DELE never promises what QUIT cannot keep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deletion {
    /// DELE is accepted.
    Allowed,
    /// The mailbox is read-only, or `\Deleted` may not be set there.
    ReadOnly,
    /// The server has no safe way to remove or to hide single messages.
    Unsupported,
}

/// The listing of a mailbox, complete and fixed at log-in: messages in ascending order of UID, so that POP3 message
/// number n is index n-1 for the whole session. Eight octets a message; sizes of 4 GiB and more lie aside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    uid_validity: Option<UidValidity>,
    deletion: Deletion,
    uids: Vec<Uid>,
    octets: Vec<u32>,
    large: BTreeMap<Uid, u64>,
    total: u64,
}

impl Snapshot {
    /// A listing of `messages`, which must ascend strictly by UID; what does not is left out by the caller beforehand.
    /// `uid_validity` is `None` where the upstream's UIDs do not outlive the session (RFC 4315 UIDNOTSTICKY).
    pub fn new(
        uid_validity: Option<UidValidity>,
        deletion: Deletion,
        messages: impl IntoIterator<Item = Message>,
    ) -> Self {
        let messages = messages.into_iter();
        let mut uids = Vec::with_capacity(messages.size_hint().0);
        let mut octets = Vec::with_capacity(messages.size_hint().0);
        let mut large = BTreeMap::new();
        let mut total = 0_u64;
        for message in messages {
            debug_assert!(uids.last().is_none_or(|last| *last < message.uid));
            uids.push(message.uid);
            octets.push(u32::try_from(message.octets).unwrap_or_else(|_| {
                large.insert(message.uid, message.octets);
                u32::MAX
            }));
            total = total.saturating_add(message.octets);
        }
        Self { uid_validity, deletion, uids, octets, large, total }
    }

    /// The generation of the UIDs, or `None` where they do not outlive the session.
    pub const fn uid_validity(&self) -> Option<UidValidity> {
        self.uid_validity
    }

    /// Whether DELE may be accepted.
    pub const fn deletion(&self) -> Deletion {
        self.deletion
    }

    /// How many messages there are.
    pub const fn len(&self) -> usize {
        self.uids.len()
    }

    /// Whether there is no message at all.
    pub const fn is_empty(&self) -> bool {
        self.uids.is_empty()
    }

    /// The sum of all sizes, in octets.
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// The message at `index` (POP3 number minus one).
    pub fn message(&self, index: usize) -> Option<Message> {
        let uid = *self.uids.get(index)?;
        let octets = match self.octets.get(index) {
            Some(&u32::MAX) => self.large.get(&uid).copied().unwrap_or_else(|| u64::from(u32::MAX)),
            Some(&octets) => u64::from(octets),
            None => return None,
        };
        Some(Message { uid, octets })
    }

    /// The message with this UID.
    pub fn find(&self, uid: Uid) -> Option<Message> {
        self.message(self.uids.binary_search(&uid).ok()?)
    }

    /// All UIDs, ascending.
    pub fn uids(&self) -> &[Uid] {
        &self.uids
    }
}

/// What a session that reached the UPDATE state (RFC 1939 §6) asks to be done. Only the POP3 core makes one, and only
/// for a QUIT in the TRANSACTION state.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// The messages whose DELE was accepted, ascending.
    pub delete: Vec<Uid>,
    /// The messages that were retrieved whole and are kept, ascending: they may be flagged `\Seen`.
    pub seen: Vec<Uid>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(uid: u32, octets: u64) -> Message {
        Message { uid: Uid::new(uid).unwrap(), octets }
    }

    #[test]
    fn sizes_of_four_gibibytes_and_more_are_kept() {
        let large = u64::from(u32::MAX);
        let messages = [message(5, 120), message(7, large), message(9, large + 7), message(u32::MAX, 0)];
        let snapshot = Snapshot::new(UidValidity::new(100), Deletion::Allowed, messages);
        assert_eq!(messages.map(Some), [0, 1, 2, 3].map(|index| snapshot.message(index)));
        assert_eq!(snapshot.message(4), None);
        assert_eq!(snapshot.total(), 120 + large + large + 7);
        assert_eq!(snapshot.find(messages[2].uid), Some(messages[2]));
        assert_eq!(snapshot.find(Uid::new(6).unwrap()), None);
    }
}
