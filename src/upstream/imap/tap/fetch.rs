//! Reads one FETCH response (RFC 3501 §7.4.2) in the pieces that literals cut it into, in any order of items. It keeps
//! what popgate asks for, skips everything else, balanced and without recursion, and never looks into a literal.

use super::Malformed;

/// A FETCH response, as far as it has been read.
#[derive(Debug, Default)]
pub(in crate::upstream::imap) struct Fetch {
    /// The message number, where there are any.
    pub(in crate::upstream::imap) number: Option<u32>,
    /// The UID item. It may come after the body.
    pub(in crate::upstream::imap) uid: Option<u32>,
    /// The RFC822.SIZE item.
    pub(in crate::upstream::imap) octets: Option<u64>,
    /// The BODY[] item.
    pub(in crate::upstream::imap) body: Option<BodyItem>,
    /// An empty line, a space or an item that nobody knows came behind a literal where none belongs. It may be the end of a
    /// literal that is longer than was announced.
    pub(in crate::upstream::imap) loose: bool,
    /// Somebody has been given the body to read, so that this response, and no other, must say whose it is.
    pub(super) given: bool,
    place: Place,
    depth: u32,
}

/// A message has one body: of two, nobody knows which is its own.
pub(in crate::upstream::imap) const TWICE: Malformed = Malformed("the body of one message twice");

/// What a FETCH response says of the body.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::upstream::imap) enum BodyItem {
    /// `NIL`: the server has none.
    Nil,
    /// A quoted string, its escapes undone.
    Quoted { offset: Option<u64>, octets: Vec<u8> },
    /// A literal: `octets` of it follow on the line.
    Literal { offset: Option<u64>, octets: u64 },
}

/// What the literal at the end of a piece belongs to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The BODY[] item.
    Body,
    /// Something that nobody asked for.
    Other,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    #[default]
    Before,
    Items,
    Value(Name),
    Nested,
    /// Behind a literal. What comes next shows whether the literal was as long as announced.
    Behind,
    After,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Uid,
    Octets,
    Body(Option<u64>),
    Other,
}

impl Fetch {
    /// Reads the text up to the literal of `octets` octets that ends it.
    pub(super) fn until_literal(&mut self, text: &[u8], octets: u64) -> Result<Owner, Malformed> {
        self.text(text)?;
        match self.place {
            Place::Value(Name::Body(offset)) => {
                self.place = Place::Behind;
                self.set_body(BodyItem::Literal { offset, octets })?;
                Ok(Owner::Body)
            }
            Place::Value(Name::Other) => {
                self.place = Place::Behind;
                Ok(Owner::Other)
            }
            Place::Nested => Ok(Owner::Other),
            _ => Err(Malformed("FETCH with a literal out of place")),
        }
    }

    /// Reads the text up to the end of the response.
    pub(super) fn until_end(&mut self, text: &[u8]) -> Result<(), Malformed> {
        self.text(text)?;
        match self.place {
            Place::After => Ok(()),
            _ => Err(Malformed("FETCH that does not end")),
        }
    }

    fn text(&mut self, mut text: &[u8]) -> Result<(), Malformed> {
        while let Some(&octet) = text.first() {
            text = match (self.place, octet) {
                (Place::Nested, _) => self.nested(text)?,
                (Place::Behind, b' ' | b')') => {
                    self.loose |= octet == b' ' && matches!(text.get(1), None | Some(b' ' | b')'));
                    self.place = Place::Items;
                    text
                }
                (Place::Behind, _) => return Err(Malformed("FETCH with octets behind a literal")),
                (_, b' ') => &text[1..],
                (Place::Before, b'(') => {
                    self.place = Place::Items;
                    &text[1..]
                }
                (Place::Items, b')') => {
                    self.place = Place::After;
                    &text[1..]
                }
                (Place::Items, _) => self.name(text)?,
                (Place::Value(name), _) => self.value(name, text)?,
                (Place::Before | Place::After, _) => return Err(Malformed("FETCH without its parentheses")),
            };
        }
        Ok(())
    }

