//! The TRANSACTION state (RFC 1939 §5): from the open mailbox to QUIT, which alone leads to UPDATE. Messages are not read
//! and changes are not made here; what is wanted goes out, and the outcome comes back.

use std::sync::Arc;

use super::{
    capa::{self, State},
    command::{Command, Mistake, Number},
    line::{Expects, Input},
    listing::Listing,
    maildrop::Maildrop,
    reply::{Code, Reply},
    session::{Channel, Patience, Settings},
    update::Leaving,
};
use crate::mail::{Changes, Snapshot, Uid};

/// A session with an open mailbox.
pub struct Transaction {
    settings: Arc<Settings>,
    channel: Channel,
    maildrop: Maildrop,
    patience: Patience,
    run: Run,
}

/// Messages asked for one after the other, in the same way.
#[derive(Default)]
struct Run {
    last: Option<(Number, Option<u64>)>,
    length: u32,
}

/// What follows a line.
pub enum During {
    /// Send the reply and go on.
    Reply(Transaction, Reply),
    /// Send the listing and go on.
    List(Transaction, Listing),
    /// Fetch a message and send it.
    Send(Sending, Wanted),
    /// The client said QUIT: make the changes, tell the outcome, close.
    Update(Leaving, Changes),
    /// Send the reply, if there is one, and close; nothing is changed.
    Close(Option<Reply>),
}

/// A message that the client wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Its UID.
    pub uid: Uid,
    /// Its size as listed; it may be wrong.
    pub octets: u64,
    /// How many lines of the body TOP asks for; `None` means RETR.
    pub body_lines: Option<u64>,
}

impl Transaction {
    /// The mailbox is open. The reply is the answer to the log-in.
    pub(super) fn new(settings: Arc<Settings>, channel: Channel, snapshot: Arc<Snapshot>) -> (Self, Reply) {
        let maildrop = Maildrop::new(snapshot);
        let session = Self { settings, channel, maildrop, patience: Patience::after_login(), run: Run::default() };
        let reply = session.summary();
        (session, reply)
    }

    /// What kind of line comes next: a command, always.
    pub const fn expects(&self) -> Expects {
        Expects::Command
    }

    /// The messages that were retrieved and may be flagged `\Seen` although the session ends without QUIT. Nothing is ever
    /// deleted in that case.
    pub fn retrieved(&self) -> Vec<Uid> {
        if self.settings.seen { self.maildrop.retrieved() } else { Vec::new() }
    }

    /// Takes what the client sent.
    pub fn line(self, input: Input) -> During {
        let line = match input {
            Input::Line(line) => line,
            Input::TooLong => return self.bad(Reply::line_too_long()),
            Input::Endless | Input::Foreign => return During::Close(None),
        };
        match Command::parse(line.expose()) {
            Ok(command) => self.command(command),
            Err(Mistake::Range) => {
                let absent = self.maildrop.no_such();
                self.good(absent.into())
            }
            Err(mistake) => self.bad(mistake.into()),
        }
    }

    fn command(mut self, command: Command<'_>) -> During {
        let reply = match command {
            Command::Capa => capa::capabilities(self.channel, State::Transaction),
            Command::Noop => Reply::ok("nothing done"),
            // Nothing after the size: RFC 1939 §5 discourages it, and some clients parse to the end of the line.
            Command::Stat => Reply::ok(format_args!("{} {}", self.maildrop.count(), self.maildrop.octets())),
            Command::List(None) => return self.list(Listing::sizes),
            Command::List(Some(number)) => self.size(number),
            Command::Uidl(number) => return self.unique_ids(number),
            Command::Retr(number) => return self.send(number, None),
            Command::Top(number, body_lines) => return self.send(number, Some(body_lines)),
            Command::Dele(number) => match self.maildrop.delete(number) {
                Ok(()) => Reply::ok(format_args!("message {number} deleted")),
                Err(refusal) => refusal,
            },
            Command::Rset => {
                self.maildrop.restore();
                self.summary()
            }
            Command::Quit => {
                let leaving = Leaving::new(self.maildrop.marked(), self.maildrop.count());
                return During::Update(leaving, self.maildrop.changes(self.settings.seen));
            }
            Command::Stls | Command::User(_) | Command::Pass(_) | Command::Mechanisms | Command::Auth { .. } => {
                return self.bad(Reply::wrong_state());
            }
        };
        self.good(reply)
    }

    fn summary(&self) -> Reply {
        Reply::ok(format_args!("maildrop has {} messages ({} octets)", self.maildrop.count(), self.maildrop.octets()))
    }

