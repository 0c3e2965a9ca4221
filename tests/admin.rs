//! The administrator's port of the program itself. Only these show that it tells of the end before the end begins, and that
//! nothing that is done to it reaches a POP3 session.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::Command,
};

use crate::support::{
    http,
    pop3::Pop3,
    process,
    script::{Manner, What},
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
    assert_eq!(http::get(popgate.admin_port(), "/healthz"), (200, "alive\n".to_owned()));
    popgate.signal("TERM");
    popgate.wait_for("connections are still taken");
    let (code, said) = probe(&ready);
    assert!(code == 1 && said.contains("\"HTTP/1.1 503 Service Unavailable\""), "{said}");
    assert_eq!(http::get(popgate.admin_port(), "/readyz"), (503, "stopping\n".to_owned()));
    assert_eq!(http::get(popgate.admin_port(), "/healthz"), (200, "alive\n".to_owned()));
    assert_eq!(http::metrics(popgate.admin_port())["popgate_draining"], 1);
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
    assert_eq!(http::get(popgate.admin_port(), "/readyz").0, 200);
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
        let said = http::all(&mut line).unwrap_or_default();
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{}: {said}", garbage.escape_ascii());
    }

    assert!(!session.body("RETR 1").is_empty());
    assert!(session.quit().starts_with("+OK"));
    assert!(popgate.pop3("tim", "sec ret").quit().starts_with("+OK"));
    let log = popgate.stop();
    assert!(!log.contains("panic"), "{log}");
}

/// A session counts what it did and nothing else, and a reload forgets nothing.
#[test]
fn what_a_session_does_is_counted() {
    let refused = What::No("[SERVERBUG] not now".into());
    let (_server, url) = scripted(Manner::default().deviating(r"UID STORE 5 +FLAGS.SILENT (\Deleted", 0, refused));
    let popgate = Popgate::serve(&url, &ADMIN);
    let new = http::metrics(popgate.admin_port());
    assert!(new.values().all(|value| *value == 0) && new.len() > 20, "{new:?}");

    let mut session = popgate.pop3("tim", "sec ret");
    let retrieved = session.body("RETR 1").len() as u64;
    let top = session.body("TOP 2 0").len() as u64;
    assert_eq!(
        changed(&new, &popgate),
        [
            ("popgate_listing_cache_lookups_total{result=\"miss\"}", 1),
            ("popgate_logins_total{outcome=\"ok\"}", 1),
            ("popgate_messages_sent_bytes_total{command=\"retr\"}", retrieved),
            ("popgate_messages_sent_bytes_total{command=\"top\"}", top),
            ("popgate_messages_sent_total{command=\"retr\"}", 1),
            ("popgate_messages_sent_total{command=\"top\"}", 1),
            ("popgate_sessions_accepted_total", 1),
            ("popgate_sessions_open", 1),
            ("popgate_upstream_connections_open", 1),
            ("popgate_upstream_connections_opened_total", 1),
        ]
        .map(|(name, value)| (name.to_owned(), value))
    );
    let before = http::metrics(popgate.admin_port());
    assert!(session.command("DELE 2").starts_with("+OK"));
    assert!(session.quit().starts_with("+OK"));
    let removed =
        [("popgate_messages_removed_total", 1), ("popgate_sessions_open", 0), ("popgate_warm_lines_parked", 1)];
    settled(&popgate);
    assert_eq!(changed(&before, &popgate), removed.map(|(name, value)| (name.to_owned(), value)));

    popgate.signal("HUP");
    popgate.wait_for("server: reloaded");
    let before = http::metrics(popgate.admin_port());
    assert_eq!(before["popgate_messages_removed_total"], 1);
    // The line of before the reload waits for the routes of before the reload.
    let mut session = popgate.pop3("tim", "sec ret");
    assert!(session.command("DELE 1").starts_with("+OK"));
    assert!(session.quit().starts_with("-ERR"));
    settled(&popgate);
    let after = http::metrics(popgate.admin_port());
    assert_eq!(after["popgate_removals_unconfirmed_total"], 1);
    assert_eq!(after["popgate_messages_removed_total"], 1);
    assert_eq!(after["popgate_listing_cache_lookups_total{result=\"memory\"}"], 1);
    popgate.stop();
}

