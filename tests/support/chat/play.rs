//! Plays a transcript: both peers of popgate in one, step by step, on a paused clock.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use popgate::net::{Dial, Wire};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc::UnboundedReceiver,
    task::JoinHandle,
    time::timeout,
};

use super::{
    score::{Act, Leg, Options, Piece, Score, Step},
    wire::{Exchange, Fate, Pipe, Request},
};
use crate::support::{script::Line, tls};

/// Serves one client on a line.
pub(crate) type Serve = Box<dyn Fn(Box<dyn Wire>) -> JoinHandle<()>>;

/// How long a step waits for popgate. Transcripts write longer times as `!wait`.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long popgate may go on after the last step: longer than any of its own deadlines.
const AFTERMATH: Duration = Duration::from_secs(900);

/// Plays a transcript with so many octets of room in each direction of each line. `house` builds a popgate from the
/// options and from the way to its upstream; if it `keeps` lines, LOGOUT is not said where it would be. An error is the
/// dialogue, to be printed.
pub(crate) async fn play(
    score: &Score,
    capacity: usize,
    keeps: bool,
    house: impl FnOnce(&Options, Arc<dyn Dial>) -> Serve,
) -> Result<(), String> {
    let (exchange, dials) = Exchange::new();
    let serve = house(&score.options, Arc::new(exchange));
    let mut play = Play {
        capacity,
        keeps,
        serve,
        dials,
        client: Peer::default(),
        upstreams: Vec::new(),
        open: VecDeque::new(),
        sessions: Vec::new(),
    };
    play.connect();
    let mut sent = false;
    for (index, step) in score.steps.iter().enumerate() {
        // Lines that a client sends one after the other are sent at once; before the first of them all is quiet.
        let sends = matches!(step.act, Act::Send(Leg::Pop3, _));
        let settled = if sends && !sent { play.settle().await } else { Ok(()) };
        sent = sends;
        if let Err(fault) = match settled {
            Ok(()) => play.step(&step.act).await,
            Err(fault) => Err(fault),
        } {
            return Err(dialogue(&score.steps, index, capacity, &fault, &play.unread()));
        }
    }
    play.end().await.map_err(|fault| dialogue(&score.steps, score.steps.len(), capacity, &fault, &play.unread()))
}

/// Whether this is LOGOUT.
fn is_farewell(pieces: &[Piece]) -> bool {
    matches!(pieces, [Piece::Tag, Piece::Octets(octets)] if octets == b" LOGOUT\r\n")
}

/// The dialogue with the line marked that differs.
fn dialogue(steps: &[Step], failed: usize, capacity: usize, fault: &str, unread: &str) -> String {
    let mut text = format!("with lines of {capacity} octets:\n");
    for (index, step) in steps.iter().enumerate() {
        let mark = if index == failed { ">>" } else { "  " };
        text.push_str(&format!("{mark} {:<40} {}\n", step.place, step.text));
        if index == failed {
            text.push_str(&format!("        {fault}\n"));
        }
    }
    if failed == steps.len() {
        text.push_str(&format!(">> after the last line: {fault}\n"));
    }
    text + unread
}

struct Play {
    capacity: usize,
    keeps: bool,
    serve: Serve,
    dials: UnboundedReceiver<Request>,
    client: Peer,
    /// The last is the one that the transcript talks of.
    upstreams: Vec<Peer>,
    /// Tags of commands that the transcript has not answered yet.
    open: VecDeque<Vec<u8>>,
    sessions: Vec<JoinHandle<()>>,
}

/// Our end of one line.
#[derive(Default)]
struct Peer {
    line: Option<Box<dyn Line>>,
    fate: Arc<Fate>,
    /// Octets that popgate has still to take.
    unsent: VecDeque<u8>,
    /// Octets that popgate sent and no step has asked for yet.
    unread: Vec<u8>,
    /// popgate sends no more.
    ended: bool,
    deaf: bool,
}

type Outcome = Result<(), String>;

impl Play {
    fn connect(&mut self) {
        let (pipe, line, fate) = Pipe::pair(self.capacity);
        self.client = Peer::new(line, fate);
        self.sessions.push((self.serve)(Box::new(pipe)));
    }

