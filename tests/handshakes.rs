//! TLS handshakes with an upstream, for better and for worse. Only these show what a client hears of one that fails for
//! another reason than a certificate: somebody must be called where nothing will help but a change, else it may try again.
//! F3, G.4.

use std::{sync::Arc, time::Duration};

use popgate::upstream::imap::Security;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream},
    time::Instant,
};

use crate::support::{
    gate::Gate,
    recorder::{Recorded, Written, handshake_only},
};

/// What a server makes of a client's first words.
#[derive(Clone, Copy)]
struct Answer {
    octets: &'static [u8],
    /// Whether the line ends behind them.
    ends: bool,
}

const LASTING: &str = "-ERR [SYS/PERM] mailbox cannot be opened, contact the administrator";
const PASSING: &str = "-ERR [SYS/TEMP] mail service temporarily unavailable, try again later";

/// A ServerHello of TLS 1.1, the random in it all zeros.
const OLD: &[u8] = b"\x16\x03\x02\0\x2a\x02\0\0\x26\x03\x02\
    \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xc0\x13\0";

#[tokio::test(start_paused = true)]
async fn only_what_will_never_fit_calls_for_somebody() {
    let ends = |octets| Answer { octets, ends: true };
    let silent = |octets| Answer { octets, ends: false };
    for (name, expected, answer) in [
        // What the server has to say (RFC 8446 §6).
        ("internal_error", PASSING, ends(&b"\x15\x03\x03\0\x02\x02\x50"[..])),
        ("access_denied", PASSING, ends(b"\x15\x03\x03\0\x02\x02\x31")),
        ("unrecognized_name", PASSING, ends(b"\x15\x03\x03\0\x02\x02\x70")),
        ("user_canceled", PASSING, ends(b"\x15\x03\x03\0\x02\x01\x5a")),
        ("close_notify", PASSING, ends(b"\x15\x03\x03\0\x02\x01\0")),
        ("an alert that nobody knows", PASSING, ends(b"\x15\x03\x03\0\x02\x02\xfe")),
        ("handshake_failure", LASTING, ends(b"\x15\x03\x03\0\x02\x02\x28")),
        ("protocol_version", LASTING, ends(b"\x15\x03\x01\0\x02\x02\x46")),
        ("insufficient_security", LASTING, ends(b"\x15\x03\x03\0\x02\x02\x47")),
        ("… and the line stays open", LASTING, silent(b"\x15\x03\x03\0\x02\x02\x28")),
        ("an old version", LASTING, ends(OLD)),
        // What is no handshake.
        ("nothing, and the line ends", PASSING, ends(b"")),
        ("part of an answer, and the line ends", PASSING, ends(&OLD[..20])),
        ("silence", PASSING, silent(b"")),
        ("part of an answer, and silence", PASSING, silent(&OLD[..20])),
        ("no TLS", PASSING, ends(b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready\r\n")),
        ("a handshake that makes no sense", PASSING, ends(b"\x16\x03\x03\0\x04\x02\0\0\0")),
        ("data before there is a handshake", PASSING, ends(b"\x17\x03\x03\0\x05* OK ")),
    ] {
        for security in [Security::Implicit, Security::StartTls] {
            let written = Written::default();
            let serve = move |line| drop(tokio::spawn(serve(line, security, answer)));
            let dial = Recorded { written: Arc::clone(&written), capacity: 1 << 14, serve };
            let mut client = Gate::with(Arc::new(dial), &|upstream, _| upstream.security = security).connect();
            let asked = Instant::now();
            let reply = client.log_in().await.unwrap();
            let what = format!("{name}, {security:?}");
            assert_eq!(reply, expected, "{what}");
            assert!(asked.elapsed() <= Duration::from_secs(11), "{what}: {:?}", asked.elapsed());
            client.leave().await;
            assert_eq!(handshake_only(&written.lock().unwrap()), Ok(()), "{what}");
        }
    }
}

/// Waits until TLS begins, and then answers.
async fn serve(line: DuplexStream, security: Security, answer: Answer) {
    let mut line = BufReader::new(line);
    if security == Security::StartTls {
        line.write_all(b"* OK [CAPABILITY IMAP4rev1 STARTTLS] ready\r\n").await.unwrap();
        let mut command = String::new();
        line.read_line(&mut command).await.unwrap();
        let tag = command.split(' ').next().unwrap();
        line.write_all(format!("{tag} OK begin\r\n").as_bytes()).await.unwrap();
    }
    assert_eq!(line.read_u8().await.unwrap(), 22, "a handshake begins");
    line.write_all(answer.octets).await.unwrap();
    if answer.ends {
        line.shutdown().await.unwrap();
    }
    line.read_to_end(&mut Vec::new()).await.unwrap();
}
