//! What comes out of a tap, and what ends it.

use proptest::prelude::*;
use tokio::io::duplex;

use super::{
    fuzzing::{self, Expected, Heard},
    *,
};
use crate::mail::{Message, Uid};

/// What is made of `input` when it comes in pieces of `chunk` octets and the body of UID 7 is expected.
fn heard(input: &[u8], chunk: usize) -> Heard {
    let pieces: Vec<_> = input.chunks(chunk).collect();
    fuzzing::heard(&pieces, Expected::One)
}

/// Every kind of response, and what may look like one where it is none.
const SESSION: &[u8] = b"* OK [CAPABILITY IMAP4rev1  SASL-IR] hello\r\n\
    * FLAGS (\\Seen $x)\r\n* 3 EXISTS\n* 0 RECENT\r\n* OK [UIDVALIDITY 17] .\r\n\r\n\
    * 1 FETCH (UID 5 RFC822.SIZE 120)\r\n* 2 FETCH (RFC822.SIZE 200 UID 7)\r\n* 3 UIDFETCH (RFC822.SIZE 1)\r\n\
    * SEARCH 5 7\r\n* ESEARCH (TAG \"A1\") UID COUNT 2 ALL 9:12\r\n\
    * 2 FETCH (FLAGS () BODY[] {25}\r\n)\r\nA1 OK * BYE\r\n* X {9}\r\n UID 7)\r\n\
    * 2 FETCH (UID 8 BODY[] {3}\r\na)\n X {2}\r\nbc)\r\n* XFOO {4}\r\nA1 O y {1}\r\nz\r\n\
    * 1 FETCH (UID 9 BODY[] \"q\\\"\")\r\n* 2 EXPUNGE\r\nA1 OK [READ-WRITE] done\r\n* BYE\r\n";

#[test]
fn responses_are_sorted() {
    let heard = heard(SESSION, 4096);
    let passed = "* OK [CAPABILITY IMAP4rev1 SASL-IR] hello\r\n* 3 EXISTS\r\n* OK [UIDVALIDITY 17] .\r\n\
        * 2 EXPUNGE\r\nA1 OK [READ-WRITE] done\r\n* BYE .\r\n";
    assert_eq!(heard.passed, passed);
    assert_eq!(heard.bodies, [b")\r\nA1 OK * BYE\r\n* X {9}\r\n".to_vec()]);
    let row = |uid, octets| Message { uid: Uid::new(uid).unwrap(), octets };
    assert_eq!(heard.rows, [row(5, 120), row(7, 200), row(3, 1)]);
    assert_eq!(heard.found, Some(Found { ranges: vec![(5, 5), (7, 7), (9, 12)], count: Some(2) }));
    assert_eq!(heard.trouble, None);
}

#[test]
fn hostile_lines_end_the_connection_and_hold_no_memory() {
    for (input, trouble) in [
        (b"x".repeat(70_000), "a line without an end"),
        ([b"* OK ".as_slice(), &b"x".repeat(70_000), b"\r\n"].concat(), "a line"),
        (b"* 1 FETCH (UID 5 ENVELOPE {536862720}\r\n".to_vec(), "a large literal"),
        (b"* 1 FETCH (UID 5 BODY[] {65537}\r\n".to_vec(), "a large literal"),
        (b"* 1 FETCH (UID 7 BODY[] {9223372036854775808}\r\n".to_vec(), "a number"),
        (b"* X a\0b\r\n".to_vec(), "a NUL"),
        (b"+ go\r\n".to_vec(), "a continuation"),
        (b"* 0 FETCH (UID 7)\r\n".to_vec(), "a message number 0"),
        (b"* SEARCH 0\r\n".to_vec(), "a search"),
        (b"* 1 FETCH (UID 7 BODY[] {1}\r\nx)\r\n* 1 FETCH (UID 7 BODY[] \"y\")\r\n".to_vec(), "one message twice"),
        (b"<html>\r\n".to_vec(), "a line that is no response"),
        (b"* X\r\n".repeat(10_001), "more than anything"),
        ([b"* X ".as_slice(), &b"x".repeat(60_000), b"\r\n"].concat().repeat(20), "more than anything"),
        ([b"* 1 FETCH (".as_slice(), &b"X {0}\r\n ".repeat(10_002)].concat(), "more than anything"),
        ([b"* 1 FETCH (UID 7 BODY[] {1}\r\nx".as_slice(), &b"\r\n".repeat(10_001)].concat(), "more than anything"),
    ] {
        let heard = heard(&input, 4096);
        let shown = String::from_utf8_lossy(&input[..input.len().min(40)]).into_owned();
        assert!(heard.trouble.as_ref().is_some_and(|found| found.contains(trouble)), "{shown}: {heard:?}");
    }
}

