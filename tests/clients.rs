//! Real mail programs, through popgate, on a real mailbox: what our own clients in the other tests could believe together
//! with popgate, and be wrong. Each reads all and deletes some; the mailbox is then looked at over IMAP.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

use crate::support::{
    dovecot::{Dovecot, PASSWORD},
    imap::Imap,
    messages::{self, normalised},
    process, row,
    serve::Popgate,
};

/// A mailbox of 200 mixed messages behind popgate, two of them flagged by another client.
struct Maildrop {
    dovecot: Dovecot,
    popgate: Popgate,
    imap: Imap,
    uids: Vec<u32>,
    /// As IMAP shows them.
    bodies: Vec<Vec<u8>>,
}

/// POP3 numbers of messages that another client flagged `\Deleted` and did not expunge. No client here deletes them.
const FLAGGED: [usize; 2] = [7, 151];

impl Maildrop {
    fn of_mixed(test: &str) -> Option<Self> {
        let maildrop = Self::of(test, &messages::mixed(200))?;
        let Self { mut imap, uids, .. } = maildrop;
        let flagged = FLAGGED.map(|number| uids[number - 1]);
        imap.command(&format!("UID STORE {},{} +FLAGS.SILENT (\\Deleted)", flagged[0], flagged[1]));
        Some(Self { imap, uids, ..maildrop })
    }

    fn of(test: &str, messages: &[Vec<u8>]) -> Option<Self> {
        let dovecot = Dovecot::start(test)?;
        let popgate = Popgate::serve(&format!("imap://127.0.0.1:{}", dovecot.imap_port), &[]);
        let mut imap = dovecot.imap("alice");
        let uids: Vec<u32> = messages.iter().map(|message| imap.append(message)).collect();
        let bodies = uids.iter().map(|&uid| imap.body(uid)).collect();
        Some(Self { dovecot, popgate, imap, uids, bodies })
    }

    /// Every message lies in `directory` under its number, octet for octet as POP3 must give it.
    fn assert_downloaded(&self, directory: &Path) {
        for (number, body) in (1..).zip(&self.bodies) {
            let got = fs::read(directory.join(number.to_string())).unwrap();
            let expected = normalised(body);
            let at = got.iter().zip(&expected).take_while(|(got, expected)| got == expected).count();
            let octets = (got.len(), expected.len());
            assert!(
                got == expected,
                "message {number} differs from octet {at} on; got {} octets, not {}",
                octets.0,
                octets.1
            );
        }
    }

    /// The messages of even number are gone, and nothing else has changed.
    fn assert_every_second_is_gone(mut self) {
        let kept: Vec<u32> = self.uids.iter().copied().step_by(2).collect();
        assert_eq!(self.imap.search("ALL"), kept);
        assert_eq!(self.imap.search("DELETED"), FLAGGED.map(|number| self.uids[number - 1]));
        for (&uid, body) in kept.iter().zip(self.bodies.iter().step_by(2)) {
            assert!(self.imap.body(uid) == *body, "UID {uid} has changed");
        }
        self.popgate.stop();
    }
}

#[test]
fn poplib_reads_all_and_deletes_half() {
    let Some(python) = program("clients::poplib_reads_all_and_deletes_half", "python3") else { return };
    let Some(maildrop) = Maildrop::of_mixed("clients::poplib_reads_all_and_deletes_half") else { return };
    let directory = TempDir::new().unwrap();
    let script = script("poplib_session.py");
    let port = maildrop.popgate.port.to_string();
    succeed(Command::new(python).arg(script).args([&port, "alice", PASSWORD]).arg(directory.path()));
    maildrop.assert_downloaded(directory.path());
    maildrop.assert_every_second_is_gone();
}

#[test]
fn poplib_sees_the_unique_ids_of_dovecots_own_pop3() {
    let Some(python) = program("clients::poplib_sees_the_unique_ids_of_dovecots_own_pop3", "python3") else { return };
    let Some(maildrop) = Maildrop::of_mixed("clients::poplib_sees_the_unique_ids_of_dovecots_own_pop3") else { return };
    let ids = |port: u16| {
        let mut command = Command::new(&python);
        succeed(command.arg(script("poplib_uidl.py")).args([&port.to_string(), "alice", PASSWORD]))
    };
    let ours = ids(maildrop.popgate.port);
    assert_eq!(ours.lines().count(), 200);
    assert_eq!(ours, ids(maildrop.dovecot.pop3_port));
}

