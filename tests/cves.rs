//! What went wrong in others' POP3 and IMAP front ends, by the names under which it was published. Only these ask whether it
//! could go wrong here. Which of them another test asks, and which cannot arise at all, is in the table in `README.md`.

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::support::{
    gate::{Client, Gate},
    script::{Account, Content, Manner, Server},
};

const OPENED: &str = "+OK maildrop has 3 messages (620 octets)";

/// CVE-2025-15366 and CVE-2025-15367 (CPython), CVE-2026-47240 (net-imap), CVE-2017-2669 (Dovecot): what somebody is called
/// is never a command, a literal or a template. The server, which reads IMAP in its own way, finds exactly these octets,
/// and then the very commands that it hears of anybody.
#[tokio::test(start_paused = true)]
async fn cve_2026_47240_cve_2025_15366_names_and_passwords_are_no_commands() {
    let names = [
        "tim",
        "t\"im",
        "t\\im",
        "tim\\",
        "\"",
        "tim{5}",
        "tim{5+}",
        "{5+}",
        "{0}",
        "%n%%d",
        "%{user}",
        "$tag",
        "*",
        "(tim",
        "tim)",
        "NIL",
        "a,b=c",
        "=2C",
        "tim@example.org",
        "jürgen",
        "имя",
        "名{3+}",
        "💥",
        "..",
        "../../etc/passwd",
        "'; --",
    ];
    let passwords = [
        "sec ret",
        " before",
        "behind ",
        "  ",
        "a\"b\\c",
        "\\",
        "\"",
        "x {5}",
        "{5+}",
        "pä",
        "pä {9+}",
        "A0003 DELETE INBOX",
        "x\tA0003 LOGOUT",
        "*",
        "=",
        "NIL",
        "%p",
        "\u{7f}",
    ];
    let offers = ["SASL-IR AUTH=PLAIN", "AUTH=PLAIN", "", "LITERAL+", "LITERAL-"];
    let pairs = names.iter().map(|name| (*name, "sec ret")).chain(passwords.iter().map(|password| ("tim", *password)));
    for (name, password) in pairs {
        for offer in offers {
            let account = Account { user: name.into(), password: Some(password.into()), ..Account::fixture() };
            let manner = Manner { before: format!("IMAP4rev1 {offer}").trim_end().into(), ..Manner::default() };
            let server = Server::new(manner, vec![account]);
            let mut client = Gate::new(&server).connect();
            client.hear().await;
            client.ask(&format!("USER {name}")).await;
            let what = format!("{name:?} {password:?} {offer}");
            assert_eq!(client.ask(&format!("PASS {password}")).await.as_deref(), Some(OPENED), "{what}");
            client.ask("QUIT").await;
            client.leave().await;
            let heard: Vec<String> = server.received().into_iter().map(|received| received.text).collect();
            let log_in = if offer == "AUTH=PLAIN" { 2 } else { 1 };
            let (log_in, rest) = heard.split_at(log_in);
            assert!(
                log_in[0].starts_with(if offer.contains("PLAIN") { "AUTHENTICATE PLAIN" } else { "LOGIN " }),
                "{what}"
            );
            // CVE-2026-28753 (nginx), CVE-2026-47242 (net-imap): nothing of a client or its address goes upstream besides.
            assert_eq!(rest, ["SELECT INBOX", "UID FETCH 1:* (RFC822.SIZE)", "LOGOUT"], "{what}");
            assert_eq!(server.connections(), 1, "{what}");
        }
    }
}

/// CVE-2019-10691, CVE-2020-7046: octets that are no UTF-8, or only its beginning, end nothing, whatever they stand in.
#[tokio::test(start_paused = true)]
async fn cve_2019_10691_cve_2020_7046_broken_utf_8_ends_nothing() {
    for broken in [&b"\xff"[..], b"\xc3", b"t\xe2\x82", b"\xf0\x9f\x92", b"\xc0\x80", b"\xed\xa0\x80", b"\x80tim"] {
        let server = Server::fixture(Manner::default());
        let mut client = Gate::new(&server).connect();
        client.hear().await;
        let initial = STANDARD.encode([&[0][..], broken, b"\0x"].concat());
        for line in [
            [b"USER ", broken].concat(),
            [b"AUTH ", broken].concat(),
            [b"CAPA ", broken].concat(),
            [b"AUTH PLAIN ", initial.as_bytes()].concat(),
            [broken, b" x"].concat(),
        ] {
            client.send([&line, &b"\r\n"[..]].concat()).await;
            let reply = client.hear().await.unwrap();
            assert!(reply.starts_with("-ERR "), "{}: {reply}", line.escape_ascii());
        }
        assert_eq!(server.connections(), 0, "{}", broken.escape_ascii());
        still_good(client).await;
    }
}

