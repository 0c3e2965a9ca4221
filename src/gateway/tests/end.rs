//! How sessions end: what QUIT says and does, and what no other end does.

use std::{collections::BTreeSet, sync::Mutex};

use super::*;

#[tokio::test(start_paused = true)]
async fn quit_tells_the_outcome() {
    // E.5, T219, F-27
    let stay = |uids: &[u32], verdict| {
        Some(Trouble::Stay(uids.iter().copied().map(uid).collect::<BTreeSet<_>>(), Fault::new(verdict, "trouble")))
    };
    let cases: [(Option<Trouble>, &str, &[u32]); 4] = [
        (None, "+OK POP3 server signing off (1 messages left)", &[7]),
        (stay(&[9], Verdict::Passing), "-ERR [SYS/TEMP] some deleted messages not removed (1 of 2)", &[7, 9]),
        (stay(&[5, 9], Verdict::Lasting), "-ERR [SYS/PERM] some deleted messages not removed (2 of 2)", &[5, 7, 9]),
        (Some(Trouble::Changed(passing())), "-ERR [SYS/TEMP] maildrop changed, nothing deleted", &[5, 7, 9]),
    ];
    for (trouble, answer, kept) in cases {
        let rig = Rig::new();
        if let Some(trouble) = trouble {
            rig.memory.trouble(trouble);
        }
        let said = rig.dialogue("DELE 1\r\nDELE 3\r\nQUIT\r\nNOOP\r\n").await;
        let deleted = "+OK message 1 deleted\r\n+OK message 3 deleted\r\n";
        assert_eq!(said, format!("{deleted}{answer}\r\n"));
        assert_eq!(rig.kept(), kept);
        let settle = Deed::Settle { delete: vec![uid(5), uid(9)], seen: vec![] };
        assert_eq!(rig.memory.deeds()[1..], [settle, Deed::Leave]);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_to_do_is_not_asked_for() {
    // T132, T210, and a failure that concerns \Seen alone is not the client's
    let rig = Rig::new();
    let said = rig.dialogue("DELE 1\r\nRETR 2\r\nRSET\r\nQUIT\r\n").await;
    assert!(said.ends_with("+OK POP3 server signing off (3 messages left)\r\n"));
    assert_eq!(rig.memory.deeds()[1..], [Deed::Fetch(uid(7)), Deed::Leave]);
    let rig = Rig::new();
    rig.memory.trouble(Trouble::Changed(passing()));
    let said = rig.dialogue("RETR 2\r\nQUIT\r\n").await;
    assert!(said.ends_with("+OK POP3 server signing off (3 messages left)\r\n") && rig.was_settled());
}

#[tokio::test(start_paused = true)]
async fn retrieved_messages_are_seen_when_the_policy_says() {
    // E.7, T190, T238
    let settle = |seen: &[u32]| Deed::Settle { delete: vec![uid(9)], seen: seen.iter().copied().map(uid).collect() };
    let commands = "RETR 2\r\nTOP 1 9999\r\nRETR 3\r\nDELE 3\r\n";
    let fetched = [7, 5, 9].map(|value| Deed::Fetch(uid(value)));
    for seen in [Seen::Quit, Seen::Retr, Seen::Never] {
        for quit in [true, false] {
            let rig = Rig::with(Memory::new(1000), |maildrops| maildrops.seen = seen);
            let mut client = rig.log_in(4096).await;
            client.says(commands).await;
            if quit {
                client.says("QUIT\r\n").await;
            }
            client.wire.shutdown().await.unwrap();
            client.rest().await;
            let [second, first, third] = fetched.clone();
            let mark = |uids: &[u32]| Deed::MarkSeen(uids.iter().copied().map(uid).collect());
            let mut expected = match seen {
                Seen::Retr => vec![second, mark(&[7]), first, third, mark(&[9])],
                Seen::Quit | Seen::Never => vec![second, first, third],
            };
            match (seen, quit) {
                (Seen::Quit, true) => expected.push(settle(&[7])),
                (_, true) => expected.push(settle(&[])),
                (Seen::Quit, false) => expected.push(mark(&[7, 9])),
                (_, false) => {}
            }
            expected.push(Deed::Leave);
            assert_eq!(rig.memory.deeds()[1..], expected, "{seen:?} {quit}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn only_quit_deletes() {
    // T215, T020, F-06
    for last in ["", "QUIT", "QUIT x\r\n", "NOOP\r\n", "RETR", &"x\r\n".repeat(20)] {
        let rig = Rig::new();
        let mut client = rig.log_in(4096).await;
        client.says(&format!("DELE 1\r\n{last}")).await;
        client.vanishes().await;
        assert!(!rig.was_settled(), "{last}");
        assert_eq!(rig.memory.deeds().last(), Some(&Deed::Leave), "{last}");
    }
    let said = Rig::new().dialogue(&format!("DELE 1\r\n{}QUIT\r\n", "x\r\n".repeat(20))).await;
    assert!(said.ends_with("-ERR unknown command\r\n-ERR too many bad commands\r\n"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_behind_quit_has_said_it() {
    // T217, F24, F26
    let rig = Rig::new();
    let mut client = rig.log_in(4096).await;
    client.says("DELE 1\r\n").await;
    client.reads("+OK message 1 deleted\r\n").await;
    client.says("QUIT\r\n").await;
    client.vanishes().await;
    assert_eq!(rig.kept(), [7, 9]);
    // A client that has closed its half only reads on.
    let mut client = rig.connect(4096);
    client.says(&format!("{LOG_IN}RETR 1\r\nDELE 1\r\nQUIT\r\n")).await;
    client.wire.shutdown().await.unwrap();
    assert!(client.rest().await.ends_with("+OK POP3 server signing off (1 messages left)\r\n"));
    assert_eq!(rig.kept(), [9]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_before_it_has_its_messages_keeps_them() {
    // F-13: all of it was sent at once, by a client that is gone.
    for commands in ["RETR 1\r\nDELE 1\r\nRETR 3\r\nDELE 3\r\nQUIT\r\n", "DELE 1\r\nQUIT\r\n"] {
        let rig = Rig::with(Memory::new(1000), |maildrops| maildrops.seen = Seen::Retr);
        let mut client = rig.log_in(100).await;
        client.says(commands).await;
        client.vanishes().await;
        assert!(!rig.was_settled(), "{commands}");
        assert!(!rig.memory.deeds().iter().any(|deed| matches!(deed, Deed::MarkSeen(_))), "{commands}");
        assert_eq!(rig.memory.deeds().last(), Some(&Deed::Leave));
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_stopped_answers_commands_only() {
    // RFC 1939 has no replies but to commands.
    let stopping = "-ERR [SYS/TEMP] server shutting down, try again later\r\n";
    let rig = Rig::new();
    let mut working = rig.log_in(4096).await;
    let idle = rig.log_in(4096).await;
    let mut stranger = rig.connect(4096);
    stranger.reads(GREETING).await;
    working.says("DELE 1\r\n").await;
    working.reads("+OK message 1 deleted\r\n").await;
    working.says("QUIT\r\n").await;
    rig.shutdown.cancel();
    for (client, said) in [(working, stopping), (idle, ""), (stranger, "")] {
        assert_eq!(client.rest().await, said);
    }
    assert!(!rig.was_settled());
}

#[tokio::test(start_paused = true)]
async fn the_log_has_one_line_of_counts_and_no_secrets() {
    // T287
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false);
    // While there is one subscriber only, tracing asks each thread for its own, and what a test without one meets first is
    // never logged again. This is the second one.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let guard = tracing::subscriber::set_default(subscriber.with_writer(log.clone()).finish());
    let rig = Rig::new();
    rig.memory.trouble(Trouble::Open(Fault::new(Verdict::Lasting, "no such mailbox")));
    let mut client = rig.connect(4096);
    client.says(&format!("USER t\u{1b}m\r\n{LOG_IN}{LOG_IN}RETR 1\r\nTOP 2 0\r\nDELE 1\r\nDELE 3\r\nQUIT\r\n")).await;
    client.rest().await;
    drop(guard);
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let summary: Vec<_> = log.lines().filter(|line| line.contains("session ended")).collect();
    let counts = "session ended user=\"tim\" upstream=\"memory\" top=1 top_octets=14 retr=1 retr_octets=120 dele=2 \
        dele_octets=420 left=0 end=quit milliseconds=";
    assert!(summary.len() == 1 && summary[0].contains(counts) && summary[0].contains("INFO session{id=0}"), "{log}");
    assert!(log.contains("WARN session{id=0}: popgate::gateway::refuse: log-in failed user=\"tim\""), "{log}");
    assert!(!log.contains("sec ret") && !log.contains("Subject") && !log.contains('\u{1b}'), "{log}");
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        io::Write::write(&mut *self.0.lock().unwrap(), octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
