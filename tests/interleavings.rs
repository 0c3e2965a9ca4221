//! F34: two sessions on one maildrop, in every order in which the server may come to their commands, without a lock. The
//! judge of all runs says whether a mail was lost, kept in spite of `+OK`, or said to be gone when it was not.

use std::{cell::RefCell, collections::BTreeSet, sync::Arc};

use crate::support::{
    chat::stuffed,
    checker::{Finding, History, Quit, SessionId},
    gate::{Client, Gate, Lines, Memory},
    script::{Manner, Server, Turns, What},
};

#[test]
fn two_sessions_with_uid_expunge() {
    in_every_order(&Manner::default());
}

#[test]
fn two_sessions_with_move() {
    in_every_order(&Manner::default().without(&["UIDPLUS"]));
}

#[test]
fn two_sessions_with_a_keyword() {
    in_every_order(&Manner::default().without(&["UIDPLUS", "MOVE", "ESEARCH", "SPECIAL-USE"]));
}

/// The server comes to two times six commands in all 924 orders, for a popgate with and without a memory. Without a fault
/// everything must go well; in each order one of the faults strikes as well, in its turn.
fn in_every_order(manner: &Manner) {
    let mut faults = Vec::new();
    for on in ["UID STORE", "UID EXPUNGE", "UID MOVE", "UID SEARCH"] {
        for nth in [1, 2] {
            faults.push((on, nth, "refused", What::No("[UNAVAILABLE] later".into())));
            faults.push((on, nth, "not carried out", What::Close));
            faults.push((on, nth, "carried out, and the reply lost", What::Cut(0)));
        }
    }
    let meetings = orders().into_iter().enumerate();
    let meetings =
        meetings.flat_map(|order| [Memory::Nothing, Memory::Everything].map(|memory| (order.clone(), memory)));
    let (mut orders, mut struck) = (BTreeSet::new(), 0);
    for ((number, order), memory) in meetings {
        // What is remembered is of a session before, which has the first turn for its listing.
        let listing: &[usize] = if memory == Memory::Everything { &[1] } else { &[] };
        let turns = [listing, &order].concat();
        let manner = || Manner { turns: Some(Arc::new(Turns::new(turns.clone()))), ..manner.clone() };
        let (on, nth, name, what) = faults[number % faults.len()].clone();
        for (fault, manner) in
            [("none".to_owned(), manner()), (format!("{on}, time {nth}: {name}"), manner().deviating(on, nth, what))]
        {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            let Met { findings, quits, order: served, struck: strikes } =
                runtime.unwrap().block_on(meet(manner, memory));
            let well = fault != "none" || quits.iter().all(|quit| *quit == Some(Quit::Done));
            let what = format!("{}order {order:?}, fault: {fault}", memory.words());
            assert!(findings.is_empty() && well, "{what}: {findings:#?}, {quits:?}");
            struck += usize::from(strikes);
            orders.insert(served);
        }
    }
    assert!(orders.len() > 300 && struck > 500, "the turns or the faults do not come to what they should");
}

/// What came of two sessions.
struct Met {
    findings: Vec<Finding>,
    /// `None`: it was not answered.
    quits: [Option<Quit>; 2],
    /// The connections in the order in which they were served.
    order: Vec<usize>,
    /// A fault has struck.
    struck: bool,
}

/// All orders of six turns each of two connections.
fn orders() -> Vec<Vec<usize>> {
    let turns = |bits: u32| (0..12).map(|turn| 1 + (bits >> turn & 1) as usize).collect();
    (0_u32..1 << 12).filter(|bits| bits.count_ones() == 6).map(turns).collect()
}

/// Two sessions at once, each after two of three messages, and one of these is the same; then a third one, when nothing is
/// wrong any more.
async fn meet(manner: Manner, memory: Memory) -> Met {
    let server = Server::fixture(manner);
    let history = RefCell::new(History::default());
    server.with("tim", "INBOX", |inbox| {
        for message in &inbox.messages {
            history.borrow_mut().delivered(message.uid.into(), "tim", stuffed(&message.content.octets()));
            history.borrow_mut().named(message.uid.into(), &unique_id(message.uid));
        }
    });
    let lines = Lines { server: server.clone(), capacity: 1024 };
    let gate = Gate::remembering(memory, Arc::new(lines), &|_, _| {});
    if memory == Memory::Everything {
        take(gate.connect(), &history, &[]).await;
    }
    let (one, other) = (take(gate.connect(), &history, &[5, 7]), take(gate.connect(), &history, &[7, 9]));
    let (one, other) = tokio::join!(one, other);
    let order = server.received().iter().map(|received| received.connection).collect();
    server.heal();
    if take(gate.connect(), &history, &[]).await != Some(Quit::Done) {
        history.borrow_mut().stuck("a third session, when all was well");
    }
    let there = server.with("tim", "INBOX", |inbox| {
        let shown = inbox.messages.iter().filter(|message| !message.has("$POP3Deleted"));
        shown.map(|message| message.uid.into()).collect()
    });
    let findings = history.into_inner().check(&[("tim", there)]);
    Met { findings, quits: [one, other], order, struck: server.struck().iter().any(|times| *times > 0) }
}

/// As the preset `dovecot` writes it, for the UIDVALIDITY 100.
fn unique_id(uid: u32) -> String {
    format!("{uid:08x}00000064")
}

/// One session that takes the first of its messages and deletes both, to its end. `None`: its QUIT was not answered.
async fn take(mut client: Client, history: &RefCell<History>, wanted: &[u32]) -> Option<Quit> {
    let session = history.borrow_mut().began("tim");
    let quit = converse(&mut client, history, session, wanted).await;
    client.leave().await;
    quit
}

/// `None`: popgate has closed the line.
async fn converse(client: &mut Client, history: &RefCell<History>, session: SessionId, wanted: &[u32]) -> Option<Quit> {
    if !client.log_in().await?.starts_with("+OK") {
        return None;
    }
    client.ask("UIDL").await?;
    let listing = String::from_utf8(client.body().await.ok()?).unwrap();
    let unique_ids: Vec<&str> = listing.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    history.borrow_mut().listed(session, &unique_ids);
    let number = |uid: u32| unique_ids.iter().position(|listed| *listed == unique_id(uid)).map(|index| index + 1);
    let wanted: Vec<(u64, usize)> = wanted.iter().filter_map(|uid| Some((u64::from(*uid), number(*uid)?))).collect();
    if let Some((id, number)) = wanted.first() {
        let reply = client.ask(&format!("RETR {number}")).await?;
        if reply.starts_with("+OK") {
            let body = client.body().await.ok()?;
            history.borrow_mut().fetched(session, *id, &body);
        } else if reply.ends_with("removed by another client") {
            history.borrow_mut().told_gone(session, *id);
        }
    }
    for (id, number) in wanted {
        if client.ask(&format!("DELE {number}")).await?.starts_with("+OK") {
            history.borrow_mut().deleted(session, id);
        }
    }
    history.borrow_mut().quitting(session);
    let answer = match client.ask("QUIT").await {
        Some(reply) if reply.starts_with("+OK") => Quit::Done,
        Some(reply) if reply.contains("nothing deleted") => Quit::Nothing,
        Some(_) => Quit::Refused,
        None => Quit::Unanswered,
    };
    history.borrow_mut().quit(session, answer);
    Some(answer)
}
