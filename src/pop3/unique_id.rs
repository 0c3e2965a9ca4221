//! Unique ids (RFC 1939 §7 UIDL) made of a message's UID and the mailbox's UIDVALIDITY, by a template that can imitate
//! the POP3 server that was there before. What the numbers do not hold, such as a server's own identifiers, is left out.

use std::{fmt, str::FromStr};

use super::digits::{self, Radix};
use crate::mail::{Uid, UidValidity};

/// How a unique id is written. Every id it writes has 1 to 70 octets out of letters, digits, `.`, `_` and `-`, and no two
/// messages of a mailbox get the same one.
///
/// It is given as the name of a preset or as a text with `{uid}` and `{uidvalidity}` in it; `{uid:08x}` means at least
/// eight digits, padded with zeros, in hexadecimal, as in Rust's `format!`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Template {
    parts: Vec<Part>,
    warning: Option<&'static str>,
}

/// Why a text is not a template.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// Neither a preset nor a text with a number in it.
    #[error(
        "there is no preset `{0}`; presets are dovecot, cyrus, uw, courier, uid and stalwart, and a template needs {{uid}}"
    )]
    Preset(String),
    /// Nothing in it tells one message from another.
    #[error("a template without {{uid}} gives all messages the same unique id")]
    NotUnique,
    /// Something in braces that is not a number as described.
    #[error(
        "`{{{0}}}` is not understood; write {{uid}} or {{uidvalidity}}, with a format such as {{uid:08x}} if need be"
    )]
    Placeholder(String),
    /// A brace without its partner.
    #[error("a brace is left open or closed twice")]
    Brace,
    /// A character that some client cannot store: getmail rewrites `/`, Thunderbird separates by spaces.
    #[error("`{0}` cannot be part of a unique id; letters, digits, `.`, `_` and `-` can")]
    Character(char),
    /// RFC 1939 §7 allows 70 octets.
    #[error("unique ids could have {0} octets, and 70 are allowed")]
    Length(usize),
}

impl Template {
    /// Appends the unique id of a message.
    pub fn write(&self, uid: Uid, uid_validity: UidValidity, out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Number { what: What::Uid, form } => form.write(uid.value(), out),
                Part::Number { what: What::UidValidity, form } => form.write(uid_validity.value(), out),
            }
        }
    }

    /// What these ids cannot promise, as a sentence for whoever chose them.
    pub const fn warning(&self) -> Option<&'static str> {
        self.warning
    }
}

impl FromStr for Template {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let preset = PRESETS.iter().find(|(name, _)| *name == text);
        let parts = parse(preset.map_or(text, |(_, template)| template))?;
        if !parts.iter().any(|part| matches!(part, Part::Number { what: What::Uid, .. })) {
            let named = !text.contains(['{', '}']);
            return Err(if named { Error::Preset(text.to_owned()) } else { Error::NotUnique });
        }
        let longest = parts.iter().map(Part::longest).fold(0, usize::saturating_add);
        if longest > LONGEST {
            return Err(Error::Length(longest));
        }
        let warning = match text {
            "courier" => Some(LIKE_COURIER),
            _ if !parts.iter().any(|part| matches!(part, Part::Number { what: What::UidValidity, .. })) => Some(REUSED),
            _ if is_ambiguous(&parts) => Some(AMBIGUOUS),
            _ => None,
        };
        Ok(Self { parts, warning })
    }
}

impl Default for Template {
    /// Dovecot's.
    fn default() -> Self {
        let number = |what| Part::Number { what, form: Form { width: 8, radix: Radix::Hexadecimal } };
        Self { parts: vec![number(What::Uid), number(What::UidValidity)], warning: None }
    }
}

impl fmt::Display for Template {
    /// The template in full, also where it was given by a preset's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Text(text) => f.write_str(text)?,
                Part::Number { what, form } => {
                    f.write_str(match what {
                        What::Uid => "{uid",
                        What::UidValidity => "{uidvalidity",
                    })?;
                    let radix = if form.radix == Radix::Hexadecimal { "x" } else { "" };
                    match form.width {
                        0 if radix.is_empty() => f.write_str("}")?,
                        0 => write!(f, ":{radix}}}")?,
                        width => write!(f, ":0{width}{radix}}}")?,
                    }
                }
            }
        }
        Ok(())
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    Text(String),
    Number { what: What, form: Form },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Uid,
    UidValidity,
}

