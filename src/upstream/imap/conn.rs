//! One line to the server: commands out, outcomes in.
//!
//! Every command goes through [`Conn::send`], or [`Conn::log_in`], and is open until [`Conn::finish`] has its tagged reply;
//! nothing but a tagged OK in the mailbox that was selected is a success. Any surprise breaks the line for good: a broken
//! line is never used again.
//!
//! async-imap decodes what the server says. Its client exists for one response at a time, so that a line that waits holds
//! none of its buffers; tags are made here, because they go on where the last one ended.

use std::{collections::VecDeque, future::poll_fn, io, time::Duration};

use async_imap::{
    Client,
    imap_proto::{MailboxDatum, RequestId, Response, Status},
};
use futures_util::FutureExt;
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, timeout, timeout_at},
};

use super::{
    capability::Capabilities,
    fault::{Outcome, Trouble},
    stash::{self, Arrived, Item, Stash},
    tap::{Aside, BodyItem, Login, Malformed, Next, Opened, TWICE, Tap},
    view::View,
};
use crate::{mail::Uid, net::Wire, upstream::Piece};

/// A line to the server.
pub(super) struct Conn {
    tap: Tap,
    /// How many commands have been sent.
    commands: u64,
    /// What the server can do for this user.
    pub(super) capabilities: Capabilities,
    /// What the server says of the selected mailbox.
    pub(super) view: View,
    /// What was fetched ahead of being asked for.
    pub(super) stash: Stash,
    /// The octets of the body that is being received for the stash.
    arriving: Option<Vec<u8>>,
    open: VecDeque<Tag>,
    /// A command whose reply is for nobody, until it comes.
    unheeded: Option<Tag>,
    finished: Vec<(Tag, Result<Outcome, Trouble>)>,
    broken: bool,
    asked: Instant,
    /// A body for which somebody waits in silence must be here by then.
    hurried: Option<Instant>,
}

/// Names a command that has been sent.
pub(super) type Tag = RequestId;

/// What answers the demand for a body.
pub(super) enum Answer {
    /// Octets that wait on the line; the command stays open until [`Conn::end_body`].
    Stream(Tag, Opened),
    /// Octets that came within the response, and their offset; the command is done.
    Held(Option<u64>, Vec<u8>),
    /// `NIL`, and a tagged OK.
    Nil,
    /// No body at all, and a tagged OK.
    Absent,
}

enum Heard {
    Reply(Tag, Result<Outcome, Trouble>),
    Untagged,
    Body(Opened),
}

impl Conn {
    /// A line on which nothing has been said.
    pub(super) fn new(wire: Box<dyn Wire>) -> Self {
        Self {
            tap: Tap::new(wire),
            commands: 0,
            capabilities: Capabilities::default(),
            view: View::default(),
            stash: Stash::default(),
            arriving: None,
            open: VecDeque::new(),
            unheeded: None,
            finished: Vec::new(),
            broken: false,
            asked: Instant::now(),
            hurried: None,
        }
    }

    /// What the tap keeps aside.
    pub(super) const fn aside(&mut self) -> &mut Aside {
        &mut self.tap.aside
    }

    /// Whether commands can still be sent on the line, as far as is known.
    pub(super) const fn is_usable(&self) -> bool {
        !self.broken && self.view.changed.is_none()
    }

    /// Sends a command. It is written whole; the reply is fetched by [`finish`](Self::finish).
    pub(super) fn send(&mut self, command: &str) -> Result<Tag, Trouble> {
        if self.broken {
            return Err(Trouble::Lost);
        }
        let tag = self.next_tag();
        self.tap.send(&tag.0, command.as_bytes());
        Ok(tag)
    }

    fn next_tag(&mut self) -> Tag {
        self.asked = Instant::now();
        self.commands += 1;
        let tag = RequestId(format!("A{:04}", self.commands));
        self.open.push_back(tag.clone());
        tag
    }

