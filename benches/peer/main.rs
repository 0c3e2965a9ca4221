//! popgate measured against its peer, Dovecot's POP3 before an IMAP server, against the upstream's own POP3 and against
//! IMAP without POP3, in one interleaved run on one machine: what counts is the ratio, for the figures themselves move
//! with the machine. Starts all that takes part, on this machine alone, and ends it.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot be made ends with a panic")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the figures are what it is run for")]
#![allow(unreachable_pub, reason = "a benchmark exports nothing")]

use std::time::Instant;

use clap::Parser as _;

use crate::{
    choice::Choice,
    figures::COLD,
    rows::{ROWS, Round},
    scene::{Scene, Target},
    sheet::Sheet,
};

mod choice;
mod consumption;
mod dovecot;
mod figures;
mod imap;
mod mail;
mod pop3;
#[allow(dead_code, reason = "the measurement of a second connection uses the rest")]
mod relay;
mod rows;
mod scene;
mod sheet;
#[path = "../../tests/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use the rest")]
mod support;

fn main() {
    let choice = Choice::parse();
    let begin = Instant::now();
    eprintln!("Starting the upstream, the peer and popgate, and filling the mailboxes:");
    let mut scene = Scene::set();
    let mailboxes = scene::mailboxes(&choice);
    for &(user, size) in &mailboxes {
        scene.fill(user, size);
    }
    for target in scene.targets.iter().filter(|target| choice.measures(target.name)) {
        eprintln!("Verifying every message through {} …", target.name);
        for (user, _) in mailboxes.iter().filter(|(_, size)| size.messages <= rows::VERIFIED) {
            rows::verify::verify(target, scene.mailbox(user));
        }
    }

    let mut sheet = Sheet::default();
    let repetitions = choice.repetitions();
    for row in ROWS.iter().filter(|row| choice.wants(row)) {
        for repetition in 0..repetitions {
            // Another one is the first each time.
            let targets = scene.targets.iter().cycle().skip(repetition as usize).take(scene.targets.len());
            let fit = |target: &&Target| choice.measures(target.name) && (row.cold || target.name != COLD);
            for target in targets.filter(fit) {
                let begun = Instant::now();
                (row.run)(&Round { scene: &scene, target, repetition, smoke: choice.smoke() }, &mut sheet);
                let (all, this) = (begin.elapsed().as_secs(), begun.elapsed().as_secs_f64());
                eprintln!("{all:4} s  {} {}/{repetitions} {}: {this:.1} s", row.name, repetition + 1, target.name);
            }
        }
        // After each row, so that a run that is broken off leaves what it has.
        if let Some(path) = &choice.json {
            sheet.write(path, choice.form());
        }
    }
    println!("{}", sheet.table(!choice.smoke()));
}
