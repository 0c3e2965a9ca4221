//! Two upstreams under whole sessions: each user comes to the server of the domain, as the name that is known there; no
//! name leads anywhere else; and whether a domain is served at all cannot be told from a refusal.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use popgate::{
    gateway::{Domain, Lock, Maildrops, Route, Routes},
    net::{Dial, Endpoint, Pending, Wire},
};
use tokio::time::Instant;

use crate::support::{
    gate::{self, Gate, Memory, Way},
    script::{Account, Manner, Server},
};

/// Servers by the names of their hosts, and which of these were dialled.
struct Internet {
    hosts: BTreeMap<&'static str, Server>,
    dialled: Mutex<Vec<String>>,
}

impl Internet {
    /// `a` knows its user with the domain and has three messages; `b` knows its user without, and has two; `c` is as `b`
    /// and has one.
    fn new() -> Arc<Self> {
        let manner = || Manner { latency: Duration::from_millis(500), ..Manner::default() };
        let server = |user: &str, gone: &[u32]| {
            let server = Server::new(manner(), vec![Account { user: user.into(), ..Account::fixture() }]);
            gone.iter().for_each(|uid| server.with(user, "INBOX", |inbox| inbox.expunge(*uid)));
            server
        };
        let hosts = [("a", server("tim@a.example", &[])), ("b", server("tim", &[5])), ("c", server("tim", &[5, 7]))];
        Arc::new(Self { hosts: hosts.into(), dialled: Mutex::default() })
    }

    fn route(self: &Arc<Self>, host: &str, change: fn(&mut Maildrops)) -> Route<Way> {
        gate::route(Memory::Nothing, self.clone(), &|server, maildrops| {
            server.endpoint = Endpoint { host: host.into(), port: 143 };
            maildrops.upstream = server.endpoint.to_string();
            maildrops.lock = Lock::Gateway;
            change(maildrops);
        })
    }

    /// `a.example` on `a`; `b.example` in both its forms and in large letters on `b`; on `c` everybody else, if there is a
    /// default.
    fn gate(self: &Arc<Self>, default: bool, append_domain: Option<&str>) -> Gate {
        let default = default.then(|| self.route("c", |maildrops| maildrops.strip_domain = true));
        let mut routes = Routes::new(default, append_domain.map(String::from));
        routes.add(Domain::parse("a.example"), self.route("a", |_| {}));
        let b = self.route("b", |maildrops| {
            maildrops.strip_domain = true;
            maildrops.unique_ids = "cyrus".parse().unwrap();
        });
        routes.add(["b.example", "bücher.example"].map(|domain| Domain::parse(domain).unwrap()), b);
        Gate::to(routes)
    }

    /// Which hosts were dialled since this was asked last.
    fn dialled(&self) -> Vec<String> {
        std::mem::take(&mut self.dialled.lock().unwrap())
    }
}

impl Dial for Internet {
    fn dial<'a>(&'a self, to: &'a Endpoint) -> Pending<'a, io::Result<Box<dyn Wire>>> {
        self.dialled.lock().unwrap().push(to.host.clone());
        let (ours, theirs) = tokio::io::duplex(1024);
        let server = self.hosts[to.host.as_str()].clone();
        tokio::spawn(async move { server.serve(theirs).await });
        Box::pin(async { Ok(Box::new(ours) as Box<dyn Wire>) })
    }
}

/// All that a client reads who logs in with this password and asks for the unique id of the first message.
async fn dialogue(gate: &Gate, user: &str, password: &str) -> String {
    let mut client = gate.connect();
    client.send(format!("USER {user}\r\nPASS {password}\r\nUIDL 1\r\nQUIT\r\n")).await;
    let mut said = Vec::new();
    while let Some(line) = client.hear().await {
        said.push(line);
    }
    client.leave().await;
    said.join("|")
}

