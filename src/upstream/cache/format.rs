//! A listing as the octets of a file: three to six a message, and a hash of them all at the end. What has been damaged,
//! cut, or written for somebody else is no listing. Not here: where files are.
//!
//! ```text
//! "popgate listing 1\n"
//! place, user                      each with its length before it
//! UIDVALIDITY, UIDNEXT, messages   UIDNEXT is 0 where the server does not tell it
//! for each message: the distance to the UID before it, its size
//! SHA-256 of all this
//! ```
//!
//! Numbers are in groups of seven bits, the lowest first, and the eighth bit says that more follow (LEB128).

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use super::{Key, Known};
use crate::mail::{Deletion, Message, Snapshot, Uid, UidValidity};

/// The octets that keep what is known of a mailbox.
pub(super) fn encode((place, user): &Key, known: &Known) -> Vec<u8> {
    let listing = known.listing();
    let mut octets = MAGIC.to_vec();
    for name in [place, user.as_str()] {
        put(&mut octets, name.len() as u64);
        octets.extend_from_slice(name.as_bytes());
    }
    put(&mut octets, listing.uid_validity().map_or(0, UidValidity::value).into());
    put(&mut octets, known.uid_next().unwrap_or(0).into());
    put(&mut octets, listing.len() as u64);
    let mut before = 0;
    for message in (0..listing.len()).filter_map(|index| listing.message(index)) {
        let uid = message.uid.value();
        put(&mut octets, (uid - before).into());
        put(&mut octets, message.octets);
        before = uid;
    }
    let hash = digest(&SHA256, &octets);
    octets.extend_from_slice(hash.as_ref());
    octets
}

/// What these octets keep; `None` unless they are exactly what was once written of the same place and user. Whether
/// messages may be deleted is found out in each session, and is not kept.
pub(super) fn decode((place, user): &Key, octets: &[u8]) -> Option<Known> {
    let (octets, hash) = octets.split_at_checked(octets.len().checked_sub(SHA256_OUTPUT_LEN)?)?;
    if digest(&SHA256, octets).as_ref() != hash {
        return None;
    }
    let mut rest = octets.strip_prefix(MAGIC)?;
    for name in [place, user.as_str()] {
        let length = usize::try_from(take(&mut rest)?).ok()?;
        rest = rest.split_at_checked(length).filter(|(found, _)| *found == name.as_bytes())?.1;
    }
    let uid_validity = UidValidity::new(take_u32(&mut rest)?)?;
    let uid_next = Some(take_u32(&mut rest)?).filter(|next| *next > 0);
    let count = usize::try_from(take(&mut rest)?).ok()?;
    // No message is shorter than two octets, whatever the number says.
    let mut messages = Vec::with_capacity(count.min(rest.len() / 2));
    let mut uid = 0_u32;
    for _ in 0..count {
        let distance = Some(take_u32(&mut rest)?).filter(|distance| *distance > 0)?;
        uid = uid.checked_add(distance)?;
        messages.push(Message { uid: Uid::new(uid)?, octets: take(&mut rest)? });
    }
    let listing = Snapshot::new(Some(uid_validity), Deletion::Allowed, messages);
    Known::new(listing.into(), uid_next).filter(|_| rest.is_empty())
}

fn put(octets: &mut Vec<u8>, mut number: u64) {
    while number > 0x7F {
        octets.push(number as u8 | 0x80);
        number >>= 7;
    }
    octets.push(number as u8);
}

fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (octet, behind) = rest.split_first()?;
        *rest = behind;
        number |= u64::from(octet & 0x7F) << shift;
        if octet & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    u32::try_from(take(rest)?).ok()
}

/// Begins each file. Its number grows when anything about the format changes.
const MAGIC: &[u8] = b"popgate listing 1\n";

#[cfg(test)]
mod tests {
    use proptest::{collection::btree_map, option, prelude::*};

    use super::*;

