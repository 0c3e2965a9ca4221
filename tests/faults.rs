//! An upstream that does everything wrong, under whole sessions. Whatever it says, the client is told the truth: a message
//! is whole or has no dot, `+OK` to QUIT means that what was deleted is gone, and nothing else ever is. Many rows are what
//! async-imap and imap-proto by themselves stumble over, panic at, or take for success. All of it happens at TRACE, and no
//! password is in what is logged then (F-19).

use std::{
    io,
    process::Command,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use popgate::net::{Dial, Endpoint, Pending, Wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::support::{
    chat::stuffed,
    gate::{Client, Gate, Lines, Memory},
    overheard::Overheard,
    script::{Account, Content, Mailbox, Manner, SECRETS, Server, What},
};

/// The mailbox of all these sessions: UIDs 5, 7, 9 are a small message, one that is streamed, and a small one.
struct Mail {
    account: Account,
    /// What a client must see of each.
    shown: Vec<Vec<u8>>,
}

fn mail() -> &'static Mail {
    static MAIL: OnceLock<Mail> = OnceLock::new();
    MAIL.get_or_init(|| {
        let mut account = Account::fixture();
        let mut shown = Vec::new();
        for (message, octets) in account.mailboxes[0].messages.iter_mut().zip([120, 70_000, 300]) {
            let mut content = Content::Filler(octets).octets();
            // Each says which it is, in a line that begins with a dot.
            content.splice(40..40, format!("\r\n.{}\r\n", message.uid).into_bytes());
            shown.push(stuffed(&content));
            message.reported = content.len() as u64;
            message.content = Content::new(content);
        }
        Mail { account, shown }
    })
}

/// A server with that mailbox.
fn server(manner: Manner) -> Server {
    Server::new(manner, vec![mail().account.clone()])
}

/// What a client saw, line by line, and whether all of it was good.
#[derive(Default)]
struct Seen {
    lines: Vec<String>,
    untold: Vec<String>,
    /// Numbers whose DELE was answered `+OK`.
    deleted: Vec<usize>,
    quit: Option<String>,
}

impl Seen {
    fn fine(&self) -> bool {
        self.lines.iter().all(|line| line.starts_with("+OK")) && self.quit.is_some()
    }

    async fn ask(&mut self, client: &mut Client, command: &str) -> Option<String> {
        let reply = client.ask(command).await;
        self.lines.push(reply.clone().unwrap_or_else(|| format!("(closed at {command})")));
        reply
    }
}

/// A session that uses everything: list, three messages, TOP, two deletions, QUIT.
async fn session(client: &mut Client) -> Seen {
    let mut seen = Seen::default();
    let _ = converse(client, &mut seen).await;
    seen
}

/// `None`: popgate has closed the line.
async fn converse(client: &mut Client, seen: &mut Seen) -> Option<()> {
    client.hear().await?;
    seen.ask(client, "USER tim").await?;
    let total: u64 = mail().account.mailboxes[0].messages.iter().map(|message| message.reported).sum();
    let pass = seen.ask(client, "PASS sec ret").await?;
    if pass.starts_with("-ERR") {
        seen.ask(client, "QUIT").await?;
        return Some(());
    }
    if pass != format!("+OK maildrop has 3 messages ({total} octets)") {
        seen.untold.push(format!("a maildrop that is not that: {pass}"));
    }
    for (number, command) in [(1, "RETR 1"), (2, "RETR 2"), (3, "TOP 3 99999999"), (2, "TOP 2 0"), (1, "RETR 1")] {
        if !seen.ask(client, command).await?.starts_with("+OK") {
            continue;
        }
        let whole = &mail().shown[number - 1];
        match client.body().await {
            Ok(body) if command == "TOP 2 0" && whole.starts_with(&body) && body.ends_with(b"\r\n\r\n") => {}
            Ok(body) if body == *whole => {}
            Ok(body) => seen.untold.push(format!("{command}: {} octets that are not the message", body.len())),
            Err(_) => {
                seen.lines.push(format!("(closed in {command})"));
                return None;
            }
        }
    }
    for number in [1, 3] {
        if seen.ask(client, &format!("DELE {number}")).await?.starts_with("+OK") {
            seen.deleted.push(number);
        }
    }
    seen.quit = seen.ask(client, "QUIT").await;
    Some(())
}

/// What is wrong with a session, whatever the upstream did.
fn lies(seen: &Seen, server: &Server) -> Vec<String> {
    let mut lies = seen.untold.clone();
    if let Some(line) = seen.lines.iter().find(|line| line.contains("[AUTH]")) {
        lies.push(format!("the password was right: {line}"));
    }
    let there = |inbox: &mut Mailbox| {
        inbox.messages.iter().filter(|message| !message.has("$POP3Deleted")).map(|message| message.uid).collect()
    };
    let left: Vec<u32> = server.with("tim", "INBOX", there);
    let quit_ok = seen.quit.as_ref().is_some_and(|quit| quit.starts_with("+OK"));
    for (number, uid) in [(1, 5), (2, 7), (3, 9)] {
        let (deleted, left) = (seen.deleted.contains(&number), left.contains(&uid));
        if quit_ok && deleted && left {
            lies.push(format!("+OK, but {uid} is still there"));
        }
        if !(left || deleted && seen.quit_said()) {
            lies.push(format!("{uid} is gone, and nobody asked for it"));
        }
    }
    for received in server.received() {
        let command = received.text.to_ascii_uppercase();
        // T241, F-04, F-05
        if command.starts_with("CLOSE") || command.starts_with("EXPUNGE") || command.contains("EXPUNGE 5:") {
            lies.push(format!("sent: {command}"));
        }
    }
    lies
}

impl Seen {
    /// Whether QUIT was sent in TRANSACTION.
    fn quit_said(&self) -> bool {
        self.quit.is_some() || self.lines.last().is_some_and(|line| line == "(closed at QUIT)")
    }
}

/// How messages are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asking {
    /// Each when its turn comes: large ones stream.
    Singly,
    /// Several with one command, before anybody wants them.
    Ahead,
}

