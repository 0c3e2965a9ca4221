//! One session from the greeting to the end (RFC 1939 §3): reads a line, steps, has done what the step asks for, writes.
//! Only QUIT in the TRANSACTION state leads to `settle`, the one place where changes are made.

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info_span};

use super::{
    Gateway, Peer, Seen,
    authorize::{Open, Refused},
    client::{Client, Mark},
    guard::Place,
    refuse,
    send::{Delivery, send},
    summary::{End, Summary},
};
use crate::{
    mail::{Changes, Uid},
    net::Wire,
    pop3::{
        line::{Expects, Input},
        reply::Reply,
        session::{During, Leaving, Listing, Transaction, Wanted},
    },
    upstream::{Mailbox, Settled, Upstream},
};

/// Runs one session. When `shutdown` is cancelled it ends with the next command, or at once if the client is thinking;
/// changes that have been begun are finished. Dropping the future breaks the session off like a lost line.
pub fn serve<U: Upstream>(
    gateway: Arc<Gateway<U>>,
    wire: Box<dyn Wire>,
    peer: Peer,
    shutdown: CancellationToken,
) -> impl Future<Output = ()> + Send {
    let id = gateway.lasting.sessions.fetch_add(1, Ordering::Relaxed);
    let session = async move {
        let client = Client::new(wire);
        let summary = Summary::new();
        let (refused, unsent) = (None, Vec::new());
        Session { gateway: &gateway, id, peer, client, shutdown, refused, summary, unsent }.run().await;
    };
    session.instrument(info_span!("session", id))
}

/// A session and all that it has to do with.
pub(super) struct Session<'a, U> {
    pub(super) gateway: &'a Gateway<U>,
    pub(super) id: u64,
    pub(super) peer: Peer,
    pub(super) client: Client,
    pub(super) shutdown: CancellationToken,
    /// The log-in that was refused last, if nothing was answered yet.
    pub(super) refused: Option<Refused>,
    pub(super) summary: Summary,
    /// Messages whose ends have been collected but perhaps not sent, and where they end.
    unsent: Vec<(Mark, Uid)>,
}

/// How a session ended.
struct Over {
    end: End,
    /// Messages that may still be flagged `\Seen`.
    retrieved: Vec<Uid>,
}