#[test]
fn curl_lists_reads_and_deletes() {
    let Some(curl) = program("clients::curl_lists_reads_and_deletes", "curl") else { return };
    let Some(maildrop) = Maildrop::of_mixed("clients::curl_lists_reads_and_deletes") else { return };
    let url = |path: &str| format!("pop3://127.0.0.1:{}/{path}", maildrop.popgate.port);
    let curl = |arguments: &[&str]| {
        let user = format!("alice:{PASSWORD}");
        succeed(
            Command::new(&curl)
                .args(["--silent", "--show-error", "--max-time", "120", "--user", &user])
                .args(arguments),
        )
    };

    let list = curl(&[&url("")]);
    assert_eq!(list.lines().count(), 200);
    assert_eq!(list.lines().next().unwrap(), format!("1 {}", maildrop.bodies[0].len()));
    let mut theirs = maildrop.dovecot.pop3("alice");
    assert_eq!(curl(&["--request", "UIDL", &url("")]).lines().collect::<Vec<_>>(), theirs.list("UIDL"));
    assert_eq!(curl(&["--request", "TOP 2 0", &url("")]).as_bytes(), theirs.body("TOP 2 0"));
    // Both mechanisms that carry a password, with the initial response beside the command and after it.
    for mechanism in ["PLAIN", "LOGIN"] {
        for sasl_ir in ["--sasl-ir", "--no-sasl-ir"] {
            let options = format!("AUTH={mechanism}");
            assert_eq!(
                curl(&["--login-options", &options, sasl_ir, &url("2")]).as_bytes(),
                normalised(&maildrop.bodies[1])
            );
        }
    }

    let directory = TempDir::new().unwrap();
    curl(&["--output", &format!("{}/#1", directory.path().display()), &url("[1-200]")]);
    maildrop.assert_downloaded(directory.path());
    curl(&["--request", "DELE", "--head", &url("[2-200:2]")]);
    maildrop.assert_every_second_is_gone();
}

#[test]
fn curl_takes_tls_from_the_first_octet_and_by_stls() {
    const TEST: &str = "clients::curl_takes_tls_from_the_first_octet_and_by_stls";
    let Some(curl) = program(TEST, "curl") else { return };
    let Some(dovecot) = Dovecot::start(TEST) else { return };
    dovecot.imap("alice").append(b"Subject: one\r\n\r\n");
    let [certificate, key] = dovecot.identity().map(|path| path.display().to_string());
    let ca = dovecot.ca().display().to_string();
    let popgate = Popgate::start(
        &[
            &["serve", "--listen", "pop3s://127.0.0.1:0", "--listen", "pop3://127.0.0.1:0"][..],
            &["--upstream", &format!("imaps://localhost:{}", dovecot.imaps_port), "--upstream-ca", &ca],
            &["--set", &format!("tls.certificate={certificate}"), "--set", &format!("tls.key={key}")],
            // Nobody may log in without TLS: what succeeds below had it.
            &["--set", "login.plaintext_from=[]"],
        ]
        .concat(),
    );
    let user = format!("alice:{PASSWORD}");
    let list = |url: &str, options: &[&str]| {
        let mut command = Command::new(&curl);
        command.args(["--silent", "--show-error", "--max-time", "120", "--user", &user]).args(options).arg(url);
        command.output().unwrap()
    };
    let (pop3s, pop3) =
        (format!("pop3s://localhost:{}/", popgate.tls_port()), format!("pop3://localhost:{}/", popgate.port));
    for (url, options) in [(&pop3s, &["--cacert", &ca][..]), (&pop3, &["--ssl-reqd", "--cacert", &ca])] {
        let output = list(url, options);
        assert_success(&output);
        assert_eq!(output.stdout, b"1 16\r\n", "{url}");
        assert!(
            !list(url, &options[..options.len() - 2]).status.success(),
            "curl trusts nobody it was not told to trust"
        );
    }
    assert_eq!(list(&pop3, &[]).status.code(), Some(67), "without TLS, curl is not let in");
    popgate.stop();
}

