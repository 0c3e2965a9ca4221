//! What somebody on the way can do before TLS is up: inject, strip, tamper, send elsewhere. Only these show that nothing
//! said in the clear outlives the handshake, and that no credentials are said before it. The classes are those of "Why TLS
//! Is Better Without STARTTLS" (USENIX Security 2021). F-17, F-18, T20.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use popgate::{
    gateway::{Gateway, Peer, Routes, serve},
    net::tls::Acceptor,
    upstream::imap::Security,
};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream};
use tokio_util::sync::CancellationToken;

use crate::support::{
    gate::{Gate, Lines, Memory, route, settings},
    recorder::{Recorded, Written, handshake_only},
    script::{Manner, Server},
    tls::{accept, identity},
};

/// What somebody on the way lets a server say in the clear.
#[derive(Clone, Copy)]
struct Said<'a> {
    greeting: &'a str,
    /// Instead of the tagged OK to STARTTLS, if that is to be heard. `$` is the tag.
    reply: Option<&'a str>,
}

const GREETING: &str = "* OK [CAPABILITY IMAP4rev1 STARTTLS] ready\r\n";
const BEGIN: &str = "$ OK begin\r\n";

/// popgate gives up for good.
const LASTING: &str = "-ERR [SYS/PERM] mailbox cannot be opened, contact the administrator";
/// It may go better later.
const PASSING: &str = "-ERR [SYS/TEMP] ";
const OPENED: &str = "+OK maildrop has 3 messages (620 octets)";

/// Each is refused, with these words and with nothing on the wire that is not a handshake. None of the texts is shown.
const REFUSED: &[(&str, &str, &str, Option<&str>)] = &[
    // Stripping: O_1 to O_4, D_1 to D_3.
    ("STARTTLS is not offered", LASTING, "* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] ready\r\n", None),
    ("nothing is offered", LASTING, "* OK [CAPABILITY IMAP4rev1] ready\r\n", None),
    ("… by an untagged response", LASTING, "* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n* OK ready\r\n", None),
    ("something like it is offered", LASTING, "* OK [CAPABILITY IMAP4rev1 XSTARTTLS STARTTLSX] ready\r\n", None),
    ("NO", LASTING, GREETING, Some("$ NO not today\r\n")),
    ("NO for people", LASTING, GREETING, Some("$ NO [ALERT] log in at http://evil.example/\r\n")),
    ("BAD", LASTING, GREETING, Some("$ BAD what is that\r\n")),
    ("BAD where nothing is told", LASTING, "* OK ready\r\n", Some("$ BAD what is that\r\n")),
    ("a tagged PREAUTH", PASSING, GREETING, Some("$ PREAUTH come in\r\n")),
    ("a tagged BYE", PASSING, GREETING, Some("$ BYE\r\n")),
    ("no status", PASSING, GREETING, Some("$ begin\r\n")),
    ("a challenge", PASSING, GREETING, Some("+ go on\r\n")),
    ("a challenge, then OK", PASSING, GREETING, Some("+ go on\r\n$ OK begin\r\n")),
    ("OK for somebody else", PASSING, GREETING, Some("ZZ9 OK begin\r\n")),
    ("silence", PASSING, GREETING, Some("")),
    ("silence within a literal", PASSING, GREETING, Some("* X {30}\r\n$ OK begin\r\n")),
    ("a farewell", PASSING, GREETING, Some("* BYE [ALERT] come back without TLS\r\n")),
    ("another protocol", PASSING, "220 smtp.example.com ESMTP\r\n", None),
    ("another protocol behind it", PASSING, GREETING, Some("HTTP/1.1 400 Bad Request\r\n")),
    // PREAUTH: P, P_1 to P_5; CVE-2014-2567, CVE-2020-12398, CVE-2020-14093.
    ("PREAUTH", LASTING, "* PREAUTH welcome back\r\n", None),
    ("PREAUTH that offers STARTTLS", LASTING, "* PREAUTH [CAPABILITY IMAP4rev1 STARTTLS] welcome\r\n", None),
    ("PREAUTH in small letters", LASTING, "* preauth hello\r\n", None),
    ("PREAUTH for people", LASTING, "* PREAUTH [ALERT] call 0190 666 666\r\n", None),
    ("PREAUTH and a mailbox", LASTING, "* PREAUTH hello\r\n* 3 EXISTS\r\n* OK [UIDVALIDITY 1] x\r\n", None),
    // Injection of responses: B_1, B_2; CVE-2021-33515, and CVE-2026-41319 in MailKit.
    ("capabilities behind OK", LASTING, GREETING, Some("$ OK begin\r\n* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n")),
    ("a log-in that succeeded behind OK", LASTING, GREETING, Some("$ OK begin\r\nA0002 OK logged in\r\n")),
    ("PREAUTH behind OK", LASTING, GREETING, Some("$ OK begin\r\n* PREAUTH welcome\r\n")),
    ("an empty line behind OK", LASTING, GREETING, Some("$ OK begin\r\n\r\n")),
    ("one octet behind OK", LASTING, GREETING, Some("$ OK begin\r\n*")),
    ("a second OK", LASTING, GREETING, Some("$ OK begin\r\n$ OK begin\r\n")),
    ("an alert of TLS behind OK", LASTING, GREETING, Some("$ OK begin\r\n\x15\x03\x03\0\x02\x01\0")),
    ("data of TLS behind OK", LASTING, GREETING, Some("$ OK begin\r\n\x17\x03\x03\0\x05* OK ")),
    // The early answer: CVE-2026-42246 in net-imap, CVE-2026-1642 in nginx.
    ("OK before STARTTLS was sent", LASTING, "* OK ready\r\nA0001 OK begin\r\nA0002 OK\r\n", None),
    ("… where it is offered", LASTING, "* OK [CAPABILITY STARTTLS] x\r\nA0001 OK x\r\nA0002 OK x\r\n", None),
    // Referrals: L_1, M_1, M_2 (RFC 2221).
    ("NO with a referral", LASTING, GREETING, Some("$ NO [REFERRAL imap://tim@evil.example/] moved\r\n")),
    ("a farewell with a referral", PASSING, "* BYE [REFERRAL imap://tim@evil.example/] moved\r\n", None),
    // Greetings that are none.
    ("NO as greeting", PASSING, "* NO [ALERT] use http://evil.example/\r\n", None),
    ("BAD as greeting", PASSING, "* BAD [PARSE] sorry\r\n", None),
    ("a tagged greeting", PASSING, "A0001 OK ready\r\n", None),
    ("a mailbox as greeting", PASSING, "* 3 EXISTS\r\n* OK ready\r\n", None),
    ("an expunge as greeting", PASSING, "* 1 EXPUNGE\r\n* OK ready\r\n", None),
];

