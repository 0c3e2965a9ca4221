//! What is kept of credentials that were tried: enough to know them again, and nothing to learn them from.

use std::hash::{BuildHasher, RandomState};

use aws_lc_rs::hmac;

/// Some texts in their order, under the key of one process: nobody without the key can try passwords on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Fingerprint([u8; 32]);

/// The key. It is made when the process starts, is never written anywhere, and is gone with the process.
pub(super) struct Key(hmac::Key);

impl Key {
    pub(super) fn new() -> Self {
        // SipHash under a key from the system, which is what there is without a failure to think of.
        let random = RandomState::new();
        let seed: Vec<u8> = (0..4).flat_map(|word: u8| random.hash_one(word).to_ne_bytes()).collect();
        Self(hmac::Key::new(hmac::HMAC_SHA256, &seed))
    }

    /// Texts that differ in anything, or in where one ends and the next begins, have different fingerprints.
    pub(super) fn fingerprint(&self, texts: &[&[u8]]) -> Fingerprint {
        let mut signed = hmac::Context::with_key(&self.0);
        for text in texts {
            signed.update(&text.len().to_ne_bytes());
            signed.update(text);
        }
        // The last block waits in the context as it is, and the context is moved about: this takes its place.
        signed.update(&[0; BLOCK]);
        let mut octets = [0; 32];
        octets.copy_from_slice(signed.sign().as_ref());
        Fingerprint(octets)
    }
}

/// How many octets SHA-256 takes at once.
const BLOCK: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_the_same_is_the_same() {
        let key = Key::new();
        let tried = key.fingerprint(&[b"here", b"tim", b"sec ret"]);
        assert!(tried == key.fingerprint(&[b"here", b"tim", b"sec ret"]));
        let others: [&[&[u8]]; 5] = [
            &[b"there", b"tim", b"sec ret"],
            &[b"here", b"Tim", b"sec ret"],
            &[b"here", b"tim", b"sec rets"],
            &[b"here", b"tims", b"ec ret"],
            &[b"heretim", b"sec ret"],
        ];
        assert!(others.iter().all(|texts| key.fingerprint(texts) != tried));
        assert!(Key::new().fingerprint(&[b"here", b"tim", b"sec ret"]) != tried);
    }
}
