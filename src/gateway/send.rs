//! RETR and TOP: a message flows from upstream to the client in constant memory. The dot that ends it is written only when
//! the upstream has confirmed that all of it came; a message that breaks off ends the connection instead.

use tracing::debug;

use super::{Seen, client::Client, refuse, summary::End};
use crate::{
    pop3::{
        reply::Reply,
        session::{Sending, Wanted},
        stuff::Stuffer,
        top::Top,
    },
    upstream::{Body, Extent, Fault, Mailbox, Piece, Verdict, Window},
};

/// What became of a message.
pub(super) enum Delivery {
    /// It was sent, with its dot.
    Sent {
        /// All of the message.
        whole: bool,
        /// How many octets of it.
        octets: u64,
    },
    /// It is not there any more.
    Gone,
    /// It could not be had, and this is the answer. Nothing of it was sent.
    Failed(Reply),
}

/// Sends what is wanted. An error ends the session.
pub(super) async fn send<M: Mailbox>(
    client: &mut Client,
    mailbox: &mut M,
    sending: &Sending,
    wanted: Wanted,
    seen: Seen,
) -> Result<Delivery, End> {
    let waiting = client.waiting();
    let certain = std::iter::once(wanted).chain(sending.certain(waiting).take(AHEAD));
    // A flag that is set behind each message would have to wait for all that is on its way.
    let likely = sending.likely(waiting).take_while(|_| seen != Seen::Retr);
    mailbox.ahead(certain.map(piece), likely.map(piece));
    if !mailbox.is_here(piece(wanted)) {
        // What the client is owed goes out before a wait.
        client.flush().await?;
    }
    let begin = client.mark();
    let transfer = Transfer::new(client, sending, wanted);
    let outcome = match piece(wanted).window {
        Some(window) => transfer.windows(mailbox, window).await,
        None => transfer.whole(mailbox).await,
    };
    match outcome {
        Ok(delivery) => Ok(delivery),
        Err(Broken::Client(end)) => Err(end),
        Err(Broken::Upstream(fault)) => {
            refuse::log(&fault, "message could not be read");
            // As long as nothing of the reply has left us it can be another one.
            if client.take_back(begin) { Ok(Delivery::Failed(refuse::message(&fault))) } else { Err(End::Torn) }
        }
    }
}

/// What the answer begins with: the whole message, or its first part where that may be enough.
fn piece(wanted: Wanted) -> Piece {
    let Wanted { uid, octets, body_lines } = wanted;
    let length = match body_lines {
        Some(0) => HEADER_WINDOW,
        Some(lines) if lines < WHOLE_LINES => FIRST_WINDOW,
        _ => return Piece { uid, window: None },
    };
    let worthwhile = octets > u64::from(length) * WORTHWHILE;
    Piece { uid, window: worthwhile.then_some(Window { offset: 0, length }) }
}

/// Why a transfer did not come to its end.
enum Broken {
    Client(End),
    Upstream(Fault),
}

impl From<End> for Broken {
    fn from(end: End) -> Self {
        Self::Client(end)
    }
}

impl From<Fault> for Broken {
    fn from(fault: Fault) -> Self {
        Self::Upstream(fault)
    }
}

/// A message on its way.
struct Transfer<'a> {
    client: &'a mut Client,
    sending: &'a Sending,
    wanted: Wanted,
    stuffer: Stuffer,
    /// Where TOP ends.
    top: Option<Top>,
    /// The first line of the reply has been written.
    begun: bool,
    /// Something came that TOP does not want.
    cut: bool,
}

impl<'a> Transfer<'a> {
    fn new(client: &'a mut Client, sending: &'a Sending, wanted: Wanted) -> Self {
        let top = wanted.body_lines.map(Top::new);
        Self { client, sending, wanted, stuffer: Stuffer::new(), top, begun: false, cut: false }
    }

    /// Fetches all of it, and reads all of it even if TOP wants less: the proof comes at the end.
    async fn whole<M: Mailbox>(mut self, mailbox: &mut M) -> Result<Delivery, Broken> {
        let Some(mut body) = mailbox.fetch(self.wanted.uid).await? else { return Ok(Delivery::Gone) };
        if body.octets() == 0 && self.wanted.octets > 0 {
            return Ok(self.unavailable());
        }
        self.begin(body.octets()).await?;
        self.pass(&mut body, 0).await?;
        self.finish(true).await
    }