    /// An item's name. Brackets may hold spaces and parentheses: `BODY[HEADER.FIELDS (X)]`.
    fn name<'t>(&mut self, text: &'t [u8]) -> Result<&'t [u8], Malformed> {
        let mut bracketed = false;
        let end = text.iter().position(|&octet| {
            match octet {
                b'[' => bracketed = true,
                b']' => bracketed = false,
                _ => {}
            }
            !bracketed && matches!(octet, b' ' | b')' | b'(' | b'"')
        });
        let (name, rest) = text.split_at(end.unwrap_or(text.len()));
        if name.is_empty() || bracketed {
            return Err(Malformed("FETCH with an item that has no name"));
        }
        let item = Name::of(name)?;
        if item == Name::Other && matches!(self.body, Some(BodyItem::Literal { .. })) && !may_be_added(name) {
            // Words of a message read like items and their values. Servers write the names of items in capitals.
            if name.iter().any(u8::is_ascii_lowercase) {
                return Err(Malformed("FETCH with words behind a literal"));
            }
            self.loose = true;
        }
        // An item without a value, before `)`, is none that we know.
        self.place = if rest.first() == Some(&b')') { Place::Items } else { Place::Value(item) };
        Ok(rest)
    }

    fn value<'t>(&mut self, name: Name, text: &'t [u8]) -> Result<&'t [u8], Malformed> {
        match text.first() {
            Some(b'(') => {
                self.place = Place::Nested;
                self.depth = 0;
                self.nested(text)
            }
            Some(b'"') => {
                let (octets, rest) = quoted(text)?;
                self.place = Place::Items;
                if let Name::Body(offset) = name {
                    self.set_body(BodyItem::Quoted { offset, octets })?;
                }
                Ok(rest)
            }
            _ => {
                let end = text.iter().position(|octet| matches!(octet, b' ' | b')')).unwrap_or(text.len());
                let (atom, rest) = text.split_at(end);
                self.place = Place::Items;
                match name {
                    Name::Uid => self.uid = Some(uid(atom)?),
                    Name::Octets => self.octets = Some(number(atom)?),
                    Name::Body(_) if atom.eq_ignore_ascii_case(b"NIL") => self.set_body(BodyItem::Nil)?,
                    Name::Body(_) => return Err(Malformed("FETCH with a body that is no string")),
                    Name::Other => {}
                }
                Ok(rest)
            }
        }
    }

    /// Skips what stands in parentheses, strings included.
    fn nested<'t>(&mut self, text: &'t [u8]) -> Result<&'t [u8], Malformed> {
        let mut rest = text;
        while let Some(&octet) = rest.first() {
            rest = match octet {
                b'"' => quoted(rest)?.1,
                _ => &rest[1..],
            };
            match octet {
                b'(' => self.depth += 1,
                b')' if self.depth <= 1 => {
                    self.place = Place::Items;
                    return Ok(rest);
                }
                b')' => self.depth -= 1,
                _ => {}
            }
        }
        Ok(rest)
    }

    fn set_body(&mut self, body: BodyItem) -> Result<(), Malformed> {
        match self.body.replace(body) {
            None => Ok(()),
            Some(_) => Err(Malformed("FETCH with two bodies")),
        }
    }
}

impl Name {
    fn of(name: &[u8]) -> Result<Self, Malformed> {
        if name.eq_ignore_ascii_case(b"UID") {
            return Ok(Self::Uid);
        }
        if name.eq_ignore_ascii_case(b"RFC822.SIZE") {
            return Ok(Self::Octets);
        }
        let Some((head, part)) = name.split_at_checked(b"BODY[]".len()) else {
            return Ok(Self::Other);
        };
        if !head.eq_ignore_ascii_case(b"BODY[]") {
            return Ok(Self::Other);
        }
        if part.is_empty() {
            return Ok(Self::Body(None));
        }
        // `BODY[]<0>`, and `BODY[]<0.16384>` from servers that echo the question.
        let part = part.strip_prefix(b"<").and_then(|part| part.strip_suffix(b">"));
        let part = part.ok_or(Malformed("FETCH with a body part that is none"))?;
        let offset = part.split(|&octet| octet == b'.').next().unwrap_or_default();
        Ok(Self::Body(Some(number(offset)?)))
    }
}

/// Whether a server adds this item on its own (RFC 3501 §7.4.2, RFC 7162 §3.1.4.2).
fn may_be_added(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"FLAGS") || name.eq_ignore_ascii_case(b"MODSEQ")
}

/// A quoted string at the start of `text`, and what follows it.
fn quoted(text: &[u8]) -> Result<(Vec<u8>, &[u8]), Malformed> {
    let mut octets = Vec::new();
    let mut at = 1;
    loop {
        match text.get(at) {
            Some(b'"') => return Ok((octets, &text[at + 1..])),
            Some(b'\\') => {
                at += 1;
                octets.push(*text.get(at).ok_or(Malformed("a quoted string without an end"))?);
            }
            Some(&octet) => octets.push(octet),
            None => return Err(Malformed("a quoted string without an end")),
        }
        at += 1;
    }
}

/// A UID as an item's value: 1 to 4,294,967,295.
fn uid(digits: &[u8]) -> Result<u32, Malformed> {
    match u32::try_from(number(digits)?) {
        Ok(0) | Err(_) => Err(Malformed("a UID out of range")),
        Ok(uid) => Ok(uid),
    }
}

