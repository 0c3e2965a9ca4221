//! Whose command is carried out next, where several connections are served at once: so that a test can try every order in
//! which two sessions may meet in one mailbox.

use std::time::Duration;

use tokio::{sync::watch, time::timeout};

/// The order in which commands that begin with `UID` are carried out.
pub(crate) struct Turns {
    /// The connection that each turn belongs to, counted from 1.
    order: Vec<usize>,
    /// How many turns are over.
    over: watch::Sender<usize>,
}

impl Turns {
    pub(crate) fn new(order: Vec<usize>) -> Self {
        Self { order, over: watch::Sender::new(0) }
    }

    /// Waits for a turn of this connection's and takes it. A turn that nobody takes passes, and behind the last one nobody
    /// waits.
    pub(super) async fn take(&self, connection: usize) {
        let mut over = self.over.subscribe();
        loop {
            let turn = *over.borrow_and_update();
            if self.order.get(turn).is_none_or(|whose| *whose == connection) {
                self.over.send_replace(turn + 1);
                return;
            }
            if timeout(UNUSED, over.changed()).await.is_err() {
                self.over.send_if_modified(|over| {
                    let passes = *over == turn;
                    *over += usize::from(passes);
                    passes
                });
            }
        }
    }
}

/// A connection that has said nothing for so long, on a clock that stands still while anybody works, has nothing to say.
const UNUSED: Duration = Duration::from_millis(10);
