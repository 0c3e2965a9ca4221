//! The session after: on good lines everything is there that nobody has deleted, and what was deleted in doubt can be
//! deleted again.

use super::{
    judge::{exchanges, is_hidden},
    recordings::Recording,
};
use crate::support::{
    chat::stuffed,
    faulty::Tape,
    gate::{Client, Gate},
    script::{Message, Server},
};

/// Plays it; gives what was wrong. `first` is the client's line of the session before.
pub(super) async fn session(gate: &Gate, server: &Server, recording: &Recording, first: &Tape) -> Vec<String> {
    let mut client = gate.connect();
    let lies = converse(&mut client, server, recording, first).await.unwrap_or_else(|| vec!["closed".into()]);
    client.leave().await;
    lies.into_iter().map(|lie| format!("second session: {lie}")).collect()
}

async fn converse(client: &mut Client, server: &Server, recording: &Recording, first: &Tape) -> Option<Vec<String>> {
    let shown = || -> Vec<Message> {
        let inbox = server.with("tim", "INBOX", |inbox| inbox.messages.clone());
        inbox.into_iter().filter(|message| !is_hidden(message)).collect()
    };
    let before = shown();
    let mut lies = Vec::new();
    let octets: u64 = before.iter().map(|message| message.reported).sum();
    let pass = client.log_in().await?;
    if pass != format!("+OK maildrop has {} messages ({octets} octets)", before.len()) {
        return Some(vec![pass]);
    }
    client.ask("UIDL").await?;
    let ids = client.body().await.ok()?;
    let expected = before.iter().enumerate().map(|(at, message)| format!("{} {:08x}00000064\r\n", at + 1, message.uid));
    if ids != expected.collect::<String>().as_bytes() {
        lies.push(format!("other ids: {}", ids.escape_ascii()));
    }
    let deleted = deleted(first);
    let mut again = Vec::new();
    for (at, message) in before.iter().enumerate() {
        let number = at + 1;
        let reply = client.ask(&format!("RETR {number}")).await?;
        if !reply.starts_with("+OK") {
            lies.push(format!("RETR {number}: {reply}"));
            continue;
        }
        let listed = recording.account.mailboxes[0].messages.iter().position(|listed| listed.uid == message.uid);
        let body = client.body().await.ok()?;
        // What came later is in no recording.
        let is_same = match listed {
            Some(listed) => body == recording.contents[listed].1,
            None => body == stuffed(&message.content.octets()),
        };
        if !is_same {
            lies.push(format!("{} is another message", message.uid));
        }
        if listed.is_some_and(|listed| deleted.contains(&listed)) {
            again.push(message.uid);
            let reply = client.ask(&format!("DELE {number}")).await?;
            if !reply.starts_with("+OK") {
                lies.push(format!("DELE {number}: {reply}"));
            }
        }
    }
    let quit = client.ask("QUIT").await?;
    if quit != format!("+OK POP3 server signing off ({} messages left)", before.len() - again.len()) {
        lies.push(quit);
    }
    let left: Vec<u32> = shown().iter().map(|message| message.uid).collect();
    let mut should: Vec<u32> = before.iter().map(|message| message.uid).collect();
    should.retain(|uid| recording.keeps || !again.contains(uid));
    if left != should {
        lies.push(format!("left are {left:?}, not {should:?}"));
    }
    Some(lies)
}

/// The indices of the messages that the client had deleted, whatever came of it.
fn deleted(first: &Tape) -> Vec<usize> {
    let (_, exchanges, _) = exchanges(first);
    exchanges.iter().filter(|exchange| exchange.is_ok()).filter_map(|exchange| exchange.number("DELE")).collect()
}
