//! Properties of the POP3 core that no table of examples can show: how octets are cut into pieces changes nothing, what
//! was written can be read again, and a session of random commands agrees with a model that is too simple to be wrong.

use std::sync::Arc;

use popgate::{
    mail::{Changes, Credentials, Deletion, Message, Proof, Secret, Snapshot, Uid, UidValidity},
    pop3::{
        command::Command,
        line::{BOUND, Expects, Input, Lines},
        reply::Reply,
        session::{Authorization, Before, Channel, During, Settings, Transaction},
        stuff::Stuffer,
        top::Top,
    },
};
use proptest::{collection::vec, prelude::*, sample::select};

proptest! {
    #[test]
    fn cutting_input_anywhere_changes_no_line(octets in input(), cuts in vec(any::<prop::sample::Index>(), 0..20)) {
        prop_assert_eq!(lines(pieces(&octets, &cuts)), lines([&octets[..]]));
        prop_assert_eq!(lines(octets.chunks(1)), lines([&octets[..]]));
    }

    #[test]
    fn a_command_that_is_written_is_read_again(words in any_command(), lower in any::<bool>(), spaces in 1..4_usize) {
        let written = written(&words, lower, spaces);
        let read = Command::parse(written.as_bytes()).ok().map(print);
        prop_assert_eq!(read, Some(words.join(" ")), "{}", written);
    }

    #[test]
    fn no_line_makes_the_parser_panic(line in vec(any::<u8>(), 0..300)) {
        let _ = Command::parse(&line);
    }

    #[test]
    fn cutting_a_message_anywhere_changes_nothing(body in body(), cuts in vec(any::<prop::sample::Index>(), 0..20)) {
        prop_assert_eq!(stuffed(pieces(&body, &cuts)), stuffed([&body[..]]));
    }

    #[test]
    fn what_a_client_makes_of_a_stuffed_message_is_the_message(body in body()) {
        let (stream, octets) = stuffed([&body[..]]);
        let message = unstuffed(&stream);
        prop_assert_eq!(message.as_ref().map(|message| message.len() as u64), Some(octets));
        prop_assert_eq!(message, Some(normalised(&body)));
    }

    #[test]
    fn cutting_a_message_anywhere_changes_nothing_about_its_top(
        body in body(), body_lines in 0..4_u64, cuts in vec(any::<prop::sample::Index>(), 0..20),
    ) {
        prop_assert_eq!(top(pieces(&body, &cuts), body_lines), top([&body[..]], body_lines));
    }

    #[test]
    fn a_session_agrees_with_the_model(sizes in vec(0..1000_u64, 0..6), script in vec(step(), 0..40)) {
        let mut model = Model::new(&sizes);
        let mut session = opened(&sizes);
        for Step { command, fate } in script {
            let (expected, next) = (model.say(&command, fate), say(session, &command, fate));
            match next {
                Said::On(next, reply) => {
                    prop_assert_eq!(reply, expected, "{}", command);
                    session = *next;
                }
                Said::Bye(reply, changes) => {
                    prop_assert_eq!(reply, expected, "{}", command);
                    prop_assert_eq!(changes, model.changes());
                    return Ok(());
                }
            }
        }
    }
}

/// What comes out of the lexer, up to the first thing that ends a session.
fn lines<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Result<Vec<u8>, &'static str>> {
    let mut lines = Lines::new();
    let mut seen = Vec::new();
    for piece in pieces {
        lines.push(piece);
        while let Some(input) = lines.next(Expects::Command) {
            match input {
                Input::Line(line) => seen.push(Ok(line.expose().clone())),
                Input::TooLong => seen.push(Err("too long")),
                Input::Endless | Input::Foreign => {
                    seen.push(Err("the end"));
                    return seen;
                }
            }
        }
    }
    seen
}

/// Input near the limits: lines of all lengths with all kinds of ends.
fn input() -> impl Strategy<Value = Vec<u8>> {
    let keyword = select(vec!["", "STAT ", "PASS ", "user ", "AUTH\t", "GET ", "\x16", "a\rb"]);
    let length = prop_oneof![
        4 => 0..20_usize,
        2 => 240..260_usize,
        1 => 16_370..16_390_usize,
        1 => BOUND - 10..BOUND + 10,
    ];
    let line = (keyword, length, select(vec!["\n", "\r\n", "\r\r\n", "\n\n"]))
        .prop_map(|(keyword, length, end)| format!("{keyword}{}{end}", "x".repeat(length)).into_bytes());
    (vec(line, 0..5), vec(any::<u8>(), 0..8)).prop_map(|(lines, rest)| [lines.concat(), rest].concat())
}

