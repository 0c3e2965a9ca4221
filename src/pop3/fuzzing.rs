//! A SASL exchange of any lines, for [`fuzzing`](crate::fuzzing).

use super::sasl::{Mechanism, Step, decode};
use crate::mail::{Credentials, Proof};

/// The first line is what follows AUTH, the others are responses.
pub(crate) fn sasl(octets: &[u8]) {
    let mut lines = octets.split(|octet| *octet == b'\n');
    let first = lines.next().unwrap_or_default();
    let mut words = first.splitn(2, |octet| *octet == b' ');
    let (name, initial) = (words.next().unwrap_or_default(), words.next());
    lines.clone().chain(initial).for_each(is_decoded_truly);
    let Some(mechanism) = Mechanism::named(name) else { return };
    let mut step = mechanism.begin(initial);
    let mut said = initial.into_iter().chain(lines);
    if initial.is_some() {
        said.next();
    }
    let mut asked = 0;
    loop {
        step = match step {
            Step::Challenge(exchange, reply) => {
                let challenge = reply.octets().strip_prefix(b"+ ").and_then(|line| line.strip_suffix(b"\r\n"));
                assert!(challenge.is_some_and(|challenge| base64(challenge).is_some()), "a challenge that is none");
                asked += 1;
                assert!(asked <= 2, "no mechanism asks more often");
                let Some(line) = said.next() else { return };
                exchange.respond(line)
            }
            Step::Done(credentials) => return are_clean(&credentials),
            Step::Failed(_) => return,
        };
    }
}

/// What the upstream is told holds nothing that could break out of a line.
fn are_clean(credentials: &Credentials) {
    assert!(!credentials.user.is_empty() && !credentials.user.contains(char::is_control));
    match &credentials.proof {
        Proof::Password(password) => {
            let password = password.expose();
            assert!(!password.is_empty() && !password.iter().any(|octet| matches!(octet, 0 | b'\r' | b'\n')));
        }
        Proof::Token { token, .. } => {
            assert!(!token.expose().is_empty() && token.expose().bytes().all(|octet| octet.is_ascii_graphic()));
        }
    }
}

fn is_decoded_truly(line: &[u8]) {
    let decoded = decode(line).ok().map(|octets| octets.to_vec());
    assert_eq!(decoded, base64(line), "{}", line.escape_ascii());
}

/// RFC 4648 §4, as slowly as it is written there: four letters are three octets, and what is left over is zero.
fn base64(line: &[u8]) -> Option<Vec<u8>> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut octets = Vec::new();
    for (at, group) in line.chunks(4).enumerate() {
        let letters = group.iter().position(|letter| *letter == b'=').unwrap_or(group.len());
        let last = (at + 1) * 4 == line.len();
        let padded = group.len() == 4 && group[letters..].iter().all(|letter| *letter == b'=');
        if !padded || letters < 2 || letters < 4 && !last {
            return None;
        }
        let mut bits = 0_u32;
        for letter in group {
            let value = match letter {
                b'=' => 0,
                letter => LETTERS.iter().position(|known| known == letter)? as u32,
            };
            bits = bits << 6 | value;
        }
        let [_, decoded @ ..] = bits.to_be_bytes();
        let (kept, left) = decoded.split_at(letters - 1);
        if left.iter().any(|octet| *octet != 0) {
            return None;
        }
        octets.extend(kept);
    }
    Some(octets)
}