    fn list(mut self, listing: impl FnOnce(&Maildrop) -> Listing) -> During {
        self.patience.restore();
        let listing = listing(&self.maildrop);
        During::List(self, listing)
    }

    fn size(&self, number: Number) -> Reply {
        match self.maildrop.message(number) {
            Ok(message) => Reply::ok(format_args!("{number} {}", message.octets)),
            Err(absent) => absent.into(),
        }
    }

    fn unique_ids(self, number: Option<Number>) -> During {
        let Some(uid_validity) = self.maildrop.snapshot().uid_validity() else {
            // UIDs that do not outlive the session make ids that lie to the next one.
            return self.good(Reply::coded(Code::SysPerm, "this maildrop has no lasting unique ids"));
        };
        let Some(number) = number else {
            let settings = Arc::clone(&self.settings);
            return self.list(|maildrop| Listing::unique_ids(maildrop, settings, uid_validity));
        };
        let reply = match self.maildrop.message(number) {
            Ok(message) => {
                let mut id = Vec::new();
                self.settings.unique_ids.write(message.uid, uid_validity, &mut id);
                Reply::ok(format_args!("{number} {}", id.escape_ascii()))
            }
            Err(absent) => absent.into(),
        };
        self.good(reply)
    }

    fn send(mut self, number: Number, body_lines: Option<u64>) -> During {
        let message = match self.maildrop.message(number) {
            Ok(message) => message,
            Err(absent) => return self.good(absent.into()),
        };
        if self.maildrop.is_ghost(number) {
            // It has been told; some clients would ask for ever.
            return self.bad(removed(number));
        }
        self.patience.restore();
        self.run.note(number, body_lines);
        let wanted = Wanted { uid: message.uid, octets: message.octets, body_lines };
        During::Send(Sending { session: self, number, top: body_lines.is_some() }, wanted)
    }

    fn wanted(&self, number: Number, body_lines: Option<u64>) -> Option<Wanted> {
        let message = self.maildrop.message(number).ok().filter(|_| !self.maildrop.is_ghost(number))?;
        Some(Wanted { uid: message.uid, octets: message.octets, body_lines })
    }

    /// Answers a command that was understood, even if the answer is no.
    fn good(mut self, reply: Reply) -> During {
        self.patience.restore();
        During::Reply(self, reply)
    }

    /// Answers one that was not, or that has no place here.
    fn bad(mut self, reply: Reply) -> During {
        if self.patience.bear() {
            During::Reply(self, reply)
        } else {
            During::Close(Some(Reply::too_many_bad_commands()))
        }
    }
}

impl Run {
    fn note(&mut self, number: Number, body_lines: Option<u64>) {
        let follows = |(last, lines): (Number, _)| last.next() == Some(number) && lines == body_lines;
        self.length = if self.last.is_some_and(follows) { self.length.saturating_add(1) } else { 1 };
        self.last = Some((number, body_lines));
    }
}

/// So many in a row are a client that takes them all.
const IN_A_ROW: u32 = 2;

/// So many octets behind the first message are taken to be wanted with it: most clients that begin there take them all, and
/// those that do not pay little for it.
const FIRST_GUESS: u64 = 256 * 1024;

/// A session that owes the client a message. It is over if the message breaks off after its header has been sent.
pub struct Sending {
    session: Transaction,
    number: Number,
    top: bool,
}

impl Sending {
    /// The first line, for a message of which `octets` will come from upstream. JavaMail sizes its buffer by the number.
    pub fn header(&self, octets: u64) -> Reply {
        if self.top { Reply::ok("top of message follows") } else { Reply::ok(format_args!("{octets} octets")) }
    }

    /// What was asked for has been sent, the dot included. `whole`: that was all of the message, as it always is with RETR.
    /// A part of it makes up for no failure.
    pub fn sent(mut self, whole: bool) -> Transaction {
        if whole || !self.top {
            self.session.maildrop.sent(self.number, !self.top);
        }
        self.session
    }

    /// The upstream said that the message is not there any more.
    pub fn gone(mut self) -> During {
        self.session.maildrop.gone(self.number);
        During::Reply(self.session, removed(self.number))
    }

    /// The message could not be had; nothing of it has been sent. It cannot be deleted now before it has been retrieved.
    pub fn failed(mut self, reply: Reply) -> During {
        self.session.maildrop.failed(self.number);
        During::Reply(self.session, reply)
    }

    /// The messages that the client has asked for behind this one, as far as `waiting`, what it has sent, shows.
    pub fn certain<'a>(&'a self, waiting: &'a [u8]) -> impl Iterator<Item = Wanted> + 'a {
        commands(waiting).take_while(|command| *command != Command::Quit).filter_map(|command| match command {
            Command::Retr(number) => self.session.wanted(number, None),
            Command::Top(number, body_lines) => self.session.wanted(number, Some(body_lines)),
            _ => None,
        })
    }

