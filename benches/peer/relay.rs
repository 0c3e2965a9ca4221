//! The distance: a TCP relay that holds back every octet for a while, in both directions, and counts them. Setting up a
//! connection takes as long as it would over such a line: the server hears of it one and a half round trips later. It
//! carries as much as comes, or so much a second.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
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
    task::spawn_blocking,
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
    /// How many octets a second go each way, all connections together; 0: no limit.
    rate: AtomicU64,
    /// When the last octet of what has come in is on its way, upwards and downwards.
    busy: [Mutex<Instant>; 2],
}

impl Relay {
    /// Starts one to this port of 127.0.0.1.
    pub(crate) fn start(to: u16) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).unwrap();
        let port = listener.local_addr().unwrap().port();
        let busy = [Instant::now(); 2].map(Mutex::new);
        let line = Line { one_way: AtomicU64::new(0), octets: AtomicU64::new(0), rate: AtomicU64::new(0), busy };
        let line = Arc::new(line);
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

    /// Makes the line carry so many octets a second each way, or as many as come.
    pub(crate) fn set_rate(&self, rate: Option<u64>) {
        self.line.rate.store(rate.unwrap_or(0), Ordering::Relaxed);
    }
}

impl Line {
    fn one_way(&self) -> Duration {
        Duration::from_micros(self.one_way.load(Ordering::Relaxed))
    }

    /// When the last of so many octets that go this way now is on its way: they wait for those before them.
    fn departure(&self, way: usize, octets: usize) -> Instant {
        let now = Instant::now();
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return now;
        }
        let mut busy = self.busy[way].lock().unwrap();
        *busy = now.max(*busy) + Duration::from_secs_f64(octets as f64 / rate as f64);
        *busy
    }
}

async fn connect(near: TcpStream, to: u16, line: Arc<Line>) -> io::Result<()> {
    let (near_read, near_write) = split(near)?;
    // What the client says meanwhile is on its way already.
    let (up, up_queue) = mpsc::channel(QUEUE);
    tokio::spawn(read(near_read, up, Arc::clone(&line), UP));
    pause(Instant::now() + line.one_way() * 3).await;
    let (far_read, far_write) = split(TcpStream::connect(("127.0.0.1", to)).await?)?;
    let (down, down_queue) = mpsc::channel(QUEUE);
    tokio::spawn(read(far_read, down, line, DOWN));
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

async fn read(mut from: OwnedReadHalf, queue: mpsc::Sender<Due>, line: Arc<Line>, way: usize) {
    loop {
        let mut octets = Vec::with_capacity(PIECE);
        let read = from.read_buf(&mut octets).await;
        line.octets.fetch_add(octets.len() as u64, Ordering::Relaxed);
        let ended = !matches!(read, Ok(1..));
        octets.shrink_to_fit();
        let departure = line.departure(way, octets.len());
        // The sender is not to send more than the line carries, nor is the line to stand idle because a timer is late.
        if departure > Instant::now() + WAITING {
            sleep_until(departure - WAITING).await;
        }
        if queue.send((departure + line.one_way(), octets)).await.is_err() || ended {
            return;
        }
    }
}

async fn write(mut queue: mpsc::Receiver<Due>, mut to: OwnedWriteHalf) {
    while let Some((due, octets)) = queue.recv().await {
        if due > Instant::now() {
            pause(due).await;
        }
        if octets.is_empty() || to.write_all(&octets).await.is_err() {
            return;
        }
    }
}

/// To a tenth of a millisecond; tokio's timers are one or two late, and a round trip would take 53.
async fn pause(until: Instant) {
    let _ = spawn_blocking(move || thread::sleep(until.saturating_duration_since(Instant::now()))).await;
}

/// The ways that a line goes.
const UP: usize = 0;
const DOWN: usize = 1;

/// How long octets wait at the beginning of a line that carries no more.
const WAITING: Duration = Duration::from_millis(10);

const PIECE: usize = 64 * 1024;

/// How many pieces are on their way at most, in one direction: enough that the distance limits nothing but time.
const QUEUE: usize = 1024;
