//! Reads SEARCH (RFC 3501 §7.2.5), ESEARCH (RFC 4731) and VANISHED (RFC 7162 §3.2.10) responses octet by octet: their
//! lines have no bound, so they are never held whole.

use super::Malformed;

/// The UIDs and the count that a search found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::upstream::imap) struct Found {
    /// Ranges of UIDs, first and last, in the order in which they came.
    pub(in crate::upstream::imap) ranges: Vec<(u32, u32)>,
    /// ESEARCH's COUNT.
    pub(in crate::upstream::imap) count: Option<u32>,
}

impl Found {
    /// How many UIDs the ranges hold.
    pub(in crate::upstream::imap) fn len(&self) -> u64 {
        self.ranges.iter().map(|(first, last)| u64::from(last - first) + 1).sum()
    }

    fn push(&mut self, first: u32, last: u32) -> Result<(), Malformed> {
        let (first, last) = (first.min(last), first.max(last));
        let full = self.ranges.len() >= RANGES;
        match self.ranges.last_mut() {
            Some((_, end)) if end.checked_add(1) == Some(first) => *end = last,
            _ if full => return Err(Malformed("a search that finds too much")),
            _ => self.ranges.push((first, last)),
        }
        Ok(())
    }
}

/// One such response, as far as it has been read.
#[derive(Debug)]
pub(super) struct Numbers {
    kind: Kind,
    token: Token,
    /// Open parentheses; what stands in them (the tag, `(MODSEQ 9)`, `(EARLIER)`) is not needed.
    depth: u32,
    /// There were any.
    parenthesised: bool,
    number: Option<u32>,
    first: Option<u32>,
    keyword: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Search,
    Esearch,
    Vanished,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Keyword,
    Set,
    Count,
    Ignored,
}

impl Numbers {
    /// The response that begins with this line start, and how many octets of it have been read; `None` if it is
    /// another response.
    pub(super) fn begins(line: &[u8]) -> Option<(Self, usize)> {
        [
            (&b"* SEARCH"[..], Kind::Search, Token::Set),
            (b"* ESEARCH", Kind::Esearch, Token::Keyword),
            (b"* VANISHED", Kind::Vanished, Token::Set),
        ]
        .into_iter()
        .find_map(|(start, kind, token)| {
            let (head, rest) = line.split_at_checked(start.len())?;
            let whole_word = matches!(rest.first(), Some(b' ' | b'\r' | b'\n'));
            (whole_word && head.eq_ignore_ascii_case(start)).then(|| {
                let numbers = Self {
                    kind,
                    token,
                    depth: 0,
                    parenthesised: false,
                    number: None,
                    first: None,
                    keyword: Vec::new(),
                };
                (numbers, start.len())
            })
        })
    }

    /// Whether the response speaks of messages that have gone just now, not of `(EARLIER)`.
    pub(super) fn are_vanishing(&self) -> bool {
        self.kind == Kind::Vanished && !self.parenthesised
    }

    /// Reads on. `found` takes what the response holds, unless it speaks of vanished messages.
    pub(super) fn read(&mut self, octets: &[u8], found: &mut Found) -> Result<(), Malformed> {
        for &octet in octets {
            match octet {
                b'(' => {
                    self.depth += 1;
                    self.parenthesised = true;
                }
                b')' => self.depth = self.depth.saturating_sub(1),
                _ if self.depth > 0 => {}
                b' ' | b'\r' => self.end_token(found)?,
                _ => self.octet(octet, found)?,
            }
        }
        Ok(())
    }

    /// The line has ended.
    pub(super) fn end(mut self, found: &mut Found) -> Result<(), Malformed> {
        self.end_token(found)
    }

    fn octet(&mut self, octet: u8, found: &mut Found) -> Result<(), Malformed> {
        match (self.token, octet) {
            (Token::Ignored, _) => {}
            (Token::Keyword, _) if self.keyword.len() < KEYWORD => self.keyword.push(octet.to_ascii_uppercase()),
            (Token::Keyword, _) => return Err(Malformed("a search result with an endless word")),
            (Token::Set | Token::Count, b'0'..=b'9') => {
                let number = self.number.unwrap_or(0);
                let number = number.checked_mul(10).and_then(|number| number.checked_add(u32::from(octet - b'0')));
                self.number = Some(number.ok_or(Malformed("a search result with a number too large"))?);
            }
            (Token::Set, b':') if self.first.is_none() => self.first = Some(self.nonzero()?),
            (Token::Set, b',') => self.end_range(found)?,
            _ => return Err(Malformed("a search result that is no number")),
        }
        Ok(())
    }

