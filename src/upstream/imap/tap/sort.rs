//! Sorts what the server sends: each response is cut out, bounded, and goes where it belongs (RFC 3501 §7).

use bytes::{Buf, BytesMut};
use memchr::memchr;

use super::super::name;
use super::{BodyItem, Fetch, Found, Malformed, Opened, Tap, Within, fetch, numbers::Numbers, vet, word};
use crate::mail::{Message, Secret, Uid};

/// How far the sorting has come.
pub(super) enum Step {
    /// Something was understood.
    On,
    /// More octets are needed.
    Hungry,
    /// A body is open: whoever reads it must go on.
    Body,
}

impl Tap {
    /// Understands what has been read, one step further.
    pub(super) fn step(&mut self) -> Result<Step, Malformed> {
        match &mut self.within {
            Within::Line => self.line(),
            Within::Tail => self.tail(),
            Within::Numbers(_) => self.numbers(),
            Within::Body(0) => {
                self.within = Within::Tail;
                Ok(Step::On)
            }
            Within::Body(_) => Ok(Step::Body),
            Within::Skipped(remaining) => {
                let here = usize::try_from(*remaining).unwrap_or(usize::MAX).min(self.input.len());
                *remaining -= here as u64;
                self.input.advance(here);
                match *remaining {
                    0 => self.within = Within::Tail,
                    _ => return Ok(Step::Hungry),
                }
                Ok(Step::On)
            }
        }
    }

    /// The start of a response.
    fn line(&mut self) -> Result<Step, Malformed> {
        if let Some((numbers, used)) = Numbers::begins(&self.input) {
            self.input.advance(used);
            self.scanned = 0;
            self.count_numbers(1, used as u64)?;
            self.within = Within::Numbers(numbers);
            return Ok(Step::On);
        }
        let Some(line) = self.take_line()? else { return Ok(Step::Hungry) };
        if let Some(rest) = line.strip_prefix(b"* ") {
            self.untagged(rest)?;
        } else if line.first() == Some(&b'+') {
            self.challenged(line[1..].trim_ascii())?;
        } else if !line.is_empty() {
            // Some servers put an empty line between responses.
            let tag = vet::tag(&line)?;
            let status = vet::Status::read(&line[tag.len() + 1..]).ok_or(Malformed("a line that is no response"))?;
            self.note(&status);
            status.write(tag, &mut self.passed);
        }
        Ok(Step::On)
    }

    fn untagged(&mut self, line: &[u8]) -> Result<(), Malformed> {
        if let Some(status) = vet::Status::read(line) {
            self.count(line)?;
            self.note(&status);
            status.write(b"*", &mut self.passed);
            return Ok(());
        }
        let (first, rest) = word(line);
        if first.iter().all(u8::is_ascii_digit) && !first.is_empty() {
            return self.numbered(first, rest, line);
        }
        match (first.to_ascii_uppercase().as_slice(), &mut self.aside.trash) {
            (b"LIST", Some(trash)) => {
                if let Some(name) = name::trash(rest) {
                    *trash = name;
                }
                self.expected()?;
            }
            (b"CAPABILITY", _) => {
                self.aside.capabilities = Some(vet::words(rest));
                self.count(line)?;
            }
            (b"FLAGS", _) => {
                self.aside.flags = Some(vet::words(rest));
                self.count(line)?;
            }
            _ => self.count(line)?,
        }
        self.skip_literal(line)
    }

    /// `* 23 EXISTS` and its like.
    fn numbered(&mut self, number: &[u8], rest: &[u8], line: &[u8]) -> Result<(), Malformed> {
        let (name, items) = word(rest);
        let number = u32::try_from(fetch::number(number)?).map_err(|_| Malformed("a message number too large"))?;
        self.expected()?;
        match name.to_ascii_uppercase().as_slice() {
            b"EXISTS" => self.pass(&format!("* {number} EXISTS\r\n")),
            b"EXPUNGE" | b"FETCH" if number == 0 => return Err(Malformed("a message number 0")),
            b"EXPUNGE" => self.pass(&format!("* {number} EXPUNGE\r\n")),
            b"RECENT" => {}
            b"FETCH" | b"UIDFETCH" => {
                let mut fetch = Fetch::default();
                match name.len() > b"FETCH".len() {
                    true => fetch.uid = Some(number), // RFC 9586: there are no message numbers any more.
                    false => fetch.number = Some(number),
                }
                self.fetch = Some(fetch);
                return self.fetched(items);
            }
            _ => {
                self.count(line)?;
                return self.skip_literal(line);
            }
        }
        Ok(())
    }

