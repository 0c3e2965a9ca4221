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
};
use crate::mail::{Changes, Snapshot, Uid};

/// A session with an open mailbox.
pub struct Transaction {
    settings: Arc<Settings>,
    channel: Channel,
    maildrop: Maildrop,
    patience: Patience,
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
        let session = Self { settings, channel, maildrop, patience: Patience::after_login() };
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
                let changes = self.maildrop.changes(self.settings.seen);
                return During::Update(
                    Leaving { marked: self.maildrop.marked(), left: self.maildrop.count() },
                    changes,
                );
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
        let wanted = Wanted { uid: message.uid, octets: message.octets, body_lines };
        During::Send(Sending { session: self, number, top: body_lines.is_some() }, wanted)
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

    /// What was asked for has been sent, the dot included. `whole`: that was all of the message.
    pub fn sent(mut self, whole: bool) -> Transaction {
        if whole {
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

    /// As [`Transaction::retrieved`], for a session that ends here.
    pub fn retrieved(&self) -> Vec<Uid> {
        self.session.retrieved()
    }
}

fn removed(number: Number) -> Reply {
    Reply::err(format_args!("message {number} has been removed by another client"))
}

/// A session in the UPDATE state (RFC 1939 §6). `+OK` is said only when the outcome is known to be good.
pub struct Leaving {
    marked: usize,
    left: usize,
}

impl Leaving {
    /// Everything was done, or there was nothing to do.
    pub fn done(&self) -> Reply {
        Reply::ok(format_args!("POP3 server signing off ({} messages left)", self.left))
    }

    /// So many messages may still be there.
    pub fn partly(&self, code: Code, left: usize) -> Reply {
        Reply::coded(code, format_args!("some deleted messages not removed ({left} of {})", self.marked))
    }

    /// The mailbox is not the one that was listed, so nothing was touched.
    pub fn changed(&self) -> Reply {
        Reply::coded(Code::SysTemp, "maildrop changed, nothing deleted")
    }
}