/// Runs a session against a server that deviates; panics if it does not, or if the client is told a lie. Whether all went
/// well is given back.
async fn tell(manner: Manner, asking: Asking, what: &str) -> bool {
    let deviates = !manner.deviations.is_empty();
    let server = server(manner);
    let mut client = gate(&server, asking).connect();
    let seen = session(&mut client).await;
    client.leave().await;
    assert!(server.struck().iter().any(|times| *times > 0) == deviates, "{what}, {asking:?}: it never happened");
    let lies = lies(&seen, &server);
    assert!(lies.is_empty(), "{what}, {asking:?}: {lies:#?}\nsaid: {:#?}\nheard: {:#?}", seen.lines, server.received());
    seen.fine()
}

/// Which of these commands an honest server of this kind hears, and how often.
async fn heard(manner: Manner, asking: Asking, commands: &[&'static str]) -> Vec<(&'static str, usize)> {
    let server = server(manner);
    let mut client = gate(&server, asking).connect();
    session(&mut client).await;
    client.leave().await;
    let heard: Vec<_> =
        ["GREETING".into()].into_iter().chain(server.received().into_iter().map(|it| it.text)).collect();
    let times = |command: &str| heard.iter().filter(|text| text.starts_with(command)).count();
    commands.iter().map(|command| (*command, times(command))).filter(|(_, times)| *times > 0).collect()
}

fn gate(server: &Server, asking: Asking) -> Gate {
    let lines = Arc::new(Lines { server: server.clone(), capacity: 65_536 });
    let mut gate = Gate::with(lines, &|upstream, _| upstream.read_ahead = asking == Asking::Ahead);
    gate.capacity = 65_536;
    gate
}

/// Servers that can do different things, so that every command of popgate's is heard by some.
fn manners() -> Vec<(&'static str, Manner)> {
    let before = |before: &str| Manner { before: before.into(), ..Manner::default() };
    vec![
        ("UIDPLUS", Manner::default()),
        ("UIDPLUS, no ESEARCH", Manner::default().without(&["ESEARCH"])),
        ("MOVE", Manner::default().without(&["UIDPLUS"])),
        ("keyword", Manner::default().without(&["UIDPLUS", "MOVE", "ESEARCH", "SPECIAL-USE"])),
        ("no SASL-IR", before("IMAP4rev1 AUTH=PLAIN")),
        ("LOGIN", before("IMAP4rev1")),
        ("silent about capabilities", Manner { tells: false, ..Manner::default() }),
        ("UID last", Manner { uid_last: true, ..Manner::default() }),
    ]
}

/// The commands of a whole session, as far as deviations tell them apart.
const COMMANDS: [&str; 17] = [
    "GREETING",
    "CAPABILITY",
    "AUTHENTICATE",
    "LOGIN",
    "SELECT",
    "UID FETCH 1:*",
    "LIST",
    "UID SEARCH KEYWORD",
    "UID FETCH 5 ",
    "UID FETCH 7 ",
    "UID FETCH 9 ",
    "UID FETCH 7,9 ",
    "UID STORE",
    "UID EXPUNGE",
    "UID MOVE",
    "UID SEARCH",
    "LOGOUT",
];

#[tokio::test(start_paused = true)]
async fn honest_servers_of_every_kind() {
    let log = Overheard::begin(&SECRETS);
    for (name, manner) in manners() {
        for asking in [Asking::Singly, Asking::Ahead] {
            assert!(tell(manner.clone(), asking, name).await, "{name}, {asking:?}");
        }
    }
    // Every command of the table is heard by some.
    for command in COMMANDS {
        let mut times = 0;
        for (_, manner) in manners() {
            for asking in [Asking::Singly, Asking::Ahead] {
                times += heard(manner.clone(), asking, &[command]).await.len();
            }
        }
        assert!(times > 0, "{command}");
    }
    log.holds_no_secret();
}

/// §2.5: NO, BAD, BYE and the end of the line for every command, once and always, and a reply to another command first.
#[tokio::test(start_paused = true)]
async fn refusals_and_ends_for_every_command() {
    let log = Overheard::begin(&SECRETS);
    for asking in [Asking::Singly, Asking::Ahead] {
        for (name, manner) in manners() {
            refusals_and_ends(name, &manner, asking).await;
        }
    }
    log.holds_no_secret();
}

async fn refusals_and_ends(name: &str, manner: &Manner, asking: Asking) {
    for (command, times) in heard(manner.clone(), asking, &COMMANDS).await {
        for nth in 0..=times {
            for (what, shown) in [
                (What::No("no".into()), "NO"),
                (What::No("[UNAVAILABLE] later".into()), "NO [UNAVAILABLE]"),
                (What::Bad("what".into()), "BAD"),
                (What::Bye("enough".into()), "BYE"),
                (What::Close, "end before"),
                (What::Cut(0), "end behind"),
                (What::Cut(20), "end within"),
                (What::Mute, "no reply"),
                (What::Drip(10, Duration::from_secs(1)), "ten octets a second"),
                (What::Stall(25), "half a reply"),
                (What::Tagged(b"$ NO after all\r\n".to_vec()), "data and NO"),
                (What::Tagged(b"$ BAD after all\r\n".to_vec()), "data and BAD"),
                (What::Tagged(b"* BYE after all\r\n".to_vec()), "data and BYE"),
                (What::Before(b"A9998 NO stale\r\n".to_vec()), "stale NO"),
                (What::Before(b"A9998 OK stale\r\n".to_vec()), "stale OK"),
                (What::Say(b"$ OK that is all\r\n".to_vec()), "bare OK"),
            ] {
                // A command that the server believes to have carried out and has not: nobody could know.
                let forged = shown == "bare OK" && command == "UID SEARCH" && name.contains("no ESEARCH");
                let believed = shown == "bare OK" && command == "UID SEARCH" && name == "keyword";
                // There the rights of the user are at fault, as far as anybody can tell.
                let denied = matches!(command, "AUTHENTICATE" | "LOGIN") && matches!(shown, "NO" | "data and NO");
                if forged || believed || denied {
                    continue;
                }
                let manner = manner.clone().deviating(command, nth, what);
                tell(manner, asking, &format!("{name}: {shown} to {command}, time {nth}")).await;
            }
        }
    }
}

/// What a server may say besides, at any time, without harm.
fn harmless() -> Vec<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = [
        "* ESEARCH (TAG \"other\") UID COUNT 2 ALL 5,9",
        "* ESEARCH",
        "* SEARCH",
        "* NAMESPACE ((\"\" \"/\")) NIL NIL",
        "* XFOO bar (baz",
        "",
        "* STATUS x (MESSAGES 3 SIZE 500 DELETED 0 MAILBOXID (F1))",
        "* 1 FETCH ()",
        "* 2 FETCH (FLAGS (\\Seen)  UID 7)",
        "* 1 FETCH (X-FOO (a (b \"c)\" {3}\r\nabc)) UID 5)",
        "* 1 FETCH (SAVEDATE NIL PREVIEW \"x\" EMAILID (M1) THREADID NIL UID 5)",
        "* 1 FETCH (UID 5 INTERNALDATE NIL)",
        "* 1 FETCH (UID 5 BODYSTRUCTURE ~{3}\r\nabc)",
        "* 1 FETCH (UID 5 ENVELOPE (NIL {10+}\r\n)\r\n$ OK a))",
        "* 1 FETCH (MODSEQ (12) UID 5)",
        "* OK [ALERT]",
        "* OK [ALERT] read this",
        "* OK",
        "* NO [UNAVAILABLE] some other thing",
        "* BAD what was that",
        "* OK a text that ends like a literal {12}",
        "* OK [HIGHESTMODSEQ 715194045007] .",
        "* OK [MAILBOXID (F2212ea87)] .",
        "* OK [X-THING \"a]b\" (c)] .",
        "* OK [UNSEEN 2] .",
        "* CAPABILITY IMAP4rev1  SASL-IR ",
        "* CAPABILITY IMAP4rev2",
        "* ENABLED CONDSTORE",
        "* QUOTA \"\" (STORAGE 10 512)",
        "* QUOTAROOT INBOX \"\"",
        "* ID (\"name\" NIL)",
        "* LIST () NIL INBOX",
        "* 0 RECENT",
        "* FLAGS (\\Answered \\Deleted)",
        "* METADATA \"\" /shared/comment",
        "* GENURLAUTH x",
        "* LANGUAGE (EN)",
    ]
    .map(|line| format!("{line}\r\n").into_bytes())
    .to_vec();
    lines.push(b"* OK [ALERT]\xe9\xff and more\r\n".to_vec());
    lines.push(b"* OK the end of a line is a mere LF\n".to_vec());
    for depth in [400, 20_000] {
        let nested = format!("* 1 FETCH (UID 5 BODYSTRUCTURE {}{})\r\n", "(".repeat(depth), ")".repeat(depth));
        lines.push(nested.into_bytes());
    }
    lines.push(format!("* OK {}\r\n", "long ".repeat(12_000)).into_bytes());
    lines.push("* XFOO bar\r\n".repeat(5_000).into_bytes());
    lines
}

