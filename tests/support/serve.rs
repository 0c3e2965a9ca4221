//! The popgate program itself, started as a user starts it and stopped as a service manager stops it.

use std::{
    env,
    ffi::OsString,
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{
    dovecot,
    overheard::forms_of,
    pop3::Pop3,
    process, row,
    script::{Manner, SECRETS, Server},
};
use tokio::net::TcpStream;

/// One running `popgate serve`; it is killed when dropped, and asked to end by [`stop`](Self::stop). Tests have it log
/// everything, and no secret may be in that.
pub(crate) struct Popgate {
    child: Child,
    log: Arc<Mutex<String>>,
    /// They read what it writes until it has ended.
    readers: Vec<JoinHandle<()>>,
    /// Where it speaks POP3, on 127.0.0.1.
    pub(crate) port: u16,
}

impl Popgate {
    /// Starts it in front of the server at this URL, on a port of its choice, with further arguments.
    pub(crate) fn serve(upstream: &str, arguments: &[&str]) -> Self {
        Self::start(&[&["serve", "--listen", "pop3://127.0.0.1:0", "--upstream", upstream], arguments].concat())
    }

    /// Starts it with these arguments, which make it listen on a port of its choice of 127.0.0.1.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::launch(Command::new(program()), arguments)
    }

    /// Starts it with these arguments where it may have so many descriptors and no more, by the program `prlimit`.
    pub(crate) fn cramped(prlimit: &Path, descriptors: usize, arguments: &[&str]) -> Self {
        let mut command = Command::new(prlimit);
        command.arg(format!("--nofile={descriptors}")).arg(program());
        Self::launch(command, arguments)
    }

    fn launch(mut command: Command, arguments: &[&str]) -> Self {
        command.args(arguments);
        // The configuration is what stands here, whatever the environment of the tests says.
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("POPGATE_")) {
            command.env_remove(name);
        }
        if cfg!(test) {
            // Whatever the test is about, the log is searched for secrets at its end. A file that says less has no say here.
            command.env("POPGATE_LOG__LEVEL", "trace");
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();

        let log = Arc::new(Mutex::new(String::new()));
        let (listening, port) = mpsc::channel();
        // It has nothing to say on standard output, and if it does, that is in the log as well.
        let (mut results, shared) = (child.stdout.take().unwrap(), Arc::clone(&log));
        let results = thread::spawn(move || {
            let mut text = String::new();
            let _ = results.read_to_string(&mut text);
            *shared.lock().unwrap() += &text;
        });
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let shared = Arc::clone(&log);
        let lines = thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some(port) = port_of(&line, "pop3") {
                    // Nobody waits any more once the first was told.
                    let _ = listening.send(port);
                }
                *shared.lock().unwrap() += &(line + "\n");
            }
        });
        let mut popgate = Self { child, log, readers: vec![results, lines], port: 0 };
        popgate.port = port.recv_timeout(Duration::from_secs(30)).expect("popgate should listen");
        popgate
    }

    /// A line to it, logged in.
    pub(crate) fn pop3(&self, user: &str, password: &str) -> Pop3 {
        Pop3::log_in(self.port, user, password)
    }

    /// Where it speaks POP3 over TLS, if its arguments name that before the port without.
    pub(crate) fn tls_port(&self) -> u16 {
        self.log().lines().find_map(|line| port_of(line, "pop3s")).expect("popgate should listen for TLS")
    }

    /// Where the administrator asks, if it was started with `admin.listen`.
    pub(crate) fn admin_port(&self) -> u16 {
        self.log().lines().find_map(|line| port_of(line, "http")).expect("popgate should listen for the administrator")
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What the system lets it have (`proc_pid_limits(5)`).
    pub(crate) fn limits(&self) -> String {
        fs::read_to_string(format!("/proc/{}/limits", self.child.id())).unwrap()
    }

    /// The most memory it has held at once since its start, in octets (`VmHWM`).
    pub(crate) fn peak_memory(&self) -> u64 {
        self.status("VmHWM")
    }

    /// Sets the peak back to what it holds now (`proc_pid_clear_refs(5)`), and gives that.
    pub(crate) fn forget_peak_memory(&self) -> u64 {
        fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
        self.status("VmRSS")
    }

    /// How long processors have worked for it (`proc_pid_stat(5)`), to a hundredth of a second.
    pub(crate) fn processor_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // Behind the name, which may be anything: state first, then numbers.
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let ticks = fields.split_ascii_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap());
        // USER_HZ is 100 wherever Linux runs.
        Duration::from_millis(10 * ticks.sum::<u64>())
    }

    /// What it has written to its log so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until its log holds `text`; gives what it has written so far.
    pub(crate) fn wait_for(&self, text: &str) -> String {
        process::wait_until(|| Some(self.log()).filter(|log| log.contains(text)))
            .unwrap_or_else(|| panic!("no {text:?} in the log"))
    }

    /// Sends it a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        process::signal(&self.child, name);
    }

    /// Asks it to end (SIGTERM); it must end with exit code 0. Gives its whole log.
    pub(crate) fn stop(mut self) -> String {
        let status = process::end(&mut self.child);
        assert_eq!(status.code(), Some(0), "popgate ended with {status} on SIGTERM");
        self.read_to_the_end();
        self.log()
    }

    /// It has ended.
    fn read_to_the_end(&mut self) {
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
    }

    fn status(&self, key: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        let kibibytes: u64 = line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap();
        kibibytes * 1024
    }
}

/// This build's program, or the one that `TESTED_PROGRAM` names: the image's, say, or one with another allocator.
fn program() -> OsString {
    env::var_os("TESTED_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_popgate").into())
}

impl Drop for Popgate {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
        if thread::panicking() {
            row::say(&format!("popgate's log:\n{}", self.log()));
            return;
        }
        self.read_to_the_end();
        let log = self.log();
        for secret in SECRETS.into_iter().chain([dovecot::PASSWORD]) {
            assert_eq!(forms_of(secret, &log), Vec::<String>::new(), "F-19");
        }
    }
}

/// The port in a log line `… listening … SCHEME://127.0.0.1:PORT …`.
fn port_of(line: &str, scheme: &str) -> Option<u16> {
    let (_, after) = line.contains("listening").then(|| line.split_once(&format!("{scheme}://127.0.0.1:")))??;
    after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The scripted server on a port of 127.0.0.1, each of its connections on a thread, and its URL.
pub(crate) fn scripted(manner: Manner) -> (Server, String) {
    let server = Server::fixture(manner);
    let url = on_a_port(&server);
    (server, url)
}

/// The same for a server that is there already; gives its URL.
pub(crate) fn on_a_port(server: &Server) -> String {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("imap://{}", port.local_addr().unwrap());
    let serving = server.clone();
    thread::spawn(move || {
        for line in port.incoming().map_while(Result::ok) {
            let server = serving.clone();
            thread::spawn(move || {
                line.set_nonblocking(true).unwrap();
                line.set_nodelay(true).unwrap();
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async { server.serve(TcpStream::from_std(line).unwrap()).await })
            });
        }
    });
    url
}
