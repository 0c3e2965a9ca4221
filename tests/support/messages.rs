//! Messages, each named for its one oddity, and what POP3 must make of them. Made here rather than kept as files, because
//! an editor or git would quietly repair many of them.

/// A message with a name.
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) octets: Vec<u8>,
}

/// The octets a POP3 client must have in hand after RETR of a message that IMAP shows as `body` (RFC 1939 §3 and the
/// rules T1, T2 and T4 of the translation): every LF has its CR, a bare CR before a dot has its LF, and the last line
/// ends. Written as plainly as possible, not as popgate does it.
pub(crate) fn normalised(body: &[u8]) -> Vec<u8> {
    let mut octets = Vec::with_capacity(body.len() + 2);
    for (index, &octet) in body.iter().enumerate() {
        let before = index.checked_sub(1).map(|before| body[before]);
        match (before, octet) {
            (Some(b'\r'), b'.') => octets.extend(b"\n."),
            (Some(b'\r'), b'\n') => octets.push(b'\n'),
            (_, b'\n') => octets.extend(b"\r\n"),
            _ => octets.push(octet),
        }
    }
    match octets.last() {
        None | Some(b'\n') => {}
        Some(b'\r') => octets.push(b'\n'),
        Some(_) => octets.extend(b"\r\n"),
    }
    octets
}

/// `count` messages, all different: the odd ones in turn, the largest left out, and ordinary ones between them.
pub(crate) fn mixed(count: usize) -> Vec<Vec<u8>> {
    let odd: Vec<Sample> = odd().into_iter().filter(|sample| sample.octets.len() < 200_000).collect();
    let message = |number: usize| {
        let mut message = format!("X-Number: {number}\r\n").into_bytes();
        match number % 2 {
            0 => message.extend(&odd[number / 2 % odd.len()].octets),
            _ => message.extend(ordinary(&format!("ordinary {number}"), number)),
        }
        message
    };
    (0..count).map(message).collect()
}

/// A message as anybody might send it, with so many lines of 76 octets.
pub(crate) fn ordinary(subject: &str, lines: usize) -> Vec<u8> {
    let header = format!(
        "From: Alice <alice@example.com>\r\nTo: bob@example.com\r\nSubject: {subject}\r\n\
         Date: Mon, 02 Nov 2026 10:00:00 +0000\r\nMessage-ID: <{}@example.com>\r\n\r\n",
        subject.replace(' ', ".")
    );
    let line = "The quick brown fox jumps over the lazy dog and comes back for its hat again\r\n";
    [header.as_str(), &line.repeat(lines)].concat().into_bytes()
}