/// What no server that can be relied on says.
fn harmful() -> Vec<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = [
        "A9998 OK never sent",
        "+ go on",
        "$ OK twice",
        "* 1 FETCH (UID 0)",
        "* 1 FETCH (UID 4294967296)",
        "* 1 FETCH (UID 5 RFC822.SIZE x)",
        "* 1 FETCH (UID 5 ENVELOPE {536862720}\r\nabc",
        "* 1 FETCH (UID 5 ENVELOPE {4294967295}\r\nabc",
        "* 1 FETCH (UID 5 ENVELOPE {99999999999999999999}\r\nabc",
        "* 1 FETCH (UID 5",
        "* 1 FETCH UID 5",
        "HTTP/1.1 400 Bad Request",
        "garbage",
        "* BYE and gone",
    ]
    .map(|line| format!("{line}\r\n").into_bytes())
    .to_vec();
    lines.push(b"* OK a NUL \0 in it\r\n".to_vec());
    lines.push(b"\x15\x03\x03\x00\x02\x02\x28\r\n".to_vec());
    lines.push([b"* OK ".as_slice(), &[b'x'; 70_000], b"\r\n"].concat());
    lines.push([b"* 1 FETCH (UID 5 X ".as_slice(), &[b'x'; 1_000_000]].concat());
    lines.push(b"* XFOO bar\r\n".repeat(20_000));
    lines
}

