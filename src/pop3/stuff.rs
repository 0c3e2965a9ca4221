//! A message's octets on their way to a client (RFC 1939 §3): line ends become CRLF, dots at the start of a line are
//! doubled, and the end is marked. Nothing else is changed, and nothing about the message is remembered but its length.

/// Turns a message, given in any pieces, into the body of a multi-line reply.
///
/// * LF without CR before it becomes CRLF: many clients end a line there, and a dot behind it would end the message.
/// * CR without LF after it passes, except directly before a dot: for those who end a line at CR it becomes CRLF, so that
///   whoever sends mail cannot choose where a client takes the message to end.
/// * A message that does not end in CRLF gets one; an empty message stays empty.
pub struct Stuffer {
    last: Last,
    octets: u64,
}

/// What the octet before the next one was.
#[derive(Clone, Copy)]
enum Last {
    /// None, or LF.
    LineEnd,
    Cr,
    Other,
}

impl Stuffer {
    /// At the start of a message.
    pub const fn new() -> Self {
        Self { last: Last::LineEnd, octets: 0 }
    }

    /// Appends to `out` what the next octets of the message become.
    pub fn push(&mut self, body: &[u8], out: &mut Vec<u8>) {
        out.reserve(body.len() + SPARE);
        let mut copied = 0;
        let mut at = 0;
        while let Some(&octet) = body.get(at) {
            let missing: &[u8] = match (self.last, octet) {
                (Last::LineEnd, b'.') => b".",
                (Last::Cr, b'.') => b"\n.",
                (Last::LineEnd | Last::Other, b'\n') => b"\r",
                _ => b"",
            };
            if !missing.is_empty() {
                out.extend_from_slice(&body[copied..at]);
                out.extend_from_slice(missing);
                copied = at;
                // The dot that is added is taken away by the client; CR and LF are there to stay.
                self.octets += u64::from(missing != b".");
            }
            (self.last, at) = match octet {
                b'\n' => (Last::LineEnd, at + 1),
                b'\r' => (Last::Cr, at + 1),
                _ => (Last::Other, memchr::memchr2(b'\r', b'\n', &body[at..]).map_or(body.len(), |run| at + run)),
            };
        }
        out.extend_from_slice(&body[copied..]);
        self.octets += body.len() as u64;
    }

    /// How many octets a client has when it has undone the stuffing, if the message ends here: what LIST should have said.
    pub const fn octets(&self) -> u64 {
        self.octets + self.ending().len() as u64
    }

    /// Appends the end of the message and the dot. Only for a message that is complete: a client that has seen the dot
    /// may delete the original.
    pub fn finish(self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.ending());
        out.extend_from_slice(b".\r\n");
    }

    /// What the last line lacks.
    const fn ending(&self) -> &'static [u8] {
        match self.last {
            Last::LineEnd => b"",
            Last::Cr => b"\n",
            Last::Other => b"\r\n",
        }
    }
}

impl Default for Stuffer {
    fn default() -> Self {
        Self::new()
    }
}

