//! How the program ends. Only these show what a signal does to sessions in every state, and that changes which were begun
//! are finished and answered.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
};

use crate::support::{
    pop3::Pop3,
    process,
    script::{Content, Manner, What},
    serve::{Popgate, scripted},
    tls::identity,
};

#[test]
fn sessions_that_wait_for_their_client_end_without_a_word() {
    let (server, url) = scripted(Manner::default());
    let popgate = Popgate::serve(&url, &[]);
    let mut before_login = Pop3::connect(popgate.port);
    let mut after_login = popgate.pop3("tim", "sec ret");
    assert!(after_login.command("DELE 1").starts_with("+OK"));
    let port = popgate.port;
    let log = popgate.stop();
    for session in [&mut before_login, &mut after_login] {
        let mut said = String::new();
        session.line().read_to_string(&mut said).unwrap();
        assert_eq!(said, "");
    }
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
    assert!(log.contains("stopped"), "{log}");
    assert_eq!(server.with("tim", "INBOX", |inbox| inbox.messages.len()), 3);
}

/// A handshake that never comes is nobody's session.
#[test]
fn a_stalled_handshake_holds_nothing_up() {
    let identity = identity();
    let (certificate, key) = (identity.certificate.display(), identity.key.display());
    let (_server, url) = scripted(Manner::default());
    let files = [format!("tls.certificate={certificate}"), format!("tls.key={key}")];
    let arguments = ["--listen", "pop3s://127.0.0.1:0", "--set", &files[0], "--set", &files[1]];
    let popgate = Popgate::serve(&url, &arguments);
    let log = popgate.wait_for("ready");
    let (_, port) = log.split_once("pop3s://127.0.0.1:").unwrap();
    let port: u16 = port.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap();
    let mut line = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    line.write_all(b"\x16\x03\x01").unwrap();
    let log = popgate.stop();
    assert!(!log.contains("broken off"), "{log}");
}

/// F-27: whoever said QUIT and was heard is told what became of it, however many signals come meanwhile.
#[test]
fn an_update_is_finished_and_answered() {
    for (signals, reload) in [(1, false), (2, false), (1, true), (2, true)] {
        let (reached, blocked, go_on) = gate();
        let (server, url) = scripted(Manner::default().deviating("UID EXPUNGE", 1, blocked));
        let popgate = Popgate::serve(&url, &[]);
        let mut session = popgate.pop3("tim", "sec ret");
        if reload {
            popgate.signal("HUP");
            popgate.wait_for("reloaded");
        }
        // What it has begun when the second signal comes is broken off, if it is no update.
        let mut idle = popgate.pop3("tim", "sec ret");
        assert!(session.command("DELE 2").starts_with("+OK"));
        session.line().get_mut().write_all(b"QUIT\r\n").unwrap();
        reached.recv().unwrap();
        popgate.signal("TERM");
        let mut said = String::new();
        idle.line().read_to_string(&mut said).unwrap();
        assert_eq!(said, "");
        if signals == 2 {
            popgate.signal("INT");
            popgate.wait_for("broken off");
        }
        go_on.send(()).unwrap();
        session.line().read_to_string(&mut said).unwrap();
        assert!(said.starts_with("+OK") && said.ends_with("\r\n"), "{signals}: {said}");
        popgate.stop();
        assert_eq!(server.with("tim", "INBOX", |inbox| inbox.messages.len()), 2, "{signals}");
    }
}

/// Where clients are sent here for a while after the signal, they are served as ever.
#[test]
fn connections_are_taken_for_the_grace() {
    let (_server, url) = scripted(Manner::default());
    let popgate = Popgate::serve(&url, &["--set", "drain.deadline=1h", "--set", "drain.accept_grace=59m"]);
    let mut before = popgate.pop3("tim", "sec ret");
    popgate.signal("TERM");
    popgate.wait_for("connections are still taken");
    let mut meanwhile = popgate.pop3("tim", "sec ret");
    for session in [&mut before, &mut meanwhile] {
        assert!(!session.body("RETR 1").is_empty());
    }
    assert!(meanwhile.quit().starts_with("+OK"));
    // Nobody need wait who does not want to.
    popgate.stop();
    let popgate = Popgate::serve(&url, &["--set", "drain.accept_grace=1ms"]);
    let log = popgate.stop();
    assert!(log.contains("connections are still taken") && !log.contains("broken off"), "{log}");
}

/// F-01: a message that is on its way arrives whole, or as half of one that nobody can take for a whole one.
#[test]
fn a_message_has_until_the_deadline() {
    let (server, url) = scripted(Manner::default());
    server.with("tim", "INBOX", |inbox| inbox.deliver(Content::Filler(16_000_000)));
    for deadline in ["25s", "50ms"] {
        let popgate = Popgate::serve(&url, &["--set", &format!("drain.deadline={deadline}")]);
        let (port, in_time) = (popgate.port, deadline == "25s");
        let mut session = popgate.pop3("tim", "sec ret");
        assert!(session.command("RETR 4").starts_with("+OK"));
        popgate.signal("TERM");
        popgate.wait_for("asked to end");
        // Nobody waits in a queue that is never looked at.
        process::wait_until(|| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err().then_some(())).unwrap();
        if !in_time {
            popgate.wait_for("broken off");
        }
        let mut message = Vec::new();
        let end = session.line().read_to_end(&mut message);
        assert_eq!(message.ends_with(b"\r\n.\r\n"), in_time, "{deadline}: {end:?}, {} octets", message.len());
        popgate.stop();
    }
}

/// A deviation that tells when it is reached, and then waits until it may go on.
fn gate() -> (Receiver<()>, What, Sender<()>) {
    let ((reach, reached), (go_on, wait)) = (channel(), channel());
    let wait = Mutex::new(wait);
    let blocked = What::Act(Arc::new(move |_| {
        reach.send(()).unwrap();
        wait.lock().unwrap().recv().unwrap();
    }));
    (reached, blocked, go_on)
}
