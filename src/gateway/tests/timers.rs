//! What happens when nothing happens.

use tokio::time::{Instant, sleep};

use super::*;

/// How many seconds the session lasts from here, and what it still says.
async fn lasts(client: Client) -> (u64, String) {
    let began = Instant::now();
    let said = client.rest().await;
    // The last two seconds are for the client to hang up.
    (began.elapsed().as_secs(), said)
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_left_without_a_word() {
    // T216
    let rig = Rig::new();
    assert_eq!(lasts(rig.connect(4096)).await, (180, GREETING.to_owned()));
    let mut client = rig.log_in(4096).await;
    client.says("DELE 1\r\nNOOP").await;
    client.reads("+OK message 1 deleted\r\n").await;
    assert_eq!(lasts(client).await, (600, String::new()));
    assert!(!rig.was_settled());
}

#[tokio::test(start_paused = true)]
async fn only_whole_lines_show_that_a_client_is_alive() {
    let rig = Rig::new();
    let mut client = rig.log_in(4096).await;
    for _ in 0..5 {
        sleep(Duration::from_secs(599)).await;
        client.says("NOOP\r\n").await;
        client.reads("+OK nothing done\r\n").await;
    }
    for _ in 0..5 {
        sleep(Duration::from_secs(100)).await;
        client.says("x").await;
    }
    assert_eq!(lasts(client).await, (100, String::new()));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_given_up() {
    // T172
    let rig = Rig::new();
    let mut client = rig.log_in(64).await;
    client.says("DELE 1\r\nRETR 3\r\nQUIT\r\n").await;
    // Slowly is not never.
    for _ in 0..3 {
        sleep(Duration::from_secs(230)).await;
        client.wire.read_u8().await.unwrap();
    }
    let began = Instant::now();
    client.session.await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 240);
    assert!(client.aborted.load(Ordering::Relaxed) && !rig.was_settled());
}

#[tokio::test(start_paused = true)]
async fn a_line_lost_upstream_does_not_end_the_session() {
    let rig = Rig::new();
    let mut client = rig.log_in(4096).await;
    rig.memory.trouble(Trouble::Line(passing()));
    sleep(Duration::from_secs(1)).await;
    rig.memory.trouble(Trouble::Line(passing()));
    client.says("NOOP\r\nQUIT\r\n").await;
    assert_eq!(client.rest().await, "+OK nothing done\r\n+OK POP3 server signing off (3 messages left)\r\n");
}
