//! The distance: a TCP relay that holds back every octet for a while, in both directions, and counts them. Setting up a
//! connection takes as long as it would over such a line: the server hears of it one and a half round trips later.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::Runtime,
    sync::mpsc,
    time::{Instant, sleep_until},
};

/// One way of the line.
pub(crate) const ONE_WAY: Duration = Duration::from_millis(25);

/// A relay at work; it ends when dropped.
pub(crate) struct Relay {
    /// Where it listens, on 127.0.0.1.
    pub(crate) port: u16,
    line: Arc<Line>,
    _runtime: Runtime,
}

struct Line {
    /// One way of it, in microseconds.
    one_way: AtomicU64,
    /// How many octets have come in.
    octets: AtomicU64,
}

impl Relay {
    /// Starts one to this port of 127.0.0.1.
    pub(crate) fn start(to: u16) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).unwrap();
        let port = listener.local_addr().unwrap().port();
        let line = Arc::new(Line { one_way: AtomicU64::new(0), octets: AtomicU64::new(0) });
        let shared = Arc::clone(&line);
        runtime.spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(connect(near, to, Arc::clone(&shared)));
            }
        });
        let relay = Self { port, line, _runtime: runtime };
        relay.set_distance(ONE_WAY);
        relay
    }

    /// How many octets have come in so far, both directions together.
    pub(crate) fn octets(&self) -> u64 {
        self.line.octets.load(Ordering::Relaxed)
    }

    /// Moves the other end nearer or farther.
    pub(crate) fn set_distance(&self, one_way: Duration) {
        self.line.one_way.store(one_way.as_micros() as u64, Ordering::Relaxed);
    }
}

impl Line {
    fn one_way(&self) -> Duration {
        Duration::from_micros(self.one_way.load(Ordering::Relaxed))
    }
}

async fn connect(near: TcpStream, to: u16, line: Arc<Line>) -> io::Result<()> {
    let (near_read, near_write) = split(near)?;
    // What the client says meanwhile is on its way already.
    let (up, up_queue) = mpsc::channel(QUEUE);
    tokio::spawn(read(near_read, up, Arc::clone(&line)));
    sleep_until(Instant::now() + line.one_way() * 3).await;
    let (far_read, far_write) = split(TcpStream::connect(("127.0.0.1", to)).await?)?;
    let (down, down_queue) = mpsc::channel(QUEUE);
    tokio::spawn(read(far_read, down, line));
    tokio::spawn(write(up_queue, far_write));
    tokio::spawn(write(down_queue, near_write));
    Ok(())
}

fn split(stream: TcpStream) -> io::Result<(OwnedReadHalf, OwnedWriteHalf)> {
    stream.set_nodelay(true)?;
    Ok(stream.into_split())
}

/// Octets, and when they are due at the other end. None: the end of the line.
type Due = (Instant, Vec<u8>);

async fn read(mut from: OwnedReadHalf, queue: mpsc::Sender<Due>, line: Arc<Line>) {
    loop {
        let mut octets = Vec::with_capacity(PIECE);
        let read = from.read_buf(&mut octets).await;
        line.octets.fetch_add(octets.len() as u64, Ordering::Relaxed);
        let ended = !matches!(read, Ok(1..));
        octets.shrink_to_fit();
        if queue.send((Instant::now() + line.one_way(), octets)).await.is_err() || ended {
            return;
        }
    }
}

async fn write(mut queue: mpsc::Receiver<Due>, mut to: OwnedWriteHalf) {
    while let Some((due, octets)) = queue.recv().await {
        // A timer takes a millisecond, even where no time is left.
        if due > Instant::now() {
            sleep_until(due).await;
        }
        if octets.is_empty() || to.write_all(&octets).await.is_err() {
            return;
        }
    }
}

const PIECE: usize = 64 * 1024;

/// How many pieces are on their way at most, in one direction: enough that the distance limits nothing but time.
const QUEUE: usize = 1024;
