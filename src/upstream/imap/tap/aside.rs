//! What the tap keeps for others to take: bodies, rows, findings, and what async-imap's parser would not hold.

use super::{Fetch, Found};
use crate::mail::{Message, Uid};

/// What the tap keeps for others to take.
#[derive(Default)]
pub(in crate::upstream::imap) struct Aside {
    /// The message whose body is expected; bodies of others are not delivered.
    pub(in crate::upstream::imap) wanted: Option<Uid>,
    /// Bodies of several messages are expected: those of all are delivered, and whoever takes them knows whose they are to be.
    pub(in crate::upstream::imap) all_wanted: bool,
    /// FETCH responses that are complete while [`all_wanted`](Self::all_wanted), in order.
    pub(in crate::upstream::imap) bodies: Vec<Fetch>,
    /// A body whose octets wait to be read, until it is taken.
    pub(in crate::upstream::imap) opened: Option<Opened>,
    /// A FETCH response with a body, complete.
    pub(in crate::upstream::imap) body: Option<Fetch>,
    /// The rows of a listing, while one is expected.
    pub(in crate::upstream::imap) rows: Option<Vec<Message>>,
    /// The message whose place among all is asked for together with a listing.
    pub(in crate::upstream::imap) place: Option<Placed>,
    /// The result of a search, while one is expected.
    pub(in crate::upstream::imap) found: Option<Found>,
    /// Messages were said to have gone by their UIDs, for which nobody asked: what numbers the others have now is not known.
    pub(in crate::upstream::imap) vanished: bool,
    /// The mailbox that LIST responses call the trash, while they are expected; empty before one does.
    pub(in crate::upstream::imap) trash: Option<String>,
    /// The newest list of capabilities, as words.
    pub(in crate::upstream::imap) capabilities: Option<String>,
    /// The flags defined in the mailbox (RFC 3501 §7.2.6).
    pub(in crate::upstream::imap) flags: Option<String>,
}

/// The place of a message among all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::upstream::imap) struct Placed {
    pub(in crate::upstream::imap) uid: Uid,
    /// Its message number: how many messages there are up to it. `None` as long as it has not been listed.
    pub(in crate::upstream::imap) number: Option<u32>,
}

/// A body literal of which no octet has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::upstream::imap) struct Opened {
    /// Where in the message it begins, if the server says that it is a part.
    pub(in crate::upstream::imap) offset: Option<u64>,
    /// How many octets were announced.
    pub(in crate::upstream::imap) octets: u64,
}
