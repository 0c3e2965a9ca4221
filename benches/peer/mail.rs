//! The mail that is measured with: made up, but the same in every run, each message unlike the others, so that one
//! taken for another is seen. Lines and dots are as in real mail.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// A message's fingerprint.
pub(crate) type Fingerprint = [u8; 32];

/// The message `number` of a mailbox, of about `octets` octets, as IMAP stores it.
pub(crate) fn message(number: usize, octets: usize) -> Vec<u8> {
    let mut message = Vec::with_capacity(octets + 128);
    let header = format!(
        "From: sender@example.org\r\nTo: reader@example.org\r\nSubject: message {number} of about {octets} octets\r\n\
         Message-ID: <{number}.{octets}@example.org>\r\nDate: Wed, 1 Jan 2025 00:00:00 +0000\r\n\r\n"
    );
    message.extend_from_slice(header.as_bytes());
    let mut noise = number as u64 * 2 + 1;
    for line in 0.. {
        if message.len() >= octets {
            break;
        }
        // One line in fifty begins with a dot, more than in most mail.
        if line % 50 == 49 {
            message.extend_from_slice(b".");
        }
        while !message.len().is_multiple_of(76) {
            // xorshift64
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            for six in noise.to_le_bytes() {
                message.push(LETTERS[usize::from(six & 63)]);
            }
            if message.len() % 76 < 8 {
                break;
            }
        }
        message.extend_from_slice(b"\r\n");
    }
    message
}

/// What a client should have at the end.
pub(crate) fn fingerprint(message: &[u8]) -> Fingerprint {
    Sha256::digest(message).into()
}

/// The message in the body of a multi-line reply: the dots that were added are taken away.
pub(crate) fn unstuffed(wire: &[u8]) -> Vec<u8> {
    let lines = wire.split_inclusive(|&octet| octet == b'\n');
    lines.flat_map(|line| line.strip_prefix(b".").unwrap_or(line)).copied().collect()
}

/// How many octets a message is in a multi-line reply, without the dot that ends it.
pub(crate) fn stuffed_length(message: &[u8]) -> u64 {
    let dots = memchr::memmem::find_iter(message, b"\n.").count();
    (message.len() + dots) as u64
}

/// A fingerprint as people write it.
pub(crate) fn hexadecimal(fingerprint: &Fingerprint) -> String {
    fingerprint.iter().fold(String::new(), |mut text, octet| {
        let _ = write!(text, "{octet:02x}");
        text
    })
}

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
