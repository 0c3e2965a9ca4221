//! The POP3 client that measures: it takes as little of the machine as it can, and looks at every octet all the same.

use std::{
    collections::VecDeque,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

/// A line to a POP3 server.
pub(crate) struct Pop3 {
    stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// When octets last came.
    heard: Instant,
}

impl Pop3 {
    /// Connects to this port of 127.0.0.1, and reads the greeting.
    pub(crate) fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut pop3 = Self { stream, buffer: Vec::new(), start: 0, end: 0, heard: Instant::now() };
        pop3.ok();
        pop3
    }

    /// Connects and logs in.
    pub(crate) fn log_in(port: u16, user: &str, password: &str) -> Self {
        let mut pop3 = Self::connect(port);
        pop3.command(&format!("USER {user}"));
        pop3.command(&format!("PASS {password}"));
        pop3
    }

    /// Sends a command whose reply is one line, which must be `+OK`; gives it.
    pub(crate) fn command(&mut self, command: &str) -> String {
        self.send(&format!("{command}\r\n"));
        self.ok()
    }

    /// Sends a command whose reply has many lines; gives how many octets they are without the dot, and how long after
    /// the command the first octet of the reply came.
    pub(crate) fn body(&mut self, command: &str) -> (u64, Duration) {
        let sent = Instant::now();
        self.send(&format!("{command}\r\n"));
        if self.start == self.end {
            self.hear();
        }
        let first = self.heard - sent;
        (self.many(|_| ()), first)
    }

    /// The same; gives the lines.
    pub(crate) fn octets(&mut self, command: &str) -> Vec<u8> {
        self.send(&format!("{command}\r\n"));
        let mut octets = Vec::new();
        self.many(|some| octets.extend_from_slice(some));
        octets
    }

    /// Sends commands so that up to `ahead` wait for their replies; `read` reads the reply to each.
    pub(crate) fn pipeline(
        &mut self,
        commands: impl IntoIterator<Item = String>,
        ahead: usize,
        mut read: impl FnMut(&mut Self, usize),
    ) {
        let mut commands: VecDeque<_> = commands.into_iter().collect();
        let (mut flying, mut answered) = (0, 0);
        while flying > 0 || !commands.is_empty() {
            // Refilled by a quarter, as a client does that writes in blocks; one by one where only one may fly.
            if flying + ahead.div_ceil(4) <= ahead && !commands.is_empty() {
                let some = commands.drain(..commands.len().min(ahead - flying));
                let text: String = some
                    .map(|command| {
                        flying += 1;
                        command + "\r\n"
                    })
                    .collect();
                self.send(&text);
            }
            read(self, answered);
            flying -= 1;
            answered += 1;
        }
    }

    /// Sends QUIT, and waits until the server has hung up; gives how long the reply took.
    pub(crate) fn quit(mut self) -> Duration {
        let begin = Instant::now();
        self.command("QUIT");
        let took = begin.elapsed();
        // Some servers close without a FIN of their own being read first; what matters is that nothing more comes.
        let _ = self.stream.read(&mut [0]);
        took
    }

    /// Reads a reply of one line, which must be `+OK`.
    pub(crate) fn ok(&mut self) -> String {
        loop {
            let waiting = &self.buffer[self.start..self.end];
            if let Some(length) = memchr::memchr(b'\n', waiting) {
                let line = String::from_utf8_lossy(&waiting[..length]).trim_end().to_owned();
                self.start += length + 1;
                assert!(line.starts_with("+OK"), "{line}");
                return line;
            }
            self.hear();
        }
    }

    /// Reads a reply of many lines; gives how many octets they are without the dot.
    pub(crate) fn many(&mut self, mut each: impl FnMut(&[u8])) -> u64 {
        self.ok();
        // The LF of the first line stands before an empty body's dot.
        self.start -= 1;
        let mut octets = 0;
        let mut skip = 1;
        loop {
            let waiting = &self.buffer[self.start..self.end];
            let (length, ended) = match memchr::memmem::find(waiting, b"\n.\r\n") {
                Some(at) => (at + 1, true),
                None => (waiting.len().saturating_sub(3), false),
            };
            if length > 0 {
                each(&waiting[skip..length]);
                octets += (length - skip) as u64;
                skip = 0;
                self.start += length;
            }
            if ended {
                self.start += 3;
                return octets;
            }
            self.hear();
        }
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    fn hear(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = vec![0; BUFFER];
        }
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let count = self.stream.read(&mut self.buffer[self.end..]).unwrap();
        assert!(count > 0, "the server hung up; before that: {:?}", String::from_utf8_lossy(&self.buffer[..self.end]));
        self.heard = Instant::now();
        self.end += count;
    }
}

const BUFFER: usize = 256 * 1024;

/// How long a server may say nothing. The peer's first look at a far mailbox takes minutes before the first word.
const PATIENCE: Duration = Duration::from_secs(300);
