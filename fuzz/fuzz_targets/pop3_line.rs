//! See `pop3_line` in `src/fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| popgate::fuzzing::run("pop3_line", octets));
