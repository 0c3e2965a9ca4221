//! Clients that log in, ask how much there is, and then think.

use std::ops::Range;

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    task::JoinSet,
};

use crate::{
    PASSWORD,
    support::{script::Line, tls},
};

/// One of them.
pub(crate) type Client = Box<dyn Line>;

/// Opens one session for each number, a few at a time, each of a user of its own.
pub(crate) async fn open(port: u16, secured: bool, numbers: Range<usize>) -> Vec<Client> {
    let mut opening = JoinSet::new();
    let mut open = Vec::new();
    for number in numbers {
        if opening.len() == AT_ONCE {
            open.extend(opening.join_next().await.map(Result::unwrap));
        }
        opening.spawn(session(port, secured, number));
    }
    open.extend(opening.join_all().await);
    open
}

async fn session(port: u16, secured: bool, number: usize) -> Client {
    let line = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    line.set_nodelay(true).unwrap();
    let line: Client = if secured { tls::connect(Box::new(line)).await.unwrap() } else { Box::new(line) };
    let mut line = BufReader::with_capacity(256, line);
    for command in ["", &format!("USER user{number}\r\n"), &format!("PASS {PASSWORD}\r\n"), "STAT\r\n"] {
        line.write_all(command.as_bytes()).await.unwrap();
        line.flush().await.unwrap();
        let mut reply = String::new();
        line.read_line(&mut reply).await.unwrap();
        assert!(reply.starts_with("+OK"), "{command:?}: {reply}");
    }
    line.into_inner()
}

/// So many log in at the same time.
const AT_ONCE: usize = 16;