/// A number of at most 63 bits.
pub(super) fn number(digits: &[u8]) -> Result<u64, Malformed> {
    let malformed = Malformed("a number that is none");
    if digits.is_empty() {
        return Err(malformed);
    }
    digits.iter().try_fold(0_u64, |number, octet| match octet {
        b'0'..=b'9' => number
            .checked_mul(10)
            .and_then(|number| number.checked_add(u64::from(octet - b'0')))
            .filter(|number| *number <= i64::MAX as u64)
            .ok_or(malformed),
        _ => Err(malformed),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Fetch, Malformed> {
        let mut fetch = Fetch::default();
        fetch.until_end(text.as_bytes()).map(|()| fetch)
    }

    #[test]
    fn items_come_in_any_order_and_strangers_are_skipped() {
        for text in [
            "(UID 7 RFC822.SIZE 200)",
            "(RFC822.SIZE 200 UID 7)",
            "(rfc822.size 200  uid 7 )",
            "(FLAGS (\\Seen $X) UID 7 MODSEQ (12) RFC822.SIZE 200)",
            "(X-FOO (a (b \"c)\") d) UID 7 RFC822.SIZE 200 SAVEDATE NIL)",
            "(ENVELOPE (\"a\\\"(\" NIL ((NIL))) BODY[HEADER.FIELDS (X)] \"\" UID 7 RFC822.SIZE 200)",
            "(INTERNALDATE NIL UID 7 RFC822.SIZE 200 BODYSTRUCTURE ((((()))(()))))",
        ] {
            let fetch = read(text).unwrap_or_else(|_| panic!("{text}"));
            assert_eq!((fetch.uid, fetch.octets, fetch.body), (Some(7), Some(200), None), "{text}");
        }
        assert!(read("()").is_ok_and(|fetch| fetch.uid.is_none()));
    }

    #[test]
    fn depth_costs_nothing() {
        let deep = format!("(BODYSTRUCTURE {}{} UID 7)", "(".repeat(30_000), ")".repeat(30_000));
        assert_eq!(read(&deep).unwrap().uid, Some(7));
    }

    #[test]
    fn bodies_are_literals_quoted_strings_or_nil() {
        let quoted = |offset, octets: &[u8]| Some(BodyItem::Quoted { offset, octets: octets.to_vec() });
        for (text, body) in [
            (r#"(UID 7 BODY[] "a b\"c\\d")"#, quoted(None, br#"a b"c\d"#)),
            (r#"(UID 7 BODY[]<0> "")"#, quoted(Some(0), b"")),
            (r#"(UID 7 body[]<16384.32768> "x")"#, quoted(Some(16384), b"x")),
            ("(UID 7 BODY[] NIL)", Some(BodyItem::Nil)),
        ] {
            assert_eq!(read(text).unwrap().body, body, "{text}");
        }
        for (before, after) in
            [("(UID 7 BODY[] ", ")"), ("(BODY[] ", " UID 7)"), ("(FLAGS () BODY[] ", " UID 7 X (1))")]
        {
            let mut fetch = Fetch::default();
            assert_eq!(fetch.until_literal(before.as_bytes(), 12), Ok(Owner::Body));
            fetch.until_end(after.as_bytes()).unwrap();
            assert_eq!(fetch.uid, Some(7));
            assert_eq!(fetch.body, Some(BodyItem::Literal { offset: None, octets: 12 }));
        }
    }

    #[test]
    fn literals_that_nobody_asked_for_are_told_apart() {
        let mut fetch = Fetch::default();
        assert_eq!(fetch.until_literal(b"(ENVELOPE (NIL ", 3), Ok(Owner::Other));
        assert_eq!(fetch.until_literal(b" NIL) BODY[1] ", 3), Ok(Owner::Other));
        assert_eq!(fetch.until_literal(b" BODY[]<0> ", 3), Ok(Owner::Body));
        fetch.until_end(b" UID 9)").unwrap();
        assert_eq!(fetch.uid, Some(9));
    }

    #[test]
    fn what_may_be_the_end_of_a_literal_is_no_item() {
        let behind = |text: &str| {
            let mut fetch = Fetch::default();
            fetch.until_literal(b"(UID 7 BODY[] ", 12).unwrap();
            fetch.until_end(text.as_bytes()).map(|()| fetch.loose)
        };
        for text in [")", " FLAGS (\\Seen))", " flags ()  modseq (7))", " uid 7 rfc822.size 12)"] {
            assert_eq!(behind(text), Ok(false), "{text}");
        }
        for text in [" )", "  FLAGS ())", " X-FOO (a b))", " BROWN FOX)", " 4 3)"] {
            assert_eq!(behind(text), Ok(true), "{text}");
        }
        for text in [" brown fox)", " FLAGS () brown fox)", " the)", "brown fox)"] {
            assert!(behind(text).is_err(), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "UID 7",
            "(UID 7",
            "(UID 0)",
            "(UID 4294967296)",
            "(UID x)",
            "(RFC822.SIZE 9223372036854775808)",
            "(BODY[] 7)",
            "(BODY[]x NIL)",
            "(BODY[] NIL BODY[] NIL)",
            "(BODY[] \"a)",
            "(BODY[ NIL)",
            "(UID 7) x",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(Fetch::default().until_literal(b"(UID ", 3).is_err());
    }
}
