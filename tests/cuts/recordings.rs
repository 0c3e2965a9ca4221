//! The sessions that are cut: what the client says, what the server is like and what it holds. A line of a script is sent
//! at once; ` | ` parts the commands in it. Behind STLS everything is said within TLS, if it comes to that.

use std::sync::Arc;

use popgate::{
    gateway::{Lock, Maildrops, Seen},
    upstream::imap::{self, Deleted, OnDelete},
};

use crate::support::{
    chat::stuffed,
    script::{Account, Content, Mailbox, Manner, Order, Upgrade, What},
    tls,
};

/// Which lines are TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tls {
    Nowhere,
    /// Both, from the first octet on.
    Everywhere,
    /// The one to the server, once it is asked for.
    Upstream,
    /// The client's, once it asks for it.
    Client,
}

/// One session.
pub(super) struct Recording {
    pub(super) name: &'static str,
    pub(super) script: &'static str,
    /// What the client says in the session before, if there is one: it looks, and changes nothing.
    pub(super) look: &'static str,
    pub(super) manner: Manner,
    pub(super) account: Account,
    /// The octets of each message, and what RETR shows of them.
    pub(super) contents: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) change: fn(&mut imap::Settings, &mut Maildrops),
    /// It is about what a server says to a log-in, so a line that was kept is no use.
    pub(super) needs_new_line: bool,
    /// Messages stay where they are, whatever is deleted.
    pub(super) keeps: bool,
    /// What another client expunges meanwhile.
    pub(super) expunged: Option<u32>,
    pub(super) tls: Tls,
}

impl Recording {
    fn new(name: &'static str, script: &'static str) -> Self {
        let account = account(&[120, 200, 300]);
        let manner = Manner::default();
        let contents = contents(&account);
        let look = "USER tim\nPASS sec ret\nUIDL\nQUIT";
        let change: fn(&mut imap::Settings, &mut Maildrops) = |_, _| {};
        Self {
            name,
            script,
            look,
            manner,
            account,
            contents,
            change,
            needs_new_line: false,
            keeps: false,
            expunged: None,
            tls: Tls::Nowhere,
        }
    }

    /// Whether there is very much to cut.
    pub(super) fn is_long(&self) -> bool {
        self.contents.iter().any(|(octets, _)| octets.len() > 10_000) && self.tls == Tls::Nowhere
    }

    /// Whether the server itself loses a line.
    pub(super) fn loses_line(&self) -> bool {
        self.manner.deviations.iter().any(|deviation| matches!(deviation.what, What::Close | What::Cut(_)))
    }

    fn manner(self, manner: Manner) -> Self {
        Self { manner, ..self }
    }

    fn before(mut self, before: &str) -> Self {
        self.manner.before = before.into();
        self
    }

    fn after(mut self, after: &str) -> Self {
        self.manner.after = after.into();
        self
    }

    fn without(mut self, capabilities: &[&str]) -> Self {
        self.manner = self.manner.without(capabilities);
        self
    }

    fn deviating(mut self, on: &str, what: What) -> Self {
        self.manner = self.manner.deviating(on, 1, what);
        self
    }

    fn holding(self, octets: &[u64]) -> Self {
        let account = account(octets);
        Self { contents: contents(&account), account, ..self }
    }

    fn inbox(mut self, change: impl FnOnce(&mut Mailbox)) -> Self {
        change(&mut self.account.mailboxes[0]);
        self
    }

    fn change(self, change: fn(&mut imap::Settings, &mut Maildrops)) -> Self {
        Self { change, ..self }
    }
}

/// The fixture FX with messages of these sizes at the UIDs 5, 7, 9 and so on. Each says which it is, in a line that begins
/// with a dot.
fn account(octets: &[u64]) -> Account {
    let mut account = Account::fixture();
    let inbox = &mut account.mailboxes[0];
    inbox.messages.clear();
    for (index, octets) in octets.iter().enumerate() {
        inbox.uid_next = 5 + 2 * index as u32;
        let mut content = Content::Filler(*octets).octets();
        content.splice(40..40, format!("\r\n.{}\r\n", inbox.uid_next).into_bytes());
        inbox.deliver(Content::new(content));
    }
    inbox.uid_next = 99;
    account
}