#[tokio::test(start_paused = true)]
async fn who_is_on_the_way_to_the_upstream_hears_no_credentials() {
    for capacity in [1 << 14, 7] {
        for &(name, expected, greeting, reply) in REFUSED {
            let outcome = log_in(Said { greeting, reply }, capacity).await;
            let what = format!("{name}, {capacity}");
            // In crumbs, what stands behind OK arrives in the handshake, and fails or stalls it.
            let expected = if capacity == 7 && expected == LASTING { "-ERR [SYS/" } else { expected };
            assert!(outcome.reply.starts_with(expected), "{what}: {}", outcome.reply);
            assert!(["evil", "http", "0190", "moved"].iter().all(|word| !outcome.reply.contains(word)), "{what}");
            assert_eq!(handshake_only(&outcome.written), Ok(()), "{what}");
            assert_eq!(outcome.received, Vec::<String>::new(), "{what}");
            assert_eq!(outcome.dials, 1, "{what}");
        }
    }
}

/// Tampering, T, and spoofing, U: whatever is said of mailboxes and to people in the clear.
const TAMPERING: [&str; 27] = [
    "* 9 EXISTS\r\n",
    "* 0 EXISTS\r\n",
    "* 9 RECENT\r\n",
    "* 1 EXPUNGE\r\n",
    "* VANISHED 5\r\n",
    "* 1 FETCH (UID 5 FLAGS (\\Deleted))\r\n",
    "* 1 FETCH (UID 5 RFC822.SIZE 1)\r\n",
    "* 1 FETCH (UID 5 BODY[] {5}\r\nhello)\r\n",
    "* 1 FETCH (UID 5 BODY[] NIL)\r\n",
    "* SEARCH 1 2 3\r\n",
    "* ESEARCH (TAG \"A0002\") UID ALL 1:9\r\n",
    "* FLAGS (\\Seen)\r\n",
    "* LIST (\\Trash) \"/\" \"Evil\"\r\n",
    "* LSUB () \"/\" \"Evil\"\r\n",
    "* STATUS INBOX (MESSAGES 9 UIDNEXT 1 UIDVALIDITY 1)\r\n",
    "* NAMESPACE NIL NIL NIL\r\n",
    "* ENABLED UTF8=ACCEPT\r\n",
    "* ID (\"name\" \"evil\")\r\n",
    "* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED AUTH=XOAUTH2\r\n",
    "* OK [UIDVALIDITY 666] x\r\n",
    "* OK [UIDNEXT 1] x\r\n",
    "* OK [PERMANENTFLAGS ()] x\r\n",
    "* OK [READ-ONLY] x\r\n",
    "* OK [REFERRAL imap://tim@evil.example/] moved\r\n",
    "* NO [ALERT] log in at http://evil.example/\r\n",
    "* BAD [PARSE] log in at http://evil.example/\r\n",
    "* OK [BADCHARSET (evil)] http://evil.example/\r\n",
];

