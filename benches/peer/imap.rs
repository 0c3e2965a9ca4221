//! The limit of the work: the same mail fetched by IMAP itself, pipelined, with no POP3 anywhere. It understands only
//! what it asks for. It also fills the mailboxes.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

/// A line to an IMAP server, logged in.
pub(crate) struct Imap {
    stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    tag: u32,
}

impl Imap {
    /// Connects to this port of 127.0.0.1, logs in, and selects INBOX; everything in one flight.
    pub(crate) fn log_in(port: u16, user: &str, password: &str) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        let mut imap = Self { stream, buffer: vec![0; BUFFER], start: 0, end: 0, tag: 0 };
        imap.line();
        imap.send(&format!("LOGIN \"{user}\" \"{password}\""));
        imap.send("SELECT INBOX");
        for tag in [1, 2] {
            imap.outcome(tag, |_| ());
        }
        imap
    }

    /// Sends commands at once that fetch bodies; gives each body to `each`, or its octets piece by piece.
    pub(crate) fn fetch(&mut self, commands: &[String], mut each: impl FnMut(Piece<'_>)) {
        let first = self.tag + 1;
        let text: String = (first..).zip(commands).map(|(tag, command)| format!("t{tag} {command}\r\n")).collect();
        self.tag += commands.len() as u32;
        self.stream.write_all(text.as_bytes()).unwrap();
        for tag in first..=self.tag {
            self.outcome(tag, &mut each);
        }
    }

    /// Sends a command, and waits until it is done.
    pub(crate) fn command(&mut self, command: &str) {
        self.send(command);
        self.outcome(self.tag, |_| ());
    }

    /// Puts messages into INBOX: many in one command (RFC 3502), their literals not waited for (RFC 7888).
    pub(crate) fn append(&mut self, messages: impl IntoIterator<Item = Vec<u8>>) {
        self.tag += 1;
        let mut octets = format!("t{} APPEND INBOX", self.tag).into_bytes();
        for message in messages {
            write!(octets, " {{{}+}}\r\n", message.len()).unwrap();
            octets.extend_from_slice(&message);
        }
        octets.extend_from_slice(b"\r\n");
        self.stream.write_all(&octets).unwrap();
        self.outcome(self.tag, |_| ());
    }

    /// Sends a command, and does not wait for it; gives its tag.
    pub(crate) fn send(&mut self, command: &str) -> u32 {
        self.tag += 1;
        self.stream.write_all(format!("t{} {command}\r\n", self.tag).as_bytes()).unwrap();
        self.tag
    }

    /// Reads up to the outcome of this command, which must be OK.
    fn outcome(&mut self, tag: u32, mut each: impl FnMut(Piece<'_>)) {
        while let Some(octets) = self.begin(tag) {
            each(Piece::Begin(octets));
            self.body(octets, |some| each(Piece::Octets(some)));
        }
    }

    /// Reads up to where a body begins, and gives how many octets it has; none where the command is done, which must be OK.
    pub(crate) fn begin(&mut self, tag: u32) -> Option<usize> {
        let tag = format!("t{tag} ");
        loop {
            let line = self.line();
            if let Some(outcome) = line.strip_prefix(&tag) {
                assert!(outcome.starts_with("OK"), "{line}");
                return None;
            }
            let literal = line.strip_suffix('}').and_then(|line| line.rsplit_once('{')?.1.parse().ok());
            if literal.is_some() {
                return literal;
            }
        }
    }

    /// Reads a body that has begun, all of it.
    pub(crate) fn body(&mut self, mut octets: usize, mut each: impl FnMut(&[u8])) {
        while octets > 0 {
            if self.start == self.end {
                self.hear();
            }
            let here = octets.min(self.end - self.start);
            each(&self.buffer[self.start..self.start + here]);
            self.start += here;
            octets -= here;
        }
    }

    fn line(&mut self) -> String {
        loop {
            let waiting = &self.buffer[self.start..self.end];
            if let Some(length) = memchr::memchr(b'\n', waiting) {
                let line = String::from_utf8_lossy(&waiting[..length]).trim_end().to_owned();
                self.start += length + 1;
                return line;
            }
            self.hear();
        }
    }

    fn hear(&mut self) {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let count = self.stream.read(&mut self.buffer[self.end..]).unwrap();
        assert!(count > 0, "the IMAP server hung up");
        self.end += count;
    }
}

/// What comes of a message.
pub(crate) enum Piece<'a> {
    /// A message of so many octets begins.
    Begin(usize),
    /// Some of it.
    Octets(&'a [u8]),
}

const BUFFER: usize = 256 * 1024;