    /// Fetches it piece by piece until there is as much as TOP wants. Where a piece ends is decided by what came, never by
    /// what was asked for. Where the message ends nobody says: if that is before its listed size, all of it is asked for.
    async fn windows<M: Mailbox>(mut self, mailbox: &mut M, first: Window) -> Result<Delivery, Broken> {
        let mut window = first;
        loop {
            let Some(mut body) = mailbox.peek(self.wanted.uid, window).await? else {
                return if self.begun { Err(changed().into()) } else { Ok(Delivery::Gone) };
            };
            if body.octets() == 0 && window.offset == 0 {
                return Ok(self.unavailable());
            }
            self.begin(body.octets()).await?;
            let extent = body.extent();
            let known = if extent == Extent::Whole { window.offset } else { 0 };
            let came = self.pass(&mut body, known).await?;
            drop(body);
            if came < known {
                return Err(changed().into());
            }
            let (reached, ended) = match extent {
                Extent::Whole => (came, true),
                Extent::Part => (window.offset + came, came < u64::from(window.length)),
            };
            // What is called whole and is just as long as the part that was asked for need not be.
            let is_part = extent == Extent::Part || came == u64::from(window.length);
            let is_whole = ended && !(is_part && reached < self.wanted.octets);
            if is_whole || self.is_enough() {
                return self.finish(is_whole).await;
            }
            self.client.flush().await?;
            if ended {
                return self.remainder(mailbox, reached).await;
            }
            window = Window { offset: reached, length: (window.length * 2).min(LAST_WINDOW) };
        }
    }

    /// Fetches all of it, for what may come behind the first `known` octets.
    async fn remainder<M: Mailbox>(mut self, mailbox: &mut M, known: u64) -> Result<Delivery, Broken> {
        debug!(uid = self.wanted.uid.value(), known, "a part ended before the message, as it is listed");
        let Some(mut body) = mailbox.fetch(self.wanted.uid).await? else { return Err(changed().into()) };
        match self.pass(&mut body, known).await? {
            came if came < known => Err(changed().into()),
            _ => self.finish(true).await,
        }
    }

    /// Something that was listed with a size has none. That is no message.
    fn unavailable(&self) -> Delivery {
        debug!(uid = self.wanted.uid.value(), "the upstream sent an empty message");
        Delivery::Failed(Reply::message_unavailable())
    }

    async fn begin(&mut self, octets: u64) -> Result<(), End> {
        if std::mem::replace(&mut self.begun, true) {
            return Ok(());
        }
        self.client.say(&self.sending.header(octets)).await
    }

    /// Passes on what is wanted of a body, but for the first `known` octets, and reads it to its end. Says how many came.
    async fn pass<M: Mailbox>(&mut self, body: &mut Body<'_, M>, known: u64) -> Result<u64, Broken> {
        let mut came = 0;
        while let Some(chunk) = body.next().await? {
            let skip = usize::try_from(known.saturating_sub(came)).unwrap_or(usize::MAX).min(chunk.len());
            came += chunk.len() as u64;
            let chunk = &chunk[skip..];
            let count = self.top.as_mut().map_or(chunk.len(), |top| top.push(chunk));
            self.cut |= count < chunk.len();
            let stuffer = &mut self.stuffer;
            self.client.collect(|out| stuffer.push(&chunk[..count], out));
            // What came is passed on before the next is awaited: the upstream may be slow, and a client that hears nothing
            // for a minute gives up. The end of the message goes together with its dot.
            if came < body.octets() {
                self.client.flush().await?;
            }
        }
        Ok(came)
    }

    fn is_enough(&self) -> bool {
        self.top.as_ref().is_some_and(Top::finished)
    }

    /// Everything came and was confirmed. `ended`: it was the message to its end.
    async fn finish(self, ended: bool) -> Result<Delivery, Broken> {
        let octets = self.stuffer.octets();
        let (stuffer, client) = (self.stuffer, self.client);
        client.collect(|out| stuffer.finish(out));
        client.pause().await?;
        Ok(Delivery::Sent { whole: ended && !self.cut, octets })
    }
}

fn changed() -> Fault {
    Fault::new(Verdict::Passing, "the message was removed or changed while it was being sent")
}

/// So many of the commands that wait are looked at each time; hardly more can be on their way.
const AHEAD: usize = 400;

/// A TOP that wants so many lines wants everything: fetchmail asks for 99999999.
const WHOLE_LINES: u64 = 10_000;

/// A message that is no larger than so many first pieces is fetched faster at once.
const WORTHWHILE: u64 = 4;

/// Most headers fit, and some lines.
const FIRST_WINDOW: u32 = 16 * 1024;

/// Most headers fit.
const HEADER_WINDOW: u32 = 4 * 1024;

/// Pieces double up to this.
const LAST_WINDOW: u32 = 1024 * 1024;
