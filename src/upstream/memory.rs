//! The in-memory twin of an IMAP server.
