//! `popgate probe` as a container runs it: against popgate itself, against nobody, and against what is no mail server.
//! Catches a health check that calls the dead alive, or kills the living.

use std::{
    io::Write as _,
    net::{TcpListener, TcpStream},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::support::{pop3::Pop3, serve::Popgate, tls::identity};

#[test]
fn popgate_itself_is_alive() {
    let plain = Popgate::serve("imap://127.0.0.1:9", &[]);
    probe(&format!("pop3://127.0.0.1:{}", plain.port), 0, "+OK ", "");

    // The certificate bears another name, and nobody has vouched for it.
    let [certificate, key] = [&identity().certificate, &identity().key].map(|path| path.to_str().unwrap());
    let tls = ["--set", &format!("tls.certificate={certificate}"), "--set", &format!("tls.key={key}")];
    let port = free_port();
    let listen = format!("pop3s://127.0.0.1:{port}");
    let listeners =
        ["serve", "--upstream", "imap://127.0.0.1:9", "--listen", "pop3://127.0.0.1:0", "--listen", &listen];
    let _both = Popgate::start(&[&listeners[..], &tls].concat());
    probe(&listen, 0, "+OK ", "");
    probe(&listen.replace("127.0.0.1", "localhost"), 0, "+OK ", "");
    probe(&format!("pop3://127.0.0.1:{port}"), 1, "", "");
    probe(&format!("pop3s://127.0.0.1:{}", plain.port), 1, "", "no TLS: ");
}

/// F42: load balancers and watchdogs come every few seconds and leave as they like. The log is about those who want mail.
#[test]
fn who_only_looks_is_not_in_the_log() {
    // As it is logged where nobody has asked for more.
    let popgate = Popgate::serve("imap://127.0.0.1:9", &["--set", "log.level=info"]);
    let connect = || TcpStream::connect(("127.0.0.1", popgate.port)).unwrap();
    drop(connect());
    // The greeting lies unread: that resets the line.
    let unread = connect();
    unread.peek(&mut [0]).unwrap();
    drop(unread);
    probe(&format!("pop3://127.0.0.1:{}", popgate.port), 0, "+OK ", "");
    Pop3::connect(popgate.port).pass("tim", "sec ret");
    // That would-be user wants help.
    let refused = Pop3::connect(popgate.port).command("PASS sec ret");
    assert!(refused.starts_with("-ERR"), "{refused}");
    let log = popgate.stop();
    let about_sessions: Vec<_> = log.lines().filter(|line| line.contains("session{")).collect();
    let ended = about_sessions.iter().filter(|line| line.contains("session ended")).count();
    assert_eq!((ended, about_sessions.len()), (2, 3), "{log}");
}

#[test]
fn a_closed_port_is_not_alive() {
    for scheme in ["pop3", "pop3s", "http"] {
        probe(&format!("{scheme}://127.0.0.1:{}", free_port()), 1, "", "Connection refused");
    }
}

/// What somebody says who is connected to, and what is made of it.
#[test]
fn what_answers_is_judged_by_its_first_line() {
    for (scheme, says, code, standard_output, standard_error) in [
        ("pop3", "+OK ready\r\n+OK bye\r\n", 0, "+OK ready\n", ""),
        ("pop3", "-ERR [SYS/TEMP] full\r\n", 1, "", "the answer was \"-ERR [SYS/TEMP] full\""),
        ("pop3", "220 mail.example.com ESMTP\r\n", 1, "", "the answer was \"220 mail.example.com ESMTP\""),
        ("pop3", "+OK ready\r\n-ERR what?\r\n", 1, "", "the answer was \"-ERR what?\""),
        ("pop3", "+OK ready\r\n", 1, "", "end of file"),
        ("pop3", "", 1, "", "end of file"),
        ("http", "HTTP/1.1 200 OK\r\n\r\nfine", 0, "HTTP/1.1 200 OK\n", ""),
        (
            "http",
            "HTTP/1.1 503 Service Unavailable\r\n\r\n",
            1,
            "",
            "the answer was \"HTTP/1.1 503 Service Unavailable\"",
        ),
        ("http", "+OK ready\r\n", 1, "", "the answer was \"+OK ready\""),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // The client may have heard enough.
            let _ = stream.write_all(says.as_bytes());
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        });
        probe(&url, code, standard_output, standard_error);
        server.join().unwrap();
    }
}

#[test]
fn silence_is_not_waited_for_long() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("pop3://{}", listener.local_addr().unwrap());
    let begun = Instant::now();
    probe(&url, 1, "", "no answer within 5s");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[test]
fn what_is_no_url_is_wrong_usage() {
    for url in ["localhost:110", "imaps://localhost", "pop3://localhost/", "pop3://user:sesame@localhost", ""] {
        probe(url, 2, "", "allowed: pop3://HOST[:110], pop3s://HOST[:995], http://HOST[:80][/PATH]");
    }
}

fn probe(url: &str, code: i32, standard_output: &str, standard_error: &str) {
    let output = Command::new(env!("CARGO_BIN_EXE_popgate")).args(["probe", url]).output().unwrap();
    let [out, error] = [output.stdout, output.stderr].map(|octets| String::from_utf8(octets).unwrap());
    assert_eq!(output.status.code(), Some(code), "{url}: {out}{error}");
    assert!(out.starts_with(standard_output) && error.contains(standard_error), "{url}: {out}{error}");
    assert!(code != 1 || error.starts_with(&format!("popgate: {url}: ")), "{url}: {error}");
}

/// A port on which nobody listened a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    assert!(TcpStream::connect(address).is_err());
    address.port()
}
