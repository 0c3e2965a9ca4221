//! A plain IMAP client to prepare and inspect mailboxes of a real server. Not popgate's: a defect there must not hide
//! itself in the test. Knows just the commands below; anything but OK fails the test.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

/// A line to a server, logged in, INBOX selected.
pub(crate) struct Imap {
    line: BufReader<TcpStream>,
    tag: u32,
}

/// One untagged response: its text without the literals, and the literals.
pub(crate) struct Untagged {
    /// The text; a literal stands in it as `{n}`.
    pub(crate) text: String,
    /// The literals, in order.
    pub(crate) literals: Vec<Vec<u8>>,
}

impl Imap {
    /// Logs in on this port of 127.0.0.1.
    pub(crate) fn log_in(port: u16, user: &str, password: &str) -> Self {
        let line = TcpStream::connect(("127.0.0.1", port)).unwrap();
        line.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut imap = Self { line: BufReader::new(line), tag: 0 };
        imap.response();
        imap.command(&format!("LOGIN \"{user}\" \"{password}\""));
        imap.command("SELECT INBOX");
        imap
    }

    /// Sends a command; gives its untagged responses.
    pub(crate) fn command(&mut self, command: &str) -> Vec<Untagged> {
        self.send(command);
        let (untagged, text) = self.outcome();
        assert!(text.starts_with("OK"), "{command}: {text}");
        untagged
    }

    /// Puts a message, octet for octet as it is given, into INBOX; gives its UID (RFC 4315 APPENDUID).
    pub(crate) fn append(&mut self, message: &[u8]) -> u32 {
        self.send(&format!("APPEND INBOX {{{}}}", message.len()));
        let ready = self.response();
        assert!(ready.text.starts_with('+'), "APPEND: {}", ready.text);
        self.line.get_mut().write_all(&[message, b"\r\n"].concat()).unwrap();
        let (_, text) = self.outcome();
        let code = text.strip_prefix("OK [APPENDUID ").unwrap_or_else(|| panic!("APPEND: {text}"));
        code.split([' ', ']']).nth(1).unwrap().parse().unwrap()
    }

    /// The UIDs of messages that match now, whoever changed them.
    pub(crate) fn search(&mut self, criteria: &str) -> Vec<u32> {
        // Dovecot looks for the changes of others after a SEARCH, not before it.
        self.command("NOOP");
        let untagged = self.command(&format!("UID SEARCH {criteria}"));
        let hits = untagged.iter().filter_map(|response| response.text.strip_prefix("* SEARCH"));
        hits.flat_map(str::split_ascii_whitespace).map(|uid| uid.parse().unwrap()).collect()
    }

    /// The octets of a message. Leaves its flags alone.
    pub(crate) fn body(&mut self, uid: u32) -> Vec<u8> {
        let untagged = self.command(&format!("UID FETCH {uid} (BODY.PEEK[])"));
        let mut bodies =
            untagged.into_iter().filter(|response| response.text.contains(" FETCH (")).flat_map(|r| r.literals);
        bodies.next().unwrap_or_else(|| panic!("no body of UID {uid}"))
    }

    fn send(&mut self, command: &str) {
        self.tag += 1;
        self.line.get_mut().write_all(format!("t{} {command}\r\n", self.tag).as_bytes()).unwrap();
    }

    /// The responses up to the tagged one of the last command, and its text after the tag.
    fn outcome(&mut self) -> (Vec<Untagged>, String) {
        let tag = format!("t{} ", self.tag);
        let mut untagged = Vec::new();
        loop {
            let response = self.response();
            match response.text.strip_prefix(&tag) {
                Some(text) => return (untagged, text.to_owned()),
                None => untagged.push(response),
            }
        }
    }

    fn response(&mut self) -> Untagged {
        let mut response = Untagged { text: String::new(), literals: Vec::new() };
        loop {
            let mut line = Vec::new();
            self.line.read_until(b'\n', &mut line).unwrap();
            let line = String::from_utf8(line).unwrap();
            response.text += line.strip_suffix("\r\n").unwrap_or_else(|| panic!("the IMAP line ends within {line:?}"));
            let Some(octets) = literal(&line) else { return response };
            let mut literal = vec![0; octets];
            self.line.read_exact(&mut literal).unwrap();
            response.literals.push(literal);
        }
    }
}

/// How many octets of literal follow this line.
fn literal(line: &str) -> Option<usize> {
    line.strip_suffix("}\r\n")?.rsplit_once('{')?.1.parse().ok()
}
