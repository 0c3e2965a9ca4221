//! What the scripted server really holds: accounts, mailboxes, messages. Every change goes through here, whether an IMAP
//! client asks for it or another actor makes it behind the client's back.

use std::{ops::Range, sync::Arc};

/// A user and what proves that it is one.
#[derive(Clone, PartialEq)]
pub(crate) struct Account {
    pub(crate) user: String,
    /// For LOGIN and PLAIN; `None`: no password is right.
    pub(crate) password: Option<Vec<u8>>,
    /// For XOAUTH2 and OAUTHBEARER; `None`: no token is right.
    pub(crate) token: Option<String>,
    pub(crate) mailboxes: Vec<Mailbox>,
}

/// One mailbox.
#[derive(Clone, PartialEq)]
pub(crate) struct Mailbox {
    pub(crate) name: String,
    /// As LIST shows them: `\HasNoChildren \Trash`.
    pub(crate) attributes: String,
    /// `None`: the server says nothing about it.
    pub(crate) uid_validity: Option<u32>,
    pub(crate) uid_next: u32,
    /// Whether SELECT tells UIDNEXT (Courier does not).
    pub(crate) tells_uid_next: bool,
    /// `false`: SELECT says `[UIDNOTSTICKY]`.
    pub(crate) sticky: bool,
    /// SELECT opens it `[READ-ONLY]`.
    pub(crate) read_only: bool,
    /// The list in `[PERMANENTFLAGS (…)]`; a flag that is not in it cannot be stored.
    pub(crate) permanent: String,
    /// The UIDs of messages that no FETCH can read.
    pub(crate) unreadable: Vec<u32>,
    /// Ascending by UID.
    pub(crate) messages: Vec<Message>,
}

/// One message.
#[derive(Clone, PartialEq)]
pub(crate) struct Message {
    pub(crate) uid: u32,
    pub(crate) flags: Vec<String>,
    /// What RFC822.SIZE says, true or not.
    pub(crate) reported: u64,
    pub(crate) date: String,
    pub(crate) content: Content,
}

/// The octets of a message.
#[derive(Clone, PartialEq)]
pub(crate) enum Content {
    /// These.
    Octets(Arc<[u8]>),
    /// So many octets of a message that is made while it is sent: a header, a blank line and lines of 72 octets.
    Filler(u64),
}

/// What proves that somebody is `tim`: they are to be in no log.
pub(crate) const SECRETS: [&str; 2] = [PASSWORD, TOKEN];
const PASSWORD: &str = "sec ret";
const TOKEN: &str = "ya29.Kanarien-T";

impl Account {
    /// The fixture FX of the test catalogue: user `tim`, password `sec ret`, token `ya29.Kanarien-T`; INBOX with
    /// UIDVALIDITY 100, UIDNEXT 12 and the UIDs 5, 7, 9 of 120, 200 and 300 octets; an empty `Trash`.
    pub(crate) fn fixture() -> Self {
        let mut inbox = Mailbox::new("INBOX", "\\HasNoChildren");
        for (uid, octets) in [(5, 120), (7, 200), (9, 300)] {
            inbox.uid_next = uid;
            inbox.deliver(Content::Filler(octets));
        }
        inbox.uid_next = 12;
        Self {
            user: "tim".into(),
            password: Some(PASSWORD.into()),
            token: Some(TOKEN.into()),
            mailboxes: vec![inbox, Mailbox::new("Trash", "\\HasNoChildren \\Trash")],
        }
    }

    pub(crate) fn mailbox(&mut self, name: &str) -> Option<&mut Mailbox> {
        self.mailboxes
            .iter_mut()
            .find(|mailbox| mailbox.name == name || (name.eq_ignore_ascii_case("INBOX") && mailbox.name == "INBOX"))
    }
}

impl Mailbox {
    /// An empty mailbox with UIDVALIDITY 100.
    pub(crate) fn new(name: &str, attributes: &str) -> Self {
        Self {
            name: name.into(),
            attributes: attributes.into(),
            uid_validity: Some(100),
            uid_next: 1,
            tells_uid_next: true,
            sticky: true,
            read_only: false,
            permanent: "\\Seen \\Deleted \\Flagged \\*".into(),
            unreadable: Vec::new(),
            messages: Vec::new(),
        }
    }

