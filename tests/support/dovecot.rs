//! A private Dovecot on free loopback ports: IMAP, IMAP over TLS and POP3 over the same mailboxes. Its configuration,
//! users, mail and certificate lie in a directory of its own that goes when it goes; no other Dovecot is touched.

use std::{
    fmt::Write as _,
    fs,
    net::TcpListener,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;

use super::{imap::Imap, pop3::Pop3, process, row};

/// Everybody's password. The spaces belong to it (RFC 1939 §7, PASS).
pub(crate) const PASSWORD: &str = "open sesame";

/// Whom Dovecot knows.
pub(crate) const USERS: [&str; 3] = ["alice", "bob", "carol"];

/// One running Dovecot; it stops when dropped.
pub(crate) struct Dovecot {
    child: Child,
    directory: TempDir,
    /// Where it speaks IMAP in the clear, and STARTTLS.
    pub(crate) imap_port: u16,
    /// Where it speaks IMAP over TLS.
    pub(crate) imaps_port: u16,
    /// Where it speaks POP3.
    pub(crate) pop3_port: u16,
}

impl Dovecot {
    /// Starts one, or says that `test` is skipped because there is none to start.
    pub(crate) fn start(test: &str) -> Option<Self> {
        let Some(program) = installed() else {
            row::skip(test, "Dovecot's IMAP and POP3 servers (dovecot-imapd, dovecot-pop3d) are not installed");
            return None;
        };
        // The ports are free when they are chosen and may be taken a moment later by another test: then Dovecot ends at
        // once, and other ports are tried.
        let mut words = String::new();
        for _ in 0..5 {
            match Self::try_start(&program) {
                Ok(dovecot) => return Some(dovecot),
                Err(log) => words = log,
            }
        }
        panic!("Dovecot does not start:\n{words}");
    }

    fn try_start(program: &Path) -> Result<Self, String> {
        let directory = tempfile::Builder::new().prefix("popgate-dovecot-").tempdir().unwrap();
        let root = directory.path();
        // Its processes run as several users and must be able to reach what is in here.
        fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
        write_certificates(root);
        let owner = Owner::of_mail();
        let [imap_port, imaps_port, pop3_port] = free_ports();
        fs::create_dir(root.join("mail")).unwrap();
        owner.own(&root.join("mail"));
        fs::write(root.join("users"), users(root, &owner)).unwrap();
        fs::write(root.join("dovecot.conf"), configuration(root, &owner, [imap_port, imaps_port, pop3_port])).unwrap();

        let child = Command::new(program)
            .args(["-F", "-c"])
            .arg(root.join("dovecot.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(root.join("stderr")).unwrap())
            .spawn()
            .unwrap();
        let mut dovecot = Self { child, directory, imap_port, imaps_port, pop3_port };
        // It says that it starts up when it has all its ports. That something listens there would not say that it is this
        // one.
        let log = dovecot.directory.path().join("log");
        let started = process::wait_until(|| {
            let started = fs::read_to_string(&log).is_ok_and(|log| log.contains("starting up"));
            (started || dovecot.child.try_wait().unwrap().is_some()).then_some(started)
        });
        if started != Some(true) {
            return Err(dovecot.log());
        }
        Ok(dovecot)
    }

    /// A line to it over IMAP, logged in as `user`, INBOX selected.
    pub(crate) fn imap(&self, user: &str) -> Imap {
        Imap::log_in(self.imap_port, user, PASSWORD)
    }

    /// A line to its own POP3 server, logged in as `user`.
    pub(crate) fn pop3(&self, user: &str) -> Pop3 {
        Pop3::log_in(self.pop3_port, user, PASSWORD)
    }

    /// The certificate that vouches for its own, as a PEM file.
    pub(crate) fn ca(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Its own certificate and key, as PEM files.
    pub(crate) fn identity(&self) -> [PathBuf; 2] {
        ["server.pem", "server.key"].map(|name| self.directory.path().join(name))
    }

    /// Puts `count` copies of a message into the mailbox of `user` without a server, for mailboxes too large to be filled
    /// over IMAP. Its lines end in LF, as maildirs have it. To be called before the first log-in of `user`.
    pub(crate) fn fill(&self, user: &str, message: &[u8], count: usize) {
        let maildir = self.directory.path().join("mail").join(user);
        let owner = Owner::of_mail();
        for folder in ["", "cur", "new", "tmp"] {
            fs::create_dir_all(maildir.join(folder)).unwrap();
            owner.own(&maildir.join(folder));
        }
        // Dovecot takes both sizes, as stored (S) and as sent (W), from the name and need not read the file.
        let lines = message.iter().filter(|&&octet| octet == b'\n').count();
        let sizes = format!("S={},W={}", message.len(), message.len() + lines);
        let mut file = PathBuf::new();
        for index in 0..count {
            let name = maildir.join("cur").join(format!("{}.M{index}.popgate,{sizes}:2,", 1_700_000_000 + index));
            // One file has many names, but no more than a file system allows.
            if index % 10_000 == 0 {
                fs::write(&name, message).unwrap();
                owner.own(&name);
                file = name;
            } else {
                fs::hard_link(&file, &name).unwrap();
            }
        }
    }

    /// What it said.
    pub(crate) fn log(&self) -> String {
        let read = |name| fs::read_to_string(self.directory.path().join(name)).unwrap_or_default();
        read("stderr") + &read("log")
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        process::end(&mut self.child);
        if std::thread::panicking() {
            row::say(&format!("Dovecot's log:\n{}", self.log()));
        }
    }
}

/// The program, if its IMAP and POP3 servers are there too.
pub(crate) fn installed() -> Option<PathBuf> {
    let program = process::find("dovecot")?;
    let servers = ["/usr/lib/dovecot", "/usr/libexec/dovecot", "/usr/local/libexec/dovecot"];
    servers
        .iter()
        .any(|servers| {
            ["imap", "imap-login", "pop3", "pop3-login"].iter().all(|name| Path::new(servers).join(name).exists())
        })
        .then_some(program)
}

/// Who owns the mail and runs the servers: as root, an unprivileged number for the mail (Dovecot refuses uid 0) and
/// Dovecot's own users for the rest; else whoever runs the tests, for everything.
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    root: bool,
}

impl Owner {
    pub(crate) fn of_mail() -> Self {
        use std::os::unix::fs::MetadataExt;
        let me = fs::metadata("/proc/self").unwrap();
        match me.uid() {
            0 => Self { uid: 5000, gid: 5000, root: true },
            uid => Self { uid, gid: me.gid(), root: false },
        }
    }

    pub(crate) fn own(&self, path: &Path) {
        chown(path, Some(self.uid), Some(self.gid)).unwrap();
    }

    /// What Dovecot must be told where it does not run as root.
    pub(crate) fn configuration(&self) -> String {
        if self.root {
            return String::new();
        }
        let name = |database: &str, id: u32| {
            let database = fs::read_to_string(database).unwrap_or_default();
            let of = |line: &str| line.split(':').nth(2) == Some(&id.to_string());
            let line = database.lines().find(|line| of(line)).unwrap_or_else(|| panic!("{id} has no name"));
            line.split(':').next().unwrap_or_default().to_owned()
        };
        let (user, group) = (name("/etc/passwd", self.uid), name("/etc/group", self.gid));
        let mut lines =
            format!("default_internal_user = {user}\ndefault_login_user = {user}\ndefault_internal_group = {group}\n");
        for service in ["anvil", "imap-login", "pop3-login"] {
            writeln!(lines, "service {service} {{\n  chroot =\n}}").unwrap();
        }
        lines
    }
}

fn users(root: &Path, owner: &Owner) -> String {
    let mut users = String::new();
    for user in USERS {
        let Owner { uid, gid, .. } = owner;
        writeln!(users, "{user}:{{PLAIN}}{PASSWORD}:{uid}:{gid}::{}::", root.join("mail").join(user).display())
            .unwrap();
    }
    users
}

fn configuration(root: &Path, owner: &Owner, [imap, imaps, pop3]: [u16; 3]) -> String {
    let root = root.display();
    let unprivileged = owner.configuration();
    format!(
        "base_dir = {root}/run
state_dir = {root}/state
log_path = {root}/log
protocols = imap pop3
listen = 127.0.0.1
mail_location = maildir:~
mail_max_userip_connections = 100
first_valid_uid = 1
ssl = yes
ssl_cert = <{root}/server.pem
ssl_key = <{root}/server.key
disable_plaintext_auth = no
auth_mechanisms = plain login
# Whom it believes where a client is.
login_trusted_networks = 127.0.0.0/8
# Neither the delay nor the penalty of a wrong password: tests give some on purpose.
auth_failure_delay = 0
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
passdb {{
  driver = passwd-file
  args = {root}/users
}}
userdb {{
  driver = passwd-file
  args = {root}/users
}}
service imap-login {{
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = {imaps}
    ssl = yes
  }}
}}
service pop3-login {{
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
{unprivileged}"
    )
}

/// A CA, and a certificate of its for `localhost` and 127.0.0.1.
pub(crate) fn write_certificates(root: &Path) {
    let mut ca = CertificateParams::new([]).unwrap();
    ca.distinguished_name.push(rcgen::DnType::CommonName, "popgate test CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let server = server.signed_by(&key, &ca).unwrap();
    fs::write(root.join("ca.pem"), ca.pem()).unwrap();
    fs::write(root.join("server.pem"), server.pem()).unwrap();
    fs::write(root.join("server.key"), key.serialize_pem()).unwrap();
}

/// Ports that are free now. All are held at once, so that they differ.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind(("127.0.0.1", 0)).unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

#[test]
fn what_goes_in_by_imap_comes_out_by_pop3() {
    let Some(dovecot) = Dovecot::start("support::dovecot::what_goes_in_by_imap_comes_out_by_pop3") else { return };
    let mut imap = dovecot.imap("alice");
    let messages: [&[u8]; 2] = [b"Subject: one\r\n\r\n.dot\r\n", b"Subject: two\r\n\r\n"];
    for message in messages {
        imap.append(message);
    }
    let mut pop3 = dovecot.pop3("alice");
    assert_eq!(pop3.command("STAT"), "+OK 2 38");
    assert_eq!(pop3.body("RETR 1"), messages[0]);
    assert_eq!(pop3.body("RETR 2"), messages[1]);
    assert_eq!(dovecot.pop3("bob").command("STAT"), "+OK 0 0");
    assert_eq!(imap.body(1), messages[0]);
}

#[test]
fn a_filled_maildir_is_a_mailbox() {
    let Some(dovecot) = Dovecot::start("support::dovecot::a_filled_maildir_is_a_mailbox") else { return };
    dovecot.fill("bob", b"Subject: one\n\nbody\n", 3);
    assert_eq!(dovecot.pop3("bob").command("STAT"), "+OK 3 66");
    assert_eq!(dovecot.imap("bob").search("ALL"), [1, 2, 3]);
    assert_eq!(dovecot.imap("bob").body(2), b"Subject: one\r\n\r\nbody\r\n");
}