    async fn step(&mut self, act: &Act) -> Outcome {
        match act {
            Act::Wait(leg, time) => self.wait(*leg, *time).await,
            Act::Send(leg, pieces) => {
                self.dialled(*leg).await?;
                let octets = self.octets(pieces)?;
                self.peer(*leg)?.unsent.extend(octets);
                Ok(())
            }
            Act::Expect(Leg::Imap, pieces) if self.keeps && is_farewell(pieces) && self.is_kept().await => Ok(()),
            Act::Expect(leg, pieces) => {
                self.dialled(*leg).await?;
                self.expect(*leg, pieces).await
            }
            Act::HangUp(leg) => {
                self.dialled(*leg).await?;
                self.flushed(*leg).await?;
                self.peer(*leg)?.line = None;
                Ok(())
            }
            Act::End(leg) => {
                self.flushed(*leg).await?;
                let line = self.peer(*leg)?.line.as_mut().ok_or("the line has ended")?;
                poll_fn(|cx| Pin::new(&mut *line).poll_shutdown(cx)).await.map_err(|fault| fault.to_string())
            }
            Act::Reset(leg) => {
                self.flushed(*leg).await?;
                let peer = self.peer(*leg)?;
                peer.fate.reset();
                peer.line = None;
                Ok(())
            }
            Act::Closed(leg) => self.closed(*leg).await,
            Act::Aborted(leg) => self.aborted(*leg).await,
            Act::Tls(leg) => {
                let line = self.tls(*leg).await?.map_err(|fault| fault.to_string())?;
                self.peer(*leg)?.line = Some(line);
                Ok(())
            }
            Act::TlsRefused(leg) => match self.tls(*leg).await? {
                Ok(_) => Err("popgate has nothing against it".into()),
                Err(_) => Ok(()),
            },
            Act::Hear(leg, hear) => {
                self.peer(*leg)?.deaf = !hear;
                Ok(())
            }
            Act::Connect => {
                self.peer(Leg::Pop3)?.line = None;
                self.connect();
                Ok(())
            }
            Act::Refuse => {
                let request = timeout(PATIENCE, self.dial()).await.map_err(|_| "popgate does not dial")?;
                let _ = request.send(Err(io::ErrorKind::ConnectionRefused.into()));
                Ok(())
            }
        }
    }

    /// Whether popgate has nothing more to say upstream, and keeps the line.
    async fn is_kept(&mut self) -> bool {
        self.pass(Duration::from_millis(1)).await;
        self.upstreams.last().is_some_and(|upstream| upstream.unread.is_empty() && !upstream.ended)
    }

    /// The line that a step is about.
    fn peer(&mut self, leg: Leg) -> Result<&mut Peer, String> {
        match leg {
            Leg::Pop3 => Ok(&mut self.client),
            Leg::Imap => self.upstreams.last_mut().ok_or_else(|| "there is no line to the upstream".into()),
        }
    }

    /// Has popgate dial if the upstream's last line is at its end or there was none.
    async fn dialled(&mut self, leg: Leg) -> Outcome {
        let live = |peer: &Peer| peer.line.is_some() && !(peer.ended && peer.unread.is_empty());
        if leg == Leg::Pop3 || self.upstreams.last().is_some_and(live) {
            return Ok(());
        }
        let request = timeout(PATIENCE, self.dial()).await.map_err(|_| "popgate does not dial")?;
        let (pipe, line, fate) = Pipe::pair(self.capacity);
        self.upstreams.push(Peer::new(line, fate));
        self.open.clear();
        request.send(Ok(Box::new(pipe))).map_err(|_| "popgate does not wait for its line".into())
    }

    async fn dial(&mut self) -> Request {
        poll_fn(|cx| {
            self.pump(cx);
            loop {
                match self.dials.poll_recv(cx) {
                    Poll::Ready(Some(request)) if request.is_closed() => {} // popgate has given up.
                    Poll::Ready(Some(request)) => return Poll::Ready(request),
                    _ => return Poll::Pending,
                }
            }
        })
        .await
    }

    /// Moves octets on every line.
    fn pump(&mut self, cx: &mut Context<'_>) {
        self.client.pump(cx);
        self.upstreams.iter_mut().for_each(|upstream| upstream.pump(cx));
    }

