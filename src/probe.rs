//! `popgate probe`: speaks to a port as a client would, and says whether something answers there. For health checks in
//! images without a shell. It sends no secret, so it asks nobody for proof of who they are.

use std::{fmt, io, str::FromStr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::{
    config::url::Url,
    net::{
        Dial, Endpoint, Wire,
        tcp::Tcp,
        tls::{self, Connector, HandshakeFault},
    },
};

/// What is asked, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    url: String,
    question: Question,
    endpoint: Endpoint,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Question {
    /// The greeting, and the answer to QUIT.
    Pop3 { tls: bool },
    /// What GET gives for this path.
    Http { path: String },
}

/// Why a port is not well.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody is there, or the line broke.
    #[error("{0}")]
    Line(#[from] io::Error),
    /// TLS does not come about.
    #[error("no TLS: {0}")]
    Handshake(#[from] HandshakeFault),
    /// TLS cannot be set up on this side.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The answer is not the one of a server that is well.
    #[error("the answer was {0:?}")]
    Answer(String),
    /// It took too long.
    #[error("no answer within {DEADLINE:?}")]
    Silent,
}

impl Target {
    /// Asks, and gives the line that says that all is well. Takes five seconds at most.
    pub async fn probe(&self) -> Result<String, Error> {
        timeout(DEADLINE, self.ask()).await.unwrap_or(Err(Error::Silent))
    }

    async fn ask(&self) -> Result<String, Error> {
        let mut wire = Tcp.dial(&self.endpoint).await?;
        match &self.question {
            Question::Pop3 { tls } => {
                if *tls {
                    wire = Connector::unverified()?.connect(wire, &self.endpoint.host).await?;
                }
                let greeting = answer(&mut wire, is_positive).await?;
                wire.write_all(b"QUIT\r\n").await?;
                wire.flush().await?;
                answer(&mut wire, is_positive).await?;
                Ok(greeting)
            }
            Question::Http { path } => {
                let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.endpoint);
                wire.write_all(request.as_bytes()).await?;
                answer(&mut wire, is_success).await
            }
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = || "allowed: pop3://HOST[:110], pop3s://HOST[:995], http://HOST[:80][/PATH]".to_owned();
        let (server, path) = match text.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.find('/')?))) {
            Some((scheme, slash)) => text.split_at(scheme.len() + 3 + slash),
            None => (text, ""),
        };
        let url = Url::parse(server).filter(|url| url.port != Some(0)).ok_or_else(allowed)?;
        let is_path = path.bytes().all(|octet| octet.is_ascii_graphic() && octet != b'#');
        let (question, port) = match url.scheme {
            "pop3" if path.is_empty() => (Question::Pop3 { tls: false }, 110),
            "pop3s" if path.is_empty() => (Question::Pop3 { tls: true }, 995),
            "http" if is_path => (Question::Http { path: if path.is_empty() { "/" } else { path }.to_owned() }, 80),
            _ => return Err(allowed()),
        };
        Ok(Self { url: text.to_owned(), question, endpoint: url.endpoint(port) })
    }
}

/// The URL as it was written.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

/// One line of the server, if it is good.
async fn answer(wire: &mut Box<dyn Wire>, is_good: fn(&str) -> bool) -> Result<String, Error> {
    let mut line = Vec::new();
    while line.len() < LONGEST {
        match wire.read_u8().await? {
            b'\n' => break,
            octet => line.push(octet),
        }
    }
    let shown = |octet: &u8| if matches!(octet, b' '..=b'~') { char::from(*octet) } else { '?' };
    let line: String = line.strip_suffix(b"\r").unwrap_or(&line).iter().map(shown).collect();
    if is_good(&line) { Ok(line) } else { Err(Error::Answer(line)) }
}

/// RFC 1939 §3.
fn is_positive(line: &str) -> bool {
    line.split(' ').next() == Some("+OK")
}

/// RFC 9110 §15: what was asked for, or where else it is.
fn is_success(line: &str) -> bool {
    let mut words = line.split(' ');
    let http = words.next().is_some_and(|version| version.starts_with("HTTP/1."));
    let status: Option<u16> = words.next().and_then(|status| status.parse().ok());
    http && status.is_some_and(|status| (200..400).contains(&status))
}

/// Whoever restarts what is not well must not wait for it long; Kubernetes and Docker have deadlines of their own.
const DEADLINE: Duration = Duration::from_secs(5);

/// No greeting and no status line is longer (RFC 1939 §3: 512 octets).
const LONGEST: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let pop3 = |tls| Question::Pop3 { tls };
        let http = |path: &str| Question::Http { path: path.to_owned() };
        for (text, expected) in [
            ("pop3://localhost", Some((pop3(false), "localhost:110"))),
            ("pop3://127.0.0.1:1110", Some((pop3(false), "127.0.0.1:1110"))),
            ("pop3s://[::1]", Some((pop3(true), "[::1]:995"))),
            ("http://localhost:9110", Some((http("/"), "localhost:9110"))),
            ("http://localhost/readyz?verbose", Some((http("/readyz?verbose"), "localhost:80"))),
            ("https://localhost", None),
            ("imaps://localhost", None),
            ("pop3://localhost/", None),
            ("pop3://localhost:0", None),
            ("http://localhost/a b", None),
            ("http://localhost/a\r\nX: y", None),
            ("http:///", None),
            ("localhost:110", None),
        ] {
            let target: Option<Target> = text.parse().ok();
            let found = target.map(|target| (target.question, target.endpoint.to_string()));
            assert_eq!(found, expected.map(|(question, at)| (question, at.to_owned())), "{text}");
        }
    }

    #[test]
    fn answers() {
        for (line, pop3, http) in [
            ("+OK ready", true, false),
            ("+OK", true, false),
            ("+OKAY", false, false),
            ("-ERR [SYS/TEMP] no", false, false),
            ("HTTP/1.1 200 OK", false, true),
            ("HTTP/1.0 302", false, true),
            ("HTTP/1.1 404 Not Found", false, false),
            ("HTTP/1.1 503 Service Unavailable", false, false),
            ("SSH-2.0-x", false, false),
            ("", false, false),
        ] {
            assert_eq!((is_positive(line), is_success(line)), (pop3, http), "{line}");
        }
    }
}