fn shown(octets: &[u8]) -> String {
    octets[..octets.len().min(70)].escape_ascii().to_string()
}

/// Commands before whose reply a server may say something.
const TALKATIVE: [(&str, Asking); 10] = [
    ("AUTHENTICATE", Asking::Singly),
    ("SELECT", Asking::Singly),
    ("UID FETCH 1:*", Asking::Singly),
    ("UID FETCH 5 ", Asking::Singly),
    ("UID FETCH 7 ", Asking::Singly),
    ("UID FETCH 7,9 ", Asking::Ahead),
    ("UID STORE", Asking::Singly),
    ("UID EXPUNGE", Asking::Singly),
    ("UID SEARCH", Asking::Singly),
    ("LOGOUT", Asking::Singly),
];

/// §2.3, C.12: unknown and odd lines are borne with.
#[tokio::test(start_paused = true)]
async fn odd_lines_do_no_harm() {
    let log = Overheard::begin(&SECRETS);
    for (command, asking) in TALKATIVE {
        for octets in harmless() {
            let shown = format!("{} before the reply to {command}", shown(&octets));
            let manner = Manner::default().deviating(command, 0, What::Before(octets));
            assert!(tell(manner, asking, &shown).await, "{shown}");
        }
    }
    log.holds_no_secret();
}

