//! Whole sessions at TRACE, with everything that logs switched on: no password, no token and no line of mail is in what was
//! written, in no form in which one could read it. F-19, T287.

use std::{
    fmt::Write as _,
    io,
    sync::{Arc, Mutex},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use popgate::telemetry::{self, Format, Settings};
use tracing_subscriber::{fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::support::{
    gate::Gate,
    script::{Account, Content, Manner, Server, What},
};

const PASSWORD: &str = "Kanarien=Vogel 7/\"x\\";
const TOKEN: &str = "ya29.Kanarien-Schein~7";
const LINE: &str = "Kanarien, streng geheim: 7 Stück";

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl io::Write for Sink {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

#[tokio::test(start_paused = true)]
async fn no_level_and_no_form_shows_a_secret() {
    for format in [Format::Text, Format::Json] {
        for level in ["trace", "trace,async_imap=trace,imap_proto=trace,popgate=trace"] {
            let sink = Sink::default();
            let (settings, writer) = (Settings { format, level: telemetry::level(level).unwrap() }, sink.clone());
            let guard = telemetry::subscriber(&settings, move || writer.clone(), false).set_default();
            everything().await;
            drop(guard);
            let text = sink.text();
            assert!(text.contains("session ended"), "nothing was logged");
            assert_eq!(found(&text), Vec::<String>::new(), "{format:?}, {level}");
        }
    }
}

/// Even without popgate's filter: what async-imap prints has gone through the tap. This also shows that it does print.
#[tokio::test(start_paused = true)]
async fn async_imap_never_sees_a_secret() {
    let sink = Sink::default();
    let writer = sink.clone();
    let layer = fmt::layer().with_writer(move || writer.clone()).with_ansi(false);
    let guard = tracing_subscriber::registry().with(layer).set_default();
    everything().await;
    drop(guard);
    let text = sink.text();
    assert!(text.contains("TRACE") && text.contains("async_imap"), "async-imap is silent");
    assert_eq!(found(&text), Vec::<String>::new());
}

#[test]
fn a_secret_would_be_found_in_every_form() {
    for secret in [PASSWORD, TOKEN, LINE] {
        let hex: String = secret.bytes().map(|octet| format!("{octet:02X}")).collect();
        for shown in [
            secret.to_string(),
            format!("{secret:?}"),
            format!("{:?}", secret.as_bytes()),
            hex.to_lowercase(),
            hex,
            STANDARD.encode(format!("\0tim\0{secret}")),
            STANDARD.encode(format!("user=tim\u{1}auth=Bearer {secret}\u{1}\u{1}")),
            STANDARD.encode(format!("x{secret}")),
            percent(secret),
            secret.as_bytes().escape_ascii().to_string(),
        ] {
            assert!(!found(&format!("before {shown} behind")).is_empty(), "{shown}");
        }
    }
    assert_eq!(found("Kanarien are birds"), Vec::<String>::new());
}

/// Log-ins of every kind, right and wrong, messages, and an upstream that breaks while it has secrets on the line.
async fn everything() {
    let plain = STANDARD.encode(format!("\0tim\0{PASSWORD}"));
    let wrong = STANDARD.encode(format!("\0tom\0{PASSWORD}"));
    let bad = STANDARD.encode(format!("{PASSWORD}\0{PASSWORD}"));
    let bearer = STANDARD.encode(format!("user=tim\u{1}auth=Bearer {TOKEN}\u{1}\u{1}"));
    let expired = STANDARD.encode(format!("user=tom\u{1}auth=Bearer {TOKEN}\u{1}\u{1}"));
    let header = STANDARD.encode(format!("n,a=tim,\u{1}auth=Bearer {TOKEN}\u{1}\u{1}"));
    let (user, password) = (STANDARD.encode("tim"), STANDARD.encode(PASSWORD));
    let pass = format!("PASS {PASSWORD}");
    let dialogues: [&[&str]; 8] = [
        &["USER tim", &pass, "UIDL", "RETR 1", "TOP 1 1", "RETR 2", "DELE 1", "QUIT"],
        &["USER tom", &pass, &format!("AUTH PLAIN {wrong}"), &format!("AUTH PLAIN {bad}"), PASSWORD, TOKEN, "QUIT"],
        &[&pass, &format!("AUTH PLAIN {plain}"), &pass, &format!("RETR {PASSWORD}"), "QUIT"],
        &["AUTH LOGIN", &user, &password, "QUIT"],
        &[&format!("AUTH XOAUTH2 {bearer}"), "RETR 2", "QUIT"],
        &[&format!("AUTH XOAUTH2 {expired}"), "", "QUIT"],
        &[&format!("AUTH OAUTHBEARER {header}"), "QUIT"],
        &["USER tim", &format!("PASS {}", PASSWORD.repeat(2_000)), &format!("AUTH {TOKEN}"), "QUIT"],
    ];
    for server in servers() {
        for lines in dialogues {
            let mut client = Gate::new(&server).connect();
            client.hear().await;
            for line in lines {
                let Some(reply) = client.ask(line).await else { break };
                let lines = ["UIDL", "RETR", "TOP"].iter().any(|command| line.starts_with(command));
                if lines && reply.starts_with("+OK") && client.body().await.is_err() {
                    break;
                }
            }
            client.leave().await;
        }
    }
}

/// An honest server of each kind, and some that break off or talk nonsense around the secrets.
fn servers() -> Vec<Server> {
    let account = || {
        let mut account = Account { password: Some(PASSWORD.into()), token: Some(TOKEN.into()), ..Account::fixture() };
        for (message, times) in account.mailboxes[0].messages.iter_mut().zip([1, 3_000, 1]) {
            let body = format!("{LINE}\r\n").repeat(times);
            message.content = Content::new(format!("Subject: {LINE}\r\n\r\n{body}"));
        }
        account
    };
    let before = |before: &str| Manner { before: before.into(), ..Manner::default() };
    let manners = [
        Manner::default(),
        before("IMAP4rev1 AUTH=PLAIN AUTH=XOAUTH2"),
        before("IMAP4rev1 LITERAL+"),
        before("IMAP4rev1"),
        Manner::default().deviating("AUTHENTICATE", 0, What::Close),
        Manner::default().deviating("AUTHENTICATE", 0, What::Say(b"what\0is that\r\n".to_vec())),
        Manner::default().deviating("AUTHENTICATE", 0, What::Bad("Command Argument Error".into())),
        Manner::default().deviating("UID FETCH 5", 0, What::Tagged(b"(((\r\n".to_vec())),
        Manner::default().deviating("UID FETCH 7", 0, What::Cut(50_000)),
        Manner::default().deviating("UID FETCH 7", 0, What::Literal(-40)),
        Manner::default().deviating("UID FETCH 5", 0, What::Literal(-40)),
    ];
    manners.into_iter().map(|manner| Server::new(manner, vec![account()])).collect()
}

/// The forms in which a secret is in a text.
fn found(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let mut found = Vec::new();
    for secret in [PASSWORD, TOKEN, LINE] {
        // Part of a secret is too much as well.
        let part = &secret[..16];
        let mut forms = vec![
            part.to_string(),
            part.escape_default().to_string(),
            part.as_bytes().escape_ascii().to_string(),
            percent(part),
            part.bytes().map(|octet| octet.to_string()).collect::<Vec<_>>().join(", "),
            part.bytes().fold(String::new(), |mut hex, octet| {
                let _ = write!(hex, "{octet:02x}");
                hex
            }),
        ];
        // Base64, wherever in a group of three the secret begins: without the octets that depend on its neighbours.
        forms.extend((0..3).map(|shift| {
            let encoded = STANDARD.encode(format!("{}{part}", "_".repeat(shift)));
            encoded[4..20].to_string()
        }));
        found.extend(forms.into_iter().filter(|form| lower.contains(&form.to_lowercase())));
    }
    found
}

fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, octet| {
        let _ = match octet {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => write!(out, "{}", char::from(octet)),
            _ => write!(out, "%{octet:02X}"),
        };
        out
    })
}
