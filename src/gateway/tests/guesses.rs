//! Log-ins that fail: what of them reaches the server, and how long they take.

use tokio::time::{Instant, sleep};

use super::*;

const DENIED: &str = "-ERR [AUTH] invalid user name or password\r\n";

impl Rig {
    /// How often the server was asked to let somebody in.
    fn tries(&self) -> usize {
        self.memory.deeds().iter().filter(|deed| matches!(deed, Deed::Open(_))).count()
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