/// §2.1, §2.2, C.12: the line is not used any more, and the client is told.
#[tokio::test(start_paused = true)]
async fn wrong_lines_end_in_a_refusal() {
    let log = Overheard::begin(&SECRETS);
    for (command, asking) in TALKATIVE {
        for octets in harmful() {
            let shown = format!("{} before the reply to {command}", shown(&octets));
            let manner = Manner::default().deviating(command, 0, What::Before(octets));
            let fine = tell(manner, asking, &shown).await;
            // AUTHENTICATE can call for a `+`; and behind a BYE all may have been done, as a new line shows.
            let called_for = command == "AUTHENTICATE" && shown.starts_with('+') || shown.starts_with("* BYE");
            assert!(!fine || command == "LOGOUT" || called_for, "{shown}");
        }
    }
    log.holds_no_secret();
}

/// §2.3: bodies in every form.
#[tokio::test(start_paused = true)]
async fn odd_bodies() {
    let log = Overheard::begin(&SECRETS);
    for (uid, asking) in
        [("UID FETCH 5 ", Asking::Singly), ("UID FETCH 7 ", Asking::Singly), ("UID FETCH 7,9 ", Asking::Ahead)]
    {
        for nth in [0, 1] {
            for body in [
                "NIL",
                "\"\"",
                "{0}\r\n",
                "~{0}\r\n",
                "\"a b\\\"c\"",
                "atom",
                "(list)",
                "{3+}\r\nabc",
                "{536862720}\r\nabc",
                "{4294967296}\r\nabc",
                "{99999999999999999999}\r\nabc",
                "{-1}\r\nabc",
                "{3\r\nabc",
                "NIL BODY[] NIL",
                "{2}\r\n",
            ] {
                let manner = Manner::default().deviating(uid, nth, What::Body(body));
                // Three octets are a message if the server says so; whose they are was not the question here.
                if !matches!(body, "\"a b\\\"c\"" | "{3+}\r\nabc") {
                    tell(manner, asking, &format!("{body} for {uid}, time {nth}")).await;
                }
            }
            for by in [-100, -1, 1, 100, 1_000_000, i64::from(u32::MAX)] {
                let manner = Manner::default().deviating(uid, nth, What::Literal(by));
                if by > 0 {
                    tell(manner, asking, &format!("a literal {by} octets too long for {uid}")).await;
                }
            }
            let manner = Manner::default().deviating(uid, nth, What::Bodiless);
            tell(manner, asking, &format!("no body for {uid}")).await;
        }
    }
    log.holds_no_secret();
}