/// Nothing of it is there after the handshake: the maildrop, its unique ids and all that is asked are as without it.
#[tokio::test(start_paused = true)]
async fn what_was_said_in_the_clear_is_forgotten() {
    let honest = log_in(Said { greeting: GREETING, reply: Some(BEGIN) }, 1 << 14).await;
    assert_eq!(honest.reply, OPENED);
    assert_eq!(honest.received.first().map(String::as_str), Some("CAPABILITY"), "what was offered before was believed");
    for capacity in [1 << 14, 7] {
        for noise in TAMPERING {
            let texts = [format!("{GREETING}{noise}"), format!("{noise}{GREETING}"), format!("{noise}{BEGIN}")];
            let [behind, before, within] = &texts;
            let greeted = ["EXISTS", "EXPUNGE", "* NO", "* BAD"].iter().all(|word| !noise.contains(word));
            for (greeting, reply, opens) in
                [(behind.as_str(), BEGIN, true), (before, BEGIN, greeted), (GREETING, within, true)]
            {
                let outcome = log_in(Said { greeting, reply: Some(reply) }, capacity).await;
                let what = format!("{greeting:?} {reply:?} {capacity}");
                if opens {
                    assert_eq!((&outcome.reply, &outcome.ids), (&honest.reply, &honest.ids), "{what}");
                    assert_eq!(outcome.received, honest.received, "{what}");
                    assert!(handshake_only(&outcome.written).is_err(), "the session was not seen");
                } else {
                    assert!(outcome.reply.starts_with(PASSING), "{what}: {}", outcome.reply);
                    assert_eq!(handshake_only(&outcome.written), Ok(()), "{what}");
                }
                assert_eq!(outcome.dials, 1, "{what}");
            }
        }
    }
}

/// What came of a log-in.
struct Outcome {
    reply: String,
    ids: String,
    /// What popgate wrote, as it went over the wire.
    written: Vec<u8>,
    /// What the server heard over TLS.
    received: Vec<String>,
    dials: usize,
}

/// A client logs in over an upstream that says this before TLS, and is honest within it.
async fn log_in(said: Said<'_>, capacity: usize) -> Outcome {
    let server = Server::fixture(Manner::default());
    let (written, dials) = (Written::default(), Arc::<AtomicUsize>::default());
    let (greeting, reply) = (said.greeting.to_owned(), said.reply.map(str::to_owned));
    let serve = {
        let (server, dials) = (server.clone(), Arc::clone(&dials));
        move |line| {
            dials.fetch_add(1, Relaxed);
            drop(tokio::spawn(upgraded(line, greeting.clone(), reply.clone(), server.clone())));
        }
    };
    let dial = Recorded { written: Arc::clone(&written), capacity, serve };
    let mut client = Gate::with(Arc::new(dial), &|upstream, _| upstream.security = Security::StartTls).connect();
    let reply = client.log_in().await.unwrap();
    let mut ids = String::new();
    if reply.starts_with("+OK") {
        client.ask("UIDL").await;
        ids = String::from_utf8(client.body().await.unwrap()).unwrap();
    }
    client.leave().await;
    let received = server.received().into_iter().map(|received| received.text).collect();
    let written = std::mem::take(&mut *written.lock().unwrap());
    Outcome { reply, ids, written, received, dials: dials.load(Relaxed) }
}