/// CVE-2020-12673, CVE-2020-12674, CVE-2019-11494, CVE-2019-11499, CVE-2017-15132, CVE-2025-59028: messages of SASL that are
/// empty, short, no base64 or not finished say nothing to the server and harm no log-in behind them.
#[tokio::test(start_paused = true)]
async fn cve_2020_12674_short_and_aborted_sasl_harms_no_log_in() {
    let long = "A".repeat(16_000);
    let responses = [
        "",
        "=",
        "*",
        "==",
        "====",
        "A",
        "AA==",
        "AAA=",
        "AAAA",
        "AAAAAA==",
        "AQ==",
        "!!!",
        "Zg",
        "Zg=",
        "Zh==",
        "w6==",
        "+ ",
        "AAECAwQFBgcICQ==",
        &long,
    ];
    for mechanism in ["PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER", "CRAM-MD5", "NTLM", "SCRAM-SHA-1", "PLAIN\0"] {
        for response in responses {
            for at_once in [true, false] {
                let server = Server::fixture(Manner::default());
                let mut client = Gate::new(&server).connect();
                client.hear().await;
                let what = format!("{mechanism} {response:.20} {at_once}");
                let mut heard = match at_once {
                    true => client.ask(&format!("AUTH {mechanism} {response}")).await.unwrap(),
                    false => client.ask(&format!("AUTH {mechanism}")).await.unwrap(),
                };
                let mut said = at_once;
                while heard.starts_with("+ ") {
                    heard = client.ask(if said { "*" } else { response }).await.unwrap();
                    said = true;
                }
                assert!(heard.starts_with("-ERR "), "{what}: {heard}");
                assert_eq!(server.connections(), 0, "{what}");
                still_good(client).await;
            }
        }
    }
}

/// CVE-2026-27651 (nginx): APOP and CRAM-MD5, and again after they were refused. There is neither.
#[tokio::test(start_paused = true)]
async fn cve_2026_27651_apop_and_cram_md5_are_refused_each_time() {
    let server = Server::fixture(Manner::default());
    let mut client = Gate::new(&server).connect();
    let greeting = client.hear().await.unwrap();
    assert!(!greeting.contains('<'), "{greeting}");
    for line in ["APOP tim c4c9334bac560ecc979e58001b3e22fb", "AUTH CRAM-MD5", "APOP", "APOP tim", "AUTH CRAM-MD5 dGlt"]
    {
        let reply = client.ask(line).await.unwrap();
        assert!(reply.starts_with("-ERR ") && !reply.starts_with("-ERR [AUTH]"), "{line}: {reply}");
    }
    assert_eq!(server.connections(), 0);
    still_good(client).await;
}

/// CVE-2024-23184, CVE-2024-23185, CVE-2020-12100 (Dovecot), CVE-2026-26312 (Stalwart): messages with 50,000 fields, with
/// one of a megabyte, with parts within parts. popgate reads no header; it passes them on as they are.
#[tokio::test(start_paused = true)]
async fn cve_2024_23184_cve_2020_12100_headers_and_parts_are_passed_unread() {
    let fields = "To: a@example.org\r\n".repeat(50_000);
    let long = format!("Subject: {}\r\n", "x".repeat(1_000_000));
    let nested: String = (0..10_000)
        .map(|depth| format!("Content-Type: multipart/mixed; boundary=b{depth}\r\n\r\n--b{depth}\r\n"))
        .collect();
    for header in [fields, long, nested] {
        let message = format!("{header}\r\nbody\r\n");
        let mut account = Account::fixture();
        account.mailboxes[0].messages.truncate(1);
        account.mailboxes[0].messages[0].reported = message.len() as u64;
        account.mailboxes[0].messages[0].content = Content::new(&message);
        let mut client = Gate::new(&Server::new(Manner::default(), vec![account])).connect();
        client.log_in().await;
        let end = message.find("\r\n\r\n").unwrap() + 4;
        for (command, expected) in [("RETR 1", message.as_str()), ("TOP 1 0", &message[..end])] {
            assert!(client.ask(command).await.unwrap().starts_with("+OK"), "{command}");
            assert!(client.body().await.unwrap() == expected.as_bytes(), "{command} of {:.20}", message);
        }
        client.leave().await;
    }
}

/// The session goes on, and whoever knows the password gets in.
async fn still_good(mut client: Client) {
    assert_eq!(client.ask("USER tim").await.as_deref(), Some("+OK send PASS"));
    assert_eq!(client.ask("PASS sec ret").await.as_deref(), Some(OPENED));
    client.leave().await;
}