    /// Waits for the greeting.
    pub(super) async fn greeting(&mut self) -> Result<(), Trouble> {
        let Next::Response = poll_fn(|cx| self.tap.poll_next(cx)).await.map_err(|error| trouble(&error))? else {
            return Err(Trouble::Lost);
        };
        let Some(Ok(Some(greeting))) = Client::new(&mut self.tap).read_response().now_or_never() else {
            return Err(UNPARSED.into());
        };
        match greeting.parsed() {
            Response::Data { status: Status::Ok, .. } => Ok(()),
            Response::Data { status: Status::Bye, outcome } => Err(Trouble::Bye(Outcome::of(outcome))),
            // Whoever it says we are, it is not who the client says it is; and TLS can no longer be started.
            Response::Data { status: Status::PreAuth, .. } => {
                Err(Trouble::Unfit("the server greets as if somebody had logged in (PREAUTH)"))
            }
            _ => Err(Malformed("no IMAP greeting").into()),
        }
    }

    /// The wire, for the TLS handshake; `None` if more has come or gone than what has been answered.
    pub(super) fn into_wire(self) -> Option<Box<dyn Wire>> {
        if self.is_usable() && self.open.is_empty() { self.tap.into_wire() } else { None }
    }

    /// Logs in. If it fails, the challenge for which there was no answer belongs to the failure. What the server has said
    /// before is forgotten. So is `introduction`, a command in the same flight: what it is answered, and when, concerns
    /// nobody.
    pub(super) async fn log_in(
        &mut self,
        introduction: Option<&str>,
        login: Login,
    ) -> Result<(), (Trouble, Option<Vec<u8>>)> {
        if let Some(introduction) = introduction {
            self.send(introduction).map_err(|trouble| (trouble, None))?;
            self.unheeded = self.open.pop_back();
        }
        let tag = self.next_tag();
        self.tap.log_in(&tag.0, login);
        self.aside().capabilities = None;
        let outcome = self.finish(&tag).await;
        self.view = View::default();
        let Some(login) = self.tap.logged_in() else { return Err((self.fail(Trouble::Lost), None)) };
        let unsaid = match &outcome {
            Ok(_) => !login.answers.is_empty() || !self.tap.has_sent_all(),
            // Not every server waits for an answer to its last challenge.
            Err(Trouble::No(_) | Trouble::Bad(_)) => !login.challenged && !self.tap.has_sent_all(),
            Err(_) => false,
        };
        match outcome {
            _ if unsaid => Err((self.fail(Malformed("its answer before the log-in was sent").into()), None)),
            Ok(_) => Ok(()),
            Err(trouble) => Err((self.fail(trouble), login.explained)),
        }
    }

    /// Waits for the tagged reply to an open command: its OK, or why not.
    pub(super) async fn finish(&mut self, tag: &Tag) -> Result<Outcome, Trouble> {
        loop {
            if let Some(at) = self.finished.iter().position(|(finished, _)| finished == tag) {
                return self.finished.swap_remove(at).1;
            }
            match self.hear(COMMAND, "a command was open").await? {
                Heard::Reply(tag, outcome) => self.replied(tag, outcome)?,
                Heard::Untagged => {}
                Heard::Body(opened) => self.receive(opened).await?,
            }
        }
    }

    /// Whether the tagged reply to a command has come while another's was awaited.
    pub(super) fn has_reply(&self, tag: &Tag) -> bool {
        self.finished.iter().any(|(finished, _)| finished == tag)
    }

    /// Sends a command and waits for its tagged reply.
    pub(super) async fn run(&mut self, command: &str) -> Result<Outcome, Trouble> {
        let tag = self.send(command)?;
        self.finish(&tag).await
    }

    /// Reads what is still open to its end, so that the next command stands alone on the line.
    pub(super) async fn quiesce(&mut self) -> Result<(), Trouble> {
        self.gather().await?;
        while self.stash.is_expecting() {
            self.progress().await?;
        }
        while let Some(tag) = self.open.front().cloned() {
            // A refusal of something that nobody waits for any more is no trouble; a broken line is.
            if let (Err(trouble), true) = (self.finish(&tag).await, self.broken) {
                return Err(trouble);
            }
        }
        self.finished.clear();
        let aside = self.aside();
        let vanished = aside.vanished;
        *aside = Aside { flags: aside.flags.take(), ..Aside::default() };
        self.view.shrunk |= vanished;
        Ok(())
    }

