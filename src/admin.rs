//! The administrator's port: whether the process lives, whether it wants sessions and what it has counted, over HTTP. It
//! answers questions and takes no orders, holds nothing that a session waits for, and has little of everything, so that
//! whoever comes here in whatever numbers costs the mail nothing.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, header, http::HeaderValue, server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::debug;

use crate::{
    gateway::Counters,
    net::{
        counted::Counted,
        limits::Limits,
        listen::{Knock, Listener, Terms},
        tcp::Tcp,
    },
    upstream::{cache::Listings, sparing::Sparing, warm::Room},
};

mod metrics;

/// What is asked about.
pub struct Process {
    /// Cancelled as soon as the process is told to stop.
    pub stopping: CancellationToken,
    /// Those who come.
    pub limits: Limits,
    /// What they do.
    pub sessions: Arc<Counters>,
    /// The way to the servers.
    pub lines: Arc<Counted<Tcp>>,
    /// The lines that wait for their user.
    pub room: Room,
    /// The listings that are remembered.
    pub listings: Arc<Listings>,
    /// The servers that are in use; a reload changes them.
    pub spared: watch::Receiver<Vec<Arc<Sparing>>>,
}

/// Answers whoever comes to `port`. Dropping the future lets all of them go.
pub async fn serve(port: Listener, process: Process) {
    let process = Arc::new(process);
    let mut guests = VecDeque::new();
    loop {
        match port.accept().await {
            Ok(knock) => {
                guests.retain(|guest: &AbortOnDropHandle<_>| !guest.is_finished());
                if guests.len() == MOST {
                    // A question is answered in no time, so whoever has been here for the longest has asked none.
                    guests.pop_front();
                }
                guests.push_back(AbortOnDropHandle::new(tokio::spawn(receive(knock, Arc::clone(&process)))));
            }
            Err(error) => {
                debug!(%error, "nobody can be received");
                sleep(RETRY).await;
            }
        }
    }
}

/// One question and its answer.
async fn receive(knock: Knock, process: Arc<Process>) {
    let client = knock.client;
    let answered = async {
        let line = Terms::new(None, Vec::new()).open(knock).await?.wire;
        let asked = service_fn(async |question: Request<Incoming>| {
            Ok::<_, Infallible>(answer(&process, question.method(), question.uri().path()))
        });
        let mut http = http1::Builder::new();
        // All that a guest does has its time below.
        http.keep_alive(false).header_read_timeout(None).max_buf_size(LONGEST);
        http.serve_connection(TokioIo::new(line), asked).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    };
    match timeout(PATIENCE, answered).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%client, %error, "no question was answered"),
        Err(_) => debug!(%client, "no question came in time"),
    }
}

fn answer(process: &Process, method: &Method, path: &str) -> Response<String> {
    let text = |text: &str| format!("{text}\n");
    let (status, text) = match path {
        _ if !matches!(*method, Method::GET | Method::HEAD) => (StatusCode::METHOD_NOT_ALLOWED, text("only GET")),
        "/healthz" => (StatusCode::OK, text("alive")),
        // A server that is down is no reason not to be ready: clients are told better here than by nobody, and it is down
        // for all other processes, too.
        "/readyz" if process.stopping.is_cancelled() => (StatusCode::SERVICE_UNAVAILABLE, text("stopping")),
        "/readyz" => (StatusCode::OK, text("ready")),
        "/metrics" => (StatusCode::OK, metrics::page(process)),
        _ => (StatusCode::NOT_FOUND, text("there are /healthz, /readyz and /metrics")),
    };
    let mut answer = Response::new(text);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(metrics::TYPE));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    answer
}

/// So many are received at a time, which is a few more than ever have a reason to come.
const MOST: usize = 16;

/// How long one may take to ask and to read the answer. Probes wait no longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many octets a question may have. It is the least that hyper allows.
const LONGEST: usize = 8 * 1024;

/// The next try, if there are no descriptors, say.
const RETRY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        time::Instant,
    };

    use super::*;
    use crate::net::Endpoint;

    fn process() -> Process {
        Process {
            stopping: CancellationToken::new(),
            limits: Limits::new(1, 1, 1),
            sessions: Arc::default(),
            lines: Arc::new(Counted::new(Tcp)),
            room: Room::new(1),
            listings: Listings::new(0),
            spared: watch::channel(Vec::new()).1,
        }
    }

    const NOTHING: &str = "there are /healthz, /readyz and /metrics";

    #[test]
    fn what_is_asked_is_answered() {
        for (method, path, before, after) in [
            (Method::GET, "/healthz", (200, "alive"), (200, "alive")),
            (Method::GET, "/readyz", (200, "ready"), (503, "stopping")),
            (Method::HEAD, "/readyz", (200, "ready"), (503, "stopping")),
            (Method::POST, "/readyz", (405, "only GET"), (405, "only GET")),
            (Method::GET, "/", (404, NOTHING), (404, NOTHING)),
        ] {
            let process = process();
            for (status, text) in [before, after] {
                let found = answer(&process, &method, path);
                assert_eq!(found.status(), status, "{method} {path}");
                assert_eq!(found.body().trim_end(), text, "{method} {path}");
                assert_eq!(found.headers().contains_key(header::ALLOW), status == 405, "{method} {path}");
                process.stopping.cancel();
            }
        }
    }

    /// Whoever has been there for the longest goes, at once, for somebody who may have a question.
    #[tokio::test(start_paused = true)]
    async fn the_next_has_the_place_of_the_oldest() {
        let port = Listener::bind(&Endpoint { host: "127.0.0.1".into(), port: 0 }).await.unwrap();
        let address = port.address();
        let _serving = AbortOnDropHandle::new(tokio::spawn(serve(port, process())));
        let began = Instant::now();
        let mut lines = Vec::new();
        for _ in 0..=MOST {
            lines.push(TcpStream::connect(address).await.unwrap());
        }
        assert_eq!(lines[0].read(&mut [0]).await.unwrap(), 0);
        assert_eq!(lines[1].try_read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    }

    /// Whoever says nothing, half a question, or nothing after it has the same time.
    #[tokio::test(start_paused = true)]
    async fn nobody_stays_for_long() {
        let port = Listener::bind(&Endpoint { host: "127.0.0.1".into(), port: 0 }).await.unwrap();
        let address = port.address();
        let _serving = AbortOnDropHandle::new(tokio::spawn(serve(port, process())));
        for (said, heard, stays) in [
            ("", "", true),
            ("GET /healthz HTTP/1.1\r\nHost: ", "", true),
            ("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 OK\r\n", false),
            ("HEAD /healthz HTTP/1.0\r\n\r\n", "HTTP/1.0 200 OK\r\n", false),
        ] {
            let began = Instant::now();
            let mut line = TcpStream::connect(address).await.unwrap();
            line.write_all(said.as_bytes()).await.unwrap();
            let mut all = String::new();
            line.read_to_string(&mut all).await.unwrap();
            assert!(all.starts_with(heard) && all.is_empty() == heard.is_empty(), "{said}: {all}");
            assert_eq!(all.ends_with("\r\n\r\nalive\n"), said.starts_with("GET") && !stays, "{said}: {all}");
            assert_eq!(began.elapsed() >= PATIENCE, stays, "{said}");
        }
    }
}
