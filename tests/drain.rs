//! How the program ends. Only these show what a signal does to sessions in every state, and that changes which were begun
//! are finished and answered.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use crate::support::{
    pop3::Pop3,
    script::{Manner, Server, What},
    serve::Popgate,
    tls::identity,
};

#[test]
fn sessions_that_wait_for_their_client_end_without_a_word() {
    let (server, url) = serve(Manner::default());
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
    let (_server, url) = serve(Manner::default());
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
    for signals in [1, 2] {
        let (reached, blocked, go_on) = gate();
        let (server, url) = serve(Manner::default().deviating("UID EXPUNGE", 1, blocked));
        let popgate = Popgate::serve(&url, &[]);
        let mut session = popgate.pop3("tim", "sec ret");
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

/// The scripted server on a port of 127.0.0.1, each of its connections on a thread, and its URL.
fn serve(manner: Manner) -> (Server, String) {
    let server = Server::fixture(manner);
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("imap://{}", port.local_addr().unwrap());
    let serving = server.clone();
    thread::spawn(move || {
        for line in port.incoming().map_while(Result::ok) {
            let server = serving.clone();
            thread::spawn(move || {
                line.set_nonblocking(true).unwrap();
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async { server.serve(tokio::net::TcpStream::from_std(line).unwrap()).await })
            });
        }
    });
    (server, url)
}