    /// Reads what is still open, and hears what the server has said meanwhile. An error: the line cannot be used. One that can
    /// be had anew is not waited for as long as one that cannot.
    pub(super) async fn ready(&mut self, is_replaceable: bool) -> Result<(), Trouble> {
        if self.broken {
            return Err(Trouble::Lost);
        }
        if is_replaceable {
            self.hurry(SILENCE);
        }
        self.quiesce().await?;
        self.unhurry();
        while let Some(heard) = self.listen().now_or_never() {
            if !matches!(heard, Ok(Heard::Untagged)) {
                return Err(self.fail(Trouble::Lost));
            }
        }
        if is_replaceable && self.tap.heard().elapsed() > QUIET {
            self.show_life().await?;
        }
        Ok(())
    }

    /// Finds out whether the server is still there: what is said to one that is not would wait for as long as any reply.
    async fn show_life(&mut self) -> Result<(), Trouble> {
        let noop = self.send("NOOP")?;
        match timeout(SIGN_OF_LIFE, self.finish(&noop)).await {
            Ok(Err(trouble)) if self.broken => Err(trouble),
            Ok(_) => Ok(()),
            Err(_) => Err(self.fail(Trouble::Silent("it was asked whether it is still there"))),
        }
    }

    /// From now on somebody waits who is shown nothing before all of it is here. For a body that has not begun he waits
    /// as for any reply.
    pub(super) fn hurry(&mut self, patience: Duration) {
        self.hurried = Some(Instant::now() + patience);
    }

    /// Nobody waits any more, or what comes is shown.
    pub(super) const fn unhurry(&mut self) {
        self.hurried = None;
    }

    /// Sends one command for several pieces. They arrive in the stash while something is awaited on this line.
    pub(super) fn ask_ahead(&mut self, items: Vec<Item>) -> Result<(), Trouble> {
        self.aside().all_wanted = true;
        let pieces: Vec<_> = items.iter().map(Item::piece).collect();
        match self.send(&stash::command(&pieces)) {
            Ok(tag) => {
                self.stash.asked(tag, items);
                Ok(())
            }
            Err(trouble) => {
                self.stash.release(items);
                Err(trouble)
            }
        }
    }

    /// A piece that was asked for ahead, as soon as the server has confirmed that it came whole. `None`: it was not asked for,
    /// or did not come. A line that can be had anew is not waited for as long as one that cannot.
    pub(super) async fn stashed(&mut self, piece: Piece, is_replaceable: bool) -> Result<Option<Arrived>, Trouble> {
        if is_replaceable {
            self.hurry(SILENCE);
        }
        loop {
            match self.stash.take(piece) {
                None if self.stash.expects(piece) => self.progress().await?,
                arrived => {
                    self.unhurry();
                    return Ok(arrived);
                }
            }
        }
    }

    /// One step in receiving what was asked for ahead. Cancel-safe.
    async fn progress(&mut self) -> Result<(), Trouble> {
        self.gather().await?;
        match self.hear(COMMAND, "messages were asked for").await? {
            Heard::Reply(tag, outcome) => self.replied(tag, outcome)?,
            Heard::Untagged => {}
            Heard::Body(opened) => self.receive(opened).await?,
        }
        Ok(())
    }

    /// A command has been answered. If it fetched ahead, its messages are proved, or forgotten.
    fn replied(&mut self, tag: Tag, outcome: Result<Outcome, Trouble>) -> Result<(), Trouble> {
        self.take_arrivals()?;
        if !self.stash.answered(&tag, outcome.is_ok()) {
            self.finished.push((tag, outcome));
        }
        if !self.stash.is_expecting() {
            self.aside().all_wanted = false;
        }
        Ok(())
    }

    /// Receives the body that has just opened: for the stash if it is its, else for nobody.
    async fn receive(&mut self, opened: Opened) -> Result<(), Trouble> {
        self.take_arrivals()?;
        let fits = opened.octets <= stash::LARGEST + stash::SLACK;
        self.arriving = (self.stash.is_expecting() && fits)
            .then(|| Vec::with_capacity(usize::try_from(opened.octets).unwrap_or_default()));
        self.gather().await
    }