#[test]
fn fetchmail_keeps_then_fetches_all() {
    const TEST: &str = "clients::fetchmail_keeps_then_fetches_all";
    let Some(fetchmail) = program(TEST, "fetchmail") else { return };
    let Some(mut maildrop) = Maildrop::of(TEST, &letters()) else { return };
    let home = TempDir::new().unwrap();
    let at = home.path();
    let delivery = at.join("delivery");
    fs::write(&delivery, format!("cat > \"$(mktemp -p {})\"\n", at.display())).unwrap();
    let run = |uidl: &str, options: &str| {
        let port = maildrop.popgate.port;
        let control = format!(
            "set invisible\npoll 127.0.0.1 protocol pop3 port {port} auth password {uidl} user \"alice\" password \"{PASSWORD}\" is \"root\" here \
             {options} sslproto \"\" mda \"sh {}\"\n",
            delivery.display()
        );
        let rc = at.join("fetchmailrc");
        fs::write(&rc, control).unwrap();
        fs::set_permissions(&rc, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let file = |option: &str, name: &str| format!("{option}={}", at.join(name).display());
        let mut command = Command::new(&fetchmail);
        command.env("HOME", at).args(["--nodetach", "--nosyslog", "--fetchmailrc"]).arg(&rc);
        command.args([file("--pidfile", "pid"), file("--idfile", "ids")]).output().unwrap()
    };
    assert_success(&run("uidl", "keep"));
    assert_delivered(at, "tmp.");
    assert_eq!(maildrop.imap.search("ALL"), maildrop.uids);
    assert_eq!(run("uidl", "keep").status.code(), Some(1), "fetchmail's way to say that there is no new mail");
    assert_success(&run("no uidl", "fetchall no keep"));
    assert!(maildrop.imap.search("ALL").is_empty());
    maildrop.popgate.stop();
}

#[test]
fn mpop_fetches_all_with_pipelining() {
    const TEST: &str = "clients::mpop_fetches_all_with_pipelining";
    let Some(mpop) = program(TEST, "mpop") else { return };
    let Some(mut maildrop) = Maildrop::of(TEST, &letters()) else { return };
    let home = TempDir::new().unwrap();
    let maildir = maildir(home.path());
    let mut command = Command::new(mpop);
    command.env("HOME", home.path()).args(["--host=127.0.0.1", &format!("--port={}", maildrop.popgate.port)]);
    command.args(["--tls=off", "--auth=user", "--user=alice", &format!("--passwordeval=echo '{PASSWORD}'")]);
    command.args(["--pipelining=on", "--keep=off", "--received-header=off"]);
    command.arg(format!("--uidls-file={}", home.path().join("uidls").display()));
    succeed(command.arg(format!("--delivery=maildir,{}", maildir.display())));
    assert_delivered(&maildir.join("new"), "");
    assert!(maildrop.imap.search("ALL").is_empty());
    maildrop.popgate.stop();
}

/// What mail programs that rewrite headers and line ends on delivery can be tried with.
fn letters() -> Vec<Vec<u8>> {
    let letter = |number: usize| {
        let mut letter = messages::ordinary(&format!("letter {number}"), number);
        letter.extend(b".\r\n..\r\n.hidden\r\n\r\nlast\r\n");
        letter
    };
    (1..=40).map(letter).collect()
}

/// The letters lie in `directory`, each in a file whose name begins like this. Programs add header fields above.
fn assert_delivered(directory: &Path, prefix: &str) {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    let files = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    let mut delivered: Vec<String> =
        files.map(|file| fs::read_to_string(file.path()).unwrap().replace('\r', "")).collect();
    for letter in letters() {
        let letter = String::from_utf8(letter).unwrap().replace('\r', "");
        let found = delivered.iter().position(|delivered| delivered.ends_with(&letter));
        delivered.swap_remove(found.unwrap_or_else(|| panic!("not delivered:\n{letter}among:\n{delivered:#?}")));
    }
    assert!(delivered.is_empty(), "delivered besides: {delivered:#?}");
}

fn maildir(home: &Path) -> PathBuf {
    let maildir = home.join("maildir");
    for folder in ["cur", "new", "tmp"] {
        fs::create_dir_all(maildir.join(folder)).unwrap();
    }
    maildir
}

/// Where a mail program is; without it, `test` is skipped.
fn program(test: &str, name: &str) -> Option<PathBuf> {
    let program = process::find(name);
    if program.is_none() {
        row::skip(test, &format!("{name} is not installed"));
    }
    program
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// Runs a program that must succeed; gives what it wrote.
fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_success(&output);
    String::from_utf8(output.stdout).unwrap()
}

fn assert_success(output: &Output) {
    let Output { status, stdout, stderr } = output;
    let (stdout, stderr) = (String::from_utf8_lossy(stdout), String::from_utf8_lossy(stderr));
    assert!(status.success(), "{status}\n{stdout}\n{stderr}");
}
