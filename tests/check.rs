//! `popgate check` as an administrator runs it, against scripted servers of every kind and a real Dovecot. Catches words
//! that are not what popgate then does, and a look at a mailbox that leaves traces in it.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Output},
    sync::mpsc,
    thread,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    dovecot::{Dovecot, PASSWORD},
    script::{Account, Mailbox, Manner, Server, What},
};

#[test]
fn the_table() {
    let server = Server::fixture(Manner::default());
    server.with("tim", "INBOX", |inbox| {
        for _ in 0..5 {
            inbox.deliver(inbox.messages[0].content.clone());
        }
    });
    let url = listen(&server);
    let directory = passwords();
    fs::write(directory.path().join("popgate.toml"), "[maildrop]\nuidl = \"courier\"\n").unwrap();
    let output =
        check(&directory, &["--config", "popgate.toml", "--upstream", &url, "--user", "tim", "--password-file", "tim"]);
    let port = url.rsplit(':').next().unwrap();
    let expected = include_str!("check/table.txt").replace("PPPPP", &format!("{port:<5}"));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "progress is for terminals");
    assert_eq!(output.status.code(), Some(0));
    is_untouched(&server, "the table");
}

#[test]
fn what_is_said_of_servers_of_every_kind() {
    let manner = Manner::default;
    let before = |before: &str| Manner { before: before.into(), ..manner() };
    let gmail = |capabilities: &str| Manner { after: format!("IMAP4rev1 X-GM-EXT-1 {capabilities}"), ..manner() };
    let no_size = |uid| {
        let all = b"* 1 FETCH (UID 5 RFC822.SIZE 120)\r\n* 3 FETCH (UID 9 RFC822.SIZE 300)\r\n$ OK done\r\n".to_vec();
        let nothing = What::Say(b"$ NO cannot be read\r\n".to_vec());
        manner().deviating("UID FETCH 1:*", 0, What::Say(all)).deviating(&format!("UID FETCH {uid}"), 0, nothing)
    };
    let on_delete = |what: &str| ["--set".to_owned(), format!("maildrop.on_delete={what}")];
    let telling = ["--set".to_owned(), "upstream.send_client_address=true".to_owned()];
    for (name, manner, arguments, code, expected) in [
        (
            "good",
            manner(),
            vec![],
            0,
            &[
                "AUTHENTICATE PLAIN with the first response on the same line",
                r"UID STORE \Deleted, UID EXPUNGE, then a count of what is left",
                "QUIT removes the message from the server",
                "result: clients can work\n",
            ][..],
        ),
        (
            "without UIDPLUS",
            manner().without(&["UIDPLUS"]),
            vec![],
            0,
            &[
                r#"UID MOVE to "Trash", then a count of what is left"#,
                "the server does not offer UIDPLUS",
                r#"QUIT moves the message to "Trash""#,
            ],
        ),
        (
            "without UIDPLUS and MOVE",
            manner().without(&["UIDPLUS", "MOVE"]),
            vec![],
            0,
            &[
                r"UID STORE \Deleted $POP3Deleted, which hides messages from POP3 clients",
                "QUIT hides the message, which stays on the server",
            ],
        ),
        (
            "ignoring deletion",
            manner(),
            on_delete("ignore").to_vec(),
            0,
            &[r#"none, as on_delete = "ignore" wants it"#, "back in the next one"],
        ),
        (
            "Gmail",
            gmail("UIDPLUS MOVE SPECIAL-USE"),
            vec![],
            0,
            &[r#"UID MOVE to "Trash", then a count"#, "this is Gmail: deleted messages go to its trash"],
        ),
        (
            "Gmail without MOVE",
            gmail("UIDPLUS"),
            vec![],
            0,
            &["DELE is refused: on Gmail messages are moved to the trash", "refused: the server offers no safe way"],
        ),
        (
            "Gmail, expunging",
            gmail("UIDPLUS MOVE"),
            on_delete("expunge").to_vec(),
            0,
            &["UID EXPUNGE, then a count", "what becomes of expunged messages is up to the user's settings"],
        ),
        (
            "without SASL-IR",
            before("IMAP4rev1 AUTH=PLAIN"),
            vec![],
            0,
            &["AUTHENTICATE PLAIN, and the response when the server asks for it"],
        ),
        (
            "told where clients are",
            manner(),
            telling.to_vec(),
            0,
            &["log-in         ID with the client's address, and with it AUTHENTICATE PLAIN"],
        ),
        (
            "told, without ID",
            before("IMAP4rev1 SASL-IR AUTH=PLAIN"),
            telling.to_vec(),
            0,
            &[
                "log-in         AUTHENTICATE PLAIN",
                "the server does not offer ID before log-in, so that it is not told where clients are",
            ],
        ),
        ("LOGIN alone", before("IMAP4rev1"), vec![], 0, &["log-in         LOGIN (no AUTH=PLAIN)"]),
        (
            "tokens alone",
            before("IMAP4rev1 AUTH=XOAUTH2 LOGINDISABLED"),
            vec![],
            1,
            &[
                "not with a password",
                "AUTHENTICATE XOAUTH2 for clients that bring a token",
                "the server takes no passwords: only clients that bring a token can log in",
                "failed         the server takes no password",
            ],
        ),
        ("telling nothing unasked", Manner { tells: false, ..manner() }, vec![], 0, &["UID EXPUNGE", "offers users"]),
        (
            "a message that cannot be read",
            no_size(7),
            vec![],
            0,
            &[
                "messages       2, 420 octets",
                "the server does not list UID 7: POP3 clients can neither fetch nor delete what is there",
            ],
        ),
        (
            "no mailbox",
            manner(),
            vec!["--set".into(), "upstream.mailbox=Nowhere".into()],
            1,
            &[
                "offers users",
                "failed         the server refused: NO [NONEXISTENT] no such mailbox",
                "somebody must see to it; clients are told [SYS/PERM]",
            ],
        ),
        (
            "no longer there",
            manner().deviating("GREETING", 0, What::Bye("too busy".into())),
            vec![],
            1,
            &["failed         the server said farewell: BYE too busy", "this may pass; clients are told [SYS/TEMP]"],
        ),
        (
            "in use",
            manner().deviating("AUTHENTICATE", 0, What::No("[INUSE] other session".into())),
            vec![],
            1,
            &["clients are told [IN-USE]"],
        ),
    ] {
        let server = Server::fixture(manner);
        let url = listen(&server);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let who = ["--upstream", &url, "--user", "tim", "--password-file", "tim"];
        let (text, found) = said(&check(&passwords(), &[&who[..], &arguments].concat()));
        for words in expected {
            assert!(text.contains(words), "{name}: {words}\n{text}");
        }
        assert_eq!(found, code, "{name}\n{text}");
        is_untouched(&server, name);
    }
}

#[test]
fn what_is_not_known_before_log_in_is_not_claimed() {
    let manner = Manner::default;
    for (manner, code, expected) in [
        (manner(), 0, "not known before log-in: many servers offer UIDPLUS and MOVE to users only, see --user"),
        (Manner { before: "IMAP4rev1 UIDPLUS".into(), ..manner() }, 0, "if the mailbox allows it: that is not known"),
        (Manner { before: "IMAP4rev1 X-GM-EXT-1".into(), ..manner() }, 0, "UID MOVE to the trash (Gmail), if there is"),
        (Manner { before: "IMAP4rev1 LOGINDISABLED".into(), ..manner() }, 1, "nobody can log in"),
    ] {
        let server = Server::fixture(manner);
        let (text, found) = said(&check(&passwords(), &["--upstream", &listen(&server)]));
        assert!(text.contains(expected), "{expected}\n{text}");
        assert_eq!((found, text.contains("as far as can be seen without logging in")), (code, code == 0), "{text}");
        assert_eq!(server.received().last().unwrap().text, "LOGOUT");
    }
}

#[test]
fn what_a_mailbox_does_not_allow() {
    type Change = fn(&mut Mailbox);
    let not_sticky = |inbox: &mut Mailbox| inbox.sticky = false;
    let no_deleted = |inbox: &mut Mailbox| inbox.permanent = "\\Seen".into();
    let nothing_named = |inbox: &mut Mailbox| inbox.permanent = String::new();
    let cases: [(Change, &[_]); 3] = [
        (not_sticky, &["UIDL is refused", "(UIDNOTSTICKY)", "none that lasts", "no unique id, 120 octets"]),
        (
            no_deleted,
            &[r"DELE is refused: the mailbox does not let \Deleted be set", "refused: the mailbox is read-only"],
        ),
        // As Dovecot answers EXAMINE, whatever SELECT would allow.
        (
            nothing_named,
            &["DELE           accepted", "if the user may write to the mailbox: EXAMINE does not show that"],
        ),
    ];
    for (change, expected) in cases {
        let mut account = Account::fixture();
        change(&mut account.mailboxes[0]);
        let server = Server::new(Manner::default(), vec![account]);
        let who = ["--upstream", &listen(&server), "--user", "tim", "--password-file", "tim"];
        let (text, code) = said(&check(&passwords(), &who));
        for words in expected {
            assert!(text.contains(words), "{words}\n{text}");
        }
        assert_eq!(code, 0, "{text}");
    }
}

#[test]
fn a_user_is_looked_for_where_a_session_would_go() {
    let one = Server::fixture(Manner::default());
    let other = Server::fixture(Manner::default());
    let directory = passwords();
    let toml = format!(
        "[[route]]\ndomains = [\"one.example\"]\n[route.upstream]\nurl = \"{}\"\n\
         [[route]]\ndomains = [\"other.example\", \"müller.example\"]\n[route.upstream]\nurl = \"{}\"\nstrip_domain = true\n",
        listen(&one),
        listen(&other)
    );
    fs::write(directory.path().join("popgate.toml"), toml).unwrap();
    let check =
        |user| said(&check(&directory, &["--config", "popgate.toml", "--user", user, "--password-file", "tim"]));
    let (text, code) = check("tim@OTHER.example");
    assert!(text.contains(" for other.example, xn--mller-kva.example\n"), "{text}");
    assert!(text.contains("what a POP3 client of tim sees in INBOX"), "{text}");
    assert_eq!((code, text.matches("offers users").count()), (0, 1), "{text}");
    let login = |server: &Server| server.received().iter().any(|received| received.text.starts_with("AUTHENTICATE"));
    assert_eq!((login(&one), login(&other)), (false, true));

    let (text, code) = check("tim@elsewhere.example");
    let words = "popgate: --user: found \"tim@elsewhere.example\", whose domain is in no route; needed: upstream.url for \
                 users of all other domains\n";
    assert_eq!((text.as_str(), code), (words, 2));
}

#[test]
fn a_real_server_is_looked_at_and_left_as_it_was() {
    let Some(dovecot) = Dovecot::start("check::a_real_server_is_looked_at_and_left_as_it_was") else { return };
    let mut imap = dovecot.imap("alice");
    // A message is recent for the first session that selects the mailbox after it came.
    imap.command("UNSELECT");
    for subject in ["one", "two"] {
        imap.append(format!("Subject: {subject}\r\n\r\nbody\r\n").as_bytes());
    }
    let directory = passwords();
    let url = format!("imaps://localhost:{}", dovecot.imaps_port);
    let ca = dovecot.ca().display().to_string();
    let good = ["--upstream", &url, "--upstream-ca", &ca, "--user", "alice", "--password-file", "alice"];

    let (text, code) = said(&check(&directory, &good));
    for words in [
        &format!("\nupstream {url}\n"),
        "  TLS            TLS 1.3, TLS_",
        "issued by CN=popgate test CA for localhost, 127.0.0.1 expires in ",
        r"UID STORE \Deleted, UID EXPUNGE, then a count of what is left",
        "messages       2, 44 octets",
        "DELE           accepted, and QUIT removes the message",
        "result: clients can work\n",
    ] {
        assert!(text.contains(words), "{words}\n{text}");
    }
    assert_eq!(code, 0, "{text}");

    let report = json(&check(&directory, &[&good[..], &["--json"]].concat()));
    let upstream = &report["upstreams"][0];
    assert_eq!((&report["usable"], &upstream["url"]), (&Value::from(true), &Value::from(url.as_str())));
    assert_eq!(upstream["tls"]["certificate"]["names"], serde_json::json!(["localhost", "127.0.0.1"]));
    let maildrop = &upstream["maildrop"];
    assert_eq!((&maildrop["messages"], &maildrop["octets"]), (&Value::from(2), &Value::from(44)));

    // Twice a log-in and an EXAMINE later the messages are as new as before.
    let status = imap.command("STATUS INBOX (MESSAGES RECENT UNSEEN)");
    assert_eq!(status[0].text, "* STATUS INBOX (MESSAGES 2 RECENT 2 UNSEEN 2)");
    drop(imap);
    let ids: Vec<_> = [0, 1].map(|index| maildrop["first"][index]["unique_id"].as_str().unwrap().to_owned()).into();
    let listed: Vec<_> =
        dovecot.pop3("alice").list("UIDL").iter().map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(ids, listed, "Dovecot's own POP3 server calls them the same");

    let (text, code) = said(&check(&directory, &[&good[..7], &["tim"]].concat()));
    assert!(text.contains("failed         the server refused: NO [AUTHENTICATIONFAILED]"), "{text}");
    assert!(text.contains("see whether user name and password are right; clients are told [AUTH]"), "{text}");
    assert_eq!(code, 1, "{text}");

    let report = json(&check(&directory, &["--upstream", &url, "--json"]));
    let upstream = &report["upstreams"][0];
    assert_eq!((&report["usable"], &upstream["tls"]["accepted"]), (&Value::from(false), &Value::from(false)));
    assert_eq!(upstream["tls"]["certificate"]["issuer"], "CN=popgate test CA", "what was refused is shown");
    assert_eq!((&upstream["fault"]["verdict"], &upstream["paths"]), (&Value::from("lasting"), &Value::Null));
    assert!(upstream["fault"]["advice"].as_str().unwrap().contains("upstream.ca"), "{upstream}");

    let starttls = format!("imap+starttls://localhost:{}", dovecot.imap_port);
    let (text, code) = said(&check(&directory, &["--upstream", &starttls, "--upstream-ca", &ca]));
    assert!(text.contains("  TLS            TLS 1.3, "), "{text}");
    assert_eq!(code, 0, "{text}");
}

#[test]
fn the_document() {
    let server = Server::fixture(Manner::default());
    let url = listen(&server);
    let directory = passwords();
    let arguments = ["--upstream", &url, "--user", "tim", "--password-file", "tim", "--json"];
    let report = json(&check(&directory, &arguments));
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    let upstream = &report["upstreams"][0];
    for (value, expected) in [
        (&report, "configuration dangerous upstreams usable warnings"),
        (&report["configuration"][0], "key place source value"),
        (upstream, "addresses capabilities domains fault maildrop paths tls url usable warnings"),
        (&upstream["capabilities"], "after_login before_login"),
        (&upstream["paths"], "deletion listing login unique_ids"),
        (
            &upstream["maildrop"],
            "dele dele_accepted first hidden last mailbox messages octets uidvalidity unlisted user",
        ),
        (&upstream["maildrop"]["first"][0], "number octets unique_id"),
    ] {
        assert_eq!(keys(value), expected);
    }
    let setting = |key: &str| {
        let settings = report["configuration"].as_array().unwrap();
        settings.iter().find(|setting| setting["key"] == key).unwrap().clone()
    };
    let expected =
        serde_json::json!({"key": "upstream.url", "value": url, "source": "command line", "place": "--upstream"});
    assert_eq!(setting("upstream.url"), expected);
    assert_eq!(setting("limits.sessions")["value"], 10_000);
    assert_eq!(
        upstream["maildrop"]["first"][2],
        serde_json::json!({"number": 3, "octets": 300, "unique_id": "0000000900000064"})
    );
    // What the help promises is what there is.
    let help = Command::new(env!("CARGO_BIN_EXE_popgate")).args(["check", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for value in [&report, &report["configuration"][0], upstream, &upstream["maildrop"], &upstream["paths"]] {
        for key in value.as_object().unwrap().keys() {
            assert!(help.contains(key), "{key}");
        }
    }
}

#[test]
fn exit_codes() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("imap://{}", closed.local_addr().unwrap());
    drop(closed);
    let with = |arguments: &[&str]| said(&check(&passwords(), &[&["--upstream", &nobody][..], arguments].concat()));
    let (text, code) = with(&[]);
    assert!(text.contains("failed         no connection: Connection refused"), "{text}");
    assert!(text.contains("result: clients cannot work\n"), "{text}");
    assert_eq!(code, 1);
    for (arguments, words) in [
        (&["--set", "log.level=loud"][..], "popgate: --set: log.level: found \"loud\"; allowed: "),
        (&["--user", "tim", "--password-file", "none"], "popgate: none: No such file"),
        (&["--user", "tim", "--password-file", "empty"], "popgate: the password is empty"),
        (&["--user", "tim", "--password-file", "lines"], "popgate: the password has more than one line"),
        (&["--user", "", "--password-file", "tim"], "popgate: --user: found \"\"; allowed: a user name"),
        (&["--password-file", "tim"], "--user <NAME>"),
        (&["--user", "tim", "--password", "sesame"], "unexpected argument '--password'"),
    ] {
        let (text, code) = with(arguments);
        assert!(text.contains(words), "{words}\n{text}");
        assert_eq!(code, 2, "{text}");
    }
}

/// The scripted server on a port of 127.0.0.1, as a URL. It listens as long as the tests run.
fn listen(server: &Server) -> String {
    let (tell, told) = mpsc::channel();
    let server = server.clone();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(port.local_addr().unwrap()).unwrap();
            while let Ok((line, _)) = port.accept().await {
                let server = server.clone();
                tokio::spawn(async move { server.serve(line).await });
            }
        });
    });
    format!("imap://{}", told.recv().unwrap())
}