/// Somebody speaks in the clear, and the server within TLS, if it comes to that.
async fn upgraded(line: DuplexStream, greeting: String, reply: Option<String>, server: Server) -> io::Result<()> {
    let mut line = BufReader::new(line);
    line.write_all(greeting.as_bytes()).await?;
    if let Some(reply) = reply {
        let mut command = String::new();
        line.read_line(&mut command).await?;
        let (tag, command) = command.split_once(' ').unwrap_or_default();
        assert_eq!(command, "STARTTLS\r\n");
        line.write_all(reply.replace('$', tag).as_bytes()).await?;
        if reply.contains(BEGIN) {
            // The server greets only once, in the clear.
            let mut within = accept(Box::new(line)).await?;
            let (ours, theirs) = tokio::io::duplex(1 << 14);
            tokio::spawn(async move { server.serve(theirs).await });
            let mut ours = BufReader::new(ours);
            ours.read_line(&mut String::new()).await?;
            return tokio::io::copy_bidirectional(&mut within, &mut ours).await.map(drop);
        }
    }
    line.read_to_end(&mut Vec::new()).await.map(drop)
}

/// Injection of commands: B_C, CVE-2011-0411. What stands behind STLS in the clear is not run, be it TLS itself; not even
/// `+OK` is said.
#[tokio::test(start_paused = true)]
async fn what_stands_behind_stls_is_not_run() {
    for (sent, expected) in [
        ("STLS\r\nCAPA\r\n", ""),
        ("STLS\r\n\r\n", ""),
        ("STLS\r\n\n", ""),
        ("stls\nQUIT\n", ""),
        ("STLS\r\nUSER eve\r\nPASS x\r\n", ""),
        ("STLS\r\nSTLS\r\n", ""),
        ("STLS\r\n\x16\x03\x01\0\x05\x01\0\0\x01\x03", ""),
        ("NOOP\r\nSTLS\r\nQUIT\r\n", "-ERR command not valid in this state\r\n"),
    ] {
        assert_eq!(said(&[sent]).await, expected, "{sent:?}");
    }
}

/// After `+OK` there is TLS or nothing: what comes in the clear instead gets an alert at most.
#[tokio::test(start_paused = true)]
async fn after_stls_nothing_is_said_in_the_clear() {
    for sent in [
        "CAPA\r\n",
        "USER tim\r\nPASS sec ret\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "\x16\x03\x01\0\x05hello",
        "\x17\x03\x03\0\x06QUIT\r\n",
    ] {
        let said = said(&["STLS\r\n", sent]).await;
        let after = said.strip_prefix("+OK begin TLS\r\n").expect(&said);
        assert!(after.is_empty() || after.starts_with("\x15\x03") && after.len() == 7, "{sent:?}: {after:?}");
    }
}

/// What popgate says behind its greeting to a client that may not log in without TLS, sends these one after the other, and
/// then ends. No server is to be had.
async fn said(sent: &[&str]) -> String {
    let server = Server::fixture(Manner::default());
    let lines = Lines { server: server.clone(), capacity: 1024 };
    let routes = Routes::new(Some(route(Memory::Nothing, Arc::new(lines), &|_, _| {})), None);
    let acceptor = Acceptor::load(&identity().certificate, &identity().key).unwrap();
    let gateway = Arc::new(Gateway::new(routes, settings(), Some(Arc::new(acceptor))));
    let address = "192.0.2.7:50000".parse().unwrap();
    let peer = Peer { address, client: address, encrypted: false, permit: None };
    let (ours, theirs) = tokio::io::duplex(1 << 14);
    let session = tokio::spawn(serve(gateway, Box::new(theirs), peer, CancellationToken::new()));
    let mut client = BufReader::new(ours);
    client.read_line(&mut String::new()).await.unwrap();
    let mut said = Vec::new();
    for (index, sent) in sent.iter().enumerate() {
        if index > 0 {
            client.read_until(b'\n', &mut said).await.unwrap();
        }
        client.write_all(sent.as_bytes()).await.unwrap();
    }
    client.read_to_end(&mut said).await.unwrap();
    session.await.unwrap();
    assert_eq!(server.connections(), 0, "{sent:?}");
    said.into_iter().map(char::from).collect()
}
