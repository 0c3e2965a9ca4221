//! One small scripted IMAP server, at the level of octets on a wire. It keeps a true mailbox and answers what popgate may
//! ask; where it deviates from the truth, in what order it answers and what it can do are data. It needs std and tokio
//! alone, so that examples use it by `#[path]`. Left out: what popgate never sends (APPEND, IDLE, STATUS, BODYSTRUCTURE).

mod command;
mod mailbox;
mod session;
mod turns;

use std::{
    fmt::Debug,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite};

pub(crate) use mailbox::{Account, Content, Mailbox, Message, SECRETS};
pub(crate) use turns::Turns;

/// A line to a client.
pub(crate) trait Line: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Line for T {}

/// A server with its mailboxes. Clones are the same server: one serves, another is the foreign actor, a third reads what
/// was received.
#[derive(Clone)]
pub(crate) struct Server {
    manner: Arc<Manner>,
    state: Arc<Mutex<State>>,
}

/// What a server is like.
#[derive(Clone)]
pub(crate) struct Manner {
    /// What it says it can do before log-in.
    pub(crate) before: String,
    /// … and after.
    pub(crate) after: String,
    /// Whether greeting and tagged OK carry `[CAPABILITY …]`, or the client must ask.
    pub(crate) tells: bool,
    /// Whether the UID stands last in a FETCH response (Exchange) or first.
    pub(crate) uid_last: bool,
    pub(crate) order: Order,
    /// With so many messages a FETCH or a SEARCH deals at once, from the newest down (RFC 9738).
    pub(crate) message_limit: Option<usize>,
    /// Whether a FETCH that comes upon a message which cannot be read gives those before it (Yahoo), or none.
    pub(crate) gives_what_it_can: bool,
    /// How long a flight takes there and back.
    pub(crate) latency: Duration,
    /// Who is served when, if that is given.
    pub(crate) turns: Option<Arc<Turns>>,
    pub(crate) deviations: Vec<Deviation>,
    pub(crate) upgrade: Option<Upgrade>,
}

/// What STARTTLS does with a line.
pub(crate) type Upgrade =
    Arc<dyn Fn(Box<dyn Line>) -> Pin<Box<dyn Future<Output = io::Result<Box<dyn Line>>> + Send>> + Send + Sync>;

/// In what order several FETCH commands of one flight are answered (RFC 3501 §5.5 allows all of these).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    /// Each with its data and then its OK.
    Each,
    /// Dovecot: the data of four, then the OKs of the four.
    Fours,
    /// All data, then all OKs.
    End,
    /// All data from the last to the first, then all OKs.
    Reversed,
}

/// Where the server does not do what a good one does.
#[derive(Clone)]
pub(crate) struct Deviation {
    /// How the command begins, without its tag, in any case of letters: `UID FETCH 5`. `GREETING` is the greeting. Where a
    /// message stands in a set with others, `UID FETCH ~5` is a command that fetches the body of 5, `UID FETCH ~5,7` one that
    /// fetches at least these two, and `UID FETCH ~` one that fetches any.
    pub(crate) on: String,
    /// The how many-th time, from 1, on all connections together; 0 is every time.
    pub(crate) nth: usize,
    pub(crate) what: What,
}

/// A deviation. Those of bodies concern only commands that fetch any, and [`What::Act`] only a user who has logged in.
#[derive(Clone)]
pub(crate) enum What {
    /// These octets are the whole reply, and nothing is done. Each `$` is the tag.
    Say(Vec<u8>),
    /// These octets, then the true reply. Each `$` is the tag.
    Before(Vec<u8>),
    /// The true data, then this instead of the tagged OK. Each `$` is the tag.
    Tagged(Vec<u8>),
    /// `$ NO …`; nothing is done.
    No(String),
    /// `$ BAD …`; nothing is done.
    Bad(String),
    /// `* BYE …` and the end of the line; nothing is done.
    Bye(String),
    /// The end of the line; nothing is done.
    Close,
    /// The command is carried out; so many octets of the reply, then the end of the line.
    Cut(u64),
    /// The command is carried out; so many octets of the reply, then silence for ever.
    Stall(u64),
    /// The command is carried out; of its reply so many octets come at a time, this far apart.
    Drip(usize, Duration),
    /// The command is carried out; its reply is forgotten.
    Mute,
    /// Body literals announce so much more (or less) than what follows.
    Literal(i64),
    /// Bodies come as this.
    Body(&'static str),
    /// Bodies do not come.
    Bodiless,
    /// Another actor does this just before the command.
    Act(Arc<dyn Fn(&mut Account) + Send + Sync>),
}

struct State {
    accounts: Vec<Account>,
    connections: usize,
    received: Vec<Received>,
    /// How often each deviation's command came.
    seen: Vec<usize>,
    /// How often each deviation struck.
    struck: Vec<usize>,
    /// Nothing deviates any more.
    healed: bool,
}

/// A command as it was received.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// Of the how many-th connection, from 1.
    pub(crate) connection: usize,
    /// Without tag and line end. SASL responses are lines of their own.
    pub(crate) text: String,
}

