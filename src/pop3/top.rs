//! How much of a message TOP wants (RFC 1939 §7): the header, the blank line, and so many lines of the body. Looks at the
//! octets as they come from upstream; what becomes of those it keeps is the stuffer's business.

/// Finds the end of what was asked for. A line ends where the client will see it end: at LF, and at a CR directly before
/// a dot (see [`Stuffer`](super::stuff::Stuffer)).
pub struct Top {
    part: Part,
    line: Line,
}

enum Part {
    /// Not past the blank line; so many lines of the body are wanted after it.
    Header {
        body_lines: u64,
    },
    /// So many lines of the body are still to come, at least one.
    Body {
        lines: u64,
    },
    Finished,
}

/// What there is of the current line.
#[derive(Clone, Copy)]
enum Line {
    Nothing,
    /// Its last octet is CR; `alone` if it is also its first.
    Cr {
        alone: bool,
    },
    Something,
}

impl Top {
    /// Wants the header, the blank line, and `body_lines` lines.
    pub const fn new(body_lines: u64) -> Self {
        Self { part: Part::Header { body_lines }, line: Line::Nothing }
    }

    /// Takes the next octets of the message and says how many of them, from the first, are wanted.
    pub fn push(&mut self, body: &[u8]) -> usize {
        let mut at = 0;
        while let Some(&octet) = body.get(at) {
            if let (b'.', Line::Cr { alone }) = (octet, self.line) {
                self.end_line(alone);
            }
            if self.finished() {
                return at;
            }
            at += 1;
            match (octet, self.line) {
                (b'\n', line) => self.end_line(matches!(line, Line::Nothing | Line::Cr { alone: true })),
                (b'\r', line) => self.line = Line::Cr { alone: matches!(line, Line::Nothing) },
                _ => {
                    self.line = Line::Something;
                    at = memchr::memchr2(b'\r', b'\n', &body[at..]).map_or(body.len(), |run| at + run);
                }
            }
        }
        at
    }

    /// Whether everything that is wanted has come. A message may also end before that.
    pub const fn finished(&self) -> bool {
        matches!(self.part, Part::Finished)
    }

    fn end_line(&mut self, blank: bool) {
        self.line = Line::Nothing;
        match &mut self.part {
            Part::Header { body_lines: 0 } if blank => self.part = Part::Finished,
            Part::Header { body_lines } if blank => self.part = Part::Body { lines: *body_lines },
            Part::Body { lines: 1 } => self.part = Part::Finished,
            Part::Body { lines } => *lines -= 1,
            Part::Header { .. } | Part::Finished => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn top(pieces: &[&[u8]], body_lines: u64) -> (Vec<u8>, bool) {
        let mut top = Top::new(body_lines);
        let mut kept = Vec::new();
        for piece in pieces {
            let count = top.push(piece);
            assert!(count == piece.len() || top.finished());
            kept.extend(&piece[..count]);
        }
        (kept, top.finished())
    }

    #[test]
    fn header_blank_line_and_as_many_lines_as_asked_for() {
        let message = b"A: b\r\nC: d\r\n\r\none\r\n\r\nthree\r\nfour";
        let cases: [(&[u8], u64, &[u8], bool); 13] = [
            (message, 0, b"A: b\r\nC: d\r\n\r\n", true), // T180
            (message, 1, b"A: b\r\nC: d\r\n\r\none\r\n", true),
            (message, 2, b"A: b\r\nC: d\r\n\r\none\r\n\r\n", true), // T181
            (message, 4, message, false),
            (message, u64::MAX, message, false),
            (b"A: b\n\none\ntwo\n", 1, b"A: b\n\none\n", true), // T192
            (b"A: b\r\nC: d\r\n", 5, b"A: b\r\nC: d\r\n", false), // T189
            (b"\r\none\r\ntwo", 1, b"\r\none\r\n", true),
            (b"", 0, b"", false),
            (b"A\r\n\r\r\n\r\nx", 0, b"A\r\n\r\r\n\r\n", true),
            (b"A\r\n\r.b\r\n\r\nx", 1, b"A\r\n\r.b\r\n", true),
            (b"A\r\n\r\nx\r.y\r\nz", 1, b"A\r\n\r\nx\r", true),
            (b"A\r\n\r\n.x\rz\r\ny", 1, b"A\r\n\r\n.x\rz\r\n", true),
        ];
        for (message, body_lines, kept, finished) in cases {
            for cut in 0..=message.len() {
                let pieces = [&message[..cut], &message[cut..]];
                assert_eq!(
                    top(&pieces, body_lines),
                    (kept.to_vec(), finished),
                    "{message:?} {body_lines} cut at {cut}"
                );
            }
            let crumbs: Vec<_> = message.chunks(1).collect();
            assert_eq!(top(&crumbs, body_lines), (kept.to_vec(), finished), "{message:?} {body_lines}");
        }
    }

    #[test]
    fn all_small_messages_are_cut_where_the_client_counts_the_lines() {
        use crate::pop3::stuff::Stuffer;
        const ALPHABET: [u8; 4] = *b"\r\n.a";
        let stuffed = |body: &[u8]| {
            let (mut stuffer, mut out) = (Stuffer::new(), Vec::new());
            stuffer.push(body, &mut out);
            stuffer.finish(&mut out);
            out.truncate(out.len() - b".\r\n".len());
            out
        };
        for length in 0..=7_u32 {
            for code in 0..4_usize.pow(length) {
                let body: Vec<u8> = (0..length).map(|at| ALPHABET[code / 4_usize.pow(at) % 4]).collect();
                let whole = stuffed(&body);
                for body_lines in 0..3 {
                    let mut past = None;
                    let expected: Vec<u8> = whole
                        .split_inclusive(|octet| *octet == b'\n')
                        .take_while(|line| {
                            let before = past;
                            past = past.map(|lines| lines + 1).or_else(|| (*line == b"\r\n").then_some(0));
                            before.is_none_or(|lines| lines < body_lines)
                        })
                        .flatten()
                        .copied()
                        .collect();
                    let (kept, _) = top(&[&body], body_lines);
                    assert_eq!(stuffed(&kept), expected, "{body:?} {body_lines}");
                }
            }
        }
    }
}