fn contents(account: &Account) -> Vec<(Vec<u8>, Vec<u8>)> {
    let octets = account.mailboxes[0].messages.iter().map(|message| message.content.octets());
    octets.map(|octets| (octets.clone(), stuffed(&octets))).collect()
}

/// What is cut by TLS records.
pub(super) fn over_tls() -> Vec<Recording> {
    let script = "USER tim\nPASS sec ret\nUIDL\nRETR 1\nRETR 2 | DELE 1 | DELE 3\nQUIT";
    let upgrade: Upgrade = Arc::new(|line| Box::pin(tls::accept(line)));
    let offering = Manner { upgrade: Some(upgrade), ..Manner::default() };
    vec![
        Recording { tls: Tls::Everywhere, ..Recording::new("over TLS", script).holding(&[120, 70_000, 300]) },
        Recording { tls: Tls::Upstream, ..Recording::new("STARTTLS", script) }
            .manner(offering)
            .before("IMAP4rev1 STARTTLS AUTH=PLAIN"),
        Recording {
            tls: Tls::Client,
            look: "STLS\nUSER tim\nPASS sec ret\nUIDL\nQUIT",
            ..Recording::new("STLS", "CAPA\nSTLS\nUSER tim\nPASS sec ret\nUIDL\nRETR 1\nRETR 2 | DELE 1 | DELE 3\nQUIT")
        },
    ]
}

