//! The administrator's port of the program itself. Only these show that it tells of the end before the end begins, and that
//! nothing that is done to it reaches a POP3 session.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    process::Command,
};

use crate::support::{
    script::Manner,
    serve::{Popgate, scripted},
};

const ADMIN: [&str; 2] = ["--set", "admin.listen=127.0.0.1:0"];

/// While clients may still come, since not all who send them here know yet.
#[test]
fn readiness_ends_before_anything_else_does() {
    let (_server, url) = scripted(Manner::default());
    let grace = ["--set", "drain.deadline=1h", "--set", "drain.accept_grace=59m"];
    let popgate = Popgate::serve(&url, &[&ADMIN[..], &grace].concat());
    let ready = format!("http://127.0.0.1:{}/readyz", popgate.admin_port());
    assert_eq!(probe(&ready), (0, "HTTP/1.1 200 OK\n".to_owned()));
    assert_eq!(ask(popgate.admin_port(), "/healthz"), (200, "alive\n".to_owned()));
    popgate.signal("TERM");
    popgate.wait_for("connections are still taken");
    let (code, said) = probe(&ready);
    assert!(code == 1 && said.contains("\"HTTP/1.1 503 Service Unavailable\""), "{said}");
    assert_eq!(ask(popgate.admin_port(), "/readyz"), (503, "stopping\n".to_owned()));
    assert_eq!(ask(popgate.admin_port(), "/healthz"), (200, "alive\n".to_owned()));
    let mut session = popgate.pop3("tim", "sec ret");
    assert!(!session.body("RETR 1").is_empty());
    assert!(session.quit().starts_with("+OK"));
    popgate.stop();
}

/// It is a port like the others: who cannot have it does not start.
#[test]
fn a_port_in_use_is_a_wrong_configuration() {
    let (_server, url) = scripted(Manner::default());
    let popgate = Popgate::serve(&url, &ADMIN);
    let taken = format!("127.0.0.1:{}", popgate.admin_port());
    let output = Command::new(env!("CARGO_BIN_EXE_popgate"))
        .args(["serve", "--upstream", &url, "--set", &format!("admin.listen={taken}")])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains(&format!("popgate: cannot listen on {taken}: ")), "{text}");
    popgate.stop();
}

/// T50. Many who say nothing, one who never ends, and some who speak otherwise.
#[test]
fn whatever_comes_here_costs_sessions_nothing() {
    let (_server, url) = scripted(Manner::default());
    let popgate = Popgate::serve(&url, &ADMIN);
    let mut session = popgate.pop3("tim", "sec ret");
    let guest = || TcpStream::connect((Ipv4Addr::LOCALHOST, popgate.admin_port())).unwrap();

    // Those who came first have had to go, and whoever asks is answered.
    let mut idle: Vec<_> = (0..200).map(|_| guest()).collect();
    assert_eq!(ask(popgate.admin_port(), "/readyz").0, 200);
    for line in &mut idle[..100] {
        assert_eq!(line.read(&mut [0]).unwrap_or_default(), 0);
    }

    let mut endless = guest();
    let ended = (0..100_000).find_map(|_| endless.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n").err());
    assert!(ended.is_some(), "popgate would read for ever");
    for garbage in [
        &b"\x16\x03\x01\0\xff\xff\xff\r\n\r\n"[..],
        b"USER tim\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\n\r\n",
        b"CONNECT example.com:993 HTTP/1.1\r\n\r\n",
        b"POST /readyz HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\nx",
        b"POST /readyz HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    ] {
        let mut line = guest();
        line.write_all(garbage).unwrap();
        let said = read(&mut line).unwrap_or_default();
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{}: {said}", garbage.escape_ascii());
    }

    assert!(!session.body("RETR 1").is_empty());
    assert!(session.quit().starts_with("+OK"));
    assert!(popgate.pop3("tim", "sec ret").quit().starts_with("+OK"));
    let log = popgate.stop();
    assert!(!log.contains("panic"), "{log}");
}

/// The status and the text that GET gives for a path.
fn ask(port: u16, path: &str) -> (u16, String) {
    let mut line = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    line.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
    let answer = read(&mut line).unwrap();
    let (head, text) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.strip_prefix("HTTP/1.1 ").unwrap().split(' ').next().unwrap();
    (status.parse().unwrap(), text.to_owned())
}

/// All that comes until the other end closes the line.
fn read(line: &mut TcpStream) -> io::Result<String> {
    let mut all = String::new();
    line.read_to_string(&mut all).map(|_| all)
}

/// `popgate probe`: its exit code and what it said.
fn probe(url: &str) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_popgate")).args(["probe", url]).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}