/// T284, T0A0, §4.3: the line to the upstream ends, falls silent or brings one wrong octet after every number of octets.
#[tokio::test(start_paused = true)]
async fn cut_after_every_octet() {
    let log = Overheard::begin(&SECRETS);
    let counted =
        Arc::new(Cut { server: server(Manner::default()), at: u64::MAX, how: How::End, octets: Arc::default() });
    let mut client = Gate::with(counted.clone(), &|_, _| {}).connect();
    assert!(session(&mut client).await.fine());
    client.leave().await;
    let total = counted.octets.load(Relaxed);
    // The inside of the large message is cut now and then only.
    for at in (0..total).filter(|at| *at < 1_700 || *at > total - 1_200 || at % 9_999 == 0) {
        for how in [How::End, if at % 2 == 0 { How::Silence } else { How::Wrong }] {
            let server = server(Manner::default());
            let cut = Arc::new(Cut { server: server.clone(), at, how, octets: Arc::default() });
            let mut gate = Gate::with(cut, &|_, _| {});
            gate.capacity = 65_536;
            let mut client = gate.connect();
            let seen = session(&mut client).await;
            client.leave().await;
            let mut lies = lies(&seen, &server);
            if how == How::Wrong {
                // A message with one octet changed is what it is.
                lies.retain(|lie| !lie.contains("not the message") && !lie.contains("a maildrop that"));
            }
            assert!(lies.is_empty(), "{how:?} at {at} of {total}: {lies:#?}\nsaid: {:#?}", seen.lines);
        }
    }
    log.holds_no_secret();
}

/// T285: the client's line ends after every number of octets. What it has not asked for to the last octet is not done.
#[tokio::test(start_paused = true)]
async fn the_client_is_cut_after_every_octet() {
    let log = Overheard::begin(&SECRETS);
    let commands = "USER tim\r\nPASS sec ret\r\nDELE 1\r\nRETR 2\r\nDELE 3\r\nQUIT\r\n";
    for at in 0..=commands.len() {
        let server = server(Manner::default());
        let mut client = Gate::new(&server).connect();
        client.send(&commands[..at]).await;
        let _ = client.line.shutdown().await;
        let mut said = Vec::new();
        client.line.read_to_end(&mut said).await.unwrap();
        client.leave().await;
        let left = server.with("tim", "INBOX", |inbox| inbox.uids());
        // The line end is CRLF or LF; both octets of CRLF need not come, and the CR alone is no line end.
        let quit = commands[..at].ends_with("QUIT\r\n");
        assert_eq!(left, if quit { vec![7] } else { vec![5, 7, 9] }, "at {at}");
    }
    log.holds_no_secret();
}

/// T242, F33: the process ends at any moment, and so do its lines. The next session, of a popgate that remembers nothing or
/// of one that goes on, finds every message that was not deleted, and can delete the others again.
#[tokio::test(start_paused = true)]
async fn killed_at_every_step() {
    let log = Overheard::begin(&SECRETS);
    for (name, manner) in manners() {
        for memory in [Memory::Nothing, Memory::Everything] {
            let mut polls = 0;
            while !killed_after(polls, &manner, memory, name).await {
                polls += 1;
            }
            assert!(polls > 5, "{name}: {polls} steps cannot be a session");
        }
    }
    log.holds_no_secret();
}

