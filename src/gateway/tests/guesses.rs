//! Log-ins that fail: what of them reaches the server, and how long they take.

use std::sync::atomic::AtomicUsize;

use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::net::limits::Limits;

const DENIED: &str = "-ERR [AUTH] invalid user name or password\r\n";

impl Rig {
    /// How often the server was asked to let somebody in.
    fn tries(&self) -> usize {
        self.memory.deeds().iter().filter(|deed| matches!(deed, Deed::Open(_))).count()
    }

    /// Guesses at tim on so many lines from each of these addresses, always, until `end`. Each holds a permit.
    fn is_guessed_at(self: &Arc<Self>, addresses: &[&'static str], lines: usize, end: Instant) {
        for (line, address) in (0..lines).flat_map(|line| addresses.iter().map(move |address| (line, *address))) {
            let rig = Arc::clone(self);
            tokio::spawn(async move {
                for guess in 0.. {
                    let mut client = rig.connect_from(address, 4096);
                    client.says(&format!("USER tim\r\nPASS {address} {line} {guess}\r\nQUIT\r\n")).await;
                    assert!(!client.rest().await.contains("+OK maildrop"));
                    if Instant::now() >= end {
                        break;
                    }
                }
            });
        }
    }

    /// One try on a line of its own: the answer, and how long it took.
    async fn tries_from(&self, address: &str, user: &str, password: &str) -> (String, Duration) {
        let mut client = self.connect_from(address, 4096);
        client.reads(GREETING).await;
        let began = Instant::now();
        client.says(&format!("USER {user}\r\nPASS {password}\r\n")).await;
        client.reads("+OK send PASS\r\n").await;
        let mut answer = String::new();
        while !answer.ends_with("\r\n") {
            answer.push(char::from(client.wire.read_u8().await.unwrap()));
        }
        client.vanishes().await;
        (answer, began.elapsed())
    }
}

#[tokio::test(start_paused = true)]
async fn the_server_is_not_asked_again_about_the_password_it_has_just_refused() {
    let rig = Rig::new();
    let within = |took: Duration| took >= Duration::from_secs(2) && took < Duration::from_secs(3);
    for address in ["127.0.0.1", "127.0.0.2"] {
        let (answer, took) = rig.tries_from(address, "tim", "old").await;
        assert!(answer == DENIED && within(took), "{answer} {took:?}");
        assert_eq!(rig.tries(), 1);
    }
    // Nobody is kept out who knows the right one.
    let (answer, took) = rig.tries_from("127.0.0.1", "tim", "sec ret").await;
    assert!(answer.starts_with("+OK") && took < Duration::from_secs(1), "{answer} {took:?}");
    assert_eq!(rig.tries(), 2);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(rig.tries_from("127.0.0.1", "tim", "old").await.0, DENIED);
    assert_eq!(rig.tries(), 3);
}

#[tokio::test(start_paused = true)]
async fn trouble_is_not_taken_for_a_refusal() {
    let rig = Rig::new();
    rig.memory.trouble(Trouble::Open(passing()));
    assert!(rig.tries_from("127.0.0.1", "tim", "sec ret").await.0.starts_with("-ERR [SYS/TEMP]"));
    assert!(rig.tries_from("127.0.0.1", "tim", "sec ret").await.0.starts_with("+OK"));
    assert_eq!(rig.tries(), 2);
}

#[tokio::test(start_paused = true)]
async fn each_wrong_password_takes_longer_until_a_right_one_comes() {
    let rig = Rig::new();
    for (user, password, seconds) in [
        ("tim", "a", 2),
        ("tom", "b", 4),
        ("tom", "b", 4),
        ("ann", "c", 8),
        ("joe", "d", 15),
        ("sue", "e", 15),
        ("tim", "sec ret", 0),
        ("max", "f", 2),
    ] {
        let (answer, took) = rig.tries_from("127.0.0.1", user, password).await;
        assert_eq!(answer == DENIED, password != "sec ret");
        // Up to a quarter more by chance.
        assert!((seconds * 4..=seconds * 5).contains(&(took.as_millis() / 250)), "{user} {took:?}");
    }
}

/// T27, and a server that takes its time to refuse.
fn slow() -> Arc<Rig> {
    Arc::new(Rig::with(Memory::new(1000).refusing_after(Duration::from_secs(2)), |_| {}))
}

#[tokio::test(start_paused = true)]
async fn who_guesses_elsewhere_keeps_nobody_out() {
    const ADDRESSES: [&str; 10] = [
        "127.0.1.0",
        "127.0.1.1",
        "127.0.1.2",
        "127.0.1.3",
        "127.0.1.4",
        "127.0.1.5",
        "127.0.1.6",
        "127.0.1.7",
        "127.0.1.8",
        "127.0.1.9",
    ];
    let rig = slow();
    let end = Instant::now() + Duration::from_secs(300);
    rig.is_guessed_at(&ADDRESSES, 4, end);
    // What they had under way when they first failed.
    sleep(Duration::from_secs(20)).await;
    // From an address that nobody knows yet.
    let mut number = 0;
    while Instant::now() < end {
        number += 1;
        let (answer, took) = rig.tries_from(&format!("127.0.2.{number}"), "tim", "sec ret").await;
        assert!(answer.starts_with("+OK") && took < Duration::from_secs(5), "{number}: {answer} {took:?}");
        sleep(Duration::from_secs(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_guesses_behind_the_same_address_keeps_no_regular_out() {
    let rig = slow();
    assert!(rig.tries_from("127.0.1.0", "tim", "sec ret").await.0.starts_with("+OK"));
    let end = Instant::now() + Duration::from_secs(300);
    rig.is_guessed_at(&["127.0.1.0"], 40, end);
    sleep(Duration::from_secs(1)).await;
    let before = rig.tries();
    let mut welcomes = 0;
    while Instant::now() < end {
        let (answer, took) = rig.tries_from("127.0.1.0", "tim", "sec ret").await;
        assert!(answer.starts_with("+OK") && took < Duration::from_secs(1), "{answer} {took:?}");
        welcomes += 1;
        sleep(Duration::from_secs(10)).await;
    }
    // A success forgets what has failed at its address, so that guessing begins anew with each of them.
    let guesses = rig.tries() - before - welcomes;
    assert!(guesses <= 40 * welcomes, "{guesses} guesses");
}

#[tokio::test(start_paused = true)]
async fn who_has_no_turn_is_told_so_late() {
    let rig = slow();
    let end = Instant::now() + Duration::from_secs(1_000);
    rig.is_guessed_at(&["127.0.1.0"], 40, end);
    sleep(Duration::from_secs(100)).await;
    let mut told = 0;
    while Instant::now() < end - Duration::from_secs(100) {
        let (answer, took) = rig.tries_from("127.0.1.0", "tom", "guess").await;
        if answer != DENIED {
            assert!(answer.starts_with("-ERR [SYS/TEMP]"), "{answer}");
            assert!(took >= Duration::from_secs(10 + 15) && took < Duration::from_secs(30), "{took:?}");
            told += 1;
        }
    }
    assert!(told > 5, "{told}");
}

#[tokio::test(start_paused = true)]
async fn guessing_all_at_once_is_no_quicker() {
    // T27: from ten addresses with as many connections as they may have, all at one user.
    const ADDRESSES: usize = 10;
    const LINES: usize = 64;
    const SECONDS: usize = 300;
    let rig = Arc::new(Rig::new());
    let limits = Limits::new(10_000, LINES, 1);
    let guesses = Arc::<AtomicUsize>::default();
    let end = Instant::now() + Duration::from_secs(SECONDS as u64);
    for line in 0..ADDRESSES * LINES {
        let (rig, limits, guesses) = (Arc::clone(&rig), limits.clone(), Arc::clone(&guesses));
        tokio::spawn(async move {
            let address = format!("127.0.1.{}", line % ADDRESSES);
            while Instant::now() < end {
                let mut permit = limits.admit().unwrap();
                permit.stranger(address.parse().unwrap()).unwrap();
                let mut client = rig.connect_from(&address, 4096);
                for _ in 0..3 {
                    let guess = guesses.fetch_add(1, Ordering::Relaxed);
                    client.says(&format!("USER tim\r\nPASS guess{guess}\r\n")).await;
                }
                client.says("QUIT\r\n").await;
                assert!(!client.rest().await.contains("+OK maildrop"));
            }
        });
    }
    // Meanwhile, from elsewhere, somebody who knows the password.
    let mut welcomes = 0;
    while Instant::now() < end {
        let tried = timeout(Duration::from_secs(15), rig.tries_from("127.0.0.1", "tim", "sec ret")).await.unwrap();
        assert!(tried.0.starts_with("+OK"), "{tried:?}");
        welcomes += 1;
        sleep(Duration::from_secs(10)).await;
    }
    let passed_on = rig.tries() - welcomes;
    // What an address has under way when the first fails, and then four at a time, each taking a quarter of a minute.
    let bound = ADDRESSES * (LINES + 4 * (SECONDS / 15 + 1));
    let tried = guesses.load(Ordering::Relaxed);
    assert!(tried >= 5_000 && passed_on <= bound, "{passed_on} of {tried} guesses, {bound} allowed");
    assert!(passed_on >= ADDRESSES * LINES, "{passed_on}: nobody guessed");
}
