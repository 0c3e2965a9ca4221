//! Whole sessions at TRACE, with everything that logs switched on: no password, no token and no line of mail is in what was
//! written, in no form in which one could read it. F-19, T287.

use std::{
    env, fs,
    io::{self, Read as _, Write as _},
    net::TcpStream,
    process::Command,
    sync::{Arc, Mutex},
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use popgate::{
    net::{Dial, Endpoint, Pending, Wire},
    telemetry::{self, Format, Settings},
};
use tracing_subscriber::{fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::support::{
    gate::Gate,
    http,
    overheard::{forms_of, hear_all_threads, percent},
    script::{Account, Content, Manner, Server, What},
    serve::{Popgate, on_a_port},
};

const PASSWORD: &str = "Kanarien=Vogel 7/\"x\\";
const TOKEN: &str = "ya29.Kanarien-Schein~7";
const LINE: &str = "Kanarien, streng geheim: 7 Stück";

/// A log in memory.
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
    hear_all_threads();
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
    hear_all_threads();
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
            percent(secret, |octet| format!("%{octet:02X}")),
            percent(secret, |octet| format!("%{octet:02x}")),
            format!("{:x?}", secret.as_bytes()),
            URL_SAFE.encode(format!("xy{secret}")),
            secret.as_bytes().escape_ascii().to_string(),
            serde_json::to_string(secret).unwrap(),
            serde_json::to_string(&secret[secret.len() - 12..]).unwrap(),
            STANDARD.encode(&secret.as_bytes()[4..]),
        ] {
            assert!(!found(&format!("before {shown} behind")).is_empty(), "{shown}");
        }
    }
    assert_eq!(found("Kanarien are birds"), Vec::<String>::new());
}

/// What a panic says may quote what was being worked on. It happens in a process of its own: there the log is the process'.
#[test]
fn a_panic_says_where_and_not_what() {
    const HERE: &str = "secrets::a_panic_says_where_and_not_what";
    if env::var_os("SECRETS_PANIC").is_some() {
        telemetry::start(&Settings { format: Format::Text, level: telemetry::level("trace").unwrap() }).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut client = Gate::with(Arc::new(Panics), &|_, _| {}).connect();
            assert_eq!(client.log_in().await, None);
        });
        return;
    }
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", HERE, "--nocapture"])
        .env("SECRETS_PANIC", "1")
        .output()
        .unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(text.contains("1 passed") && text.contains("panic location=tests/secrets.rs:"), "{text}");
    assert_eq!(found(&text), Vec::<String>::new(), "{text}");
}

/// A way to the upstream with a defect in it.
struct Panics;

impl Dial for Panics {
    fn dial<'a>(&'a self, _: &'a Endpoint) -> Pending<'a, io::Result<Box<dyn Wire>>> {
        panic!("{PASSWORD} {TOKEN} {LINE}");
    }
}

/// Log-ins and messages against the program itself, which says everything that it can say, and leaves no dump of its memory.
#[test]
fn the_program_shows_no_secret() {
    for format in ["text", "json"] {
        for server in servers() {
            let url = on_a_port(&server);
            let settings = [format!("log.format={format}"), "log.level=trace,rustls=trace,tokio=trace".to_owned()];
            let popgate = Popgate::serve(
                &url,
                &[
                    &["--set", &settings[0], "--set", &settings[1], "--set", "login.failure_delay=0s"],
                    &["--set", "admin.listen=127.0.0.1:0"][..],
                ]
                .concat(),
            );
            for lines in dialogues() {
                let mut line = TcpStream::connect(("127.0.0.1", popgate.port)).unwrap();
                // A client that is let go may not have said everything.
                let _ = line.write_all((lines.join("\r\n") + "\r\n").as_bytes());
                let _ = line.read_to_end(&mut Vec::new());
            }
            let limits = popgate.limits();
            let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
            assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
            let numbers = http::metrics(popgate.admin_port()).into_keys().collect::<Vec<_>>().join("\n");
            for name in ["tim", "tom", "INBOX", "127.0.0.1", "localhost"] {
                assert!(!numbers.contains(name), "{name}:\n{numbers}");
            }
            let pages = ["/metrics", "/healthz", "/readyz", "/"].map(|path| http::get(popgate.admin_port(), path).1);
            assert_eq!(found(&pages.concat()), Vec::<String>::new());
            let log = popgate.stop();
            assert!(log.contains("session ended"), "{log}");
            assert_eq!(found(&log), Vec::<String>::new());
        }
    }
}

/// The effective configuration, what is said of a wrong one, and what a log-in comes to: as text and as JSON.
#[test]
fn check_shows_no_secret() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    fs::write(&file, PASSWORD).unwrap();
    let url = on_a_port(&servers()[0]);
    let (_, address) = url.split_once("://").unwrap();
    for upstream in [url.clone(), format!("imap://tim:{TOKEN}@{address}")] {
        for user in ["tim", "tom"] {
            for json in [&["--json"][..], &[]] {
                let output = Command::new(env!("CARGO_BIN_EXE_popgate"))
                    .args(["check", "--upstream", &upstream, "--user", user, "--password-file"])
                    .arg(&file)
                    .args(json)
                    .output()
                    .unwrap();
                let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
                assert!(text.contains(address), "{text}");
                assert_eq!(found(&text), Vec::<String>::new(), "{text}");
            }
        }
    }
}

/// Log-ins of every kind, right and wrong, and messages.
fn dialogues() -> Vec<Vec<String>> {
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
    dialogues.map(|lines| lines.iter().map(|line| (*line).to_owned()).collect()).into()
}

/// All of them, with upstreams that break while they have secrets on the line.
async fn everything() {
    for server in servers() {
        for lines in &dialogues() {
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

/// The forms in which a secret is in a text. Part of it is too much as well: its beginning, or its end.
fn found(text: &str) -> Vec<String> {
    let parts = |secret: &'static str| [&secret[..16], &secret[secret.len() - 12..]];
    [PASSWORD, TOKEN, LINE].into_iter().flat_map(parts).flat_map(|part| forms_of(part, text)).collect()
}
