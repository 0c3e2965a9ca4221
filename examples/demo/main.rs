//! popgate at work: `cargo run --release --example demo`.
//!
//! One process holds an IMAP mailbox with the messages of `tests/mail`, popgate in front of it, and a POP3 client that
//! reads all of it and deletes one message. What goes over both lines is shown side by side as it happens. Then popgate
//! stays up for other clients, until Ctrl-C.
//!
//! ```text
//!   client ────POP3──── gate ────IMAP──── script         the client, popgate, the mailbox
//!                │                │
//!               tap              tap                     copies what passes
//!                └── dialogue ────┘                      two columns
//! ```

mod client;
mod dialogue;
mod gate;
#[path = "../../tests/support/script/mod.rs"]
#[allow(dead_code, unused_imports, clippy::unwrap_used, reason = "the tests use the rest, and may panic")]
mod script;
mod tap;
mod terminal;
mod verdict;

use std::{
    fs,
    io::{self, Write},
    net::SocketAddr,
    path::Path,
    process::ExitCode,
};

use anyhow::Context;
use clap::Parser;
use tokio::{signal, sync::mpsc};

use self::{
    dialogue::{Dialogue, Screen},
    gate::Gate,
    script::{Account, Content, Mailbox, Manner, Server},
};

/// Shows popgate at work, with a mailbox of its own
#[derive(Parser)]
#[command(name = "demo")]
struct Options {
    /// Where popgate waits for POP3 clients
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:1110")]
    listen: String,

    /// End after one session, with exit code 0 if every message came back octet for octet
    #[arg(long)]
    once: bool,
}

/// One of the messages that the mailbox is filled with.
struct Sample {
    file: String,
    octets: Vec<u8>,
}

// One thread: whatever happens in the process happens in one order, which is the order on the screen.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = Options::parse();
    let (screen, events) = mpsc::unbounded_channel();
    let dialogue = tokio::spawn(Dialogue::on_standard_output().show(events));
    let outcome = demo(&options, Screen(screen)).await;
    // Whatever is left to be shown is shown. A dialogue that panicked has said so itself.
    let _ = dialogue.await;
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn demo(options: &Options, screen: Screen) -> anyhow::Result<()> {
    let samples = samples()?;
    let mailbox = mailbox(&samples);
    let gate = Gate::open(&options.listen, mailbox.clone(), screen.clone()).await?;
    let address = gate.address()?;
    screen.note(&format!(
        "An IMAP mailbox with {} messages, popgate in front of it on {address},\n\
         and a POP3 client that reads them all and deletes the last. → asks, ← answers.",
        samples.len(),
    ));

    let (received, ()) = tokio::try_join!(client::play(address, USER, PASSWORD), gate.admit_one())?;
    judge(&samples, &received, &mailbox)?;
    screen.note(&format!(
        "All {} messages came back octet for octet, with CRLF at the end of every line as\n\
         POP3 has it, and the one that was deleted is gone from the mailbox.",
        samples.len(),
    ));
    if options.once {
        return Ok(());
    }
    screen.note(&invitation(address));
    gate.serve_until(async { signal::ctrl_c().await.context("Ctrl-C cannot be received") }).await
}

/// The messages of `tests/mail`: each has one oddity that a gateway could stumble over, and its name says which.
fn samples() -> anyhow::Result<Vec<Sample>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mail");
    let unreadable = || format!("the sample messages in {} cannot be read", directory.display());
    let mut samples = Vec::new();
    for entry in fs::read_dir(&directory).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "eml") {
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            samples.push(Sample { file, octets: fs::read(&path).with_context(unreadable)? });
        }
    }
    samples.sort_by(|one, other| one.file.cmp(&other.file));
    Ok(samples)
}

/// An IMAP server with one account, whose INBOX holds the samples.
fn mailbox(samples: &[Sample]) -> Server {
    let mut inbox = Mailbox::new("INBOX", "\\HasNoChildren");
    // As in most mailboxes, earlier messages are gone: a UID is not the number of a message.
    inbox.uid_next = FIRST_UID;
    for sample in samples {
        inbox.deliver(Content::new(&sample.octets));
    }
    let account = Account { user: USER.into(), password: Some(PASSWORD.into()), token: None, mailboxes: vec![inbox] };
    Server::new(Manner::default(), vec![account])
}

/// Holds what the client received, and what it left behind, against the samples.
fn judge(samples: &[Sample], received: &[Vec<u8>], mailbox: &Server) -> anyhow::Result<()> {
    anyhow::ensure!(
        received.len() == samples.len(),
        "the mailbox had {} messages, but the client was given {}",
        samples.len(),
        received.len(),
    );
    for (sample, received) in samples.iter().zip(received) {
        verdict::unchanged(&sample.file, &sample.octets, received).map_err(anyhow::Error::msg)?;
    }
    let left = mailbox.with(USER, "INBOX", |inbox| inbox.uids());
    let expected: Vec<u32> = (FIRST_UID..).take(samples.len() - 1).collect();
    anyhow::ensure!(
        left == expected,
        "the client deleted the last message, but the mailbox now holds the UIDs {left:?}"
    );
    Ok(())
}

/// What to try next.
fn invitation(address: SocketAddr) -> String {
    format!(
        "popgate stays up. Try it from another terminal, with curl or any mail program:\n\n  \
         curl --user {USER}:{PASSWORD} pop3://{address}/\n  \
         curl --user {USER}:{PASSWORD} pop3://{address}/4\n\n\
         The dialogues appear here. Ctrl-C ends it."
    )
}

const USER: &str = "tim";
const PASSWORD: &str = "secret";
const FIRST_UID: u32 = 301;
