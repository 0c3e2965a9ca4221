//! A plain POP3 client that shows replies octet for octet, for comparing servers. Real mail programs are in `clients`.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

/// A line to a POP3 server.
pub(crate) struct Pop3 {
    line: BufReader<TcpStream>,
}

impl Pop3 {
    /// Connects to this port of 127.0.0.1 and reads the greeting.
    pub(crate) fn connect(port: u16) -> Self {
        Self::proxied(port, "")
    }

    /// The same through a proxy, which says this first.
    pub(crate) fn proxied(port: u16, header: &str) -> Self {
        let mut line = TcpStream::connect(("127.0.0.1", port)).unwrap();
        line.write_all(header.as_bytes()).unwrap();
        line.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut pop3 = Self { line: BufReader::new(line) };
        let greeting = pop3.reply();
        assert!(greeting.starts_with("+OK"), "{greeting}");
        pop3
    }

    /// Connects and logs in.
    pub(crate) fn log_in(port: u16, user: &str, password: &str) -> Self {
        let mut pop3 = Self::connect(port);
        let reply = pop3.pass(user, password);
        assert!(reply.starts_with("+OK"), "{reply}");
        pop3
    }

    /// Sends USER and PASS; gives the reply to PASS.
    pub(crate) fn pass(&mut self, user: &str, password: &str) -> String {
        let reply = self.command(&format!("USER {user}"));
        assert!(reply.starts_with("+OK"), "{reply}");
        self.command(&format!("PASS {password}"))
    }

    /// Sends a command; gives its reply of one line, without the line end.
    pub(crate) fn command(&mut self, command: &str) -> String {
        self.send(command);
        self.reply()
    }

    /// Sends a command; gives the octets that follow `+OK` line up to the final dot, as they stand on the wire.
    pub(crate) fn wire(&mut self, command: &str) -> Vec<u8> {
        let reply = self.command(command);
        assert!(reply.starts_with("+OK"), "{command}: {reply}");
        let mut octets = Vec::new();
        loop {
            let start = octets.len();
            self.line.read_until(b'\n', &mut octets).unwrap();
            let line = &octets[start..];
            assert!(line.ends_with(b"\n"), "{command}: the line ends before the final dot");
            // A lone dot ends the reply only at the start of a line that ended in CRLF.
            if line == b".\r\n" && (start == 0 || octets[..start].ends_with(b"\r\n")) {
                octets.truncate(start);
                return octets;
            }
        }
    }

    /// As [`wire`](Self::wire), with the stuffed dots taken out.
    pub(crate) fn body(&mut self, command: &str) -> Vec<u8> {
        let wire = self.wire(command);
        let lines = wire.split_inclusive(|&octet| octet == b'\n');
        lines.flat_map(|line| line.strip_prefix(b".").unwrap_or(line)).copied().collect()
    }

    /// As [`wire`](Self::wire), as lines of text.
    pub(crate) fn list(&mut self, command: &str) -> Vec<String> {
        String::from_utf8(self.wire(command)).unwrap().lines().map(str::to_owned).collect()
    }

    /// Sends QUIT, and waits until the server has closed the line; gives the reply.
    pub(crate) fn quit(mut self) -> String {
        let reply = self.command("QUIT");
        assert_eq!(self.line.read(&mut [0]).unwrap(), 0, "octets after the reply to QUIT");
        reply
    }

    /// What is still to be read.
    pub(crate) const fn line(&mut self) -> &mut BufReader<TcpStream> {
        &mut self.line
    }

    fn send(&mut self, command: &str) {
        self.line.get_mut().write_all(format!("{command}\r\n").as_bytes()).unwrap();
    }

    fn reply(&mut self) -> String {
        let mut line = String::new();
        self.line.read_line(&mut line).unwrap();
        line.strip_suffix("\r\n").unwrap_or_else(|| panic!("the POP3 line ends within {line:?}")).to_owned()
    }
}