    /// Moves octets until something is so.
    async fn until(&mut self, mut so: impl FnMut(&mut Self) -> bool) {
        poll_fn(|cx| {
            self.pump(cx);
            if so(self) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Moves octets while time passes.
    async fn pass(&mut self, time: Duration) {
        let _ = timeout(time, self.until(|_| false)).await;
    }

    async fn wait(&mut self, leg: Leg, time: Duration) -> Outcome {
        self.pass(time).await;
        let peer = self.peer(leg)?;
        if peer.unread.is_empty() && !peer.ended { Ok(()) } else { Err("this leg is not silent".into()) }
    }

    /// Lets popgate do all it can do without the next line.
    async fn settle(&mut self) -> Outcome {
        self.pass(Duration::from_millis(1)).await;
        match self.upstreams.iter().all(|upstream| upstream.unread.is_empty()) {
            true => Ok(()),
            false => Err("popgate has sent something upstream before this line".into()),
        }
    }

    async fn flushed(&mut self, leg: Leg) -> Outcome {
        let sent = self.until(|play| play.peer(leg).map_or(true, Peer::sent));
        timeout(PATIENCE, sent).await.map_err(|_| "popgate does not take what was sent before this".into())
    }

    /// What to send, the tags filled in.
    fn octets(&mut self, pieces: &[Piece]) -> Result<Vec<u8>, String> {
        let mut octets = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Octets(known) => octets.extend_from_slice(known),
                Piece::Tag => octets.extend(self.open.pop_front().ok_or("no command is open")?),
                Piece::OpenTag => octets.extend(self.open.front().ok_or("no command is open")?),
                Piece::Any => {}
            }
        }
        Ok(octets)
    }

    async fn expect(&mut self, leg: Leg, pieces: &[Piece]) -> Outcome {
        let mut found = Found::Short;
        let looked = timeout(
            PATIENCE,
            self.until(|play| {
                let Ok(peer) = play.peer(leg) else { return true };
                found = matches(pieces, &peer.unread);
                !matches!(found, Found::Short) || peer.ended
            }),
        )
        .await;
        match found {
            Found::Match { octets, tag } => {
                self.peer(leg)?.unread.drain(..octets);
                self.open.extend(tag);
                Ok(())
            }
            Found::Differs => Err("what came differs".into()),
            Found::Short if looked.is_err() => Err(format!("nothing like it came within {PATIENCE:?}")),
            Found::Short => Err("popgate has closed the line".into()),
        }
    }

    async fn closed(&mut self, leg: Leg) -> Outcome {
        let ended = self.until(|play| play.peer(leg).map_or(true, |peer| peer.ended || !peer.unread.is_empty()));
        timeout(PATIENCE, ended).await.map_err(|_| format!("popgate has not closed the line within {PATIENCE:?}"))?;
        let peer = self.peer(leg)?;
        match (peer.unread.is_empty(), peer.fate.aborted()) {
            (false, _) => Err("popgate says something more".into()),
            (true, true) => Err("popgate broke the line instead of closing it".into()),
            (true, false) => Ok(()),
        }
    }

    /// When a line breaks, what was under way may come or not; but it must not look like a good end.
    async fn aborted(&mut self, leg: Leg) -> Outcome {
        let ended = self.until(|play| play.peer(leg).map_or(true, |peer| peer.ended));
        timeout(PATIENCE, ended).await.map_err(|_| format!("popgate has not broken the line within {PATIENCE:?}"))?;
        let peer = self.peer(leg)?;
        if peer.unread == b".\r\n" || peer.unread.ends_with(b"\r\n.\r\n") {
            return Err("popgate has sent a dot".into());
        }
        if !peer.fate.aborted() {
            return Err("popgate closed the line instead of breaking it".into());
        }
        peer.unread.clear();
        Ok(())
    }

    /// A handshake, and how it ended.
    async fn tls(&mut self, leg: Leg) -> Result<io::Result<Box<dyn Line>>, String> {
        self.flushed(leg).await?;
        let peer = self.peer(leg)?;
        if !peer.unread.is_empty() {
            return Err("popgate says something in clear before the handshake".into());
        }
        let line = peer.line.take().ok_or("the line has ended")?;
        let shaken = timeout(PATIENCE, async {
            match leg {
                Leg::Pop3 => tls::connect(line).await,
                Leg::Imap => tls::accept(line).await,
            }
        });
        shaken.await.map_err(|_| "the handshake stalls".into())
    }

    /// The client leaves, popgate finishes, and nothing is left over.
    async fn end(&mut self) -> Outcome {
        self.pass(Duration::from_millis(1)).await;
        self.nothing_left()?;
        self.client.line = None;
        for mut session in std::mem::take(&mut self.sessions) {
            let finished = poll_fn(|cx| {
                self.pump(cx);
                Pin::new(&mut session).poll(cx)
            });
            match timeout(AFTERMATH, finished).await {
                Ok(finished) => finished.map_err(|fault| format!("popgate panicked: {fault}"))?,
                Err(_) => return Err(format!("popgate has not finished within {AFTERMATH:?}")),
            }
        }
        self.pass(Duration::from_millis(1)).await;
        self.nothing_left()
    }

    /// Nothing but a LOGOUT may be left unread; on a line that is kept, a NOOP.
    fn nothing_left(&mut self) -> Outcome {
        let keeps = self.keeps;
        let farewell = |unread: &[u8]| {
            let text = String::from_utf8_lossy(unread);
            let command = text.split_once(' ').map(|(_, command)| command);
            text.is_empty() || command == Some("LOGOUT\r\n") || keeps && command == Some("NOOP\r\n")
        };
        if self.client.line.is_some() && !self.client.unread.is_empty() {
            return Err("popgate says more to the client".into());
        }
        if !self.upstreams.iter().all(|upstream| farewell(&upstream.unread)) {
            return Err("popgate says more to the upstream".into());
        }
        match std::iter::from_fn(|| self.dials.try_recv().ok()).any(|request| !request.is_closed()) {
            true => Err("popgate dials once more".into()),
            false => Ok(()),
        }
    }

    /// What came and was not asked for.
    fn unread(&self) -> String {
        let upstreams = self.upstreams.iter().enumerate();
        let lines = upstreams.map(|(index, peer)| (format!("upstream {}", index + 1), peer));
        let mut text = String::new();
        for (name, peer) in [("client".to_string(), &self.client)].into_iter().chain(lines) {
            let shown = &peer.unread[..peer.unread.len().min(600)];
            let end = if peer.ended { ", line closed" } else { "" };
            text.push_str(&format!("   unread by {name}: \"{}\"{end}\n", shown.escape_ascii()));
        }
        text
    }
}

impl Peer {
    fn new(line: impl Line + 'static, fate: Arc<Fate>) -> Self {
        Self { line: Some(Box::new(line)), fate, ..Self::default() }
    }