    /// Reads the body that is open to its end. Cancel-safe.
    async fn gather(&mut self) -> Result<(), Trouble> {
        loop {
            let octets = match self.more_body().await? {
                0 => return Ok(()),
                octets => octets,
            };
            if let Some(arriving) = &mut self.arriving {
                arriving.extend_from_slice(self.tap.body(octets));
            }
            self.consume(octets);
        }
    }

    /// Brings what is complete into the stash. A literal is followed by the end of its response before anything else comes,
    /// so what was received last belongs to the one response that has a literal.
    fn take_arrivals(&mut self) -> Result<(), Trouble> {
        for fetch in std::mem::take(&mut self.aside().bodies) {
            let (offset, octets) = match fetch.body {
                Some(BodyItem::Quoted { offset, octets }) => (offset, Some(octets)),
                Some(BodyItem::Literal { offset, octets: 0 }) => (offset, Some(Vec::new())),
                Some(BodyItem::Literal { offset, .. }) => (offset, self.arriving.take()),
                Some(BodyItem::Nil) | None => continue,
            };
            // Asked for alone, the size of a loose one is compared.
            let arrived = octets.filter(|_| !fetch.loose).map(|octets| Arrived { offset, octets });
            if let Some(uid) = fetch.uid.and_then(Uid::new)
                && !self.stash.arrived(uid, arrived)
            {
                return Err(self.fail(TWICE.into()));
            }
        }
        Ok(())
    }

    /// The buffer for the large pieces in which listings come is given back if the client has nothing to ask now: many only
    /// look.
    pub(super) fn relax(&mut self) {
        self.tap.relax();
    }

    /// Lets go of what was fetched ahead, once it is here. Whether the line is then as after a tagged reply: nothing is open,
    /// nothing lies unread.
    pub(super) async fn lay_down(&mut self) -> bool {
        if self.stash.is_expecting() && !matches!(timeout(PARTING, self.quiesce()).await, Ok(Ok(()))) {
            return false;
        }
        self.stash.discard();
        // Replies to what was forsaken concern nobody any more.
        self.finished.clear();
        let is_quiet = self.open.is_empty() && self.stash.is_empty();
        is_quiet && self.is_usable() && self.tap.is_clean()
    }

    /// Sends a FETCH for a body and waits until the body begins or the command ends.
    pub(super) async fn ask_body(&mut self, piece: Piece) -> Result<Answer, Trouble> {
        let uid = piece.uid;
        let tag = self.send(&stash::command(&[piece]))?;
        self.aside().wanted = Some(uid);
        self.arriving = None;
        loop {
            match self.hear(COMMAND, "a message was asked for").await? {
                Heard::Body(opened) => return Ok(Answer::Stream(tag, opened)),
                Heard::Untagged => {}
                Heard::Reply(replied, outcome) if replied == tag => {
                    self.aside().wanted = None;
                    outcome?;
                    let body = self.aside().body.take().filter(|fetch| fetch.uid == Some(uid.value()));
                    return Ok(match body.and_then(|fetch| fetch.body) {
                        Some(BodyItem::Quoted { offset, octets }) => Answer::Held(offset, octets),
                        Some(BodyItem::Literal { offset, octets: 0 }) => Answer::Held(offset, Vec::new()),
                        Some(BodyItem::Nil) => Answer::Nil,
                        Some(BodyItem::Literal { .. }) | None => Answer::Absent,
                    });
                }
                Heard::Reply(tag, outcome) => self.finished.push((tag, outcome)),
            }
        }
    }

    /// Waits for more octets of the body that streams; how many are here, 0 at its end.
    pub(super) async fn more_body(&mut self) -> Result<usize, Trouble> {
        let silent = Instant::now() + COMMAND;
        let end = self.hurried.map_or(silent, |slow| slow.min(silent));
        let trouble = match timeout_at(end, poll_fn(|cx| self.tap.poll_body(cx))).await {
            Ok(Ok(octets)) => return Ok(octets),
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Trouble::Lost,
            Ok(Err(error)) => Trouble::Broken(error.kind()),
            Err(_) if end < self.tap.heard() + COMMAND => Trouble::Slow,
            Err(_) => Trouble::Silent("it sent a message"),
        };
        self.broken = true;
        Err(trouble)
    }

