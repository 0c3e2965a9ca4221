//! See `tap_async_imap` in `src/fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| popgate::fuzzing::run("tap_async_imap", octets));