/// Whether the session was over by then.
async fn killed_after(polls: usize, manner: &Manner, memory: Memory, name: &str) -> bool {
    let what = format!("{}{name}, after {polls} steps", memory.words());
    let server = server(manner.clone());
    let left = || {
        server.with("tim", "INBOX", |inbox| {
            let shown = inbox.messages.iter().filter(|message| !message.has("$POP3Deleted"));
            shown.map(|message| message.uid).collect::<Vec<_>>()
        })
    };
    let lines = || Arc::new(Lines { server: server.clone(), capacity: 65_536 });
    let mut gate = Gate::remembering(memory, lines(), &|_, _| {});
    gate.capacity = 65_536;
    if memory == Memory::Everything {
        // A listing and a line for the session that is killed.
        let mut client = gate.connect();
        client.log_in().await.unwrap();
        client.ask("QUIT").await.unwrap();
        client.leave().await;
    }
    let (mut client, session) = gate.line();
    let commands = "USER tim\r\nPASS sec ret\r\nRETR 1\r\nDELE 1\r\nDELE 3\r\nQUIT\r\n";
    client.write_all(commands.as_bytes()).await.unwrap();
    client.shutdown().await.unwrap();
    let finished = poll_times(session, polls).await;
    // What was sent upstream before is still carried out.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let there = left();
    assert!(there == [5, 7, 9] || there == [7], "{what}: {there:?}");
    assert!(!finished || there == [7], "{what}");
    let gate = if memory == Memory::Nothing { Gate::remembering(memory, lines(), &|_, _| {}) } else { gate };
    let mut client = gate.connect();
    let pass = client.log_in().await.unwrap();
    assert!(pass.starts_with(&format!("+OK maildrop has {} messages", there.len())), "{what}: {pass}");
    for number in 1..=there.len() {
        assert!(client.ask(&format!("DELE {number}")).await.unwrap().starts_with("+OK"), "{what}");
    }
    let quit = client.ask("QUIT").await.unwrap();
    assert_eq!(quit, "+OK POP3 server signing off (0 messages left)", "{what}");
    client.leave().await;
    assert!(left().is_empty(), "{what}");
    finished
}

/// Polls a future so many times and drops it. Whether it was done.
async fn poll_times(future: impl Future<Output = ()>, times: usize) -> bool {
    let mut future = std::pin::pin!(future);
    let mut polled = 0;
    std::future::poll_fn(|cx| {
        if polled == times {
            return Poll::Ready(false);
        }
        polled += 1;
        future.as_mut().poll(cx).map(|()| true)
    })
    .await
}

/// A server whose first line breaks after so many octets.
struct Cut {
    server: Server,
    at: u64,
    how: How,
    /// How many octets went over the first line, all in all.
    octets: Arc<AtomicU64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum How {
    End,
    Silence,
    Wrong,
}

impl Dial for Cut {
    fn dial<'a>(&'a self, to: &'a Endpoint) -> Pending<'a, io::Result<Box<dyn Wire>>> {
        if self.server.connections() > 0 {
            return Box::pin(async move { Lines { server: self.server.clone(), capacity: 65_536 }.dial(to).await });
        }
        let (ours, middle) = tokio::io::duplex(65_536);
        let (other, theirs) = tokio::io::duplex(65_536);
        let server = self.server.clone();
        let (at, how, octets) = (self.at, self.how, Arc::clone(&self.octets));
        tokio::spawn(async move {
            tokio::select! {
                _ = server.serve(theirs) => {}
                () = relay(middle, other, at, how, &octets) => {}
            }
        });
        Box::pin(async { Ok(Box::new(ours) as Box<dyn Wire>) })
    }
}

async fn relay(popgate: DuplexStream, server: DuplexStream, at: u64, how: How, octets: &AtomicU64) {
    let (mut from_popgate, mut to_popgate) = tokio::io::split(popgate);
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let up = async {
        let _ = tokio::io::copy(&mut from_popgate, &mut to_server).await;
        let _ = to_server.shutdown().await;
    };
    let down = async {
        let mut room = [0; 4096];
        while let left @ 1.. = at - octets.load(Relaxed) {
            let room = &mut room[..usize::try_from(left).unwrap_or(usize::MAX).min(4096)];
            let Ok(read @ 1..) = from_server.read(room).await else { break };
            octets.fetch_add(read as u64, Relaxed);
            let _ = to_popgate.write_all(&room[..read]).await;
        }
        match how {
            How::End => {}
            How::Silence => std::future::pending().await,
            How::Wrong => {
                let mut octet = [0];
                if from_server.read_exact(&mut octet).await.is_ok() {
                    let _ = to_popgate.write_all(&[octet[0] ^ 0x55]).await;
                    let _ = tokio::io::copy(&mut from_server, &mut to_popgate).await;
                }
            }
        }
    };
    tokio::pin!(down);
    tokio::select! {
        () = &mut down => return,
        () = up => {}
    }
    // popgate sends no more; what the server has to say still goes its way.
    down.await;
}

/// §2.1: what a server announces is not allocated, and what it sends is not kept. The test runs itself once more in a
/// process of its own, so that its peak of memory can be read.
#[cfg(target_os = "linux")]
#[test]
fn nothing_grows() {
    const CHILD: &str = "POPGATE_TESTS_CHILD";
    if std::env::var_os(CHILD).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let grown = runtime.block_on(hostile_octets());
        assert!(grown < 16 * 1024, "grown by {grown} KiB");
        return;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    let child = child.args(["--exact", "faults::nothing_grows"]).env(CHILD, "1").output().unwrap();
    let said = [child.stdout, child.stderr].concat();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&said));
}

