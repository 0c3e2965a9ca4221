//! A POP3 client (RFC 1939): reads a whole maildrop and deletes its last message, one command after the other.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, ensure};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};

/// Plays one session. Gives the octets of each message as a mail program would store them.
pub(crate) async fn play(at: SocketAddr, user: &str, password: &str) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut pop3 = Client::connect(at).await?;
    pop3.list("CAPA").await?;
    pop3.say(&format!("USER {user}")).await?;
    pop3.say(&format!("PASS {password}")).await?;

    let stat = pop3.say("STAT").await?;
    let last: usize = stat.split(' ').nth(1).and_then(|count| count.parse().ok()).context("STAT has no count")?;
    pop3.list("UIDL").await?;
    pop3.list("LIST").await?;

    let mut messages = Vec::new();
    for number in 1..=last {
        messages.push(pop3.list(&format!("RETR {number}")).await?);
    }
    pop3.list("TOP 1 1").await?;
    pop3.say(&format!("DELE {last}")).await?;
    pop3.quit().await?;
    Ok(messages)
}

/// A line to a POP3 server.
struct Client(BufReader<TcpStream>);

impl Client {
    async fn connect(at: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(at).await.with_context(|| format!("nobody answers at {at}"))?;
        let mut client = Self(BufReader::new(stream));
        let greeting = client.line().await?;
        ensure!(greeting.starts_with(b"+OK"), "the greeting is {}", greeting.escape_ascii());
        Ok(client)
    }

    /// Sends a command; gives its reply of one line, which must be good.
    async fn say(&mut self, command: &str) -> anyhow::Result<String> {
        self.0.write_all(format!("{command}\r\n").as_bytes()).await?;
        let reply = self.line().await?;
        ensure!(reply.starts_with(b"+OK"), "{command} was answered with {}", reply.escape_ascii());
        Ok(String::from_utf8_lossy(&reply).trim_end().to_owned())
    }

    /// Sends a command; gives the lines that follow its reply, without the dots that were stuffed and the one that ends
    /// it.
    async fn list(&mut self, command: &str) -> anyhow::Result<Vec<u8>> {
        self.say(command).await?;
        let mut lines = Vec::new();
        loop {
            let line = self.line().await?;
            match line.strip_prefix(b".") {
                Some(b"\r\n") => return Ok(lines),
                Some(stuffed) => lines.extend_from_slice(stuffed),
                None => lines.extend_from_slice(&line),
            }
        }
    }

    /// Sends QUIT. Only its `+OK` says that what was deleted is gone.
    async fn quit(mut self) -> anyhow::Result<()> {
        self.say("QUIT").await?;
        ensure!(self.0.read_u8().await.is_err(), "something follows the reply to QUIT");
        Ok(())
    }

    /// A line with its end, which is CRLF: a lone LF ends none.
    async fn line(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let read = timeout(PATIENCE, self.0.read_until(b'\n', &mut line)).await;
            ensure!(read.ok().context("popgate says nothing more")?? > 0, "popgate has closed the line");
        }
        Ok(line)
    }
}

/// Nothing here takes a moment, unless something is broken.
const PATIENCE: Duration = Duration::from_secs(20);
