//! Popgate in front of a real Dovecot, beside Dovecot's own POP3 server on the same mailboxes: what no scripted server can
//! show is that a real one understands us, and that we say what it says.

use std::fs;

use crate::support::{
    dovecot::{Dovecot, PASSWORD},
    messages::{self, normalised},
    pop3::Pop3,
    process,
    serve::Popgate,
};

/// No delay after a wrong password: the tests give some.
const AT_ONCE: [&str; 2] = ["--set", "login.failure_delay=0s"];

/// Dovecot, with a popgate that speaks IMAP in the clear to it.
fn both(test: &str) -> Option<(Dovecot, Popgate)> {
    let dovecot = Dovecot::start(test)?;
    let popgate = Popgate::serve(&format!("imap://127.0.0.1:{}", dovecot.imap_port), &AT_ONCE);
    Some((dovecot, popgate))
}

#[test]
fn popgate_says_what_dovecots_own_pop3_says() {
    let Some((dovecot, popgate)) = both("servers::popgate_says_what_dovecots_own_pop3_says") else { return };
    let samples = messages::odd();
    let mut imap = dovecot.imap("alice");
    let uids: Vec<u32> = samples.iter().map(|sample| imap.append(&sample.octets)).collect();

    let mut theirs = dovecot.pop3("alice");
    let mut ours = popgate.pop3("alice", PASSWORD);
    assert_eq!(ours.command("STAT"), theirs.command("STAT"));
    assert_eq!(ours.list("LIST"), theirs.list("LIST"));
    assert_eq!(ours.list("UIDL"), theirs.list("UIDL"));

    let mut differences = Differences::default();
    for (number, (sample, uid)) in (1..).zip(samples.iter().zip(uids)) {
        for command in [format!("LIST {number}"), format!("UIDL {number}")] {
            assert_eq!(ours.command(&command), theirs.command(&command), "{}", sample.name);
        }
        let octets = ours.body(&format!("RETR {number}"));
        assert!(octets == normalised(&imap.body(uid)), "RETR of {:?} is not what IMAP shows", sample.name);
        differences.note(
            &sample.name,
            "RETR",
            &ours.wire(&format!("RETR {number}")),
            &theirs.wire(&format!("RETR {number}")),
        );
        for lines in [0, 1, 2, 7, 100_000] {
            let top = format!("TOP {number} {lines}");
            differences.note(&sample.name, &format!("TOP {lines}"), &ours.wire(&top), &theirs.wire(&top));
        }
    }
    differences.are_the_expected();
    assert!(ours.quit().starts_with("+OK"));
    popgate.stop();
}

/// Of a client that came through a proxy, so that it is not where popgate is; of one that is let in and of one that is not.
#[test]
fn dovecot_believes_where_the_client_is() {
    let Some(dovecot) = Dovecot::start("servers::dovecot_believes_where_the_client_is") else { return };
    let file = tempfile::NamedTempFile::new().unwrap();
    let configuration = format!(
        "[[listen]]\nurl = \"pop3://127.0.0.1:0\"\nproxy_protocol_from = [\"127.0.0.0/8\"]\n\
         [login]\nplaintext_from = [\"127.0.0.0/8\", \"10.0.0.0/8\"]\nfailure_delay = \"0s\"\n\
         [upstream]\nurl = \"imap://127.0.0.1:{}\"\nsend_client_address = true\n",
        dovecot.imap_port
    );
    fs::write(file.path(), configuration).unwrap();
    let popgate = Popgate::start(&["serve", "--config", file.path().to_str().unwrap()]);
    for (address, password, reply, logged) in
        [("10.1.2.3", PASSWORD, "+OK", "Login: user=<alice>"), ("10.4.5.6", "wrong", "-ERR [AUTH]", "auth failed")]
    {
        let header = format!("PROXY TCP4 {address} 127.0.0.1 40000 110\r\n");
        let mut client = Pop3::proxied(popgate.port, &header);
        let said = client.pass("alice", password);
        assert!(said.starts_with(reply), "{said}");
        client.quit();
        let told = |line: &str| line.contains(logged) && line.contains(&format!("rip={address},"));
        process::wait_until(|| dovecot.log().lines().any(told).then_some(())).expect("Dovecot knows the client");
    }
    popgate.stop();
}

/// The messages of which popgate's octets are not those of Dovecot's POP3 server, and why not. Sizes are equal: both give
/// what IMAP calls RFC822.SIZE, without the line end that RETR adds where the message has none.
const EXPECTED: [(&str, &str); 4] = [
    ("bare CR before a dot", "popgate makes it CRLF and stuffs the dot, for readers that end lines at a bare CR"),
    ("LF CR", "the same: its second LF CR stands before a dot"),
    ("final CRs", "popgate completes the last CR to CRLF, Dovecot adds CRLF after it"),
    ("dot as first octet", "Dovecot does not stuff the first octet of a message, and its clients lose it"),
];