/// By how many KiB hostile servers make the process grow.
#[cfg(target_os = "linux")]
async fn hostile_octets() -> u64 {
    let peak = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    tell(Manner::default(), Asking::Singly, "honest").await;
    let before = peak();
    for size in [10_000_000_u64, 536_862_720, 4_294_967_295] {
        for item in ["BODY[]", "ENVELOPE", "BODY[HEADER]"] {
            let announced = format!("* 1 FETCH (UID 5 {item} {{{size}}}\r\nabc").into_bytes();
            let manner = Manner::default().deviating("UID FETCH 5 ", 0, What::Say(announced));
            tell(manner, Asking::Singly, "announced").await;
        }
    }
    // T175: a message of 32 MB through a client that reads slowly: what it has not read is not fetched.
    let server = server(Manner::default());
    server.with("tim", "INBOX", |inbox| inbox.messages[1].content = Content::Filler(32_000_000));
    let mut client = Gate::new(&server).connect();
    client.log_in().await.unwrap();
    client.ask("RETR 2").await.unwrap();
    let mut room = vec![0; 65_536];
    let mut octets = 0;
    while octets < 32_000_000 {
        let read = client.line.read(&mut room).await.unwrap();
        assert!(read > 0);
        octets += read;
    }
    client.leave().await;
    // Lines without an end, and lines without number.
    for line in [b"* XFOO bar\r\n".as_slice(), b"xxxxxxxxxxxx", b"* 1 EXPUNGE\r\n", b"* 1 FETCH (UID 5 FLAGS ())\r\n"] {
        let (ours, mut theirs) = tokio::io::duplex(65_536);
        let flood = tokio::spawn(async move {
            let _ = theirs.write_all(b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready\r\n").await;
            let mut sent = 0;
            while sent < 4_000_000 && theirs.write_all(line).await.is_ok() {
                sent += line.len();
            }
        });
        let mut client = Gate::with(Arc::new(Once(Mutex::new(Some(ours)))), &|_, _| {}).connect();
        let reply = client.log_in().await.unwrap();
        assert!(reply.starts_with("-ERR [SYS/TEMP]"), "{reply}");
        client.leave().await;
        flood.abort();
    }
    peak().saturating_sub(before)
}

/// One line, made beforehand.
struct Once(Mutex<Option<DuplexStream>>);

impl Dial for Once {
    fn dial<'a>(&'a self, _: &'a Endpoint) -> Pending<'a, io::Result<Box<dyn Wire>>> {
        let line = self.0.lock().unwrap().take().map(|line| Box::new(line) as Box<dyn Wire>);
        Box::pin(async { line.ok_or_else(|| io::ErrorKind::ConnectionRefused.into()) })
    }
}