/// Whoever is turned away is, and by what.
#[test]
fn who_does_not_come_in_is_counted() {
    let (_server, url) = scripted(Manner::default());
    let limits = ["limits.sessions=3", "limits.sessions_per_address=1", "limits.sessions_per_user=1"];
    let settings = limits.into_iter().chain(["login.failure_delay=0s", "upstream.warm_ttl=0s"]);
    let settings: Vec<_> = settings.flat_map(|setting| ["--set", setting]).collect();
    let popgate = Popgate::serve(&url, &[&ADMIN[..], &settings].concat());
    let before = http::metrics(popgate.admin_port());
    let first = popgate.pop3("tim", "sec ret");
    let mut second = Pop3::connect(popgate.port);
    assert!(second.pass("tim", "sec ret").starts_with("-ERR [SYS/TEMP]"));
    assert!(second.pass("tim", "wrong").starts_with("-ERR [AUTH]"));
    // It has not logged in, and there is one place for those who have not.
    assert!(greeting(popgate.port).starts_with("-ERR [SYS/TEMP]"));
    drop(second);
    process::wait_until(|| (http::metrics(popgate.admin_port())["popgate_sessions_open"] == 1).then_some(())).unwrap();
    assert!(first.quit().starts_with("+OK"));
    settled(&popgate);
    assert_eq!(
        changed(&before, &popgate),
        [
            ("popgate_listing_cache_lookups_total{result=\"miss\"}", 1),
            ("popgate_logins_total{outcome=\"denied\"}", 1),
            ("popgate_logins_total{outcome=\"ok\"}", 1),
            ("popgate_logins_total{outcome=\"passing\"}", 1),
            ("popgate_sessions_accepted_total", 3),
            ("popgate_sessions_turned_away_total{reason=\"address\"}", 1),
            ("popgate_sessions_turned_away_total{reason=\"user\"}", 1),
            ("popgate_upstream_connections_opened_total", 2),
        ]
        .map(|(name, value)| (name.to_owned(), value))
    );
    popgate.stop();

    let popgate = Popgate::serve(&url, &[&ADMIN[..], &["--set", "limits.sessions=1"]].concat());
    let _only = Pop3::connect(popgate.port);
    assert!(greeting(popgate.port).starts_with("-ERR [SYS/TEMP]"));
    let counted = http::metrics(popgate.admin_port());
    assert_eq!(counted["popgate_sessions_turned_away_total{reason=\"full\"}"], 1);
    assert_eq!((counted["popgate_sessions_open"], counted["popgate_sessions_accepted_total"]), (1, 1));
    popgate.stop();
}

/// Five failures in a row open the breaker; then nothing fails that is not tried.
#[test]
fn a_server_that_is_down_is_seen() {
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let popgate = Popgate::serve(&format!("imap://{nobody}"), &ADMIN);
    let before = http::metrics(popgate.admin_port());
    for _ in 0..5 {
        assert!(Pop3::connect(popgate.port).pass("tim", "sec ret").starts_with("-ERR [SYS/TEMP]"));
    }
    settled(&popgate);
    assert_eq!(
        changed(&before, &popgate),
        [
            ("popgate_logins_total{outcome=\"passing\"}", 5),
            ("popgate_sessions_accepted_total", 5),
            ("popgate_upstream_breakers_open", 1),
            ("popgate_upstream_connections_failed_total", 5),
        ]
        .map(|(name, value)| (name.to_owned(), value))
    );
    assert_eq!(http::get(popgate.admin_port(), "/readyz").0, 200);
    popgate.stop();
}

/// The numbers that are not what they were, sorted by name.
fn changed(before: &BTreeMap<String, u64>, popgate: &Popgate) -> Vec<(String, u64)> {
    let now = http::metrics(popgate.admin_port());
    assert!(now.keys().eq(before.keys()), "{now:?}");
    now.into_iter().filter(|(name, value)| before[name] != *value).collect()
}

/// Waits until all sessions are gone.
fn settled(popgate: &Popgate) {
    let open = || http::metrics(popgate.admin_port())["popgate_sessions_open"];
    process::wait_until(|| (open() == 0).then_some(())).expect("a session should be over");
}

/// The first words on a new line.
fn greeting(port: u16) -> String {
    http::all(&mut TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap()).unwrap()
}

/// `popgate probe`: its exit code and what it said.
fn probe(url: &str) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_popgate")).args(["probe", url]).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}