/// Every command that a look may take. None of them changes anything (RFC 3501 §6).
fn is_untouched(server: &Server, name: &str) {
    for received in server.received() {
        let text = received.text;
        let looks = ["AUTHENTICATE ", "LOGIN ", "CAPABILITY", "EXAMINE ", "LIST ", "NOOP", "UID SEARCH ", "LOGOUT"];
        let sizes = text.starts_with("UID FETCH ") && text.ends_with(" (RFC822.SIZE)");
        let response = text == "AHRpbQBzZWMgcmV0";
        assert!(sizes || response || looks.iter().any(|look| text.starts_with(look)), "{name}: {text}");
    }
    let flags = server.with("tim", "INBOX", |inbox| inbox.messages.iter().any(|message| !message.flags.is_empty()));
    assert!(!flags, "{name}");
}

/// A directory with files that hold passwords, right ones and odd ones.
fn passwords() -> TempDir {
    let directory = TempDir::new().unwrap();
    let alice = format!("{PASSWORD}\r\n");
    for (name, text) in [("tim", "sec ret\n"), ("alice", &alice), ("empty", "\n"), ("lines", "one\ntwo\n")] {
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

fn check(directory: &TempDir, arguments: &[&str]) -> Output {
    let directory: &Path = directory.path();
    let mut command = Command::new(env!("CARGO_BIN_EXE_popgate"));
    command.current_dir(directory).env_clear().arg("check").args(arguments).output().unwrap()
}

/// What was printed, lines joined that were broken between words, and the exit code.
fn said(output: &Output) -> (String, i32) {
    let text = String::from_utf8([&output.stdout[..], &output.stderr].concat()).unwrap();
    (text.replace(&format!("\n{:17}", ""), " "), output.status.code().unwrap())
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(output).0))
}