/// The octets in pieces, one of them for each cut and one more.
fn pieces<'a>(octets: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(octets.len() + 1)).chain([0, octets.len()]).collect();
    cuts.sort_unstable();
    cuts.windows(2).map(|cut| &octets[cut[0]..cut[1]]).collect()
}

/// A command as words.
fn any_command() -> impl Strategy<Value = Vec<String>> {
    let number = 1..=i32::MAX as u32;
    let bare = select(vec!["CAPA", "STLS", "QUIT", "NOOP", "STAT", "RSET", "LIST", "UIDL", "AUTH"]);
    let secret = "[!-~é]([ -~é]{0,20}[!-~é])?";
    prop_oneof![
        bare.prop_map(|keyword| vec![keyword.to_owned()]),
        (select(vec!["LIST", "UIDL", "RETR", "DELE"]), number.clone())
            .prop_map(|(keyword, number)| vec![keyword.to_owned(), number.to_string()]),
        (number, 0..=i64::MAX).prop_map(|(number, lines)| vec!["TOP".into(), number.to_string(), lines.to_string()]),
        secret.prop_map(|user| vec!["USER".into(), user]),
        "[ -~é]{1,20}".prop_map(|password| vec!["PASS".into(), password]),
        "[A-Z0-9-]{1,20}".prop_map(|mechanism| vec!["AUTH".into(), mechanism]),
        ("[A-Z0-9-]{1,20}", "[A-Za-z0-9+/=]{1,20}").prop_map(|(mechanism, initial)| vec![
            "AUTH".into(),
            mechanism,
            initial
        ]),
    ]
}

/// The words as a client may write them: in any case and with more spaces than needed, where spaces mean nothing.
fn written(words: &[String], lower: bool, spaces: usize) -> String {
    let mut words = words.to_vec();
    let gap = " ".repeat(if words[0] == "PASS" { 1 } else { spaces });
    if lower {
        words[0].make_ascii_lowercase();
    }
    words.join(&gap)
}

/// The one way to write a command.
fn print(command: Command<'_>) -> String {
    let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).unwrap();
    let with = |keyword: &str, number| format!("{keyword} {number}");
    match command {
        Command::Capa => "CAPA".into(),
        Command::Stls => "STLS".into(),
        Command::Quit => "QUIT".into(),
        Command::Noop => "NOOP".into(),
        Command::Stat => "STAT".into(),
        Command::Rset => "RSET".into(),
        Command::Mechanisms => "AUTH".into(),
        Command::User(user) => format!("USER {}", text(user)),
        Command::Pass(password) => format!("PASS {}", text(password)),
        Command::Auth { mechanism, initial: None } => format!("AUTH {}", text(mechanism)),
        Command::Auth { mechanism, initial: Some(initial) } => format!("AUTH {} {}", text(mechanism), text(initial)),
        Command::List(number) => number.map_or_else(|| "LIST".into(), |number| with("LIST", number)),
        Command::Uidl(number) => number.map_or_else(|| "UIDL".into(), |number| with("UIDL", number)),
        Command::Retr(number) => with("RETR", number),
        Command::Dele(number) => with("DELE", number),
        Command::Top(number, lines) => format!("TOP {number} {lines}"),
    }
}

/// A message made of what matters to line ends and dots, and of other things in between.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        select(vec!["\r", "\n", "\r\n", ".", "..", "\r\n.\r\n", "\r.", "\0", "x"])
            .prop_map(|part| part.as_bytes().to_vec()),
        vec(any::<u8>(), 0..100),
    ];
    vec(part, 0..40).prop_map(|parts| parts.concat())
}

fn stuffed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, u64) {
    let (mut stuffer, mut out) = (Stuffer::new(), Vec::new());
    pieces.into_iter().for_each(|piece| stuffer.push(piece, &mut out));
    let octets = stuffer.octets();
    stuffer.finish(&mut out);
    (out, octets)
}

/// Reads a multi-line reply as RFC 1939 §3 says; `None` unless it ends exactly where the stream does.
fn unstuffed(mut stream: &[u8]) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    loop {
        let end = stream.windows(2).position(|two| two == b"\r\n")? + 2;
        let (line, rest) = stream.split_at(end);
        match line.strip_prefix(b".") {
            Some(b"\r\n") => return rest.is_empty().then_some(message),
            Some(line) => message.extend(line),
            None => message.extend(line),
        }
        stream = rest;
    }
}