    fn end_token(&mut self, found: &mut Found) -> Result<(), Malformed> {
        match self.token {
            Token::Keyword => {
                self.token = match self.keyword.as_slice() {
                    b"" | b"UID" => Token::Keyword,
                    b"ALL" => Token::Set,
                    b"COUNT" => Token::Count,
                    _ => Token::Ignored,
                };
                self.keyword.clear();
                return Ok(());
            }
            Token::Set if self.number.is_none() && self.first.is_none() => return Ok(()),
            Token::Set => self.end_range(found)?,
            Token::Count => found.count = Some(self.number.take().ok_or(Malformed("a search without its count"))?),
            Token::Ignored => {}
        }
        if self.kind == Kind::Esearch {
            self.token = Token::Keyword;
        }
        Ok(())
    }

    fn end_range(&mut self, found: &mut Found) -> Result<(), Malformed> {
        let last = self.nonzero()?;
        let first = self.first.take().unwrap_or(last);
        match self.kind {
            Kind::Vanished => Ok(()),
            Kind::Search | Kind::Esearch => found.push(first, last),
        }
    }

    fn nonzero(&mut self) -> Result<u32, Malformed> {
        match self.number.take() {
            None | Some(0) => Err(Malformed("a search result with a UID that is none")),
            Some(number) => Ok(number),
        }
    }
}

/// More ranges than this are more messages than a maildrop may hold.
const RANGES: usize = 5_000_000;

/// ESEARCH's words are short.
const KEYWORD: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str, chunk: usize) -> Result<Found, Malformed> {
        let mut found = Found::default();
        let (mut numbers, used) = Numbers::begins(line.as_bytes()).expect("a search result");
        for piece in line.trim_end().as_bytes()[used..].chunks(chunk) {
            numbers.read(piece, &mut found)?;
        }
        numbers.end(&mut found).map(|()| found)
    }

    #[test]
    fn results_are_read_in_any_pieces() {
        let found = |ranges: &[(u32, u32)], count| Ok(Found { ranges: ranges.to_vec(), count });
        for (line, expected) in [
            ("* SEARCH\r\n", found(&[], None)),
            ("* search 5 7 9 \r\n", found(&[(5, 5), (7, 7), (9, 9)], None)),
            ("* SEARCH 2 3 4 (MODSEQ 9)\r\n", found(&[(2, 4)], None)),
            ("* SEARCH  4294967295\r\n", found(&[(u32::MAX, u32::MAX)], None)),
            ("* ESEARCH (TAG \"A1\") UID COUNT 2\r\n", found(&[], Some(2))),
            ("* ESEARCH (TAG \"A1\") UID ALL 5,9:12,3\r\n", found(&[(5, 5), (9, 12), (3, 3)], None)),
            ("* ESEARCH UID MIN 5 MAX 9 COUNT 2 ALL 9:5 MODSEQ 3\r\n", found(&[(5, 9)], Some(2))),
            ("* ESEARCH (TAG \"A1\") UID\r\n", found(&[], None)),
            ("* VANISHED (EARLIER) 1:4,7\r\n", found(&[], None)),
        ] {
            for chunk in [1, 2, 3, 100] {
                assert_eq!(read(line, chunk), expected, "{line} in pieces of {chunk}");
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "* SEARCH 0\r\n",
            "* SEARCH x\r\n",
            "* SEARCH 4294967296\r\n",
            "* SEARCH 5:\r\n",
            "* SEARCH 5:6:7\r\n",
            "* ESEARCH UID ALL 5:*\r\n",
            "* ESEARCH UID COUNT x\r\n",
            "* VANISHED 0\r\n",
            "* ESEARCH UID AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\r\n",
        ] {
            assert!(read(line, 100).is_err(), "{line}");
        }
        assert!(Numbers::begins(b"* SEARCHER 1\r\n").is_none());
        assert!(Numbers::begins(b"* SEARCH").is_none());
    }

    #[test]
    fn counting_does_not_expand_ranges() {
        let found = read("* ESEARCH UID ALL 1:4294967295\r\n", 100).unwrap();
        assert_eq!(found.len(), u64::from(u32::MAX));
    }
}
