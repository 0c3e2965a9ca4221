//! An IMAP server that costs almost nothing: one mailbox that is the same for everybody, and just the commands with which
//! a session begins and ends. So that what is measured is the gateway.

use std::{fmt::Write as _, io, sync::Arc};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::TcpListener,
};

use crate::support::tls;

/// A mailbox of so many messages.
pub(crate) struct Mailbox {
    messages: usize,
    /// What the command that lists them is answered.
    rows: String,
}

impl Mailbox {
    pub(crate) fn new(messages: usize) -> Arc<Self> {
        let mut rows = String::new();
        for number in 1..=messages {
            // Some have been removed: the UIDs are not the numbers.
            let (uid, octets) = (number * 2, 2000 + number % 50_000);
            write!(rows, "* {number} FETCH (UID {uid} RFC822.SIZE {octets})\r\n").unwrap();
        }
        Arc::new(Self { messages, rows })
    }

    /// Serves it on a port of 127.0.0.1, which it gives, until the runtime ends.
    pub(crate) async fn serve(self: Arc<Self>, secured: bool) -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((line, _)) = listener.accept().await {
                let mailbox = Arc::clone(&self);
                tokio::spawn(async move {
                    line.set_nodelay(true)?;
                    if secured {
                        mailbox.session(tls::accept(Box::new(line)).await?).await
                    } else {
                        mailbox.session(line).await
                    }
                });
            }
        });
        port
    }

    async fn session(&self, line: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
        let mut line = BufReader::with_capacity(512, line);
        line.write_all(format!("* OK [CAPABILITY {CAPABILITIES}] here\r\n").as_bytes()).await?;
        let mut command = String::new();
        while line.read_line(&mut command).await? > 0 {
            let (tag, words) = command.trim_end().split_once(' ').unwrap_or_default();
            let words = words.to_ascii_uppercase();
            let (untagged, outcome) = self.answer(&words);
            for part in [untagged.as_str(), if words.starts_with("UID FETCH") { &self.rows } else { "" }] {
                line.write_all(part.as_bytes()).await?;
            }
            line.write_all(format!("{tag} {outcome}\r\n").as_bytes()).await?;
            line.flush().await?;
            if words == "LOGOUT" {
                return Ok(());
            }
            command.clear();
        }
        Ok(())
    }

    fn answer(&self, words: &str) -> (String, String) {
        let Self { messages, .. } = self;
        match words.split(' ').next().unwrap_or_default() {
            "CAPABILITY" => (format!("* CAPABILITY {CAPABILITIES}\r\n"), "OK done".to_owned()),
            "LOGIN" | "AUTHENTICATE" => (String::new(), format!("OK [CAPABILITY {CAPABILITIES}] in")),
            "SELECT" | "EXAMINE" => (
                format!(
                    "* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)\r\n\
                     * OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft \\*)] these\r\n\
                     * {messages} EXISTS\r\n* 0 RECENT\r\n* OK [UIDVALIDITY 1] this\r\n* OK [UIDNEXT {}] next\r\n",
                    messages * 2 + 1
                ),
                "OK [READ-WRITE] done".to_owned(),
            ),
            "UID" | "NOOP" => (String::new(), "OK done".to_owned()),
            "LOGOUT" => ("* BYE\r\n".to_owned(), "OK done".to_owned()),
            _ => (String::new(), "BAD what".to_owned()),
        }
    }
}

const CAPABILITIES: &str = "IMAP4rev1 SASL-IR AUTH=PLAIN UIDPLUS ESEARCH LITERAL+ IDLE";