    /// The text of a FETCH response, from its start or from behind a literal.
    fn fetched(&mut self, text: &[u8]) -> Result<(), Malformed> {
        let Some(mut fetch) = self.fetch.take() else { return Ok(()) };
        if let Some((text, octets)) = literal(text)? {
            let owner = fetch.until_literal(text, octets)?;
            match (owner, &fetch.body) {
                (fetch::Owner::Body, Some(BodyItem::Literal { offset, .. })) if octets > 0 && self.wants(&fetch) => {
                    self.aside.opened = Some(Opened { offset: *offset, octets });
                    self.within = Within::Body(octets);
                    // Another body is nobody's, even if this one turns out to be of another message.
                    self.aside.wanted = None;
                    fetch.given = true;
                }
                _ => self.skip(octets)?,
            }
            self.fetch = Some(fetch);
            return Ok(());
        }
        fetch.until_end(text)?;
        let uid = fetch.uid.and_then(Uid::new);
        if let (Some(rows), Some(uid), Some(octets)) = (&mut self.aside.rows, uid, fetch.octets) {
            rows.push(Message { uid, octets });
            if let Some(place) = self.aside.place.as_mut().filter(|place| place.uid == uid) {
                place.number = fetch.number;
            }
        }
        if self.aside.all_wanted {
            if let Some(BodyItem::Quoted { octets, .. }) = &fetch.body {
                self.chat(1, octets.len() as u64)?; // It lies here until it is taken, and nobody has said how much may.
            }
            if self.aside.bodies.len() >= BODIES {
                return Err(Malformed("more messages than were asked for"));
            }
            if fetch.body.is_some() {
                self.aside.bodies.push(fetch);
            }
        } else if fetch.body.is_some() && self.aside.body.as_ref().is_some_and(|known| known.uid == fetch.uid) {
            return Err(fetch::TWICE);
        } else if fetch.body.is_some() && (fetch.given || self.wants(&fetch)) {
            self.aside.body = Some(fetch);
            self.aside.wanted = None;
        }
        Ok(())
    }

    /// Whether this is the message whose body is expected, or may be: its UID can come after the body.
    fn wants(&self, fetch: &Fetch) -> bool {
        self.aside.all_wanted
            || self.aside.wanted.is_some_and(|wanted| fetch.uid.is_none_or(|uid| uid == wanted.value()))
    }

    /// What stands behind a literal.
    fn tail(&mut self) -> Result<Step, Malformed> {
        if self.fetch.is_some() && self.input.first() == Some(&b'\n') {
            return Err(Malformed("a literal that ends within a line end"));
        }
        let Some(line) = self.take_line()? else { return Ok(Step::Hungry) };
        self.count(&line)?;
        if let (true, Some(fetch)) = (line.is_empty(), &mut self.fetch) {
            fetch.loose = true; // Some servers end a line behind a literal before they go on.
            return Ok(Step::On);
        }
        self.within = Within::Line;
        match self.fetch.is_some() {
            true => self.fetched(&line)?,
            false => self.skip_literal(&line)?,
        }
        Ok(Step::On)
    }

    fn numbers(&mut self) -> Result<Step, Malformed> {
        let end = memchr(b'\n', &self.input);
        let octets = self.input.split_to(end.unwrap_or(self.input.len()));
        let Within::Numbers(mut numbers) = std::mem::replace(&mut self.within, Within::Line) else {
            return Ok(Step::On);
        };
        self.count_numbers(0, octets.len() as u64)?;
        let mut unwanted = Found::default();
        let found = self.aside.found.as_mut().unwrap_or(&mut unwanted);
        numbers.read(&octets, found)?;
        if end.is_none() {
            self.within = Within::Numbers(numbers);
            return Ok(Step::Hungry);
        }
        self.input.advance(1);
        self.aside.vanished |= numbers.are_vanishing();
        numbers.end(found)?;
        Ok(Step::On)
    }

    /// Their lines have no bound of their own: what was asked for may be long, what was not is chatter.
    fn count_numbers(&mut self, lines: u32, octets: u64) -> Result<(), Malformed> {
        if self.aside.found.is_none() {
            return self.chat(lines, octets);
        }
        self.searched += octets;
        if self.searched > SEARCHED {
            return Err(Malformed("a search that finds too much"));
        }
        Ok(())
    }

