//! popgate

pub mod config;
pub mod gateway;
pub mod mail;
pub mod net;
pub mod pop3;
pub mod telemetry;
pub mod upstream;
