//! The integration tests: one binary, many files. `README.md` beside this file says how to write and how to run them.

#![allow(clippy::unwrap_used, reason = "a test's panic is its report")]
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

mod admin;
mod cache;
mod certificates;
mod check;
mod clients;
mod config;
mod cuts;
mod cves;
mod demo;
mod drain;
mod faults;
mod flood;
mod floors;
mod handshakes;
mod interleavings;
mod killed;
mod probe;
mod properties;
mod readme;
mod reload;
mod routes;
mod secrets;
mod servers;
mod sessions;
mod sparing;
mod starttls;
mod support;
mod swarm;
mod tls;
mod transcripts;
mod upstream;
mod warm;