    /// A continuation request (RFC 3501 §7.5). Only a log-in expects one.
    fn challenged(&mut self, text: &[u8]) -> Result<(), Malformed> {
        // What nobody can have read yet calls for nothing.
        let has_begun = self.output.is_empty();
        let Some(login) = self.login.as_mut().filter(|login| has_begun || login.challenged) else {
            return Err(Malformed("a continuation request that nothing called for"));
        };
        login.challenged = true;
        let answer = match login.answers.pop_front() {
            Some(answer) => answer,
            None if login.explained.is_some() => return Err(Malformed("a challenge after the last one")),
            None => {
                login.explained = Some(text.to_vec());
                Secret::new(login.surrender.to_vec())
            }
        };
        self.output.reserve_exact(answer.expose().len() + 2);
        self.output.extend_from_slice(answer.expose());
        self.output.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// A whole line without its end, once it is here.
    fn take_line(&mut self) -> Result<Option<BytesMut>, Malformed> {
        let Some(end) = memchr(b'\n', &self.input[self.scanned..]) else {
            self.scanned = self.input.len();
            return if self.scanned > LINE { Err(Malformed("a line without an end")) } else { Ok(None) };
        };
        let mut line = self.input.split_to(self.scanned + end + 1);
        self.scanned = 0;
        if line.len() > LINE {
            return Err(Malformed("a line that is too long"));
        }
        line.truncate(line.len() - 1);
        if line.last() == Some(&b'\r') {
            line.truncate(line.len() - 1);
        }
        if memchr(0, &line).is_some() {
            return Err(Malformed("a NUL outside a literal"));
        }
        Ok(Some(line))
    }

    fn pass(&mut self, line: &str) {
        self.passed.extend_from_slice(line.as_bytes());
    }

    fn note(&mut self, status: &vet::Status) {
        if let Some(capabilities) = status.capabilities() {
            self.aside.capabilities = Some(capabilities.to_owned());
        }
    }

    fn skip_literal(&mut self, line: &[u8]) -> Result<(), Malformed> {
        match literal(line)? {
            Some((_, octets)) => self.skip(octets),
            None => Ok(()),
        }
    }

    fn skip(&mut self, octets: u64) -> Result<(), Malformed> {
        if octets > UNWANTED {
            return Err(Malformed("a large literal that nothing called for"));
        }
        self.within = Within::Skipped(octets);
        self.chat(0, octets)
    }

    /// Counts a line that nobody asked for.
    fn count(&mut self, line: &[u8]) -> Result<(), Malformed> {
        self.chat(1, line.len() as u64)
    }

    fn chat(&mut self, lines: u32, octets: u64) -> Result<(), Malformed> {
        self.chatter.0 += lines;
        self.chatter.1 += octets;
        if self.chatter.0 > CHATTER_LINES || self.chatter.1 > CHATTER_OCTETS {
            return Err(Malformed("more than anything called for"));
        }
        Ok(())
    }

    /// Counts a response of which there may be one for every message.
    fn expected(&mut self) -> Result<(), Malformed> {
        self.numbered += 1;
        if self.numbered > ROWS {
            return Err(Malformed("more messages than a maildrop holds"));
        }
        Ok(())
    }
}

/// The literal that a line announces at its end: `{n}`, `{n+}` (RFC 7888), `~{n}` (RFC 3516). The text before it, and its octets.
fn literal(line: &[u8]) -> Result<Option<(&[u8], u64)>, Malformed> {
    let Some(inner) = line.strip_suffix(b"}") else { return Ok(None) };
    let inner = inner.strip_suffix(b"+").unwrap_or(inner);
    let digits = inner.iter().rev().take_while(|octet| octet.is_ascii_digit()).count();
    let (text, digits) = inner.split_at(inner.len() - digits);
    let Some(text) = text.strip_suffix(b"{") else { return Ok(None) };
    if digits.is_empty() {
        return Ok(None);
    }
    Ok(Some((text.strip_suffix(b"~").unwrap_or(text), fetch::number(digits)?)))
}

/// Outside literals and search results no line that popgate asks for comes near this.
const LINE: usize = 64 * 1024;

/// More than this are never asked for at a time.
const BODIES: usize = 1_000;

/// A literal that nobody asked for is skipped up to this size.
const UNWANTED: u64 = 64 * 1024;

/// What a server may say unasked between two commands, in lines and octets.
const CHATTER_LINES: u32 = 10_000;
const CHATTER_OCTETS: u64 = 1024 * 1024;

/// More messages than this are refused rather than listed in part.
pub(in crate::upstream::imap) const ROWS: u32 = 5_000_000;

/// The UIDs of so many messages, each on its own, in octets.
const SEARCHED: u64 = 12 * ROWS as u64;