/// All of them.
pub(super) fn recordings() -> Vec<Recording> {
    let of = Recording::new;
    let everything = "USER tim\nPASS sec ret\nLIST\nRETR 1\nTOP 2 1\nDELE 1\nRETR 3\nDELE 3\nQUIT";
    let deleting = "USER tim\nPASS sec ret\nDELE 1\nDELE 3\nQUIT";
    let ghost = "USER tim\nPASS sec ret\nRETR 2\nRETR 1\nDELE 2\nDELE 1\nQUIT";
    vec![
        of("log in by PLAIN", "USER tim\nPASS sec ret\nSTAT\nQUIT"),
        of("log in, telling the address", "USER tim\nPASS sec ret\nSTAT\nQUIT")
            .change(|_, maildrops| maildrops.send_client_address = true),
        of("log in by LOGIN", "USER tim\nPASS sec ret\nSTAT\nQUIT").before("IMAP4rev1"),
        of("log in by PLAIN in two steps", "USER tim\nPASS sec ret\nSTAT\nQUIT").before("IMAP4rev1 AUTH=PLAIN"),
        of("log in by SASL PLAIN", "CAPA\nAUTH PLAIN\nAHRpbQBzZWMgcmV0\nSTAT\nQUIT"),
        Recording {
            look: "AUTH XOAUTH2 dXNlcj10aW0BYXV0aD1CZWFyZXIgeWEyOS5LYW5hcmllbi1UAQE=\nUIDL\nQUIT",
            ..of("log in by XOAUTH2", "AUTH XOAUTH2 dXNlcj10aW0BYXV0aD1CZWFyZXIgeWEyOS5LYW5hcmllbi1UAQE=\nSTAT\nQUIT")
        },
        Recording {
            needs_new_line: true,
            ..of("a token that is refused", "AUTH XOAUTH2 dXNlcj10aW0BYXV0aD1CZWFyZXIgWAEB\n\nQUIT")
        },
        of("a password that is refused", "USER tim\nPASS wrong\nUSER tim\nPASS sec ret\nSTAT\nQUIT"),
        Recording { needs_new_line: true, ..of("refused for a while", "USER tim\nPASS sec ret\nQUIT") }
            .deviating("AUTHENTICATE", What::No("[UNAVAILABLE] Too many simultaneous connections.".into())),
        of("empty", "USER tim\nPASS sec ret\nSTAT\nLIST\nUIDL\nQUIT").holding(&[]),
        of("three small messages", "USER tim\nPASS sec ret\nUIDL\nLIST\nRETR 1\nRETR 2\nRETR 3\nQUIT"),
        of("a large message", "USER tim\nPASS sec ret\nRETR 2\nRETR 1\nDELE 2\nQUIT").holding(&[120, 70_000, 300]),
        of("TOP of small messages", "USER tim\nPASS sec ret\nTOP 1 0\nTOP 2 2\nTOP 3 99999\nQUIT"),
        of("TOP by windows", "USER tim\nPASS sec ret\nTOP 2 0\nTOP 2 400\nQUIT").holding(&[120, 70_000, 300]),
        of("listings", "USER tim\nPASS sec ret\nSTAT\nLIST\nLIST 2\nDELE 2\nUIDL\nUIDL 3\nLIST\nNOOP\nCAPA\nRSET\nQUIT"),
        of("expunged", deleting),
        of("expunged without ESEARCH", deleting).without(&["ESEARCH"]),
        of("moved to the trash", deleting).without(&["UIDPLUS"]),
        of("hidden by a keyword", deleting).without(&["UIDPLUS", "MOVE", "ESEARCH", "SPECIAL-USE"]),
        Recording { keeps: true, ..of("deleted for this session only", deleting) }
            .change(|upstream, _| upstream.on_delete = Some(OnDelete::Ignore)),
        of("RSET", "USER tim\nPASS sec ret\nDELE 1\nRETR 2\nRSET\nDELE 3\nQUIT"),
        of("all in TRANSACTION at once", "USER tim\nPASS sec ret\nRETR 1 | DELE 1 | RETR 3 | DELE 3 | QUIT"),
        of("a large message, and QUIT at once", "USER tim\nPASS sec ret\nRETR 2 | DELE 2 | QUIT")
            .holding(&[120, 70_000, 300]),
        of("all at once", "USER tim | PASS sec ret | RETR 1 | DELE 1 | RETR 2 | RETR 3 | DELE 3 | QUIT"),
        of("fetched one after another", "USER tim\nPASS sec ret\nRETR 1\nRETR 2\nRETR 3\nRETR 4\nRETR 5\nDELE 4\nQUIT")
            .holding(&[120, 900, 150, 90, 200]),
        of("line lost before a message", everything).deviating("UID FETCH 5 ", What::Close),
        // Alone, or with the next one where that is fetched ahead.
        of("line lost within a message", everything).deviating("UID FETCH 7", What::Cut(100)),
        of("line lost in the update", everything).deviating("UID STORE", What::Cut(0)),
        Recording { expunged: Some(7), ..of("expunged by another client", ghost) }
            // When its body is asked for: if it were gone before, the numbers of the listing would be others.
            .deviating("UID FETCH 7 (BODY", What::Act(Arc::new(|account| account.mailboxes[0].expunge(7)))),
        of("new mail meanwhile", everything).deviating(
            "UID FETCH 5 ",
            What::Act(Arc::new(|account| {
                account.mailboxes[0].deliver(Content::Filler(80));
            })),
        ),
        of("flagged by another client", everything)
            .inbox(|inbox| inbox.flag(7, "\\Deleted"))
            .change(|upstream, _| upstream.deleted = Deleted::Own),
        of("flagged as seen at once", everything).change(|_, maildrops| maildrops.seen = Seen::Retr),
        of("one session per user", everything).change(|_, maildrops| maildrops.lock = Lock::Gateway),
        of("a server that must be asked", everything).manner(Manner { tells: false, ..Manner::default() }),
        of("like Gmail", everything)
            .before("IMAP4rev1 UNSELECT IDLE NAMESPACE QUOTA ID XLIST CHILDREN X-GM-EXT-1 XYZZY SASL-IR AUTH=XOAUTH2 AUTH=PLAIN AUTH=PLAIN-CLIENTTOKEN AUTH=OAUTHBEARER")
            .after("IMAP4rev1 UNSELECT IDLE NAMESPACE QUOTA ID XLIST CHILDREN X-GM-EXT-1 UIDPLUS COMPRESS=DEFLATE ENABLE MOVE CONDSTORE ESEARCH UTF8=ACCEPT LIST-EXTENDED LIST-STATUS LITERAL- SPECIAL-USE APPENDLIMIT=35651584"),
        of("like Exchange", everything)
            .manner(Manner { uid_last: true, ..Manner::default() })
            .before("IMAP4 IMAP4rev1 AUTH=PLAIN AUTH=XOAUTH2 SASL-IR UIDPLUS MOVE ID UNSELECT CHILDREN IDLE NAMESPACE LITERAL+")
            .after("IMAP4 IMAP4rev1 AUTH=PLAIN AUTH=XOAUTH2 SASL-IR UIDPLUS MOVE ID UNSELECT CLIENTACCESSRULES CLIENTNETWORKPRESENCELOCATION BACKENDAUTHENTICATE CHILDREN IDLE NAMESPACE LITERAL+"),
        of("like Dovecot", everything)
            .manner(Manner { order: Order::Fours, ..Manner::default() })
            .before("IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE LITERAL+ AUTH=PLAIN AUTH=LOGIN")
            .after("IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE SORT THREAD=REFERENCES MULTIAPPEND URL-PARTIAL CATENATE UNSELECT CHILDREN NAMESPACE UIDPLUS LIST-EXTENDED I18NLEVEL=1 CONDSTORE QRESYNC ESEARCH ESORT SEARCHRES WITHIN CONTEXT=SEARCH LIST-STATUS BINARY MOVE SNIPPET=FUZZY PREVIEW=FUZZY STATUS=SIZE SAVEDATE LITERAL+ NOTIFY SPECIAL-USE"),
        of("like Cyrus", everything)
            .before("IMAP4rev1 LITERAL+ ID ENABLE AUTH=PLAIN SASL-IR")
            .after("IMAP4rev1 LITERAL+ ID ENABLE ACL ANNOTATE-EXPERIMENT-1 BINARY CATENATE CHILDREN CONDSTORE CREATE-SPECIAL-USE ESEARCH ESORT LIST-EXTENDED LIST-METADATA LIST-MYRIGHTS LIST-STATUS MAILBOX-REFERRALS METADATA MOVE MULTIAPPEND NAMESPACE OBJECTID PREVIEW QRESYNC QUOTA RIGHTS=kxten SAVEDATE SEARCH=FUZZY SORT SPECIAL-USE STATUS=SIZE THREAD=REFERENCES UIDPLUS UNSELECT WITHIN IDLE"),
        of("like Yahoo", everything)
            .before("IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=XOAUTH2 AUTH=OAUTHBEARER ID MOVE NAMESPACE XYMHIGHESTMODSEQ UIDPLUS LITERAL+ CHILDREN X-MSG-EXT UNSELECT OBJECTID")
            .after("IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=XOAUTH2 AUTH=OAUTHBEARER ID MOVE NAMESPACE XYMHIGHESTMODSEQ UIDPLUS LITERAL+ CHILDREN X-MSG-EXT UNSELECT OBJECTID"),
        of("like Courier", everything)
            .before("IMAP4rev1 UIDPLUS CHILDREN NAMESPACE THREAD=ORDEREDSUBJECT THREAD=REFERENCES SORT QUOTA IDLE AUTH=PLAIN")
            .after("IMAP4rev1 UIDPLUS CHILDREN NAMESPACE THREAD=ORDEREDSUBJECT THREAD=REFERENCES SORT QUOTA IDLE ACL ACL2=UNION")
            .inbox(|inbox| inbox.tells_uid_next = false),
    ]
}
