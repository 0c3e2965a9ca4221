//! The demonstration, run as a newcomer runs it. Only here would show that the first thing people try is broken. The unit
//! tests of its parts run here as well.

use std::{
    net::TcpListener,
    process::{Command, Output},
};

#[path = "../examples/demo/dialogue.rs"]
#[allow(dead_code, reason = "the demonstration uses the rest")]
mod dialogue;
#[path = "../examples/demo/tap.rs"]
#[allow(dead_code, reason = "the demonstration uses the rest")]
mod tap;
#[path = "../examples/demo/terminal.rs"]
mod terminal;
#[path = "../examples/demo/verdict.rs"]
mod verdict;

/// Runs it by the cargo and in the profile that have built this test.
fn demo(listen: &str) -> Output {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(["run", "--quiet", "--offline", "--example", "demo"]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    cargo.args(["--", "--once", "--listen", listen]).env("COLUMNS", WIDTH.to_string()).output().unwrap()
}

#[test]
fn the_demonstration_shows_both_dialogues_and_every_message_comes_back() {
    let output = demo("127.0.0.1:0");
    let errors = String::from_utf8(output.stderr).unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{errors}\n{shown}");

    let rows: Vec<_> = shown.lines().filter_map(|row| row.split_once('│')).collect();
    for (pop3, imap) in [
        ("← +OK", ""),
        ("→ PASS ••••••••", ""),
        ("", "AUTHENTICATE PLAIN ••••••••"),
        ("→ RETR 1", ""),
        ("", "UID FETCH 301 (BODY.PEEK[])"),
        ("→ QUIT", ""),
        ("", "UID EXPUNGE"),
    ] {
        assert!(rows.iter().any(|row| row.0.contains(pop3) && row.1.contains(imap)), "{pop3} {imap}\n{shown}");
    }
    assert!(!shown.contains("secret") && !shown.contains('\x1b'), "{shown}");
    assert!(shown.lines().all(|row| row.chars().count() <= WIDTH), "{shown}");
}

#[test]
fn a_port_in_use_is_told_plainly() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap().to_string();
    let output = demo(&address);
    assert_eq!(output.status.code(), Some(1));
    let sentence = format!("demo: {address} is in use; choose another port, as in --listen 127.0.0.1:2110\n");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), sentence);
}

const WIDTH: usize = 90;