impl Default for Manner {
    /// The capabilities of the fixture FX, told unasked; every reply true and at once.
    fn default() -> Self {
        Self {
            before: "IMAP4rev1 SASL-IR LITERAL+ ID ENABLE AUTH=PLAIN AUTH=LOGIN AUTH=XOAUTH2 AUTH=OAUTHBEARER".into(),
            after: "IMAP4rev1 SASL-IR LITERAL+ UIDPLUS MOVE ESEARCH ENABLE UNSELECT ID SPECIAL-USE".into(),
            tells: true,
            uid_last: false,
            order: Order::Each,
            message_limit: None,
            gives_what_it_can: true,
            latency: Duration::ZERO,
            turns: None,
            deviations: Vec::new(),
            upgrade: None,
        }
    }
}

impl Manner {
    /// The same without some capabilities after log-in.
    pub(crate) fn without(mut self, capabilities: &[&str]) -> Self {
        let kept = self.after.split(' ').filter(|known| !capabilities.contains(known));
        self.after = kept.collect::<Vec<_>>().join(" ");
        self
    }

    /// The same with one more deviation.
    pub(crate) fn deviating(mut self, on: &str, nth: usize, what: What) -> Self {
        self.deviations.push(Deviation { on: on.into(), nth, what });
        self
    }
}

impl Server {
    pub(crate) fn new(manner: Manner, accounts: Vec<Account>) -> Self {
        let seen = vec![0; manner.deviations.len()];
        let struck = seen.clone();
        let state = State { accounts, connections: 0, received: Vec::new(), seen, struck, healed: false };
        Self { manner: Arc::new(manner), state: Arc::new(Mutex::new(state)) }
    }

    /// A server with the fixture FX.
    pub(crate) fn fixture(manner: Manner) -> Self {
        Self::new(manner, vec![Account::fixture()])
    }

    /// Serves one connection to its end. An error is the line's: the peer is gone.
    pub(crate) async fn serve(&self, line: impl Line + 'static) -> io::Result<()> {
        session::serve(self, Box::new(line)).await
    }

    /// Lets another actor at a user's mailbox.
    pub(crate) fn with<T>(&self, user: &str, mailbox: &str, act: impl FnOnce(&mut Mailbox) -> T) -> T {
        let mut state = self.state();
        let account = state.accounts.iter_mut().find(|account| account.user == user).unwrap();
        act(account.mailbox(mailbox).unwrap())
    }

    /// Every command so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.state().received.clone()
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> usize {
        self.state().connections
    }

    /// From now on every reply is true.
    pub(crate) fn heal(&self) {
        self.state().healed = true;
    }

    /// Takes that back. What came meanwhile was not counted.
    pub(crate) fn relapse(&self) {
        self.state().healed = false;
    }