#[tokio::test(start_paused = true)]
async fn each_user_reaches_the_server_of_the_domain() {
    const A: &str = "+OK maildrop has 3 messages (620 octets)|+OK 1 0000000500000064|";
    const B: &str = "+OK maildrop has 2 messages (500 octets)|+OK 1 100.7|";
    const C: &str = "+OK maildrop has 1 messages (300 octets)|+OK 1 0000000900000064|";
    let internet = Internet::new();
    let gate = internet.gate(true, None);
    for (user, host, expected) in [
        ("tim@a.example", "a", A),
        ("tim@b.example", "b", B),
        ("tim@B.EXAMPLE.", "b", B),
        ("tim@b\u{fc}cher.example", "b", B),
        ("tim@xn--bcher-kva.example", "b", B),
        ("tim@elsewhere.example", "c", C),
        ("tim", "c", C),
    ] {
        let said = dialogue(&gate, user, "sec ret").await;
        assert!(said.contains(expected), "{user}: {said}");
        assert_eq!(internet.dialled(), [host], "{user}");
    }
    // The same name at two servers is two users, whom nothing locks out.
    let gate = internet.gate(true, Some("b.example"));
    let mut one = gate.connect();
    assert_eq!(one.log_in().await.as_deref(), Some("+OK maildrop has 2 messages (500 octets)"));
    assert!(dialogue(&gate, "tim@elsewhere.example", "sec ret").await.contains(C));
    assert!(dialogue(&gate, "tim@b.example", "sec ret").await.contains("-ERR [IN-USE] "));
    one.leave().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_names_no_host() {
    let internet = Internet::new();
    let gate = internet.gate(false, None);
    for user in [
        "tim@a",
        "tim@c",
        "tim%a.example",
        "tim%c",
        "a!tim",
        "tim@a.example@c",
        "tim@a.example:143",
        "tim@[10.0.0.1]",
        "tim@10.0.0.1",
        "tim@imap://c",
        "tim@a.example/c",
        "@b.example",
        "tim@",
        "@",
        "tim",
    ] {
        let said = dialogue(&gate, user, "sec ret").await;
        assert!(said.contains("-ERR [AUTH] invalid user name or password"), "{user}: {said}");
        assert!(internet.dialled().is_empty(), "{user}");
    }
    // Whatever stands before the last @ is a name on the server of the domain, and nothing more.
    for (user, host, name) in [
        ("tim@c@a.example", "a", "tim@c@a.example"),
        ("tim%c@a.example", "a", "tim%c@a.example"),
        ("tim@a.example@b.example", "b", "tim@a.example"),
    ] {
        dialogue(&gate, user, "sec ret").await;
        assert_eq!(internet.dialled(), [host], "{user}");
        let heard = internet.hosts[host].received();
        let plain = format!("AUTHENTICATE PLAIN {}", STANDARD.encode(format!("\0{name}\0sec ret")));
        assert!(heard.iter().any(|command| command.text == plain), "{user}: {heard:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_domain_that_is_not_served_looks_like_a_wrong_password() {
    let mut seen = Vec::new();
    for user in ["tim@a.example", "tom@a.example", "tim@elsewhere.example", "tim"] {
        // A new one each time: wrong guesses make those that follow from the same address slower.
        let gate = Internet::new().gate(false, None);
        let mut client = gate.connect();
        let began = Instant::now();
        client.send(format!("CAPA\r\n{}", format!("USER {user}\r\nPASS guess\r\n").repeat(3))).await;
        let mut said = Vec::new();
        while let Some(line) = client.hear().await {
            // The refusals come late, and all equally late.
            let guesses = said.iter().filter(|line: &&String| line.starts_with("-ERR [AUTH]")).count() as f64 + 1.0;
            if line.starts_with("-ERR") {
                let late = began.elapsed().as_secs_f64() / guesses;
                assert!((2.0..2.51).contains(&late), "{user}: {late}");
            }
            said.push(line);
        }
        client.leave().await;
        seen.push(said);
    }
    assert_eq!(seen[0].iter().filter(|line| *line == "-ERR [AUTH] invalid user name or password").count(), 3);
    assert!(seen.iter().all(|said| *said == seen[0]), "{seen:?}");
}
