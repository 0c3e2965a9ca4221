//! How a command looks on the wire: the octets of one whole command with its literals, and the words in it.

use super::mailbox::ranges;

/// One whole command, its literals in place.
pub(crate) struct Command {
    pub(crate) tag: String,
    /// What follows the tag, without the line end.
    pub(crate) octets: Vec<u8>,
}

impl Command {
    /// The text to match and to record; octets that are no UTF-8 are replaced.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.octets).into_owned()
    }
}

/// How far the octets received so far are one command.
pub(crate) enum Reading {
    /// A line is not complete yet.
    More,
    /// A synchronising literal was announced: the client waits to be told to go on.
    Literal,
    /// So many octets are a command.
    Whole(usize),
}

/// Looks at the octets received so far. `asked` is how many continuations were sent for the command before.
pub(crate) fn read(octets: &[u8], asked: usize) -> Reading {
    let mut from = 0;
    let mut literals = 0;
    loop {
        let Some(end) = octets[from..].windows(2).position(|two| two == b"\r\n").map(|at| from + at) else {
            return Reading::More;
        };
        let Some((octets_announced, synchronising)) = literal(&octets[from..end]) else {
            return Reading::Whole(end + 2);
        };
        if synchronising {
            literals += 1;
            if literals > asked {
                return Reading::Literal;
            }
        }
        from = end + 2 + octets_announced;
        if octets.len() < from {
            return Reading::More;
        }
    }
}

/// The literal that a line announces at its end: how long, and whether the client waits for a `+`.
fn literal(line: &[u8]) -> Option<(usize, bool)> {
    let open = line.iter().rposition(|octet| *octet == b'{')?;
    let number = std::str::from_utf8(&line[open + 1..]).ok()?.strip_suffix('}')?;
    let synchronising = !number.ends_with('+');
    Some((number.trim_end_matches('+').parse().ok()?, synchronising))
}

/// The words of a command: atoms, strings without their quotes, and whole lists with their parentheses.
pub(crate) fn words(octets: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut at = 0;
    while at < octets.len() {
        match octets[at] {
            b' ' => at += 1,
            b'"' => {
                let mut word = Vec::new();
                at += 1;
                while at < octets.len() && octets[at] != b'"' {
                    at += usize::from(octets[at] == b'\\');
                    word.extend(octets.get(at));
                    at += 1;
                }
                at += 1;
                words.push(word);
            }
            b'{' => {
                let line = octets[at..].windows(2).position(|two| two == b"\r\n").map_or(octets.len(), |end| at + end);
                let (length, _) = literal(&octets[at..line]).unwrap_or_default();
                let body = (line + 2).min(octets.len());
                let end = (body + length).min(octets.len());
                words.push(octets[body..end].to_vec());
                at = end;
            }
            b'(' => {
                let end = closing(octets, at);
                words.push(octets[at..end].to_vec());
                at = end;
            }
            _ => {
                let end = octets[at..].iter().position(|octet| *octet == b' ').map_or(octets.len(), |end| at + end);
                words.push(octets[at..end].to_vec());
                at = end;
            }
        }
    }
    words
}

/// Whether a command fetches bodies, among them those of all these UIDs.
pub(crate) fn fetches_bodies(text: &str, uids: &str) -> bool {
    let text = text.to_ascii_uppercase();
    let Some((set, items)) = text.strip_prefix("UID FETCH ").and_then(|rest| rest.split_once(' ')) else {
        return false;
    };
    let fetched = ranges(set, u32::MAX).unwrap_or_default();
    let is_fetched = |uid: u32| fetched.iter().any(|(from, to)| (*from..=*to).contains(&uid));
    items.contains("BODY.PEEK[") && uids.split(',').flat_map(str::parse).all(is_fetched)
}

/// Where the list that opens at `from` has ended.
fn closing(octets: &[u8], from: usize) -> usize {
    let mut depth = 0;
    for (at, octet) in octets.iter().enumerate().skip(from) {
        match octet {
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    octets.len()
}

/// The octets that a base64 text (RFC 4648 §4) stands for; `None` if it is none.
pub(crate) fn unbase64(text: &[u8]) -> Option<Vec<u8>> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut octets = Vec::new();
    for four in text.chunks(4) {
        let digits = four.iter().take_while(|octet| **octet != b'=').count();
        let mut bits = 0_u32;
        for octet in &four[..digits] {
            bits = bits << 6 | ALPHABET.iter().position(|known| known == octet)? as u32;
        }
        if four.len() != 4 || digits < 2 {
            return None;
        }
        let three = (bits << (6 * (4 - digits)) << 8).to_be_bytes();
        octets.extend_from_slice(&three[..digits - 1]);
    }
    Some(octets)
}