/// The message with every line ended by CRLF, and with CRLF for a CR that stands before a dot.
fn normalised(body: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    for (at, octet) in body.iter().enumerate() {
        match (octet, message.last()) {
            (b'\n', last) if last != Some(&b'\r') || at == 0 => message.extend(b"\r\n"),
            (b'.', Some(b'\r')) => message.extend(b"\n."),
            _ => message.push(*octet),
        }
    }
    match message.last() {
        None | Some(b'\n') => {}
        Some(b'\r') => message.push(b'\n'),
        Some(_) => message.extend(b"\r\n"),
    }
    message
}

fn top<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, body_lines: u64) -> (Vec<u8>, bool) {
    let (mut top, mut kept) = (Top::new(body_lines), Vec::new());
    pieces.into_iter().for_each(|piece| kept.extend(&piece[..top.push(piece)]));
    (kept, top.finished())
}

/// What the upstream does when a message is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Sent,
    Gone,
    Failed,
}

#[derive(Clone, Debug)]
struct Step {
    command: String,
    fate: Fate,
}

fn step() -> impl Strategy<Value = Step> {
    let numbered = (select(vec!["LIST", "UIDL", "RETR", "DELE", "DELE"]), 0..8_u32);
    let command = prop_oneof![
        3 => select(vec!["STAT", "LIST", "UIDL", "NOOP", "STAT"]).prop_map(String::from),
        1 => select(vec!["RSET", "QUIT", "LIST x", "nonsense"]).prop_map(String::from),
        8 => numbered.prop_map(|(keyword, number)| format!("{keyword} {number}")),
        2 => (0..8_u32, select(vec![0, 9999])).prop_map(|(number, lines)| format!("TOP {number} {lines}")),
    ];
    let fate = select(vec![Fate::Sent, Fate::Sent, Fate::Gone, Fate::Failed]);
    (command, fate).prop_map(|(command, fate)| Step { command, fate })
}

/// The maildrop of RFC 1939 as plainly as it can be written down: a row for each message.
struct Model {
    rows: Vec<Row>,
    bad: u32,
}

#[derive(Clone, Default)]
struct Row {
    uid: u32,
    octets: u64,
    deleted: bool,
    retrieved: bool,
    failed: bool,
    ghost: bool,
}

impl Model {
    fn new(sizes: &[u64]) -> Self {
        let row = |(uid, octets): (u32, &u64)| Row { uid, octets: *octets, ..Row::default() };
        Self { rows: (5..).step_by(3).zip(sizes).map(row).collect(), bad: 0 }
    }

    fn say(&mut self, command: &str, fate: Fate) -> String {
        let ghosts = self.rows.clone();
        let words: Vec<_> = command.split(' ').collect();
        let asked_again = matches!(words[0], "RETR" | "TOP")
            && self.row(words[1]).is_ok_and(|index| ghosts[index].ghost && !ghosts[index].deleted);
        let bad = matches!(command, "LIST x" | "nonsense") || asked_again;
        self.bad = if bad { self.bad + 1 } else { 0 };
        if self.bad == 20 {
            return "-ERR".into();
        }
        self.answer(&words, fate).unwrap_or_else(|()| "-ERR".into())
    }

    fn answer(&mut self, words: &[&str], fate: Fate) -> Result<String, ()> {
        let kept = || self.rows.iter().enumerate().filter(|(_, row)| !row.deleted);
        let id = |row: &Row| format!("{:08x}{:08x}", row.uid, 100);
        match *words {
            ["STAT"] => Ok(format!("+OK {} {}", kept().count(), kept().map(|(_, row)| row.octets).sum::<u64>())),
            ["LIST"] => Ok(kept().map(|(at, row)| format!("{} {}\r\n", at + 1, row.octets)).collect()),
            ["UIDL"] => Ok(kept().map(|(at, row)| format!("{} {}\r\n", at + 1, id(row))).collect()),
            ["LIST", number] => self.row(number).map(|at| format!("+OK {number} {}", self.rows[at].octets)),
            ["UIDL", number] => self.row(number).map(|at| format!("+OK {number} {}", id(&self.rows[at]))),
            ["NOOP" | "QUIT"] => Ok("+OK".into()),
            ["RSET"] => {
                self.rows.iter_mut().for_each(|row| (row.deleted, row.retrieved) = (false, false));
                Ok("+OK".into())
            }
            ["DELE", number] => {
                let at = self.row(number)?;
                self.rows[at].deleted = !self.rows[at].failed;
                if self.rows[at].deleted { Ok("+OK".into()) } else { Err(()) }
            }
            ["RETR", number] | ["TOP", number, _] => {
                let at = self.row(number)?;
                let (row, whole) = (&mut self.rows[at], words[0] == "RETR" || words[2] == "9999");
                if row.ghost {
                    return Err(());
                }
                row.ghost = fate == Fate::Gone;
                row.failed = fate == Fate::Failed || (row.failed && fate == Fate::Sent && !whole);
                row.retrieved |= fate == Fate::Sent && words[0] == "RETR";
                if fate == Fate::Sent { Ok("+OK".into()) } else { Err(()) }
            }
            _ => Err(()),
        }
    }

