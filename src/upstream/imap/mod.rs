//! IMAP mailboxes (RFC 3501).