/// Room for the CRs and dots of an ordinary piece, so that `out` need not grow in the middle of it.
const SPARE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn stuff(pieces: &[&[u8]]) -> (Vec<u8>, u64) {
        let mut stuffer = Stuffer::new();
        let mut out = Vec::new();
        for piece in pieces {
            stuffer.push(piece, &mut out);
        }
        let octets = stuffer.octets();
        stuffer.finish(&mut out);
        (out, octets)
    }

    /// The same, one octet after the other and one rule after the other.
    fn model(body: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut lines = Vec::new();
        for (at, octet) in body.iter().enumerate() {
            let before = at.checked_sub(1).map(|at| body[at]);
            match octet {
                b'\n' if before != Some(b'\r') => lines.extend(b"\r\n"),
                b'.' if before == Some(b'\r') => lines.extend(b"\n."),
                octet => lines.push(*octet),
            }
        }
        match lines.last() {
            None | Some(b'\n') => {}
            Some(b'\r') => lines.push(b'\n'),
            Some(_) => lines.extend(b"\r\n"),
        }
        let mut stuffed = Vec::new();
        for line in lines.split_inclusive(|octet| *octet == b'\n') {
            if line.starts_with(b".") {
                stuffed.push(b'.');
            }
            stuffed.extend(line);
        }
        stuffed.extend(b".\r\n");
        (lines, stuffed)
    }

    /// Reads a body as a client does whose lines end as `ends` says: the message, and how many octets it read.
    fn read(stream: &[u8], ends: fn(&[u8]) -> Option<usize>) -> Option<(Vec<u8>, usize)> {
        let mut message = Vec::new();
        let mut at = 0;
        while at < stream.len() {
            let (start, mut end) = (at, 0);
            while end == 0 {
                end = ends(&stream[at..]).unwrap_or(0);
                at += end.max(1);
                if end == 0 && at >= stream.len() {
                    return None;
                }
            }
            let line = &stream[start..at];
            match line.strip_prefix(b".") {
                Some(rest) if rest.len() == end => return Some((message, at)),
                Some(rest) => message.extend(rest),
                None => message.extend(line),
            }
        }
        None
    }

    fn strict(rest: &[u8]) -> Option<usize> {
        rest.starts_with(b"\r\n").then_some(2)
    }

    fn lenient_lf(rest: &[u8]) -> Option<usize> {
        strict(rest).or_else(|| rest.starts_with(b"\n").then_some(1))
    }

    fn lenient_cr(rest: &[u8]) -> Option<usize> {
        lenient_lf(rest).or_else(|| rest.starts_with(b"\r").then_some(1))
    }

    #[test]
    fn vectors_in_all_chunkings() {
        // C.5, T151 to T154
        let cases: [(&[u8], &[u8], u64); 13] = [
            (b"", b".\r\n", 0),
            (b"A: b\r\n\r\n.\r\n", b"A: b\r\n\r\n..\r\n.\r\n", 11),
            (b"A: b\n\n.x\n..y", b"A: b\r\n\r\n..x\r\n...y\r\n.\r\n", 17),
            (b"x\r", b"x\r\n.\r\n", 3),
            (b"A\r.b\r\n", b"A\r\n..b\r\n.\r\n", 7),
            (b"a\r\r\n.\r\n", b"a\r\r\n..\r\n.\r\n", 7),
            (b"\r\n.", b"\r\n..\r\n.\r\n", 5),
            (b".", b"..\r\n.\r\n", 3),
            (b"..\r\n", b"...\r\n.\r\n", 4),
            (b"x", b"x\r\n.\r\n", 3),
            (b"x\n", b"x\r\n.\r\n", 3),
            (b"\r.\r.", b"\r\n..\r\n..\r\n.\r\n", 8),
            (b"a\0b\xff\r\n", b"a\0b\xff\r\n.\r\n", 6),
        ];
        for (body, expected, octets) in cases {
            // Every way to cut it: bit n of `cuts` says whether there is a cut after octet n.
            for cuts in 0..1_u32 << body.len().saturating_sub(1) {
                let mut pieces = Vec::new();
                let mut start = 0;
                for at in 1..=body.len() {
                    if at == body.len() || cuts & (1 << (at - 1)) != 0 {
                        pieces.push(&body[start..at]);
                        start = at;
                    }
                }
                assert_eq!(stuff(&pieces), (expected.to_vec(), octets), "{body:?} cut by {cuts:b}");
            }
        }
    }

    #[test]
    fn all_small_messages_are_stuffed_as_the_model_does_and_end_at_the_same_place_for_every_reader() {
        // F-16, T8 of the threats
        const ALPHABET: [u8; 5] = *b"\r\n.\0a";
        for length in 0..=7_u32 {
            for code in 0..5_usize.pow(length) {
                let body: Vec<u8> = (0..length).map(|at| ALPHABET[code / 5_usize.pow(at) % 5]).collect();
                let (lines, expected) = model(&body);
                let (half, rest) = body.split_at(code % (body.len() + 1));
                let (stuffed, octets) = stuff(&[half, rest]);
                assert_eq!(stuffed, expected, "{body:?}");
                assert_eq!(octets, lines.len() as u64, "{body:?}");
                let mut stream = stuffed.clone();
                stream.extend(b"+OK next\r\n.\r\n");
                assert_eq!(read(&stream, strict), Some((lines, stuffed.len())), "{body:?}");
                for lenient in [lenient_lf, lenient_cr] {
                    assert_eq!(read(&stream, lenient).map(|(_, end)| end), Some(stuffed.len()), "{body:?}");
                }
            }
        }
    }

    #[test]
    fn long_lines_and_eight_bit_octets_pass() {
        // T156
        let mut body: Vec<u8> =
            (0..100_000_u32).map(|at| if at % 256 == 10 || at % 256 == 13 { 0 } else { at as u8 }).collect();
        let (stuffed, octets) = stuff(&[&body]);
        body.extend(b"\r\n");
        assert_eq!(octets, body.len() as u64);
        body.extend(b".\r\n");
        assert!(stuffed == body);
    }
}