/// Found or not: search results are bounded although their lines are not.
#[test]
fn endless_searches_end() {
    for wanted in [true, false] {
        let mut tap = Tap::new(Box::new(duplex(1).0));
        tap.aside.found = wanted.then(Found::default);
        let pieces = std::iter::once(&b"* VANISHED "[..]).chain(std::iter::repeat_n(&[b'('; 65_536][..], 1_000));
        let mut bounded = pieces.map(|piece| {
            tap.input.extend_from_slice(piece);
            while let Step::On = tap.step()? {}
            Ok::<_, Malformed>(tap.input.len())
        });
        assert!(bounded.any(|kept| kept.is_err()), "wanted: {wanted}");
    }
}

/// CVE-2026-42245 in net-imap: octets that come one at a time are each looked at once, so that a line, a literal or a list
/// of numbers costs what its length is.
#[test]
fn cve_2026_42245_no_octet_is_looked_at_twice() {
    let line = [b"* OK ".as_slice(), &b"x".repeat(60_000)].concat();
    let literal = [b"* X {60000}\r\n".as_slice(), &b"\n".repeat(59_999)].concat();
    let numbers = [b"* SEARCH".as_slice(), &b" 4294967295".repeat(5_000)].concat();
    let uids = [b"* ESEARCH UID ALL 1".as_slice(), &b":4294967295,1".repeat(5_000)].concat();
    for sent in [line, literal, numbers, uids] {
        let mut tap = Tap::new(Box::new(duplex(1).0));
        tap.aside.found = Some(Found::default());
        for (at, octet) in sent.iter().enumerate() {
            tap.input.extend_from_slice(&[*octet]);
            while let Step::On = tap.step().unwrap() {}
            // The name of a response is what it is told by; no longer prefix is read again.
            let known = tap.scanned == tap.input.len();
            assert!(known || at < 32, "{} of {} octets at {at}", tap.scanned, tap.input.len());
        }
        let kept: usize = tap.aside.found.iter().map(|found| found.ranges.len()).sum();
        assert!(kept <= sent.len() / 10, "{kept} ranges of {} octets", sent.len());
    }
}

/// CVE-2026-27857, CVE-2026-42006 in Dovecot: lists in lists, in whatever may hold one. Each is read on a stack that would
/// not bear a call for each of them.
#[test]
fn cve_2026_27857_lists_in_lists_need_no_stack() {
    let deep = |before: &str, open: &str, behind: &str| format!("{before}{}{behind}\r\n", open.repeat(60_000));
    let nested = [
        deep("* 1 FETCH (UID 5 X ", "(", ""),
        deep("* 1 FETCH ", "(", ""),
        deep("* 1 FETCH (BODYSTRUCTURE ", "(", ")"),
        deep("* LIST ", "(", " \"/\" x"),
        deep("* OK [PERMANENTFLAGS ", "(", "] x"),
        deep("* OK [BADCHARSET ", "(", "] x"),
        deep("A1 NO [", "[", "] x"),
        deep("* SEARCH ", "(", ""),
        deep("* ESEARCH ", "(", " UID ALL 1"),
        deep("* FLAGS ", "(", ""),
        deep("* X ", "(\"", ""),
        deep("* THREAD ", "(1 ", ""),
    ];
    let small = std::thread::Builder::new().stack_size(256 * 1024);
    let read = small.spawn(move || {
        for line in nested {
            let heard = heard(line.as_bytes(), 4096);
            assert!(heard.bodies.is_empty() && heard.rows.is_empty(), "{line:.30}");
            // What goes on to async-imap needs none there either.
            let passed = heard.passed.as_bytes();
            assert!(passed.is_empty() || async_imap::imap_proto::Response::parse(passed).is_ok(), "{line:.30}");
        }
    });
    read.unwrap().join().unwrap();
}

proptest! {
    #[test]
    fn pieces_make_no_difference(chunk in 1_usize..40, damage in proptest::option::of((0..SESSION.len(), any::<u8>()))) {
        let mut session = SESSION.to_vec();
        if let Some((at, octet)) = damage {
            session[at] = octet;
        }
        prop_assert_eq!(heard(&session, chunk), heard(&session, 4096));
    }
}
