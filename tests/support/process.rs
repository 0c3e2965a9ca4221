//! Programs that tests start: finding them, waiting until they are ready, ending them. By process id, and only children of
//! this process: a child that was not waited for keeps its id, so no other process can be hit.

use std::{
    env,
    path::PathBuf,
    process::{Child, Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

/// How long a program may take to start or to end; generous, because it bounds a failure and no measurement.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a program is. The directories of system programs are looked into as well: they are not in everybody's PATH.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from));
    directories.map(|directory| directory.join(program)).find(|path| path.is_file())
}

/// Asks again and again, until there is something or it has taken too long.
pub(crate) fn wait_until<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask() {
            None if Instant::now() < deadline => thread::sleep(Duration::from_millis(10)),
            answer => return answer,
        }
    }
}

/// Asks a child to end (SIGTERM) and waits until it has; kills it if it does not.
pub(crate) fn end(child: &mut Child) -> ExitStatus {
    if let Some(status) = child.try_wait().unwrap() {
        return status;
    }
    signal(child, "TERM");
    wait_until(|| child.try_wait().unwrap()).unwrap_or_else(|| {
        child.kill().unwrap();
        child.wait().unwrap()
    })
}

/// Sends a signal by name to a child that was not yet waited for.
pub(crate) fn signal(child: &Child, name: &str) {
    // The standard library has no signals but KILL, and `kill` is a command of every POSIX shell.
    let status = Command::new("sh").args(["-c", "kill -s \"$1\" \"$2\"", "sh", name, &child.id().to_string()]).status();
    assert!(status.unwrap().success(), "kill -s {name} {}", child.id());
}