    fn sent(&mut self) -> bool {
        self.unsent.is_empty()
    }

    /// Sends and receives what can be sent and received now.
    fn pump(&mut self, cx: &mut Context<'_>) {
        let Some(line) = &mut self.line else { return };
        let mut line = Pin::new(line);
        while !self.unsent.is_empty() {
            match line.as_mut().poll_write(cx, self.unsent.as_slices().0) {
                Poll::Ready(Ok(written)) => drop(self.unsent.drain(..written)),
                // popgate has gone; whether it should have is for the steps to say.
                Poll::Ready(Err(_)) => self.unsent.clear(),
                Poll::Pending => break,
            }
        }
        let _ = line.as_mut().poll_flush(cx);
        while !self.ended && !self.deaf {
            let mut room = [0; 4096];
            let mut room = ReadBuf::new(&mut room);
            match line.as_mut().poll_read(cx, &mut room) {
                Poll::Ready(Ok(())) if room.filled().is_empty() => self.ended = true,
                Poll::Ready(Ok(())) => self.unread.extend_from_slice(room.filled()),
                // TLS calls an end without close_notify an error.
                Poll::Ready(Err(_)) => self.ended = true,
                Poll::Pending => break,
            }
        }
    }
}

/// How far octets are what a step expects.
#[derive(Debug, PartialEq)]
enum Found {
    /// So many of them are it.
    Match { octets: usize, tag: Option<Vec<u8>> },
    /// They cannot become it.
    Differs,
    /// More may make it complete.
    Short,
}

fn matches(pieces: &[Piece], unread: &[u8]) -> Found {
    if let [Piece::Octets(exact)] = pieces {
        let common = exact.len().min(unread.len());
        return match (exact[..common] == unread[..common], common == exact.len()) {
            (false, _) => Found::Differs,
            (true, true) => Found::Match { octets: common, tag: None },
            (true, false) => Found::Short,
        };
    }
    if pieces.is_empty() {
        return Found::Match { octets: 0, tag: None };
    }
    let Some(end) = unread.iter().position(|octet| *octet == b'\n') else { return Found::Short };
    let mut line = &unread[..=end];
    let mut tag = None;
    if pieces[0] == Piece::Tag {
        let length = line.iter().take_while(|octet| octet.is_ascii_alphanumeric()).count();
        if length == 0 {
            return Found::Differs;
        }
        tag = Some(line[..length].to_vec());
        line = &line[length..];
    }
    let pieces = if tag.is_some() { &pieces[1..] } else { pieces };
    if glob(pieces, line) { Found::Match { octets: end + 1, tag } } else { Found::Differs }
}

/// Whether a whole line is these octets with anything where `…` stands.
fn glob(pieces: &[Piece], line: &[u8]) -> bool {
    match pieces {
        [] => line.is_empty(),
        [Piece::Octets(exact), rest @ ..] => line.strip_prefix(&exact[..]).is_some_and(|line| glob(rest, line)),
        [_, rest @ ..] => (0..=line.len()).any(|from| glob(rest, &line[from..])),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};

    use super::*;

    /// A stand-in for popgate: passes each line of the client on to the upstream with a tag, and one line back.
    fn parrot(_: &Options, dial: Arc<dyn Dial>) -> Serve {
        Box::new(move |wire| {
            let dial = Arc::clone(&dial);
            tokio::spawn(async move {
                let mut client = BufStream::new(wire);
                client.write_all(b"+OK parrot\r\n").await.unwrap();
                client.flush().await.unwrap();
                let endpoint = popgate::net::Endpoint { host: "localhost".into(), port: 143 };
                let Ok(upstream) = dial.dial(&endpoint).await else { return client.get_mut().abort() };
                let mut upstream = BufStream::new(upstream);
                let mut line = String::new();
                while client.read_line(&mut line).await.unwrap_or(0) > 0 {
                    if line == "ABORT\r\n" {
                        return client.get_mut().abort();
                    }
                    upstream.write_all(format!("a1 {line}").as_bytes()).await.unwrap();
                    upstream.flush().await.unwrap();
                    line.clear();
                    upstream.read_line(&mut line).await.unwrap();
                    client.write_all(line.as_bytes()).await.unwrap();
                    client.flush().await.unwrap();
                    line.clear();
                }
            })
        })
    }

    async fn outcome(text: &str) -> Outcome {
        let score = Score::parse("planted", text).unwrap();
        let mut outcomes = Vec::new();
        for capacity in [8, 65_536] {
            outcomes.push(play(&score, capacity, false, parrot).await);
        }
        assert_eq!(outcomes[0].is_ok(), outcomes[1].is_ok(), "{outcomes:?}");
        outcomes.remove(0)
    }

    #[tokio::test(start_paused = true)]
    async fn a_right_transcript_passes() {
        for text in [
            "S: +OK parrot\nC: A\n c: $ A\n s: $ OK\nS: …\n",
            "S: +OK parrot\n s: !refuse\nS: !abort\n",
            "S: +OK parrot\nC: ABORT\n s:\nS: !abort\n",
            "S: +OK parrot\n!wait 20s\nC: A\n c: $ A\n s: * <filler-60.eml 0.4>\nS: * {4}\nC: !close\n c: !close",
            "S: … par…t\nC: A\nC: B\n c: $ A\n s: x$=\\\n s:  \\x4fK\nS: xa1 OK\n c: $ B\n s: $ OK\nS: a1 OK\n",
            "S: +OK parrot\n s:\nC: !end\nS: !close\nC: !connect\nS: +OK parrot\n s:\n",
        ] {
            outcome(text).await.unwrap_or_else(|shown| panic!("{shown}"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_wrong_transcript_fails_at_the_line_that_differs() {
        let good = ["S: +OK parrot", "C: A", " c: $ A", " s: $ OK", "S: a1 OK"];
        for (line, instead, fault) in [
            (0, "S: +OK popgate", "differs"),
            (0, "S: +OK parrots", "differs"),
            (0, "S: !close", "something more"),
            (2, " c: $ B", "differs"),
            (2, " c: $ A B", "differs"),
            (2, " c: !close", "no line to the upstream"),
            (3, "!wait 1s", "nothing like it"),
            (4, "S: a2 OK", "differs"),
            (4, "S: !close", "something more"),
            (4, "# nothing", "more to the client"),
            (4, "C: B", "nothing"),
        ] {
            let mut lines = good;
            lines[line] = instead;
            let shown = outcome(&lines.join("\n")).await.unwrap_err();
            assert!(shown.contains(">>") && (shown.contains(fault) || fault == "nothing"), "{instead}:\n{shown}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_upstream_before_the_line_that_asks_for_it_is_seen() {
        let shown = outcome("S: +OK parrot\nC: A\n c: $ A\n s: $ OK\nS: …\nC: B\n!wait 1s\nC: C\n c: $ B").await;
        assert!(shown.unwrap_err().contains("before this line"));
    }
}