/// How a number is written: with at least `width` digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Form {
    width: usize,
    radix: Radix,
}

impl Part {
    fn longest(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Number { form, .. } => form.width.max(form.digits()),
        }
    }
}

impl Form {
    fn write(self, value: u32, out: &mut Vec<u8>) {
        digits::write(out, value.into(), self.radix, self.width);
    }

    /// How many digits the largest number has.
    const fn digits(self) -> usize {
        match self.radix {
            Radix::Decimal => 10,
            Radix::Hexadecimal => 8,
        }
    }
}

fn parse(mut text: &str) -> Result<Vec<Part>, Error> {
    let mut parts = Vec::new();
    while !text.is_empty() {
        let (literal, rest) = text.split_at(text.find('{').unwrap_or(text.len()));
        if let Some(character) = literal.chars().find(|character| !is_allowed(*character)) {
            return Err(if character == '}' { Error::Brace } else { Error::Character(character) });
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal.to_owned()));
        }
        let Some(rest) = rest.strip_prefix('{') else { break };
        let (placeholder, rest) = rest.split_once('}').ok_or(Error::Brace)?;
        parts.push(number(placeholder).ok_or_else(|| Error::Placeholder(placeholder.to_owned()))?);
        text = rest;
    }
    Ok(parts)
}

fn number(placeholder: &str) -> Option<Part> {
    let (name, format) = placeholder.split_once(':').unwrap_or((placeholder, ""));
    let what = match name {
        "uid" => What::Uid,
        "uidvalidity" => What::UidValidity,
        _ => return None,
    };
    let (width, radix) = match format.strip_suffix('x') {
        Some(width) => (width, Radix::Hexadecimal),
        None => (format, Radix::Decimal),
    };
    // Padding is by zeros only, and says so as in Rust: `08`. A colon with nothing behind it is a slip.
    let width = match width.strip_prefix('0') {
        Some(width) if width.bytes().all(|octet| octet.is_ascii_digit()) => {
            width.parse().ok().filter(|width| *width > 0)?
        }
        None if width.is_empty() && !placeholder.ends_with(':') => 0,
        _ => return None,
    };
    Some(Part::Number { what, form: Form { width, radix } })
}

/// Letters, digits and three marks that no known client stumbles over.
const fn is_allowed(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-')
}

/// Whether two pairs of UIDVALIDITY and UID can be written alike: two numbers of varying length, and nothing between
/// them that could not be a digit.
fn is_ambiguous(parts: &[Part]) -> bool {
    let mut open = false;
    for part in parts {
        match part {
            Part::Text(text) if text.chars().any(|character| !character.is_ascii_hexdigit()) => open = false,
            Part::Number { form, .. } if form.width < form.digits() => {
                if open {
                    return true;
                }
                open = true;
            }
            _ => {}
        }
    }
    false
}

/// RFC 1939 §7.
const LONGEST: usize = 70;

/// What the servers before us wrote. `dovecot` is also the default: its ids have a fixed width and no separator, and a
/// site that comes from Dovecot keeps them.
const PRESETS: [(&str, &str); 6] = [
    ("dovecot", "{uid:08x}{uidvalidity:08x}"),
    ("cyrus", "{uidvalidity}.{uid}"),
    ("uw", "{uidvalidity:08x}{uid:08x}"),
    ("courier", "{uidvalidity}-{uid}"),
    ("uid", "{uid}"),
    ("stalwart", "{uidvalidity}{uid}"),
];

const LIKE_COURIER: &str = "the preset `courier` writes UIDVALIDITY-UID as Cyrus's `uidl_format: courier` and James do; \
     Courier's own POP3 ids cannot be derived from IMAP";
const REUSED: &str = "unique ids without {uidvalidity} repeat when the mailbox is created anew, and clients then take new \
     messages for old ones";
