//! LIST and UIDL over the whole maildrop: a cursor that writes lines straight into the buffer that is sent, so that a
//! million messages take no more memory than one.

use std::sync::Arc;

use super::{
    digits::{self, Radix},
    maildrop::{Listed, Maildrop},
    reply::Reply,
    session::Settings,
};
use crate::mail::UidValidity;

/// A multi-line reply under way, its first line and its dot included.
pub struct Listing {
    first: Option<Reply>,
    messages: Listed,
    column: Column,
    ended: bool,
}

/// What stands beside the number.
enum Column {
    Size,
    UniqueId(Arc<Settings>, UidValidity),
}

impl Listing {
    /// LIST.
    pub(super) fn sizes(maildrop: &Maildrop) -> Self {
        let first = Reply::ok(format_args!("{} messages ({} octets)", maildrop.count(), maildrop.octets()));
        Self { first: Some(first), messages: maildrop.listed(), column: Column::Size, ended: false }
    }

    /// UIDL.
    pub(super) fn unique_ids(maildrop: &Maildrop, settings: Arc<Settings>, uid_validity: UidValidity) -> Self {
        let column = Column::UniqueId(settings, uid_validity);
        let first = Reply::ok("unique-id listing follows");
        Self { first: Some(first), messages: maildrop.listed(), column, ended: false }
    }

    /// Appends the next lines, whole ones, about 16 KiB of them. `true`: there is more.
    pub fn fill(&mut self, out: &mut Vec<u8>) -> bool {
        if self.ended {
            return false;
        }
        let enough = out.len() + BLOCK;
        if let Some(first) = self.first.take() {
            out.extend_from_slice(first.octets());
        }
        while out.len() < enough {
            let Some((number, message)) = self.messages.next() else {
                out.extend_from_slice(b".\r\n");
                self.ended = true;
                return false;
            };
            digits::write(out, number as u64, Radix::Decimal, 0);
            out.push(b' ');
            match &self.column {
                Column::Size => digits::write(out, message.octets, Radix::Decimal, 0),
                Column::UniqueId(settings, uid_validity) => settings.unique_ids.write(message.uid, *uid_validity, out),
            }
            out.extend_from_slice(b"\r\n");
        }
        true
    }
}

/// Enough for a packet or a TLS record.
const BLOCK: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{Deletion, Message, Snapshot, Uid};

    #[test]
    fn a_long_listing_comes_in_blocks_of_whole_lines() {
        let messages = (1..=100_000).map(|uid| Message { uid: Uid::new(uid).unwrap(), octets: u64::from(uid) });
        let snapshot = Snapshot::new(UidValidity::new(1), Deletion::Allowed, messages);
        let mut listing = Listing::sizes(&Maildrop::new(Arc::new(snapshot)));
        let (mut all, mut block) = (Vec::new(), Vec::new());
        loop {
            let more = listing.fill(&mut block);
            assert!(block.ends_with(b"\r\n") && block.len() < BLOCK + 64);
            all.append(&mut block);
            if !more {
                break;
            }
        }
        assert!(!listing.fill(&mut all));
        let mut expected = String::from("+OK 100000 messages (5000050000 octets)\r\n");
        (1..=100_000).for_each(|n| expected.push_str(&format!("{n} {n}\r\n")));
        expected.push_str(".\r\n");
        assert!(all == expected.as_bytes());
    }
}