/// The odd ones.
pub(crate) fn odd() -> Vec<Sample> {
    const H: &str = "Subject: odd\r\nFrom: a@example.com\r\n\r\n";
    let with = |body: &str| format!("{H}{body}").into_bytes();
    let text = [
        ("plain", "one\r\ntwo\r\n"),
        ("dots", ".\r\n..\r\n...\r\n.x\r\n .\r\nx.\r\n"),
        ("dot at the end without a line end", "one\r\n."),
        ("dot line, then a reply", "one\r\n.\r\n+OK 3 messages\r\n-ERR\r\n"),
        ("no final line end", "one\r\ntwo"),
        ("final LF", "one\r\ntwo\n"),
        ("final CR", "one\r\ntwo\r"),
        ("final CRs", "one\r\ntwo\r\r\r"),
        ("final empty lines", "one\r\n\r\n\r\n\r\n"),
        ("empty body", ""),
        ("body of one octet", "x"),
        ("body of one dot", "."),
        ("body of empty lines", "\r\n\r\n\r\n"),
        ("bare LF", "one\n.two\n..\n.\nthree\n"),
        ("CRLF and LF by turns", "one\r\ntwo\nthree\r\n\n\r\n.\n.\r\n"),
        ("bare CR", "one\rtwo\r\nthree\r four\r\n"),
        ("bare CR before a dot", "one\r.two\r\nthree\r.\r\nfour\r\n"),
        ("CR CR LF", "one\r\r\ntwo\r\r\n.\r\r\n"),
        ("LF CR", "one\n\rtwo\n\r.three\n\r\n"),
        ("IMAP in the text", ")\r\na1 OK done\r\n* BYE see you\r\n* 1 FETCH (BODY[] {3}\r\n+ go on\r\nt1 NO\r\n"),
        ("UTF-8", "gr\u{fc}\u{df}e \u{1f4ec}\r\n"),
        ("tabs and trailing blanks", "one \t\r\n\ttwo  \r\n \r\n"),
        ("quotes and braces", "\"\\\" {12}\r\n(((\r\n{+}\r\n"),
    ];
    let mut samples: Vec<(String, Vec<u8>)> =
        text.iter().map(|(name, body)| ((*name).to_owned(), with(body))).collect();
    let mut add = |name: &str, octets: Vec<u8>| samples.push((name.to_owned(), octets));

    add("header without an empty line", b"Subject: odd\r\nFrom: a@example.com\r\n".to_vec());
    add("header without an end", b"Subject: odd\r\nFrom: a@example.com".to_vec());
    add("no header", b"\r\none\r\ntwo\r\n".to_vec());
    add("a line end and no more", b"\r\n".to_vec());
    add("one octet", b"x".to_vec());
    add("dot as first octet", b".Subject: odd\r\n\r\none\r\n".to_vec());
    add("header in bare LF", b"Subject: odd\nFrom: a@example.com\n\none\n.two\n".to_vec());
    add("folded header", b"Subject: odd\r\n\tand\r\n folded\r\nX:\r\n\r\none\r\n".to_vec());
    add("8-bit header", b"Subject: gr\xfc\xdfe\r\nFrom: \xe4@example.com\r\n\r\none\r\n".to_vec());
    add("every octet but NUL", [H.as_bytes(), &(1..=255).collect::<Vec<u8>>(), b"\r\n"].concat());
    for length in [998, 2_047, 100_000] {
        add(&format!("line of {length}"), with(&format!("{}\r\nafter\r\n", "x".repeat(length))));
    }
    add("long line of dots", with(&format!("{}\r\nafter\r\n", ".".repeat(20_000))));
    // Around the sizes at which buffers, windows and bounds are likely to end.
    for length in [16_383, 16_384, 16_385, 65_535, 65_536, 65_537] {
        add(&format!("{length} octets"), ordinary(&format!("{length}"), 900)[..length].to_vec());
    }
    for kibibytes in [20, 70] {
        let header: String = (0..kibibytes * 16).map(|n| format!("X-{n:03}: {}\r\n", "y".repeat(56))).collect();
        add(&format!("header of {kibibytes} KiB"), format!("{header}\r\none\r\ntwo\r\nthree\r\n").into_bytes());
    }
    add("1 MB in lines", ordinary("1 MB", 13_000));
    add("1 MB in one line", with(&"z".repeat(1_000_000)));
    add("300 kB of dots", with(&".\r\n".repeat(100_000)));
    samples.into_iter().map(|(name, octets)| Sample { name, octets }).collect()
}

#[test]
fn normalising_is_what_the_vectors_say() {
    let vectors: [(&[u8], &[u8]); 9] = [
        (b"", b""),
        (b"A: b\r\n\r\n.\r\n", b"A: b\r\n\r\n.\r\n"),
        (b"A: b\n\n.x\n..y", b"A: b\r\n\r\n.x\r\n..y\r\n"),
        (b"x\r", b"x\r\n"),
        (b"A\r.b\r\n", b"A\r\n.b\r\n"),
        (b"a\r\r\n.\r\n", b"a\r\r\n.\r\n"),
        (b"\r\n.", b"\r\n.\r\n"),
        (b"\n", b"\r\n"),
        (b"a\rb", b"a\rb\r\n"),
    ];
    for (body, expected) in vectors {
        assert_eq!(normalised(body).escape_ascii().to_string(), expected.escape_ascii().to_string());
    }
}