    /// The index of a message that can be spoken of.
    fn row(&self, number: &str) -> Result<usize, ()> {
        let number: usize = number.parse().map_err(|_| ())?;
        let row = number.checked_sub(1).and_then(|index| self.rows.get(index)).ok_or(())?;
        if row.deleted { Err(()) } else { Ok(number - 1) }
    }

    fn changes(&self) -> Option<Changes> {
        let uids = |chosen: fn(&Row) -> bool| {
            self.rows.iter().filter(|row| chosen(row)).filter_map(|row| Uid::new(row.uid)).collect::<Vec<_>>()
        };
        let delete = uids(|row| row.deleted && !row.ghost);
        (self.bad < 20).then(|| Changes { delete, seen: uids(|row| row.retrieved && !row.deleted) })
    }
}

/// A session that has logged in, with the messages that the model has.
fn opened(sizes: &[u64]) -> Transaction {
    let settings = Settings { unique_ids: "dovecot".parse().unwrap(), seen: true };
    let channel = Channel { encrypted: true, stls: true, login: true };
    let messages = Model::new(sizes).rows.into_iter();
    let messages = messages.map(|row| Message { uid: Uid::new(row.uid).unwrap(), octets: row.octets });
    let snapshot = Snapshot::new(UidValidity::new(100), Deletion::Allowed, messages);
    let (session, _) = Authorization::new(channel);
    let Before::Reply(session, _) = session.line(line("USER tim")) else { panic!("USER") };
    let Before::Open(opening, credentials) = session.line(line("PASS sec ret")) else { panic!("PASS") };
    let Credentials { user, proof: Proof::Password(password), .. } = credentials else { panic!("not a password") };
    assert_eq!((&*user, &password.expose()[..]), ("tim", &b"sec ret"[..]));
    opening.opened(Arc::new(settings), Arc::new(snapshot)).0
}

fn line(text: &str) -> Input {
    Input::Line(Secret::new(text.as_bytes().to_vec()))
}

/// What a command led to, in the words of the model: numbers are compared, sentences are not.
enum Said {
    On(Box<Transaction>, String),
    Bye(String, Option<Changes>),
}

fn say(session: Transaction, command: &str, fate: Fate) -> Said {
    let numbers = matches!(command.split(' ').next(), Some("STAT" | "LIST" | "UIDL"));
    let words = |reply: &Reply| match std::str::from_utf8(reply.octets()).unwrap().trim_end() {
        text if numbers && text.starts_with("+OK") => text.to_owned(),
        text => text[..text.find(' ').unwrap()].to_owned(),
    };
    let mut next = session.line(line(command));
    if let During::Send(sending, wanted) = next {
        next = match fate {
            Fate::Sent => {
                let header = sending.header(wanted.octets);
                During::Reply(sending.sent(wanted.body_lines == Some(9999)), header)
            }
            Fate::Gone => sending.gone(),
            Fate::Failed => sending.failed(Reply::message_unavailable()),
        };
    }
    match next {
        During::Reply(session, reply) => Said::On(Box::new(session), words(&reply)),
        During::List(session, mut listing) => {
            let mut out = Vec::new();
            while listing.fill(&mut out) {}
            let out = String::from_utf8(out).unwrap();
            let body = out.split_once("\r\n").and_then(|(_, body)| body.strip_suffix(".\r\n")).unwrap();
            Said::On(Box::new(session), body.to_owned())
        }
        During::Update(leaving, changes) => Said::Bye(words(&leaving.done()), Some(changes)),
        During::Close(reply) => Said::Bye(words(&reply.unwrap()), None),
        During::Send(..) => panic!("{command}: asked for twice"),
    }
}