    /// The messages that it will ask for next if it goes on as it has begun: after two in a row, those that follow; after
    /// RETR of the first one, the beginning of them, unless it has sent something else behind it; nothing if it has sent QUIT.
    /// What it has sent is `waiting`.
    pub fn likely<'a>(&'a self, waiting: &[u8]) -> impl Iterator<Item = Wanted> + 'a {
        let run = &self.session.run;
        let guess = match run.last {
            _ if commands(waiting).any(|command| command == Command::Quit) => None,
            Some((_, lines)) if run.length >= IN_A_ROW => Some((lines, u64::MAX)),
            Some((number, None)) if number.index() == 0 && waiting.is_empty() => Some((None, FIRST_GUESS)),
            _ => None,
        };
        guess.into_iter().flat_map(move |(lines, most)| {
            let numbers = std::iter::successors(self.number.next(), |number| number.next());
            let numbers = numbers.take_while(|number| number.index() < self.session.maildrop.snapshot().len());
            let mut octets = 0_u64;
            numbers.filter_map(move |number| self.session.wanted(number, lines)).take_while(move |wanted| {
                octets = octets.saturating_add(wanted.octets);
                octets <= most
            })
        })
    }

    /// As [`Transaction::retrieved`], for a session that ends here.
    pub fn retrieved(&self) -> Vec<Uid> {
        self.session.retrieved()
    }
}

/// The commands whose lines have come, up to one that is none.
fn commands(waiting: &[u8]) -> impl Iterator<Item = Command<'_>> {
    let lines = waiting.split_inclusive(|octet| *octet == b'\n').map_while(|line| line.strip_suffix(b"\n"));
    lines.map_while(|line| Command::parse(line.strip_suffix(b"\r").unwrap_or(line)).ok())
}

