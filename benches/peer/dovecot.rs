//! Two Dovecots: the upstream, whose IMAP everybody fetches from and whose POP3 shows what can be had without
//! translation, and the peer, whose POP3 stands before another IMAP server as popgate does. Both are configured as fast
//! as their manual allows; the peer's settings were chosen by measuring, in `README.md` beside this.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use crate::support::{
    dovecot::{self, Owner},
    process,
};

/// Everybody's password at the upstream.
pub(crate) const PASSWORD: &str = "secret";

/// One running Dovecot; it stops when dropped, and all its files go.
pub(crate) struct Dovecot {
    child: Child,
    directory: TempDir,
    /// Where it speaks POP3.
    pub(crate) pop3_port: u16,
    /// Where it speaks IMAP, if it does.
    pub(crate) imap_port: u16,
    /// Where it speaks TLS from the first octet: IMAP, or the peer's POP3.
    pub(crate) tls_port: u16,
}

impl Dovecot {
    /// The server that has the mail. Any user exists; what stands behind the @ of a name makes no other mailbox.
    pub(crate) fn upstream() -> Self {
        Self::start(|root, owner, ports| common(root, owner) + &upstream(root, owner, ports))
    }

    /// The gateway to the IMAP server on this port.
    pub(crate) fn peer(imap_port: u16) -> Self {
        Self::start(|root, owner, ports| common(root, owner) + &peer(imap_port, ports))
    }

    fn start(configuration: impl Fn(&Path, &Owner, [u16; 3]) -> String) -> Self {
        let program = dovecot::installed().expect("Dovecot's IMAP and POP3 servers should be installed");
        let directory = tempfile::Builder::new().prefix("popgate-peer-").tempdir().unwrap();
        let root = directory.path();
        // Its processes run as several users and must be able to reach what is in here.
        fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
        let owner = Owner::of_mail();
        for folder in ["mail", "state"] {
            fs::create_dir(root.join(folder)).unwrap();
        }
        owner.own(&root.join("mail"));
        dovecot::write_certificates(root);
        let ports @ [pop3_port, imap_port, tls_port] = dovecot::free_ports();
        fs::write(root.join("dovecot.conf"), configuration(root, &owner, ports)).unwrap();
        let child = Command::new(program)
            .args(["-F", "-c"])
            .arg(root.join("dovecot.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(root.join("stderr")).unwrap())
            .spawn()
            .unwrap();
        let mut dovecot = Self { child, directory, pop3_port, imap_port, tls_port };
        let log = dovecot.directory.path().join("log");
        let started = process::wait_until(|| {
            let started = fs::read_to_string(&log).is_ok_and(|log| log.contains("starting up"));
            (started || dovecot.child.try_wait().unwrap().is_some()).then_some(started)
        });
        assert_eq!(started, Some(true), "{}", dovecot.log());
        dovecot
    }

    /// The certificate of whoever vouches for its own.
    pub(crate) fn ca(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Its first process, from which all others descend.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Removes the mailbox of a user who is not logged in.
    pub(crate) fn remove(&self, user: &str) {
        fs::remove_dir_all(self.directory.path().join("mail").join(user)).unwrap();
    }

    fn log(&self) -> String {
        let read = |name| fs::read_to_string(self.directory.path().join(name)).unwrap_or_default();
        read("stderr") + &read("log")
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        process::end(&mut self.child);
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().rev().take(20).collect();
            eprintln!("The end of Dovecot's log, last line first:\n{}", lines.join("\n"));
        }
    }
}

fn common(root: &Path, owner: &Owner) -> String {
    let (root, Owner { uid, gid, .. }, lines) = (root.display(), owner, owner.configuration());
    format!(
        "base_dir = {root}/run
state_dir = {root}/state
log_path = {root}/log
listen = 127.0.0.1
ssl = yes
ssl_cert = <{root}/server.pem
ssl_key = <{root}/server.key
disable_plaintext_auth = no
auth_mechanisms = plain login
first_valid_uid = 1
mail_uid = {uid}
mail_gid = {gid}
mail_home = {root}/mail/%u
mail_fsync = never
default_client_limit = 19000
default_process_limit = 100
default_vsz_limit = 2G
mail_max_userip_connections = 100000
auth_cache_size = 16M
auth_cache_ttl = 1 hour
service anvil {{
  client_limit = 19000
  # No delay for failed log-ins: all clients here share one address.
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service auth {{
  client_limit = 19000
  unix_listener auth-userdb {{
    mode = 0666
  }}
}}
service stats {{
  client_limit = 19000
}}
{lines}"
    )
}

fn upstream(root: &Path, owner: &Owner, [pop3, imap, imaps]: [u16; 3]) -> String {
    let (root, Owner { uid, gid, .. }) = (root.display(), owner);
    format!(
        "protocols = imap pop3
mail_location = sdbox:~/box
mail_save_crlf = yes
passdb {{
  driver = static
  args = password={PASSWORD}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={root}/mail/%n
}}
service imap-login {{
  service_count = 0
  process_min_avail = 2
  client_limit = 19000
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = {imaps}
    ssl = yes
  }}
}}
service imap {{
  service_count = 0
  process_limit = 8000
  process_min_avail = 2
  client_limit = 1
}}
service pop3-login {{
  service_count = 0
  process_min_avail = 2
  client_limit = 19000
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
service pop3 {{
  service_count = 0
  process_limit = 8000
  process_min_avail = 2
  client_limit = 1
}}
"
    )
}

fn peer(upstream: u16, [pop3, _, pop3s]: [u16; 3]) -> String {
    format!(
        "protocols = pop3
mail_location = imapc:~/imapc
imapc_host = 127.0.0.1
imapc_port = {upstream}
imapc_features = rfc822.size fetch-headers
mail_prefetch_count = 100
pop3_no_flag_updates = yes
pop3_fast_size_lookups = no
passdb {{
  driver = imap
  args = host=127.0.0.1 port={upstream}
  default_fields = userdb_imapc_user=%u userdb_imapc_password=%w
}}
userdb {{
  driver = prefetch
}}
service pop3-login {{
  service_count = 0
  process_min_avail = 2
  client_limit = 19000
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = {pop3s}
    ssl = yes
  }}
}}
service pop3 {{
  service_count = 0
  process_limit = 8000
  process_min_avail = 2
  client_limit = 1
}}
"
    )
}