/// The differences that were found.
#[derive(Default)]
struct Differences(Vec<(String, String)>);

impl Differences {
    fn note(&mut self, sample: &str, command: &str, ours: &[u8], theirs: &[u8]) {
        if ours != theirs {
            let at = ours.iter().zip(theirs).take_while(|(ours, theirs)| ours == theirs).count();
            let tail = |octets: &[u8]| octets[at..octets.len().min(at + 40)].escape_ascii().to_string();
            let shown = format!("{command}: from octet {at} ours {:?}, theirs {:?}", tail(ours), tail(theirs));
            self.0.push((sample.to_owned(), shown));
        }
    }

    /// Fails where a difference has no reason in the list, and where the list is out of date.
    fn are_the_expected(&self) {
        let expected = |sample: &str| EXPECTED.iter().any(|(name, _)| *name == sample);
        let unexpected: Vec<_> = self.0.iter().filter(|(sample, _)| !expected(sample)).collect();
        assert!(unexpected.is_empty(), "unexpected differences: {unexpected:#?}");
        for (name, reason) in EXPECTED {
            assert!(self.0.iter().any(|(sample, _)| sample == name), "{name:?} does not differ, though: {reason}");
        }
    }
}

#[test]
fn log_in_is_decided_by_dovecot() {
    let Some((dovecot, popgate)) = both("servers::log_in_is_decided_by_dovecot") else { return };
    dovecot.imap("alice").append(b"Subject: one\r\n\r\n");
    let mut pop3 = popgate.pop3("alice", PASSWORD);
    assert_eq!(pop3.command("STAT"), "+OK 1 16");
    assert!(pop3.quit().starts_with("+OK"));

    let mut pop3 = Pop3::connect(popgate.port);
    for (user, password) in [("alice", "wrong"), ("nobody", PASSWORD)] {
        let reply = pop3.pass(user, password);
        assert!(reply.starts_with("-ERR [AUTH] "), "{reply}");
    }
    let reply = pop3.pass("alice", PASSWORD);
    assert!(reply.starts_with("+OK"), "{reply}");
    popgate.stop();
}

#[test]
fn a_stopped_dovecot_is_trouble_that_passes() {
    let Some((dovecot, popgate)) = both("servers::a_stopped_dovecot_is_trouble_that_passes") else { return };
    dovecot.imap("alice").append(b"Subject: one\r\n\r\n");
    let mut before = popgate.pop3("alice", PASSWORD);
    drop(dovecot);

    let reply = Pop3::connect(popgate.port).pass("alice", PASSWORD);
    assert!(reply.starts_with("-ERR [SYS/TEMP] "), "{reply}");
    // What was listed stays listed; what needs the server is refused, and a deletion is not promised away.
    assert_eq!(before.command("STAT"), "+OK 1 16");
    let reply = before.command("RETR 1");
    assert!(reply.starts_with("-ERR [SYS/TEMP] "), "{reply}");
    popgate.stop();
}

#[test]
fn tls_to_dovecot_needs_a_certificate_that_is_trusted() {
    let Some(dovecot) = Dovecot::start("servers::tls_to_dovecot_needs_a_certificate_that_is_trusted") else { return };
    dovecot.imap("alice").append(b"Subject: one\r\n\r\n");
    let ca = dovecot.ca();
    let ca = ca.to_str().unwrap();
    let Dovecot { imap_port, imaps_port, .. } = dovecot;
    for url in [
        format!("imaps://localhost:{imaps_port}"),
        format!("imaps://127.0.0.1:{imaps_port}"),
        format!("imap+starttls://localhost:{imap_port}"),
    ] {
        let trusting = Popgate::serve(&url, &["--upstream-ca", ca]);
        assert_eq!(trusting.pop3("alice", PASSWORD).command("STAT"), "+OK 1 16", "{url}");
        trusting.stop();

        let untrusting = Popgate::serve(&url, &[]);
        let reply = Pop3::connect(untrusting.port).pass("alice", PASSWORD);
        assert!(reply.starts_with("-ERR [SYS/PERM] "), "{url}: {reply}");
        untrusting.stop();
    }
}