    fn key() -> Key {
        ("imap.example.com:993 INBOX".into(), "tim@example.com".to_owned())
    }

    fn known(uid_validity: u32, uid_next: Option<u32>, messages: impl IntoIterator<Item = (u32, u64)>) -> Known {
        let messages = messages.into_iter().map(|(uid, octets)| Message { uid: Uid::new(uid).unwrap(), octets });
        let messages: Vec<_> = messages.collect();
        let listing = Snapshot::new(UidValidity::new(uid_validity), Deletion::Allowed, messages);
        Known::new(listing.into(), uid_next).unwrap()
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            place in ".*",
            user in ".*",
            uid_validity in 1..=u32::MAX,
            uid_next in option::of(1..=u32::MAX),
            near in btree_map(1..300_u32, any::<u64>(), 1..60),
            far in btree_map(1..=u32::MAX, 0..5_000_000_000_u64, 0..60),
        ) {
            let mut messages = near;
            messages.extend(far);
            let known = known(uid_validity, uid_next, messages);
            let key = (place.into(), user);
            prop_assert_eq!(decode(&key, &encode(&key, &known)), Some(known));
        }

    }

    /// A hash that is right says that the file is as it was written, not that it was written right.
    #[test]
    fn numbers_that_make_no_sense_are_no_listing() {
        let listing = |numbers: &[u8]| {
            let mut octets = [MAGIC, &[0, 0], numbers].concat();
            octets.extend_from_slice(digest(&SHA256, &octets).as_ref());
            decode(&("".into(), String::new()), &octets)
        };
        assert_eq!(listing(&[100, 12, 2, 5, 120, 2, 7]), Some(known(100, Some(12), [(5, 120), (7, 7)])));
        for numbers in [
            &[0, 12, 1, 5, 120][..],                                                         // UIDVALIDITY
            &[100, 12, 0],                                                                   // nothing to know
            &[100, 12, 2, 5, 120],                                                           // fewer messages
            &[100, 12, 1, 5, 120, 2, 7],                                                     // more
            &[100, 12, 2, 5, 120, 0, 7],                                                     // the same UID
            &[100, 12, 2, 0xFF, 0xFF, 0xFF, 0xFF, 0xF, 120, 1, 7],                           // a UID beyond the last
            &[0x80, 0x80, 0x80, 0x80, 0x10, 12, 1, 5, 120],                                  // a number of 33 bits
            &[100, 12, 1, 5, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x80, 1], // no end
            &[100, 12, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F, 5, 120],        // no room
            &[],
        ] {
            assert_eq!(listing(numbers), None, "{numbers:?}");
        }
    }

    #[test]
    fn no_octet_can_be_changed_or_missing() {
        let octets = encode(&key(), &known(100, Some(12), [(5, 120), (7, 200), (9, 300)]));
        assert!(decode(&key(), &octets).is_some());
        for length in 0..octets.len() {
            assert_eq!(decode(&key(), &octets[..length]), None, "{length} octets");
        }
        assert_eq!(decode(&key(), &[&octets[..], b"\n"].concat()), None);
        for index in 0..octets.len() {
            for change in 1..=u8::MAX {
                let mut octets = octets.clone();
                octets[index] ^= change;
                assert_eq!(decode(&key(), &octets), None, "octet {index} with {change:#x}");
            }
        }
    }

    #[test]
    fn another_users_file_is_no_listing() {
        let octets = encode(&key(), &known(100, None, [(5, 120)]));
        let (place, user) = key();
        for other in [(place.clone(), "tom@example.com".to_owned()), ("imap.example.com:143 INBOX".into(), user)] {
            assert_eq!(decode(&other, &octets), None, "{other:?}");
        }
    }

    #[test]
    fn a_message_takes_few_octets() {
        let messages = (1..=10_000).map(|number| (number * 3, 2_000 + u64::from(number) * 7));
        let octets = encode(&key(), &known(100, None, messages)).len();
        assert!(octets < 42_000, "{octets}");
    }
}
