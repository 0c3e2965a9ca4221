//! The inner loops, each by itself: how fast lines are taken in and understood, how fast messages are stuffed and cut, how
//! fast listings are written. The best of many short runs, since whatever else the machine does only makes one slower.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot be made ends with a panic")]
#![allow(clippy::print_stdout, reason = "the figures are what it is run for")]

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use popgate::{
    mail::{Deletion, Message, Secret, Snapshot, Uid, UidValidity},
    pop3::{
        command::Command,
        line::{Expects, Input, Lines},
        session::{Authorization, Before, Channel, During, Listing, Settings},
        stuff::Stuffer,
        top::Top,
    },
};

fn main() {
    let commands = b"RETR 1234\r\nDELE 1234\r\nTOP 1234 0\r\n".repeat(1000);
    best("lines taken in and understood", "million lines/s", 3e-3, || {
        let mut lines = Lines::new();
        let mut understood = 0;
        for piece in commands.chunks(4096) {
            lines.push(piece);
            while let Some(Input::Line(line)) = lines.next(Expects::Command) {
                understood += usize::from(Command::parse(line.expose()).is_ok());
            }
        }
        assert_eq!(understood, 3000);
    });

    let line = [b'x'; 76];
    let ordinary = [&line[..], b"\r\n"].concat().repeat(13_000);
    let dots = [b".", &line[..], b"\r\n"].concat().repeat(13_000);
    let bare = [&line[..], b"\n"].concat().repeat(13_000);
    let short = b"x\r\n".repeat(340_000);
    for (words, message) in [
        ("stuffing, ordinary lines", &ordinary),
        ("stuffing, every line with a dot", &dots),
        ("stuffing, line ends without CR", &bare),
        ("stuffing, lines of one letter", &short),
    ] {
        let mut out = Vec::with_capacity(256 * 1024);
        best(words, "GB/s", message.len() as f64 / 1e9, || {
            let mut stuffer = Stuffer::new();
            for piece in message.chunks(PIECE) {
                out.clear();
                stuffer.push(black_box(piece), &mut out);
            }
            black_box(&out);
        });
    }
    best("counting the lines of TOP", "GB/s", ordinary.len() as f64 / 1e9, || {
        let mut top = Top::new(u64::MAX);
        for piece in ordinary.chunks(PIECE) {
            black_box(top.push(black_box(piece)));
        }
    });

    let messages = (1..=MESSAGES).map(|uid| Message { uid: Uid::new(uid).unwrap(), octets: u64::from(uid) * 7 });
    let snapshot = Arc::new(Snapshot::new(UidValidity::new(1_700_000_000), Deletion::Allowed, messages));
    for command in ["LIST", "UIDL"] {
        let mut block = Vec::with_capacity(32 * 1024);
        best(&format!("{command} written"), "million lines/s", f64::from(MESSAGES) / 1e6, || {
            let mut listing = listing(&snapshot, command);
            loop {
                block.clear();
                let more = listing.fill(&mut block);
                black_box(&block);
                if !more {
                    break;
                }
            }
        });
    }
}

/// What a session that has logged in answers to `command`.
fn listing(snapshot: &Arc<Snapshot>, command: &str) -> Listing {
    let line = |line: &str| Input::Line(Secret::new(line.as_bytes().to_vec()));
    let (session, _) = Authorization::new(Channel { encrypted: true, stls: false, login: true });
    let Before::Reply(session, _) = session.line(line("USER tim")) else { panic!("USER is refused") };
    let Before::Open(opening, _) = session.line(line("PASS secret")) else { panic!("PASS is refused") };
    let settings = Arc::new(Settings { unique_ids: "dovecot".parse().unwrap(), seen: false });
    let (session, _) = opening.opened(settings, Arc::clone(snapshot));
    let During::List(_, listing) = session.line(line(command)) else { panic!("{command} is refused") };
    listing
}

/// Prints how much is done a second, if `work` does `amount`.
fn best(words: &str, unit: &str, amount: f64, mut work: impl FnMut()) {
    let end = Instant::now() + ENOUGH;
    let mut best = Duration::MAX;
    while Instant::now() < end {
        let begin = Instant::now();
        work();
        best = best.min(begin.elapsed());
    }
    println!("{words:<34} {:>8.2} {unit}", amount / best.as_secs_f64());
}

/// How long each is repeated.
const ENOUGH: Duration = Duration::from_millis(1000);

/// How much comes from the network at a time.
const PIECE: usize = 64 * 1024;

/// How many messages are listed.
const MESSAGES: u32 = 100_000;
