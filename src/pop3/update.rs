//! The UPDATE state (RFC 1939 §6): the changes are being made elsewhere, and what is left to do is to tell the outcome.

use super::reply::{Code, Reply};

/// A session in the UPDATE state (RFC 1939 §6). `+OK` is said only when the outcome is known to be good.
pub struct Leaving {
    marked: usize,
    left: usize,
}

impl Leaving {
    /// So many messages are marked as deleted, so many are not.
    pub(super) const fn new(marked: usize, left: usize) -> Self {
        Self { marked, left }
    }

    /// Everything was done, or there was nothing to do.
    pub fn done(&self) -> Reply {
        Reply::ok(format_args!("POP3 server signing off ({} messages left)", self.left))
    }

    /// So many messages may still be there.
    pub fn partly(&self, code: Code, left: usize) -> Reply {
        Reply::coded(code, format_args!("some deleted messages not removed ({left} of {})", self.marked))
    }

    /// The mailbox is not the one that was listed, so nothing was touched.
    pub fn changed(&self) -> Reply {
        Reply::coded(Code::SysTemp, "maildrop changed, nothing deleted")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_of_update() {
        let leaving = Leaving::new(5, 1);
        let cases = [
            (leaving.done(), "+OK POP3 server signing off (1 messages left)\r\n"),
            (leaving.partly(Code::SysTemp, 2), "-ERR [SYS/TEMP] some deleted messages not removed (2 of 5)\r\n"),
            (leaving.partly(Code::SysPerm, 5), "-ERR [SYS/PERM] some deleted messages not removed (5 of 5)\r\n"),
            (leaving.changed(), "-ERR [SYS/TEMP] maildrop changed, nothing deleted\r\n"),
        ];
        for (reply, expected) in cases {
            assert_eq!(reply.octets(), expected.as_bytes());
        }
    }
}