    /// The octets that [`more_body`](Self::more_body) found.
    pub(super) fn body(&mut self, octets: usize) -> &[u8] {
        self.tap.body(octets)
    }

    /// They have been used.
    pub(super) fn consume(&mut self, octets: usize) {
        self.tap.consume(octets);
    }

    /// How much of a body that nobody reads lies on the line.
    pub(super) fn unread(&mut self) -> u64 {
        self.tap.remaining()
    }

    /// All octets of the body have been read: waits for the tagged OK, and for the proof that they were of `uid`.
    /// `as_listed`: they were as many as the listing has.
    pub(super) async fn end_body(&mut self, tag: &Tag, uid: Uid, as_listed: bool) -> Result<(), Trouble> {
        self.finish(tag).await?;
        let wrong = match self.aside().body.take() {
            Some(fetch) if fetch.uid != Some(uid.value()) => Malformed("a body without its UID"),
            Some(fetch) if fetch.loose && !as_listed => Malformed("a body that may be longer than announced"),
            Some(_) => return Ok(()),
            None => Malformed("a body without its UID"),
        };
        self.broken = true;
        Err(wrong.into())
    }

    /// Passes the time: hears what the server says, and asks for a sign of life now and then. Returns when the line is
    /// lost. Cancel-safe.
    pub(super) async fn idle(&mut self) -> Trouble {
        loop {
            if self.open.is_empty() {
                let busy = self.tap.is_busy();
                let quiet = match self.stash.is_empty() {
                    _ if busy => self.asked + SOON,
                    false => self.asked + STALE,
                    true => self.asked + KEEP_ALIVE,
                };
                match timeout_at(quiet, self.listen()).await {
                    Ok(Ok(Heard::Untagged)) => {}
                    Ok(Ok(Heard::Reply(..) | Heard::Body(_))) => {
                        return self.fail(Malformed("a reply to no command").into());
                    }
                    Ok(Err(trouble)) => return self.fail(trouble),
                    Err(_) if busy => self.tap.relax(),
                    // Whoever has not asked for it by now will hardly do so.
                    Err(_) if !self.stash.is_empty() => self.stash.discard(),
                    Err(_) => {
                        if let Err(trouble) = self.send("NOOP") {
                            return trouble;
                        }
                    }
                }
            } else if let Err(trouble) = Box::pin(self.quiesce()).await {
                return trouble;
            }
        }
    }

    /// Says LOGOUT and hangs up without waiting for an answer.
    pub(super) async fn leave(mut self) {
        if self.open.is_empty() && self.send("LOGOUT").is_ok() {
            // A server that does not read any more is left without a word.
            let _ = timeout_at(Instant::now() + FAREWELL, poll_fn(|cx| self.tap.poll_send(cx))).await;
            let _ = timeout_at(Instant::now() + FAREWELL, self.tap.shutdown()).await;
        }
    }

    /// Waits for the answers to what has been sent, though nobody wants to know them any more, and hangs up.
    pub(super) async fn see_through(mut self, patience: Duration) {
        let _ = timeout(patience, self.quiesce()).await;
    }

    /// Breaks the line.
    pub(super) fn abort(mut self) {
        self.tap.abort();
    }

    /// The next thing the server says, as long as it says anything within `patience` of its last octet.
    async fn hear(&mut self, patience: Duration, what: &'static str) -> Result<Heard, Trouble> {
        let mut deadline = Instant::now() + patience;
        loop {
            match timeout_at(deadline, self.listen()).await {
                Ok(Ok(heard)) => return Ok(heard),
                Ok(Err(trouble)) => return Err(self.fail(trouble)),
                Err(_) => {
                    let extended = self.tap.heard() + patience;
                    if extended <= deadline {
                        return Err(self.fail(Trouble::Silent(what)));
                    }
                    deadline = extended;
                }
            }
        }
    }

    fn fail(&mut self, trouble: Trouble) -> Trouble {
        self.broken = true;
        trouble
    }