const AMBIGUOUS: &str = "numbers of varying length stand side by side: when UIDVALIDITY changes, a new message can get the \
     unique id of an old one";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_dovecot() {
        assert_eq!(Template::default(), "dovecot".parse().unwrap());
    }

    fn id(template: &str, uid_validity: u32, uid: u32) -> String {
        let mut out = Vec::new();
        let template: Template = template.parse().unwrap();
        template.write(Uid::new(uid).unwrap(), UidValidity::new(uid_validity).unwrap(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn presets_and_templates() {
        // T133, T134
        let cases = [
            ("dovecot", "0000000500000064"),
            ("cyrus", "100.5"),
            ("uw", "0000006400000005"),
            ("courier", "100-5"),
            ("uid", "5"),
            ("stalwart", "1005"),
            ("{uidvalidity}.{uid}", "100.5"),
            ("UID{uid}-{uidvalidity}", "UID5-100"),
            ("{uidvalidity:x}_{uid:03}", "64_005"),
            ("{uid:012x}", "000000000005"),
        ];
        for (template, expected) in cases {
            assert_eq!(id(template, 100, 5), expected, "{template}");
        }
        assert_eq!(id("dovecot", u32::MAX, u32::MAX), "ffffffffffffffff");
        assert_eq!(id("stalwart", u32::MAX, u32::MAX), "42949672954294967295");
    }

    #[test]
    fn templates_that_are_refused() {
        let cases = [
            ("gmial", Error::Preset("gmial".into())),
            ("", Error::Preset(String::new())),
            ("{uidvalidity}", Error::NotUnique),
            ("{uid}/{uidvalidity}", Error::Character('/')),
            ("{uid} {uidvalidity}", Error::Character(' ')),
            ("{uid}ü", Error::Character('ü')),
            ("{uid", Error::Brace),
            ("{uid}}", Error::Brace),
            ("{guid}", Error::Placeholder("guid".into())),
            ("{uid:}", Error::Placeholder("uid:".into())),
            ("{uid:8}", Error::Placeholder("uid:8".into())),
            ("{uid:0}", Error::Placeholder("uid:0".into())),
            ("{uid:08X}", Error::Placeholder("uid:08X".into())),
            ("{uid:0+8}", Error::Placeholder("uid:0+8".into())),
            ("{uid:099999999999999999999}", Error::Placeholder("uid:099999999999999999999".into())),
            ("{uid:071}", Error::Length(71)),
            ("{uid:061x}{uidvalidity}", Error::Length(71)),
            ("{uid:018446744073709551615}{uid}", Error::Length(usize::MAX)),
        ];
        for (template, expected) in cases {
            assert_eq!(template.parse::<Template>(), Err(expected), "{template}");
        }
        assert!("{uid:060x}{uidvalidity}".parse::<Template>().is_ok());
        let refusal = "{uid:8}".parse::<Template>().unwrap_err().to_string();
        assert!(refusal.starts_with("`{uid:8}` is not understood; write {uid} or"), "{refusal}");
    }

    #[test]
    fn warnings_say_what_cannot_be_promised() {
        let cases = [
            ("dovecot", None),
            ("cyrus", None),
            ("uw", None),
            ("courier", Some(LIKE_COURIER)),
            ("{uidvalidity}-{uid}", None),
            ("uid", Some(REUSED)),
            ("x{uid}", Some(REUSED)),
            ("stalwart", Some(AMBIGUOUS)),
            ("{uid:x}a{uidvalidity:x}", Some(AMBIGUOUS)),
            ("{uid:x}g{uidvalidity:x}", None),
            ("{uidvalidity}{uid:08x}", None),
        ];
        for (template, expected) in cases {
            assert_eq!(template.parse::<Template>().unwrap().warning(), expected, "{template}");
        }
    }

    #[test]
    fn a_template_prints_as_it_is_written() {
        for (given, printed) in PRESETS.into_iter().chain([("a{uid:x}.{uidvalidity:03}", "a{uid:x}.{uidvalidity:03}")])
        {
            assert_eq!(given.parse::<Template>().unwrap().to_string(), printed);
        }
    }
}
