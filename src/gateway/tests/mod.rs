//! Whole sessions on the in-memory twin, over pipes of any width and on a clock of their own. Each file tries one side of
//! them; here is what they share.

mod deliver;
mod end;
mod guesses;
mod login;
mod timers;

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    mail::Uid,
    net::{Pending, Wire},
    upstream::{
        Fault, Verdict, Window,
        memory::{Deed, Mail, Maildrop, Memory, Parts, Trouble},
    },
};

/// A gateway on a server with one user, who has the messages 5, 7 and 9.
struct Rig {
    memory: Memory,
    gateway: Arc<Gateway<Memory>>,
    shutdown: CancellationToken,
}

/// A client.
struct Client {
    wire: DuplexStream,
    session: JoinHandle<()>,
    aborted: Arc<AtomicBool>,
}

impl Rig {
    fn new() -> Self {
        Self::with(Memory::new(1000), |_| {})
    }

    fn with(memory: Memory, change: impl FnOnce(&mut Maildrops)) -> Self {
        let messages = [(uid(5), letter(120)), (uid(7), letter(200)), (uid(9), letter(300))];
        let memory = memory.with("tim", b"sec ret", Maildrop::new(100, messages));
        let mut maildrops = Maildrops {
            upstream: "memory".to_owned(),
            mailbox: "INBOX".to_owned(),
            strip_domain: false,
            send_client_address: false,
            unique_ids: "dovecot".parse().unwrap(),
            seen: Seen::Quit,
            lock: Lock::None,
        };
        change(&mut maildrops);
        let routes = Routes::new(Some(Route::new(memory.clone(), maildrops)), None);
        Self::to(routes, memory)
    }

    fn to(routes: Routes<Memory>, memory: Memory) -> Self {
        let settings = Settings {
            failure_delay: Duration::from_secs(2),
            denial_ttl: Duration::from_secs(60),
            sessions_per_user: 0,
            plaintext_from: vec!["127.0.0.0/8".parse().unwrap()],
        };
        let gateway = Gateway::new(routes, settings, Some(Arc::new(NoSecret)));
        Self { memory, gateway: Arc::new(gateway), shutdown: CancellationToken::new() }
    }

    /// Connects over a pipe that holds so many octets each way.
    fn connect(&self, width: usize) -> Client {
        self.connect_from("127.0.0.1", width)
    }

    fn connect_from(&self, address: &str, width: usize) -> Client {
        self.connect_with(None, address, width)
    }

    /// Connects as one of those who are counted.
    fn connect_with(&self, permit: Option<Permit>, address: &str, width: usize) -> Client {
        let (wire, ours) = duplex(width);
        let aborted = Arc::<AtomicBool>::default();
        let line = Line { pipe: ours, aborted: Arc::clone(&aborted) };
        let address = SocketAddr::new(address.parse().unwrap(), 4711);
        let peer = Peer { address, client: address, encrypted: false, permit };
        let session = serve(Arc::clone(&self.gateway), Box::new(line), peer, self.shutdown.clone());
        Client { wire, session: tokio::spawn(session), aborted }
    }

    /// Connects, logs in and reads what there is to it.
    async fn log_in(&self, width: usize) -> Client {
        let mut client = self.connect(width);
        client.says(LOG_IN).await;
        client.reads(LOGGED_IN).await;
        client
    }

    /// All that a client gets to read who says everything at once, and logs in first.
    async fn dialogue(&self, commands: &str) -> String {
        let mut client = self.log_in(1 << 20).await;
        client.says(commands).await;
        client.rest().await
    }

    /// Replaces a message, or adds one.
    fn put(&self, at: u32, mail: Mail) {
        self.memory.meddle("tim", |maildrop| {
            maildrop.messages.insert(uid(at), mail);
        });
    }

    fn kept(&self) -> Vec<u32> {
        self.memory.maildrop("tim").unwrap().messages.keys().map(|uid| uid.value()).collect()
    }

    /// Whether changes were asked for, whatever became of them.
    fn was_settled(&self) -> bool {
        self.memory.deeds().iter().any(|deed| matches!(deed, Deed::Settle { .. }))
    }
}

impl Client {
    async fn says(&mut self, text: &str) {
        self.wire.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads just so much, and expects it to be this.
    async fn reads(&mut self, expected: &str) {
        let mut read = vec![0; expected.len()];
        let count = self.wire.read_exact(&mut read).await;
        assert_eq!(String::from_utf8_lossy(&read), expected, "{count:?}");
    }

    /// Reads to the end of the line, and waits for the end of the session.
    async fn rest(mut self) -> String {
        let mut read = Vec::new();
        self.wire.read_to_end(&mut read).await.unwrap();
        drop(self.wire);
        self.session.await.unwrap();
        String::from_utf8(read).unwrap()
    }

    /// Goes away, and waits for the end of the session.
    async fn vanishes(self) {
        drop(self.wire);
        self.session.await.unwrap();
    }
}

/// The gateway's end of a pipe.
#[derive(Debug)]
struct Line {
    pipe: DuplexStream,
    aborted: Arc<AtomicBool>,
}

impl Wire for Line {
    fn abort(&mut self) {
        self.aborted.store(true, Ordering::Relaxed);
    }
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(cx, buf)
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

/// TLS without any secrecy: the client says `hello` and is on.
struct NoSecret;

impl Accept for NoSecret {
    fn accept(&self, mut wire: Box<dyn Wire>) -> Pending<'_, io::Result<Box<dyn Wire>>> {
        Box::pin(async move {
            let mut hello = [0; 5];
            wire.read_exact(&mut hello).await?;
            if hello == *b"hello" { Ok(wire) } else { Err(io::ErrorKind::InvalidData.into()) }
        })
    }
}

fn uid(value: u32) -> Uid {
    Uid::new(value).unwrap()
}

/// A message of so many octets whose lines all begin with a dot.
fn letter(octets: usize) -> Mail {
    let mut letter = b"Subject: x\r\n\r\n".to_vec();
    while letter.len() + 80 < octets {
        letter.extend_from_slice(format!(".{:076}\r\n", letter.len()).as_bytes());
    }
    letter.resize(octets - 2, b'.');
    letter.extend_from_slice(b"\r\n");
    Mail::new(letter)
}

/// The same as a client has to read it.
fn stuffed(letter: &Mail) -> String {
    let letter = String::from_utf8(letter.octets.clone()).unwrap();
    format!(
        "{}.\r\n",
        letter
            .split_inclusive('\n')
            .map(|line| line.replacen('.', "..", usize::from(line.starts_with('.'))))
            .collect::<String>()
    )
}

fn passing() -> Fault {
    Fault::new(Verdict::Passing, "trouble")
}

const GREETING: &str = "+OK POP3 server ready\r\n";
const LOG_IN: &str = "USER tim\r\nPASS sec ret\r\n";
const LOGGED_IN: &str = "+OK POP3 server ready\r\n+OK send PASS\r\n+OK maildrop has 3 messages (620 octets)\r\n";