#[test]
fn quit_deletes_what_was_marked_and_nothing_else() {
    let Some((dovecot, popgate)) = both("servers::quit_deletes_what_was_marked_and_nothing_else") else { return };
    let mut imap = dovecot.imap("alice");
    let messages: Vec<Vec<u8>> = (1..=6).map(|n| messages::ordinary(&format!("number {n}"), n)).collect();
    let uids: Vec<u32> = messages.iter().map(|message| imap.append(message)).collect();
    // Another client has flagged the second and the fourth, and has not expunged them.
    imap.command(&format!("UID STORE {},{} +FLAGS.SILENT (\\Deleted)", uids[1], uids[3]));

    let mut pop3 = popgate.pop3("alice", PASSWORD);
    for number in [1, 3, 5] {
        assert_eq!(pop3.body(&format!("RETR {number}")), messages[number - 1]);
    }
    pop3.wire("TOP 6 1000");
    for number in [1, 4, 5] {
        assert!(pop3.command(&format!("DELE {number}")).starts_with("+OK"));
    }
    // What arrives meanwhile is no part of this session.
    let late = imap.append(b"Subject: late\r\n\r\n");
    assert!(pop3.quit().starts_with("+OK"));

    assert_eq!(imap.search("ALL"), [uids[1], uids[2], uids[5], late]);
    assert_eq!(imap.search("DELETED"), [uids[1]]);
    assert_eq!(imap.search("SEEN"), [uids[2]], "RETR flags, TOP does not");
    popgate.stop();
}

#[test]
fn without_quit_nothing_is_deleted() {
    let Some((dovecot, popgate)) = both("servers::without_quit_nothing_is_deleted") else { return };
    let mut imap = dovecot.imap("alice");
    for _ in 0..3 {
        imap.append(b"Subject: one\r\n\r\n");
    }
    let mut pop3 = popgate.pop3("alice", PASSWORD);
    assert!(pop3.command("DELE 1").starts_with("+OK"));
    drop(pop3);
    let mut pop3 = popgate.pop3("alice", PASSWORD);
    assert!(pop3.command("DELE 2").starts_with("+OK"));
    assert!(pop3.command("RSET").starts_with("+OK"));
    assert!(pop3.quit().starts_with("+OK"));
    let mut pop3 = popgate.pop3("alice", PASSWORD);
    assert!(pop3.command("DELE 3").starts_with("+OK"));
    // Stopping popgate ends the session without UPDATE too.
    popgate.stop();

    assert_eq!(imap.search("ALL"), [1, 2, 3]);
    assert!(imap.search("DELETED").is_empty());
}

#[test]
fn what_another_client_removes_stays_in_the_listing() {
    let Some((dovecot, popgate)) = both("servers::what_another_client_removes_stays_in_the_listing") else { return };
    let mut imap = dovecot.imap("alice");
    for _ in 0..3 {
        imap.append(b"Subject: one\r\n\r\n");
    }
    let mut older = popgate.pop3("alice", PASSWORD);
    let mut newer = popgate.pop3("alice", PASSWORD);
    assert!(newer.command("DELE 1").starts_with("+OK"));
    assert!(newer.quit().starts_with("+OK"));

    assert_eq!(older.command("STAT"), "+OK 3 48");
    assert_eq!(older.command("RETR 1"), "-ERR message 1 has been removed by another client");

    assert_eq!(older.body("RETR 3"), b"Subject: one\r\n\r\n");
    assert!(older.command("DELE 1").starts_with("+OK"));
    assert!(older.command("DELE 2").starts_with("+OK"));
    assert!(older.quit().starts_with("+OK"));
    assert_eq!(imap.search("ALL"), [3]);
    popgate.stop();
}

#[test]
fn the_log_names_the_session_and_no_secret() {
    let Some(dovecot) = Dovecot::start("servers::the_log_names_the_session_and_no_secret") else { return };
    dovecot.imap("alice").append(b"Subject: confidential\r\n\r\nclassified\r\n");
    for format in ["log.format=text", "log.format=json"] {
        let upstream = format!("imap+starttls://localhost:{}", dovecot.imap_port);
        let ca = dovecot.ca();
        let arguments = ["--upstream-ca", ca.to_str().unwrap(), "--set", "log.level=trace", "--set", format];
        let popgate = Popgate::serve(&upstream, &[&arguments[..], &AT_ONCE].concat());
        let mut pop3 = Pop3::connect(popgate.port);
        pop3.pass("alice", "wrong-password");
        // AUTH PLAIN with its response on a line of its own: NUL alice NUL open sesame.
        assert_eq!(pop3.command("AUTH PLAIN"), "+ ");
        assert!(pop3.command("AGFsaWNlAG9wZW4gc2VzYW1l").starts_with("+OK"));
        pop3.wire("RETR 1");
        pop3.wire("TOP 1 1");
        assert!(pop3.quit().starts_with("+OK"));
        let log = popgate.stop();
        assert!(log.contains("alice"), "the log does not name the user:\n{log}");
        for secret in [PASSWORD, "sesame", "wrong-password", "AGFsaWNl", "c2VzYW1l", "confidential", "classified"] {
            assert!(!log.contains(secret), "{secret:?} is in the log:\n{log}");
        }
    }
}
