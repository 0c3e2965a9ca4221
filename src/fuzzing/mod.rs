//! What must hold for any octets at all: the bodies of the fuzz targets, in one place for the fuzzer (`fuzz/`) and for the
//! tests, which run them on the octets kept in `fuzz/corpus`. Each takes octets and panics if something does not hold. Not
//! part of the crate as others build it.

use std::fmt::Debug;

use crate::{net, pop3, upstream::imap};

mod config;
mod line;
mod stuffer;

/// A target: its name, and what it does with octets.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 7] = [
    ("pop3_line", pop3_line),
    ("sasl", pop3::fuzzing::sasl),
    ("stuffer", stuffer::stuffer),
    ("tap", tap),
    ("tap_async_imap", tap_async_imap),
    ("config", config::config),
    ("proxy_header", net::fuzzing::proxy_header),
];

/// Runs the target of that name.
pub fn run(name: &str, octets: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    target.unwrap_or_else(|| panic!("no target {name}")).1(octets);
}

/// Octets from a client: lines keep their limits, and a command that is written again is the same command.
fn pop3_line(octets: &[u8]) {
    same_however_cut(octets, line::commands);
    same_however_cut(octets, line::responses);
}

/// Octets from a server: what the tap makes of them, and how much it holds.
fn tap(octets: &[u8]) {
    for expected in imap::fuzzing::Expected::ALL {
        same_however_cut(octets, |pieces| imap::fuzzing::heard(pieces, expected));
    }
}

/// The same, with async-imap behind the tap: whatever the tap lets through can be parsed, one response a line.
fn tap_async_imap(octets: &[u8]) {
    let parsed = same_however_cut(octets, imap::fuzzing::parsed);
    let passed = imap::fuzzing::heard(&[octets], imap::fuzzing::Expected::Answers);
    assert_eq!(parsed, passed.lines());
}

/// What `seen` makes of the octets in one piece. It must make the same of single octets, and of pieces whose sizes are
/// drawn from the octets themselves: so an input is what was sent and nothing else, and can be read.
fn same_however_cut<T: PartialEq + Debug>(octets: &[u8], seen: impl Fn(&[&[u8]]) -> T) -> T {
    let whole = seen(&[octets]);
    let single: Vec<_> = octets.chunks(1).collect();
    assert_eq!(seen(&single), whole, "in single octets");
    let drawn = cut(octets);
    assert_eq!(seen(&drawn), whole, "in pieces of {:?}", drawn.iter().map(|piece| piece.len()).collect::<Vec<_>>());
    whole
}

/// Pieces of 1 to 64 octets, small ones above all; the sizes are drawn by FNV-1a from what is still to be cut.
fn cut(mut octets: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    while !octets.is_empty() {
        let seen = octets.iter().take(64);
        let drawn = seen
            .fold(0xcbf2_9ce4_8422_2325_u64, |drawn, octet| (drawn ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3));
        let most = 1 << (drawn >> 32 & 7).min(6);
        let size = 1 + (drawn >> 40) as usize % most;
        let (piece, rest) = octets.split_at(size.min(octets.len()));
        pieces.push(piece);
        octets = rest;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// What fuzzing has ever found worth keeping, and what clients and servers say.
    #[test]
    #[expect(clippy::print_stdout, reason = "the test's own counts")]
    fn corpora_are_replayed() {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for (name, target) in TARGETS {
            let directory = corpora.join(name);
            let files = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
            let (mut count, mut size) = (0, 0);
            for file in files {
                let file = file.unwrap().path();
                let octets = fs::read(&file).unwrap();
                let held = std::panic::catch_unwind(|| target(&octets));
                assert!(held.is_ok(), "{} does not hold", file.display());
                (count, size) = (count + 1, size + octets.len());
            }
            assert!(count > 0, "{} is empty", directory.display());
            println!("{name}: {count} inputs of {size} octets");
        }
    }

    /// Each target has its program, and there is none besides.
    #[test]
    fn each_target_can_be_fuzzed() {
        let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
        let mut found: Vec<_> =
            fs::read_dir(programs).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        found.sort();
        let mut expected: Vec<_> = TARGETS.iter().map(|(name, _)| format!("{name}.rs")).collect();
        expected.sort();
        assert_eq!(found, expected);
    }

    #[test]
    fn pieces_are_the_octets() {
        let octets: Vec<u8> = (0..=255).cycle().take(5000).collect();
        let pieces = cut(&octets);
        assert_eq!(pieces.concat(), octets);
        assert!(pieces.iter().any(|piece| piece.len() == 1) && pieces.iter().any(|piece| piece.len() > 40));
    }
}