    /// How often each deviation of the manner struck.
    pub(crate) fn struck(&self) -> Vec<usize> {
        self.state().struck.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// What deviates for this command, and the how many-th deviation it is; counts the command.
    fn deviation(&self, text: &str, logged_in: bool) -> Option<(usize, What)> {
        let mut state = self.state();
        if state.healed {
            return None;
        }
        let mut found = None;
        for (index, (deviation, seen)) in self.manner.deviations.iter().zip(&mut state.seen).enumerate() {
            let concerns = deviation.concerns(text, logged_in);
            *seen += usize::from(concerns);
            if concerns && found.is_none() && (deviation.nth == 0 || deviation.nth == *seen) {
                found = Some((index, deviation.what.clone()));
            }
        }
        found
    }

    /// Counts that something came of a deviation.
    fn strike(&self, deviation: usize) {
        self.state().struck[deviation] += 1;
    }
}

impl Deviation {
    fn concerns(&self, text: &str, logged_in: bool) -> bool {
        let begins = match self.on.strip_prefix("UID FETCH ~") {
            Some(uids) => command::fetches_bodies(text, uids),
            None => text.get(..self.on.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(&self.on)),
        };
        begins
            && match self.what {
                What::Literal(_) | What::Body(_) | What::Bodiless => command::fetches_bodies(text, ""),
                What::Act(_) => logged_in,
                _ => true,
            }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// What the server says to all of these lines, sent at once, on pipes of eight octets.
    async fn said(server: &Server, lines: &str) -> String {
        let (ours, theirs) = tokio::io::duplex(8);
        let (mut from, mut to) = tokio::io::split(ours);
        let lines = lines.replace('\n', "\r\n");
        let mut said = String::new();
        let write = async {
            // The server may hang up first.
            let _ = to.write_all(lines.as_bytes()).await;
            let _ = to.shutdown().await;
        };
        let (_, (), read) = tokio::join!(server.serve(theirs), write, from.read_to_string(&mut said));
        read.unwrap();
        said.replace("\r\n", "\n")
    }

    /// The lines that log in, open INBOX, do this and leave; only the replies between are given back.
    async fn within(manner: Manner, lines: &str) -> String {
        let server = Server::fixture(manner);
        let lines = format!("a AUTHENTICATE PLAIN AHRpbQBzZWMgcmV0\nb SELECT INBOX\n{lines}\nz LOGOUT\n");
        let said = said(&server, &lines).await;
        let (_, said) = said.split_once("b OK [READ-WRITE] opened\n").unwrap();
        said.strip_suffix("* BYE see you\nz OK done\n").unwrap_or(said).into()
    }

    #[tokio::test(start_paused = true)]
    async fn the_fixture_is_listed_and_emptied() {
        let cases = [
            (
                "c UID FETCH 1:* (RFC822.SIZE)",
                "* 1 FETCH (UID 5 RFC822.SIZE 120)\n* 2 FETCH (UID 7 RFC822.SIZE 200)\n* 3 FETCH (UID 9 RFC822.SIZE 300)\nc OK done\n",
            ),
            ("c UID FETCH 99:* (UID)", "* 3 FETCH (UID 9)\nc OK done\n"),
            ("c UID FETCH 7 (BODY.PEEK[]<6.12>)", "* 2 FETCH (UID 7 BODY[]<6> {12}\ntim@example.)\nc OK done\n"),
            ("c UID SEARCH RETURN (COUNT) UID 5,9", "* ESEARCH (TAG \"c\") UID COUNT 2\nc OK done\n"),
            ("c UID SEARCH UID 6", "* SEARCH\nc OK done\n"),
            ("c UID SEARCH RETURN (c UID SEARCH RETURN (ALL) ALL", "c BAD unknown result option\n"),
            (
                "c UID STORE 5,9 +FLAGS.SILENT (\\Deleted)\nd UID EXPUNGE 5,7\ne UID SEARCH ALL",
                "c OK done\n* 1 EXPUNGE\nd OK done\n* SEARCH 7 9\ne OK done\n",
            ),
            ("c UID MOVE 5 \"Trash\"", "* OK [COPYUID 100 5 1] done\n* 1 EXPUNGE\nc OK done\n"),
            ("c LIST (SPECIAL-USE) \"\" \"*\"", "* LIST (\\HasNoChildren \\Trash) \"/\" \"Trash\"\nc OK done\n"),
            ("c BOGUS", "c BAD unknown command\n"),
        ];
        for (lines, expected) in cases {
            assert_eq!(within(Manner::default(), lines).await, expected, "{lines}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn several_fetches_are_answered_in_every_order() {
        let lines = "c UID FETCH 5 (UID)\nd UID FETCH 7 (UID)\ne NOOP";
        let (one, two) = ("* 1 FETCH (UID 5)\n", "* 2 FETCH (UID 7)\n");
        for (order, expected) in [
            (Order::Each, format!("{one}c OK done\n{two}d OK done\ne OK done\n")),
            (Order::Fours, format!("{one}{two}c OK done\nd OK done\ne OK done\n")),
            (Order::End, format!("{one}{two}c OK done\nd OK done\ne OK done\n")),
            (Order::Reversed, format!("{two}{one}c OK done\nd OK done\ne OK done\n")),
        ] {
            assert_eq!(within(Manner { order, ..Manner::default() }, lines).await, expected, "{order:?}");
        }
    }

    #[test]
    fn a_message_is_found_in_every_set() {
        for (on, text, concerned) in [
            ("UID FETCH ~7", "UID FETCH 7 (BODY.PEEK[])", true),
            ("UID FETCH ~7", "uid fetch 5:6,7 (BODY.PEEK[]<0.9>)", true),
            ("UID FETCH ~7", "UID FETCH 6:8,10 (UID BODY.PEEK[])", true),
            ("UID FETCH ~7", "UID FETCH 1:* (BODY.PEEK[])", true),
            ("UID FETCH ~7", "UID FETCH 77,17 (BODY.PEEK[])", false),
            ("UID FETCH ~7", "UID FETCH 7 (RFC822.SIZE)", false),
            ("UID FETCH ~7", "UID STORE 7 +FLAGS.SILENT (\\Seen)", false),
            ("UID FETCH ~7,9", "UID FETCH 5,7,9 (BODY.PEEK[])", true),
            ("UID FETCH ~7,9", "UID FETCH 7 (BODY.PEEK[])", false),
            ("UID FETCH ~", "UID FETCH 5 (BODY.PEEK[])", true),
            ("UID FETCH ~", "UID FETCH 5 (RFC822.SIZE)", false),
        ] {
            for (what, right) in
                [(What::Mute, concerned), (What::Act(Arc::new(|_| {})), false), (What::Bodiless, concerned)]
            {
                let deviation = Deviation { on: on.into(), nth: 1, what };
                assert_eq!(deviation.concerns(text, false), right, "{on}, {text}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_something_came_of_has_struck() {
        let manner = Manner::default()
            .deviating("GREETING", 1, What::Act(Arc::new(|_| {})))
            .deviating("NOOP", 1, What::Bodiless)
            .deviating("UID FETCH", 1, What::Body("NIL"))
            .deviating("UID FETCH ~5,7", 1, What::No("no".into()))
            .deviating("SELECT", 1, What::Act(Arc::new(|account| account.mailboxes[0].expunge(9))))
            .deviating("LOGOUT", 1, What::Act(Arc::new(|account| account.mailboxes[0].expunge(9))));
        let server = Server::fixture(manner);
        let lines = "a LOGIN tim {7+}\nsec ret\nb SELECT INBOX\nc NOOP\nd UID FETCH 6 (BODY.PEEK[])\n\
            e UID FETCH 5,7 (BODY.PEEK[])\nf LOGOUT\n";
        assert!(said(&server, lines).await.contains("\ne NO no\n"));
        assert_eq!(server.struck(), [0, 0, 0, 1, 1, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_greeting_that_is_cut_ends_the_line() {
        let server = Server::fixture(Manner::default().deviating("GREETING", 1, What::Cut(4)));
        assert_eq!(said(&server, "a NOOP\n").await, "* OK");
    }

    #[tokio::test(start_paused = true)]
    async fn it_deviates_where_it_is_told_to() {
        let manner = Manner::default;
        let act: Arc<dyn Fn(&mut Account) + Send + Sync> =
            Arc::new(|account| account.mailbox("INBOX").unwrap().expunge(5));
        for (what, expected) in [
            (What::No("[SERVERBUG] oh".into()), "c NO [SERVERBUG] oh\nd OK done\n"),
            (What::Say(b"* 1 FETCH ()\r\n$ BAD\r\n".to_vec()), "* 1 FETCH ()\nc BAD\nd OK done\n"),
            (What::Tagged(b"$ NO half\r\n".to_vec()), "* 1 FETCH (UID 5 BODY[] {3}\nabc)\nc NO half\nd OK done\n"),
            (What::Body("NIL"), "* 1 FETCH (UID 5 BODY[] NIL)\nc OK done\nd OK done\n"),
            (What::Bodiless, "* 1 FETCH (UID 5)\nc OK done\nd OK done\n"),
            (What::Literal(4), "* 1 FETCH (UID 5 BODY[] {7}\nabc)\nc OK done\nd OK done\n"),
            (What::Mute, "d OK done\n"),
            (What::Drip(1, Duration::from_millis(1)), "* 1 FETCH (UID 5 BODY[] {3}\nabc)\nc OK done\nd OK done\n"),
            (What::Cut(31), "* 1 FETCH (UID 5 BODY[] {3}\nab"),
            (What::Stall(4), "* 1 "),
            (What::Close, ""),
            (What::Bye("enough".into()), "* BYE enough\n"),
            (What::Act(act), "* 1 EXPUNGE\nc OK done\nd OK done\n"),
        ] {
            let mut account = Account::fixture();
            account.mailboxes[0].messages[0].content = Content::new("abc");
            let server = Server::new(manner().deviating("uid fetch", 1, what), vec![account]);
            let lines = "a LOGIN tim {7+}\nsec ret\nb SELECT INBOX\nc UID FETCH 5 (BODY.PEEK[])\nd NOOP\n";
            let (said, client_left) = (said(&server, lines), tokio::time::sleep(Duration::from_secs(5)));
            let said = tokio::select! { said = said => said, () = client_left => "stalled".into() };
            if said != "stalled" {
                assert!(said.ends_with(&format!("opened\n{expected}")), "{said}");
            }
        }
    }
}