fn removed(number: Number) -> Reply {
    Reply::err(format_args!("message {number} has been removed by another client"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{Deletion, Message, Secret, UidValidity};

    const TLS: Channel = Channel { encrypted: true, stls: true, login: true };

    /// Three messages with the UIDs 5, 7 and 9.
    fn session(deletion: Deletion, uid_validity: Option<UidValidity>) -> Transaction {
        let messages = [(5, 120), (7, 200), (9, 300)];
        let messages = messages.map(|(uid, octets)| Message { uid: Uid::new(uid).unwrap(), octets });
        let snapshot = Arc::new(Snapshot::new(uid_validity, deletion, messages));
        let settings = Settings { unique_ids: "dovecot".parse().unwrap(), seen: true };
        let (session, reply) = Transaction::new(Arc::new(settings), TLS, snapshot);
        assert_eq!(reply.octets(), b"+OK maildrop has 3 messages (620 octets)\r\n");
        session
    }

    /// Who begins with the first message gets a part of the others with it, who goes on gets them all.
    #[test]
    fn what_will_be_asked_for_next_is_guessed() {
        let uid = |uid| Uid::new(uid).unwrap();
        let messages = (1..=9).map(|number| Message { uid: uid(number), octets: 100_000 });
        let snapshot = Arc::new(Snapshot::new(None, Deletion::Allowed, messages));
        let settings = Settings { unique_ids: "dovecot".parse().unwrap(), seen: true };
        let (mut session, _) = Transaction::new(Arc::new(settings), TLS, snapshot);
        for (line, waiting, expected) in [
            ("RETR 1", "", &[2, 3][..]),
            ("RETR 1", "NOOP\r\n", &[]),
            ("RETR 2", "NOOP\r\n", &[3, 4, 5, 6, 7, 8, 9]),
            ("RETR 3", "NOOP\r\nQUIT\r\n", &[]),
            ("RETR 5", "", &[]),
            ("TOP 1 0", "", &[]),
            ("TOP 2 0", "", &[3, 4, 5, 6, 7, 8, 9]),
        ] {
            let During::Send(sending, _) = session.line(Input::Line(Secret::new(line.as_bytes().to_vec()))) else {
                panic!("{line} sends nothing")
            };
            let likely: Vec<_> = sending.likely(waiting.as_bytes()).map(|wanted| wanted.uid.value()).collect();
            assert_eq!(likely, expected, "{line}, {waiting}");
            session = sending.sent(true);
        }
    }

    /// What a client sees, line for line. After `=>` stands what becomes of a message: `gone`, `failed`, or else it is
    /// sent. QUIT is shown with the UIDs to delete and to flag.
    fn dialogue(mut session: Transaction, lines: &[&str]) -> Vec<String> {
        let mut seen = Vec::new();
        let mut say = |octets: &[u8]| {
            let reply = std::str::from_utf8(octets).unwrap();
            seen.push(reply.strip_suffix("\r\n").unwrap().replace("\r\n", "|"));
        };
        for line in lines {
            let (line, fate) = line.split_once(" => ").unwrap_or((line, "sent"));
            let mut after = session.line(Input::Line(Secret::new(line.as_bytes().to_vec())));
            if let During::Send(sending, wanted) = after {
                after = match fate {
                    "gone" => sending.gone(),
                    "failed" => sending.failed(Reply::message_unavailable()),
                    _ => {
                        let header = sending.header(wanted.octets + 1);
                        During::Reply(sending.sent(wanted.body_lines.is_none_or(|lines| lines > 1000)), header)
                    }
                };
            }
            session = match after {
                During::Reply(session, reply) => {
                    say(reply.octets());
                    session
                }
                During::List(session, mut listing) => {
                    let mut out = Vec::new();
                    assert!(!listing.fill(&mut out));
                    say(&out);
                    session
                }
                During::Update(leaving, Changes { delete, seen }) => {
                    let uids = |uids: Vec<Uid>| uids.into_iter().map(Uid::value).collect::<Vec<_>>();
                    say(leaving.done().octets());
                    say(format!("delete {:?} seen {:?}\r\n", uids(delete), uids(seen)).as_bytes());
                    break;
                }
                During::Close(reply) => {
                    say(reply.map(|reply| reply.octets().to_vec()).unwrap_or_default().as_slice());
                    say(b"!close\r\n");
                    break;
                }
                During::Send(..) => panic!("{line}"),
            };
        }
        seen
    }

    /// The dialogue in a maildrop with nothing unusual about it.
    fn usual(lines: &[&str]) -> Vec<String> {
        dialogue(session(Deletion::Allowed, UidValidity::new(100)), lines)
    }

    const NO_SUCH: &str = "-ERR no such message, only 3 messages in maildrop";
    const UNAVAILABLE: &str = "-ERR [SYS/TEMP] message unavailable, try again later";
    const REMOVED: &str = "-ERR message 2 has been removed by another client";

    #[test]
    fn listings() {
        let cases: [(&str, &str); 14] = [
            ("sTaT", "+OK 3 620"),                                       // T007
            ("LIST", "+OK 3 messages (620 octets)|1 120|2 200|3 300|."), // T100
            ("LIST 002", "+OK 2 200"),                                   // T011
            ("LIST 0", NO_SUCH),                                         // T012
            ("LIST 4", NO_SUCH),
            ("LIST 99999999999999999999", NO_SUCH),
            ("LIST x", "-ERR invalid message number"),
            // T133
            ("UIDL", "+OK unique-id listing follows|1 0000000500000064|2 0000000700000064|3 0000000900000064|."),
            ("UIDL 2", "+OK 2 0000000700000064"),
            ("UIDL 4", NO_SUCH),
            ("NOOP", "+OK nothing done"),                     // T204
            ("STAT x", "-ERR unexpected argument"),           // T009
            ("LAST", "-ERR unknown command"),                 // T205
            ("STLS", "-ERR command not valid in this state"), // T035, T053
        ];
        for (line, expected) in cases {
            assert_eq!(usual(&[line]), [expected], "{line}");
        }
        // UIDs that do not outlive the session.
        let unsteady = || session(Deletion::Allowed, None);
        let no = "-ERR [SYS/PERM] this maildrop has no lasting unique ids";
        assert_eq!(dialogue(unsteady(), &["UIDL", "UIDL 1", "LIST 1"]), [no, no, "+OK 1 120"]);
    }

    #[test]
    fn deleted_messages_leave_a_gap() {
        let gone = "-ERR message 2 already deleted";
        assert_eq!(
            // T130, T131, T200
            usual(&[
                "DELE 2", "STAT", "LIST", "UIDL", "LIST 2", "UIDL 2", "RETR 2", "TOP 2 0", "DELE 2", "DELE 4", "QUIT"
            ]),
            [
                "+OK message 2 deleted",
                "+OK 2 420",
                "+OK 2 messages (420 octets)|1 120|3 300|.",
                "+OK unique-id listing follows|1 0000000500000064|3 0000000900000064|.",
                gone,
                gone,
                gone,
                gone,
                gone,
                NO_SUCH,
                "+OK POP3 server signing off (2 messages left)",
                "delete [7] seen []",
            ]
        );
        assert_eq!(
            // T132, F-29; RSET forgets what was retrieved, too (T238).
            usual(&["DELE 1", "RETR 2", "RSET", "STAT", "QUIT now", "QUIT"])[2..],
            [
                "+OK maildrop has 3 messages (620 octets)",
                "+OK 3 620",
                "-ERR unexpected argument",
                "+OK POP3 server signing off (3 messages left)",
                "delete [] seen []",
            ]
        );
    }

    #[test]
    fn what_cannot_be_kept_is_not_promised() {
        // T124, F-28
        let cases = [
            (Deletion::ReadOnly, "-ERR [SYS/PERM] maildrop is read-only"),
            (Deletion::Unsupported, "-ERR [SYS/PERM] this maildrop offers no safe way to delete messages"),
        ];
        for (deletion, refusal) in cases {
            let seen = dialogue(session(deletion, UidValidity::new(100)), &["DELE 1", "DELE 4", "STAT", "QUIT"]);
            assert_eq!(seen[..3], [refusal, NO_SUCH, "+OK 3 620"]);
            assert_eq!(seen[4], "delete [] seen []");
        }
    }

    #[test]
    fn messages() {
        let undelivered = "-ERR [SYS/TEMP] message 2 was not delivered, not deleting";
        let (octets, top, deleted) = ("+OK 201 octets", "+OK top of message follows", "+OK message 2 deleted");
        let cases: [(&[&str], &[&str]); 7] = [
            (&["RETR 4", "TOP 4 1", "RETR 0"], &[NO_SUCH; 3]), // T184
            // T238: retrieved and kept; TOP does not count, whole or not (F-30).
            (
                &["RETR 2", "RETR 1", "DELE 1", "TOP 3 9999", "QUIT"],
                &[
                    octets,
                    "+OK 121 octets",
                    "+OK message 1 deleted",
                    top,
                    "+OK POP3 server signing off (2 messages left)",
                    "delete [5] seen [7]",
                ],
            ),
            (&["RETR 2 => failed", "DELE 2", "RETR 2", "DELE 2"], &[UNAVAILABLE, undelivered, octets, deleted]), // T202
            (&["TOP 2 0 => failed", "TOP 2 0", "DELE 2"], &[UNAVAILABLE, top, undelivered]),
            (&["TOP 2 0 => failed", "TOP 2 9999", "DELE 2"], &[UNAVAILABLE, top, deleted]),
            (
                &["RETR 2 => failed", "RSET", "DELE 2"],
                &[UNAVAILABLE, "+OK maildrop has 3 messages (620 octets)", undelivered],
            ),
            // A ghost stays listed, and may be deleted; there is nothing to delete it from (E.3).
            (
                &["RETR 2 => failed", "RETR 2 => gone", "RETR 2", "TOP 2 0", "LIST 2", "DELE 2", "QUIT"],
                &[
                    UNAVAILABLE,
                    REMOVED,
                    REMOVED,
                    REMOVED,
                    "+OK 2 200",
                    deleted,
                    "+OK POP3 server signing off (2 messages left)",
                    "delete [] seen []",
                ],
            ),
        ];
        for (lines, expected) in cases {
            assert_eq!(usual(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn too_many_bad_commands_end_the_session_without_changes() {
        // T020, F-06
        let closed = |seen: &[String]| seen.ends_with(&["-ERR too many bad commands".into(), "!close".into()]);
        let seen = usual(&[["DELE 1"].as_slice(), &["unkn"; 30]].concat());
        assert_eq!(seen.len(), 22);
        assert!(closed(&seen));
        // To be told no is not to be at fault; to ask again and again for what is gone is.
        assert!(!closed(&usual(&["RETR 4"; 50])));
        assert!(closed(&usual(&["RETR 2 => gone"; 50])));
        assert!(!closed(&usual(&[["unkn"; 19].as_slice(), &["NOOP"], &["unkn"; 19]].concat())));
    }

    #[test]
    fn what_was_retrieved_is_known_without_quit() {
        let mut session = session(Deletion::Allowed, UidValidity::new(100));
        for line in ["RETR 3", "RETR 1", "DELE 1"] {
            session = match session.line(Input::Line(Secret::new(line.as_bytes().to_vec()))) {
                During::Send(sending, _) => sending.sent(true),
                During::Reply(session, _) => session,
                _ => panic!("{line}"),
            };
        }
        assert_eq!(session.retrieved().into_iter().map(Uid::value).collect::<Vec<_>>(), [5, 9]);
        session.settings = Arc::new(Settings { seen: false, ..(*session.settings).clone() });
        assert!(session.retrieved().is_empty());
    }
}
