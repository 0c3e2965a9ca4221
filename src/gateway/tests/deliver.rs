//! RETR, TOP and the listings: what flows, what breaks off, and who waits for whom.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_session_is_the_same_over_any_pipe() {
    // T048, T130, T150, T173, T281
    for (width, chunk) in [(1, 1), (8, 7), (100, 1000), (1 << 16, 1 << 16)] {
        let rig = Rig::with(Memory::new(chunk), |_| {});
        let mut client = rig.connect(width);
        let commands = format!("{LOG_IN}STAT\r\nRETR 1\r\nDELE 1\r\nTOP 2 0\r\nLIST\r\nUIDL\r\nnoop\nQUIT\r\n");
        let (mut reading, mut writing) = tokio::io::split(client.wire);
        let writer = tokio::spawn(async move {
            writing.write_all(commands.as_bytes()).await.unwrap();
            writing
        });
        let mut read = String::new();
        reading.read_to_string(&mut read).await.unwrap();
        client.wire = reading.unsplit(writer.await.unwrap());
        client.vanishes().await;
        let expected = format!(
            "{LOGGED_IN}+OK 3 620\r\n+OK 120 octets\r\n{}+OK message 1 deleted\r\n\
            +OK top of message follows\r\nSubject: x\r\n\r\n.\r\n+OK 2 messages (500 octets)\r\n2 200\r\n3 300\r\n.\r\n\
            +OK unique-id listing follows\r\n2 0000000700000064\r\n3 0000000900000064\r\n.\r\n\
            +OK nothing done\r\n+OK POP3 server signing off (2 messages left)\r\n",
            stuffed(&letter(120))
        );
        assert_eq!(read, expected, "{width} {chunk}");
        assert_eq!(rig.kept(), [7, 9]);
        assert_eq!(rig.memory.deeds().last(), Some(&Deed::Leave));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_may_write_much_before_it_reads() {
    // T174
    let rig = Rig::with(Memory::new(50), |_| {});
    let mut client = rig.log_in(8).await;
    client.says(&"RETR 3\r\n".repeat(100)).await;
    client.says("QUIT\r\n").await;
    let one = format!("+OK 300 octets\r\n{}", stuffed(&letter(300)));
    assert_eq!(client.rest().await, format!("{}+OK POP3 server signing off (3 messages left)\r\n", one.repeat(100)));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_breaks_off_is_never_ended_by_a_dot() {
    // T158, T160, F-01: cut anywhere, and at the very end, where only the confirmation is missing.
    let large = letter(100_000);
    for (after, command) in
        [20_000, 50_000, 99_999, 100_000].into_iter().flat_map(|after| [(after, "RETR 1"), (after, "TOP 1 99999")])
    {
        let rig = Rig::new();
        rig.put(5, large.clone());
        rig.memory.trouble(Trouble::Body(after, passing()));
        let mut client = rig.connect(1 << 20);
        client.says(&format!("{LOG_IN}{command}\r\nDELE 1\r\nQUIT\r\n")).await;
        let aborted = Arc::clone(&client.aborted);
        let said = client.rest().await;
        assert!(said.contains(".0000") && !said.contains("\r\n.\r\n") && !said.contains("-ERR"), "{after}");
        assert!(aborted.load(Ordering::Relaxed) && !rig.was_settled());
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_not_left_us_can_still_be_refused() {
    // T162, F-12
    let unavailable = "-ERR [SYS/TEMP] message unavailable, try again later\r\n";
    let refused = "-ERR [SYS/TEMP] message 2 was not delivered, not deleting\r\n";
    for trouble in [Trouble::Fetch(passing()), Trouble::Body(0, passing()), Trouble::Body(200, passing())] {
        let rig = Rig::new();
        rig.memory.trouble(trouble);
        let said = rig.dialogue("RETR 2\r\nDELE 2\r\nSTAT\r\nRETR 2\r\nDELE 2\r\nQUIT\r\n").await;
        let expected = format!(
            "{unavailable}{refused}+OK 3 620\r\n+OK 200 octets\r\n{}+OK message 2 deleted\r\n\
            +OK POP3 server signing off (2 messages left)\r\n",
            stuffed(&letter(200))
        );
        assert_eq!(said, expected);
        assert_eq!(rig.kept(), [5, 9]);
    }
}

#[tokio::test(start_paused = true)]
async fn messages_that_are_not_there() {
    // T163, T164, T122: a ghost may be deleted, an empty message may not.
    let rig = Rig::new();
    let mut client = rig.log_in(4096).await;
    rig.memory.meddle("tim", |maildrop| {
        maildrop.messages.remove(&uid(5));
        maildrop.messages.insert(uid(7), Mail { listed: 200, ..Mail::new("") });
    });
    client.says("RETR 1\r\nTOP 1 1\r\nDELE 1\r\nRETR 2\r\nDELE 2\r\nQUIT\r\n").await;
    let removed = "-ERR message 1 has been removed by another client\r\n";
    let expected = format!(
        "{removed}{removed}+OK message 1 deleted\r\n-ERR [SYS/TEMP] message unavailable, try again later\r\n\
        -ERR [SYS/TEMP] message 2 was not delivered, not deleting\r\n+OK POP3 server signing off (2 messages left)\r\n"
    );
    assert_eq!(client.rest().await, expected);
    // T154: a message that is listed as empty is one.
    rig.memory.meddle("tim", |maildrop| maildrop.messages = [(uid(11), Mail::new(""))].into());
    let mut client = rig.connect(4096);
    client.says(&format!("{LOG_IN}RETR 1\r\nTOP 1 9\r\nQUIT\r\n")).await;
    let said = client.rest().await;
    assert!(said.contains("(0 octets)\r\n+OK 0 octets\r\n.\r\n+OK top of message follows\r\n.\r\n+OK POP3"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn top_reads_no_more_than_it_needs() {
    // T185: by windows that double, or the whole message where it is small, or wanted, or all that the server can send.
    let header = |octets: usize| format!("Subject: {}\r\n\r\n", "x".repeat(octets - 13));
    let peek = |offset, length| Deed::Peek(uid(5), Window { offset, length });
    let windows = [peek(0, 16_384), peek(16_384, 32_768)];
    // Without lines of the body they begin smaller.
    let headers = [peek(0, 4_096), peek(4_096, 8_192), peek(12_288, 16_384), peek(28_672, 32_768)];
    let fetch = [Deed::Fetch(uid(5))];
    let kilobytes = |count: usize| format!("{}\r\n", ".".repeat(1022)).repeat(count);
    let cases: [(String, u64, Parts, usize, &[Deed]); 8] = [
        (header(100) + &kilobytes(500), 5, Parts::Exact, 100 + 5 * 1025, &windows[..1]),
        (header(40_000) + &kilobytes(500), 0, Parts::Exact, 40_000, &headers),
        (header(16_384) + &kilobytes(500), 1, Parts::Exact, 16_384 + 1025, &windows),
        (header(4_096) + &kilobytes(500), 0, Parts::Exact, 4_096, &headers[..1]),
        (header(100) + &kilobytes(60), 1, Parts::Exact, 100 + 1025, &fetch),
        (header(100) + &kilobytes(15), 0, Parts::Exact, 100, &fetch),
        (header(100) + &kilobytes(500), 10_000, Parts::Exact, 100 + 500 * 1025, &fetch),
        (header(40_000) + &kilobytes(500), 1, Parts::Whole, 40_000 + 1025, &windows[..1]),
    ];
    for (message, lines, parts, octets, deeds) in cases {
        let rig = Rig::with(Memory::new(1000).sending(parts), |_| {});
        rig.put(5, Mail::new(message));
        let mut client = rig.connect(1 << 20);
        client.says(&format!("{LOG_IN}TOP 1 {lines}\r\nQUIT\r\n")).await;
        let said = client.rest().await;
        let (_, body) = said.split_once("follows\r\n").unwrap();
        let (body, _) = body.split_once("\r\n.\r\n").unwrap();
        assert_eq!(body.len() + 2, octets);
        assert_eq!(rig.memory.deeds()[1..=deeds.len()], *deeds);
        assert!(rig.memory.deeds().iter().all(|deed| !matches!(deed, Deed::Forsake(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn top_of_the_whole_message_is_the_message() {
    // Windows end where the message ends, whatever the listing says and whatever the server makes of a part.
    let sizes = [(70_000, 70_000), (16_384, 70_000), (49_152, 70_000), (49_153, 1 << 40), (300_000, 70_000)];
    let ways = [Parts::Exact, Parts::More(1), Parts::More(100_000), Parts::Whole, Parts::WholeLater];
    for ((octets, listed), parts) in sizes.into_iter().flat_map(|size| ways.map(|parts| (size, parts))) {
        let rig = Rig::with(Memory::new(1000).sending(parts), |_| {});
        let message = Mail { listed, ..letter(octets) };
        rig.put(5, message.clone());
        let mut client = rig.connect(1 << 20);
        client.says(&format!("{LOG_IN}TOP 1 9999\r\nQUIT\r\n")).await;
        let said = client.rest().await;
        let expected = format!("follows\r\n{}+OK POP3 server signing off", stuffed(&message));
        assert!(said.contains(&expected), "{octets} {parts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_top_whose_next_window_fails_is_torn() {
    // T191
    let troubles: [fn(&Rig); 3] = [
        |rig| rig.memory.trouble(Trouble::Fetch(passing())),
        |rig| rig.memory.trouble(Trouble::Body(32_768, passing())),
        |rig| rig.memory.meddle("tim", |maildrop| maildrop.messages.clear()),
    ];
    for trouble in troubles {
        let rig = Rig::new();
        rig.put(5, letter(500_000));
        let mut client = rig.connect(1000);
        client.says(&format!("{LOG_IN}TOP 1 9999\r\n")).await;
        let mut some = [0; 10_000];
        client.wire.read_exact(&mut some).await.unwrap();
        trouble(&rig);
        let aborted = Arc::clone(&client.aborted);
        let said = client.rest().await;
        assert!(said.len() > 6000 && !said.contains("\r\n.\r\n") && aborted.load(Ordering::Relaxed));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_in_a_message_leaves_the_rest_of_it() {
    // T176
    let rig = Rig::new();
    rig.put(5, letter(500_000));
    let mut client = rig.connect(100);
    client.says(&format!("{LOG_IN}RETR 2\r\nRETR 1\r\n")).await;
    let mut some = [0; 10_000];
    client.wire.read_exact(&mut some).await.unwrap();
    client.vanishes().await;
    let deeds = rig.memory.deeds();
    assert_eq!(deeds[3..], [Deed::Forsake(uid(5)), Deed::MarkSeen(vec![uid(7)]), Deed::Leave]);
}
