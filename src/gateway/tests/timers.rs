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
async fn whoever_does_not_log_in_is_left_whatever_he_says() {
    // T41
    let rig = Rig::new();
    let mut client = rig.connect(4096);
    client.reads(GREETING).await;
    for _ in 0..2 {
        sleep(Duration::from_secs(140)).await;
        client.says("USER tim\r\n").await;
        client.reads("+OK send PASS\r\n").await;
    }
    client.says("PASS").await;
    assert_eq!(lasts(client).await, (20, String::new()));
    // All at once, for ever.
    let mut client = rig.connect(4096);
    client.reads(GREETING).await;
    let began = Instant::now();
    while client.wire.write_all(b"USER tim\r\n").await.is_ok() {
        sleep(Duration::from_millis(100)).await;
        let _ = client.wire.read(&mut [0; 64]).await;
    }
    assert_eq!(began.elapsed().as_secs(), 300);
    // Hardly ever reading the answers.
    let mut client = rig.connect(64);
    let began = Instant::now();
    client.says(&"CAPA\r\n".repeat(100)).await;
    sleep(Duration::from_secs(200)).await;
    client.wire.read_u8().await.unwrap();
    client.session.await.unwrap();
    assert!(began.elapsed().as_secs() == 300 && client.aborted.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn a_log_in_that_has_begun_in_time_is_carried_through() {
    let (rig, user) = (Rig::new(), "+OK send PASS\r\n");
    for (password, reply, seconds) in [
        ("guess", "-ERR [AUTH] invalid user name or password\r\n", 0),
        ("sec ret", "+OK maildrop has 3 messages (620 octets)\r\n", 600),
    ] {
        let mut client = rig.connect(4096);
        sleep(Duration::from_secs(150)).await;
        client.says("USER tom\r\n").await;
        sleep(Duration::from_secs(149)).await;
        client.says(&format!("USER tim\r\nPASS {password}\r\n")).await;
        client.reads(&format!("{GREETING}{user}{user}{reply}")).await;
        assert_eq!(lasts(client).await, (seconds, String::new()), "{password}");
    }
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