impl<U: Upstream> Session<'_, U> {
    /// What a session needs for a while only is in boxes, so that it takes little while its client thinks.
    async fn run(&mut self) {
        let end = match Box::pin(self.authorize()).await {
            Ok(open) => Box::pin(self.converse(open)).await,
            Err(end) => {
                self.client.part(end).await;
                end
            }
        };
        self.summary.report(end, self.peer.client.ip());
    }

    /// TRANSACTION, and UPDATE if it comes to that.
    async fn converse(&mut self, open: Open<U::Mailbox>) -> End {
        let Open { seen, mut mailbox, snapshot, place, transaction } = open;
        let mut unfinished = None;
        let Over { end, mut retrieved } = match self.transact(&mut mailbox, seen, transaction).await {
            Ok((leaving, changes)) => {
                // To the end of the reply: a client that never reads it does not know what is gone.
                unfinished = Some(self.gateway.lasting.updates.token());
                for uid in &changes.delete {
                    self.summary.dele.add(snapshot.find(*uid).map_or(0, |message| message.octets));
                }
                Box::pin(self.settle_and_answer(&mut mailbox, place, &leaving, changes)).await
            }
            Err(over) => {
                drop(place);
                over
            }
        };
        // Nobody has seen what has not left us.
        self.unsent.retain(|(end, _)| !self.client.has_sent(*end));
        retrieved.retain(|retrieved| self.unsent.iter().all(|(_, uid)| uid != retrieved));
        let aftermath = async {
            if !retrieved.is_empty() {
                mark_seen(&mut mailbox, &retrieved).await;
            }
            mailbox.leave().await;
        };
        Box::pin(async { tokio::join!(self.client.part(end), aftermath) }).await;
        drop(unfinished);
        end
    }

    /// The TRANSACTION state.
    async fn transact(
        &mut self,
        mailbox: &mut U::Mailbox,
        seen: Seen,
        mut transaction: Transaction,
    ) -> Result<(Leaving, Changes), Over> {
        loop {
            let input = self.listen(mailbox, transaction.expects()).await.map_err(|end| Over::of(end, &transaction))?;
            let mut during = transaction.line(input);
            transaction = loop {
                match during {
                    During::Reply(transaction, reply) => {
                        self.client.say(&reply).await.map_err(|end| Over::of(end, &transaction))?;
                        break transaction;
                    }
                    During::List(transaction, listing) => {
                        self.list(listing).await.map_err(|end| Over::of(end, &transaction))?;
                        break transaction;
                    }
                    During::Send(sending, wanted) => {
                        match Box::pin(send(&mut self.client, mailbox, &sending, wanted, seen)).await {
                            Ok(Delivery::Sent { whole, octets }) => {
                                let transaction = sending.sent(whole);
                                let noted = Box::pin(self.sent(mailbox, seen, wanted, octets)).await;
                                noted.map_err(|end| Over::of(end, &transaction))?;
                                break transaction;
                            }
                            Ok(Delivery::Gone) => during = sending.gone(),
                            Ok(Delivery::Failed(reply)) => during = sending.failed(reply),
                            Err(end) => return Err(Over { end, retrieved: sending.retrieved() }),
                        }
                    }
                    During::Update(leaving, changes) => return Ok((leaving, changes)),
                    During::Close(reply) => {
                        let said = match reply {
                            Some(reply) => self.client.say(&reply).await,
                            None => Ok(()),
                        };
                        return Err(Over { end: said.err().unwrap_or(End::Refused), retrieved: Vec::new() });
                    }
                }
            };
        }
    }

    /// The UPDATE state, to its end.
    async fn settle_and_answer(
        &mut self,
        mailbox: &mut U::Mailbox,
        place: Option<Place>,
        leaving: &Leaving,
        changes: Changes,
    ) -> Over {
        let reply = self.settle(mailbox, leaving, &changes).await;
        // Before the reply: a client may come back as soon as it has read it.
        drop(place);
        match reply {
            Ok(reply) => {
                let end = self.client.say(&reply).await.err().unwrap_or(End::Quit);
                Over { end, retrieved: Vec::new() }
            }
            // Before anything was changed.
            Err(end) => Over { end, retrieved: changes.seen },
        }
    }

    /// Makes the changes and says what to answer. Whether the client is still there does not matter any more once it has
    /// been handed everything it was owed before.
    async fn settle(&mut self, mailbox: &mut U::Mailbox, leaving: &Leaving, changes: &Changes) -> Result<Reply, End> {
        self.summary.left = changes.delete.len();
        // A client that sent RETR, DELE and QUIT at once and died has nothing yet.
        self.client.flush().await?;
        if changes.delete.is_empty() && changes.seen.is_empty() {
            return Ok(leaving.done());
        }
        let (left, reply) = match mailbox.settle(changes).await {
            Settled::Done => (0, leaving.done()),
            Settled::Partly { fault, .. } | Settled::Changed(fault) if changes.delete.is_empty() => {
                refuse::log(&fault, "messages were not flagged as seen");
                (0, leaving.done())
            }
            Settled::Partly { left, fault } => {
                refuse::log(&fault, "some deleted messages were not removed");
                (left, leaving.partly(refuse::update(&fault), left))
            }
            Settled::Changed(fault) => {
                refuse::log(&fault, "the maildrop changed and nothing was deleted");
                (changes.delete.len(), leaving.changed())
            }
        };
        self.summary.left = left;
        self.gateway.lasting.counters.settled(changes.delete.len(), left);
        Ok(reply)
    }

    /// Waits for the client, and looks after the upstream meanwhile.
    async fn listen(&mut self, mailbox: &mut U::Mailbox, expects: Expects) -> Result<Input, End> {
        let mut heard = pin!(self.client.listen(expects, IDLE, &self.shutdown));
        tokio::select! {
            biased;
            heard = &mut heard => return heard,
            // Nothing to tell the client: it may need the upstream no more, and the next command finds out.
            fault = mailbox.rest() => debug!(verdict = %fault.verdict, cause = fault.cause, "upstream line lost"),
        }
        heard.await
    }

    async fn list(&mut self, mut listing: Listing) -> Result<(), End> {
        let mut more = true;
        while more {
            self.client.write(|out| more = listing.fill(out)).await?;
        }
        self.client.flush().await
    }

    /// A message has been sent, its dot included.
    async fn sent(&mut self, mailbox: &mut U::Mailbox, seen: Seen, wanted: Wanted, octets: u64) -> Result<(), End> {
        debug!(uid = wanted.uid.value(), octets, "message sent");
        self.gateway.lasting.counters.handed_out(wanted.body_lines.is_none(), octets);
        if wanted.body_lines.is_some() {
            self.summary.top.add(octets);
            return Ok(());
        }
        self.summary.retr.add(octets);
        let Self { client, unsent, .. } = self;
        unsent.retain(|(end, _)| !client.has_sent(*end));
        unsent.push((client.mark(), wanted.uid));
        if seen == Seen::Retr {
            self.client.flush().await?;
            mark_seen(mailbox, &[wanted.uid]).await;
        }
        Ok(())
    }
}

impl Over {
    fn of(end: End, transaction: &Transaction) -> Self {
        Self { end, retrieved: transaction.retrieved() }
    }
}

/// Nobody is told if this fails but the administrator: the messages are there, and unread.
async fn mark_seen<M: Mailbox>(mailbox: &mut M, uids: &[Uid]) {
    if let Err(fault) = mailbox.mark_seen(uids).await {
        refuse::log(&fault, "messages were not flagged as seen");
    }
}

/// How long a client may think (RFC 1939 §3: at least ten minutes).
const IDLE: Duration = Duration::from_secs(600);