    /// A message arrives. Its UID is given back.
    pub(crate) fn deliver(&mut self, content: Content) -> u32 {
        let message = Message {
            uid: self.uid_next,
            flags: Vec::new(),
            reported: content.len(),
            date: "17-Jul-1996 02:44:25 -0700".into(),
            content,
        };
        self.uid_next += 1;
        self.messages.push(message);
        self.uid_next - 1
    }

    /// A message is removed for good.
    pub(crate) fn expunge(&mut self, uid: u32) {
        self.messages.retain(|message| message.uid != uid);
    }

    /// A message gets a flag.
    pub(crate) fn flag(&mut self, uid: u32, flag: &str) {
        if let Some(message) = self.messages.iter_mut().find(|message| message.uid == uid)
            && !message.has(flag)
        {
            message.flags.push(flag.into());
        }
    }

    pub(crate) fn uids(&self) -> Vec<u32> {
        self.messages.iter().map(|message| message.uid).collect()
    }

    pub(crate) fn message(&self, uid: u32) -> Option<&Message> {
        self.messages.binary_search_by_key(&uid, |message| message.uid).ok().map(|index| &self.messages[index])
    }

    /// Whether PERMANENTFLAGS allows a flag to be stored.
    pub(crate) fn permits(&self, flag: &str) -> bool {
        let mut permanent = self.permanent.split(' ');
        permanent.any(|known| known.eq_ignore_ascii_case(flag) || (known == "\\*" && !flag.starts_with('\\')))
    }
}

impl Message {
    pub(crate) fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|known| known.eq_ignore_ascii_case(flag))
    }
}

impl Content {
    pub(crate) fn new(octets: impl AsRef<[u8]>) -> Self {
        Self::Octets(octets.as_ref().into())
    }

    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Octets(octets) => octets.len() as u64,
            Self::Filler(octets) => *octets,
        }
    }

    /// A part of it. Ask for pieces that fit in memory.
    pub(crate) fn slice(&self, range: Range<u64>) -> Vec<u8> {
        match self {
            Self::Octets(octets) => octets[range.start as usize..range.end as usize].to_vec(),
            Self::Filler(total) => filler(range, *total),
        }
    }

    pub(crate) fn octets(&self) -> Vec<u8> {
        self.slice(0..self.len())
    }
}

/// The octets of a made message of `total` octets; its last two end a line.
fn filler(range: Range<u64>, total: u64) -> Vec<u8> {
    let mut octets = Vec::with_capacity((range.end - range.start) as usize);
    let mut at = range.start;
    while at < range.end {
        let (text, within) = match at.checked_sub(FILLER_HEADER.len() as u64) {
            None => (FILLER_HEADER, at as usize),
            Some(at) => (FILLER_LINE, (at % FILLER_LINE.len() as u64) as usize),
        };
        let piece = &text[within..];
        let piece = &piece[..piece.len().min((range.end - at) as usize)];
        octets.extend_from_slice(piece);
        at += piece.len() as u64;
    }
    for (back, octet) in [(2, b'\r'), (1, b'\n')] {
        if let Some(at) = total.checked_sub(back).filter(|at| range.contains(at)) {
            octets[(at - range.start) as usize] = octet;
        }
    }
    octets
}

const FILLER_HEADER: &[u8] = b"From: tim@example.org\r\nSubject: filler\r\n\r\n";
const FILLER_LINE: &[u8] = b"The quick brown fox jumps over the lazy dog, and the dog does not mind.\r\n";

/// The numbers of an IMAP set (`5,9`, `1:*`, `9:5`), as ranges; `last` is what `*` stands for.
pub(crate) fn ranges(set: &str, last: u32) -> Option<Vec<(u32, u32)>> {
    let number = |text: &str| if text == "*" { Some(last) } else { text.parse().ok().filter(|number| *number > 0) };
    let range = |part: &str| {
        let (from, to) = part.split_once(':').unwrap_or((part, part));
        let (from, to) = (number(from)?, number(to)?);
        Some((from.min(to), from.max(to)))
    };
    set.split(',').map(range).collect()
}