    /// Cancel-safe: a response is taken whole.
    async fn listen(&mut self) -> Result<Heard, Trouble> {
        if self.broken {
            return Err(Trouble::Lost);
        }
        match poll_fn(|cx| self.tap.poll_next(cx)).await.map_err(|error| trouble(&error))? {
            Next::Body(opened) => Ok(Heard::Body(opened)),
            Next::Response => {
                self.view.shrunk |= std::mem::take(&mut self.aside().vanished);
                // It is here whole, so nothing is waited for, and nothing is left over.
                match Client::new(&mut self.tap).read_response().now_or_never() {
                    Some(Ok(Some(response))) => self.note(response.parsed()),
                    _ => Err(UNPARSED.into()),
                }
            }
            Next::End => Err(Trouble::Lost),
        }
    }

    fn note(&mut self, response: &Response<'_>) -> Result<Heard, Trouble> {
        match response {
            Response::Done { tag, .. } if self.unheeded.take_if(|unheeded| unheeded == tag).is_some() => {
                // What it says of capabilities is of a time before the log-in.
                let is_stale = self.tap.is_logging_in();
                self.aside().capabilities.take_if(|_| is_stale);
            }
            Response::Done { tag, status, outcome } => {
                let Some(at) = self.open.iter().position(|open| open == tag) else {
                    return Err(Malformed("a reply to a command that is not open").into());
                };
                self.open.remove(at);
                self.view.note(outcome.code.as_ref(), &Outcome::of(outcome));
                let judged = judge(status, Outcome::of(outcome));
                // In another mailbox than the one that was listed the same UIDs are other messages.
                let judged =
                    judged.and_then(|outcome| self.view.changed.map_or(Ok(outcome), |why| Err(Trouble::Changed(why))));
                return Ok(Heard::Reply(tag.clone(), judged));
            }
            Response::Data { status: Status::Bye, outcome } => return Err(Trouble::Bye(Outcome::of(outcome))),
            Response::Data { outcome, .. } => self.view.note(outcome.code.as_ref(), &Outcome::of(outcome)),
            Response::MailboxData(MailboxDatum::Exists(exists)) => self.view.exist(*exists),
            Response::Expunge(number) => self.view.expunge(*number),
            _ => {}
        }
        Ok(Heard::Untagged)
    }
}

/// What a tagged status means.
fn judge(status: &Status, outcome: Outcome) -> Result<Outcome, Trouble> {
    match status {
        Status::Ok => Ok(outcome),
        Status::No => Err(Trouble::No(outcome)),
        Status::Bad => Err(Trouble::Bad(outcome)),
        Status::PreAuth | Status::Bye => Err(Malformed("a tagged line that is no reply").into()),
    }
}

/// What an error of the tap means.
fn trouble(error: &io::Error) -> Trouble {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Malformed>()) {
        Some(malformed) => (*malformed).into(),
        None if error.kind() == io::ErrorKind::UnexpectedEof => Trouble::Lost,
        None => Trouble::Broken(error.kind()),
    }
}

/// async-imap's own words for it quote what it could not parse.
const UNPARSED: Malformed = Malformed("a response that cannot be parsed");

/// So long may a server be silent while a command is open.
pub(super) const COMMAND: Duration = Duration::from_secs(60);

/// So long may what was fetched ahead keep a client waiting once it comes. Many programs give up after a minute, and a
/// message that is asked for alone is shown as it comes.
const SILENCE: Duration = Duration::from_secs(30);

/// Servers may log out a client that is silent for 30 minutes (RFC 3501 §5.4), routers forget lines much sooner.
const KEEP_ALIVE: Duration = Duration::from_secs(240);

/// A line over which nothing has come for so long may be lost, and nobody has told us: a router may have forgotten it.
const QUIET: Duration = Duration::from_secs(60);

/// … and a server that is there shows it within this time.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// Memory for what the server says is kept for so long after a command: a client that goes on needs it again at once.
const SOON: Duration = Duration::from_secs(1);

/// What was fetched ahead and not asked for is kept for so long.
const STALE: Duration = Duration::from_secs(30);

/// What nobody will ask for any more is worth so much time when a session ends, for the sake of the line.
const PARTING: Duration = Duration::from_secs(2);

/// LOGOUT is a courtesy.
const FAREWELL: Duration = Duration::from_secs(2);
