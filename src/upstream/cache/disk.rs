//! Listings in a directory, a file for each user of each place, so that they outlive the process. Whatever happens to the
//! directory costs a warning and the time to list anew, never a session: reading has its time, writing is nobody's way,
//! and a file that is not exactly what was written is removed. Several processes may share it. Not here: what stands in a
//! file.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fmt::Display,
    fs::{self, DirBuilder, File, OpenOptions},
    hash::{BuildHasher, Hasher, RandomState},
    io::{self, ErrorKind, Read, Write},
    mem,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use aws_lc_rs::digest::{Context, SHA256};
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::{Key, Known, format};

/// A directory of listings.
pub(super) struct Disk {
    path: PathBuf,
    limit: u64,
    queue: Mutex<Queue>,
    /// At most one task, which writes what is in the queue.
    writer: TaskTracker,
    readers: Arc<Semaphore>,
    /// How many octets may be written before it must be looked again how many there are.
    room: AtomicU64,
    complained: Mutex<Option<Instant>>,
}

/// What is to be written, the newest for each key; `None` stands for a file to be removed.
#[derive(Default)]
struct Queue {
    waiting: BTreeMap<Key, Option<Arc<Known>>>,
    octets: usize,
    /// Somebody is about to look into it.
    is_watched: bool,
}

/// Why a directory cannot hold listings.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It is something else.
    #[error("{0}, which is not a directory")]
    Strange(PathBuf),
    /// Who can write there could make popgate believe what is not so, who can read learns names of users.
    #[error("{0}, which is open to others: its mode is {1:04o}")]
    Open(PathBuf, u32),
    /// The system refuses it.
    #[error("{0}, where nothing can be written: {1}")]
    Refused(PathBuf, io::Error),
}

/// Whether listings can be kept in the directory `path`, or in one that is made there together with its first file. Leaves
/// nothing behind: whoever asks may be somebody else than who will write.
pub fn usable(path: &Path) -> Result<(), Unusable> {
    let tried = match fs::metadata(path) {
        Ok(found) if !found.is_dir() => return Err(Unusable::Strange(path.to_owned())),
        Ok(found) if found.permissions().mode() & 0o077 != 0 => {
            return Err(Unusable::Open(path.to_owned(), found.permissions().mode() & 0o7777));
        }
        Ok(_) => {
            let file = path.join(format!("{:064x}.{}", 0, unfinished()));
            create(&file).and_then(|_| fs::remove_file(&file))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => make(path).and_then(|()| fs::remove_dir(path)),
        Err(error) => Err(error),
    };
    match tried {
        // It may be cleared later, and until then no session suffers.
        Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => Ok(()),
        tried => tried.map_err(|error| Unusable::Refused(path.to_owned(), error)),
    }
}

impl Disk {
    /// Keeps listings in the directory `path`, in files of `limit` octets in all. Must be called within a runtime.
    pub(super) fn new(path: PathBuf, limit: usize) -> Arc<Self> {
        let disk = Arc::new(Self {
            path,
            limit: limit as u64,
            queue: Mutex::new(Queue { is_watched: true, ..Queue::default() }),
            writer: TaskTracker::new(),
            readers: Arc::new(Semaphore::new(READERS)),
            room: AtomicU64::new(0),
            complained: Mutex::default(),
        });
        disk.writer.close();
        // The limit may have been a higher one when the files were written.
        let first = Arc::clone(&disk);
        disk.writer.spawn_blocking(move || {
            first.sweep(0).unwrap_or_else(|error| first.complain(&error));
            first.write_all();
        });
        disk
    }

    /// What the file says, if there is one and it says so in time.
    pub(super) async fn recall(self: &Arc<Self>, key: &Key) -> Option<Arc<Known>> {
        let read = async {
            let permit = Arc::clone(&self.readers).acquire_owned().await.ok()?;
            let (disk, key) = (Arc::clone(self), key.clone());
            let read = spawn_blocking(move || {
                let _permit = permit; // A disk that hangs holds so many threads and no more.
                disk.read(&key)
            });
            read.await.ok()?
        };
        let read = timeout(PATIENCE, read).await;
        read.unwrap_or_else(|slow| {
            self.complain(&slow);
            None
        })
    }

    /// Has this written, soon; or has the file removed.
    pub(super) fn keep(self: &Arc<Self>, key: Key, known: Option<Arc<Known>>) {
        let mut queue = self.queue();
        let octets = octets(&key, known.as_ref());
        if !queue.waiting.is_empty() && queue.octets + octets > QUEUE {
            return; // The disk is slow. What is missing there will be listed anew.
        }
        queue.octets += octets;
        if let Some((key, known)) = queue.waiting.remove_entry(&key) {
            queue.octets -= self::octets(&key, known.as_ref());
        }
        queue.waiting.insert(key, known);
        if !mem::replace(&mut queue.is_watched, true) {
            let disk = Arc::clone(self);
            self.writer.spawn_blocking(move || disk.write_all());
        }
    }

    /// Waits until everything has been written.
    pub(super) async fn written(&self) {
        self.writer.wait().await;
    }

    fn write_all(&self) {
        loop {
            let mut queue = self.queue();
            let Some((key, known)) = queue.waiting.pop_first() else {
                queue.is_watched = false;
                return;
            };
            queue.octets -= octets(&key, known.as_ref());
            drop(queue);
            let done = match known {
                Some(known) => self.write(&key, &known),
                None => remove(&self.file(&key)),
            };
            done.unwrap_or_else(|error| self.complain(&error));
        }
    }

    fn write(&self, key: &Key, known: &Known) -> io::Result<()> {
        let octets = format::encode(key, known);
        let (file, size) = (self.file(key), on_disk(octets.len() as u64));
        if size > self.limit {
            return remove(&file);
        }
        if self.room.load(Ordering::Relaxed) < size {
            self.sweep(size)?;
        }
        self.room.fetch_sub(size, Ordering::Relaxed);
        let new = file.with_extension(unfinished());
        // It need not survive the end of the system: what comes out torn then is seen to be so.
        let written =
            self.create(&new).and_then(|mut new| new.write_all(&octets)).and_then(|()| fs::rename(&new, &file));
        if written.is_err() {
            let _ = fs::remove_file(&new); // If there is one, and it can be removed: else a sweep does.
        }
        written
    }

    /// A new file; somebody may have cleared the directory away.
    fn create(&self, file: &Path) -> io::Result<File> {
        match create(file) {
            Err(error) if error.kind() == ErrorKind::NotFound => make(&self.path).and_then(|()| create(file)),
            created => created,
        }
    }

    fn read(&self, key: &Key) -> Option<Arc<Known>> {
        let file = self.file(key);
        let octets = match self.octets(&file) {
            Ok(octets) => octets,
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            Err(error) => {
                self.complain(&error);
                return None;
            }
        };
        let known = format::decode(key, &octets);
        if known.is_none() {
            match remove(&file) {
                Ok(()) => warn!(file = %file.display(), "this is not what was written there: it is removed"),
                Err(error) => self.complain(&error),
            }
        }
        known.map(Arc::new)
    }

    /// What stands in a file that is small enough; it has been used now.
    fn octets(&self, file: &Path) -> io::Result<Vec<u8>> {
        let mut octets = Vec::new();
        let file = File::open(file)?;
        if file.metadata()?.len() <= self.limit {
            (&file).take(self.limit).read_to_end(&mut octets)?;
            let _ = file.set_modified(SystemTime::now()); // At worst it goes earlier than it might.
        }
        Ok(octets)
    }

    /// Makes room for `wanted` octets, and somewhat more so that it need not be done each time, by removing those files
    /// that were neither written nor read for the longest time. What others have in the directory is left alone.
    fn sweep(&self, wanted: u64) -> io::Result<()> {
        let mut files = Vec::new();
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            entries => Some(entries?),
        };
        for entry in entries.into_iter().flatten() {
            let entry = entry?;
            let Some(kind) = kind(&entry.file_name()) else { continue };
            // One that is gone meanwhile needs none.
            let Ok(found) = entry.metadata() else { continue };
            let used = found.modified()?;
            match kind {
                Kind::Unfinished if used.elapsed().is_ok_and(|age| age > UNFINISHED) => remove(&entry.path())?,
                _ => files.push((used, on_disk(found.len()), entry.path())),
            }
        }
        files.sort_unstable();
        let free = wanted.max(self.limit / 8);
        let mut held: u64 = files.iter().map(|(_, octets, _)| octets).sum();
        for (_, octets, file) in files {
            if held + free <= self.limit {
                break;
            }
            remove(&file)?;
            held -= octets;
        }
        self.room.store(free, Ordering::Relaxed);
        Ok(())
    }

    /// Where a listing is kept. No letter of a name that somebody chose becomes part of a path.
    fn file(&self, (place, user): &Key) -> PathBuf {
        let mut hash = Context::new(&SHA256);
        hash.update(&(place.len() as u64).to_le_bytes());
        hash.update(place.as_bytes());
        hash.update(user.as_bytes());
        let name: String = hash.finish().as_ref().iter().map(|octet| format!("{octet:02x}")).collect();
        self.path.join(name + "." + LISTING)
    }

    /// Says what is wrong with the directory, now and then: every session may find it so.
    fn complain(&self, problem: &dyn Display) {
        let mut complained = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        if complained.is_none_or(|at| at.elapsed() > SILENCE) {
            *complained = Some(Instant::now());
            warn!(directory = %self.path.display(), %problem, "listings cannot be kept on disk");
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which of ours a file is.
enum Kind {
    Listing,
    /// It is being written, or the process ended while it was.
    Unfinished,
}

/// What a file is by its name; `None` if it is not ours.
fn kind(name: &OsStr) -> Option<Kind> {
    let (hash, kind) = name.to_str()?.split_once('.')?;
    let ours = hash.len() == 64 && hash.bytes().all(|octet| octet.is_ascii_hexdigit());
    match kind {
        _ if !ours => None,
        LISTING => Some(Kind::Listing),
        _ => kind.ends_with(NEW).then_some(Kind::Unfinished),
    }
}

/// What the name of a file ends with that is being written; nobody else's does, not even in another container.
fn unfinished() -> String {
    format!("{:016x}{NEW}", RandomState::new().build_hasher().finish())
}

fn create(file: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)
}

fn make(directory: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(directory)
}

/// Removes a file, which may be gone already.
fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// About as much memory as waiting takes.
fn octets(key: &Key, known: Option<&Arc<Known>>) -> usize {
    size_of::<Key>() + key.1.len() + known.map_or(0, |known| known.octets())
}

/// What a file of so many octets takes of a disk.
const fn on_disk(octets: u64) -> u64 {
    octets.next_multiple_of(4096)
}

const LISTING: &str = "listing";
const NEW: &str = ".new";

/// What waits may hold so much memory that nobody else needs any more.
const QUEUE: usize = 16 * 1024 * 1024;

/// Files that are read at a time.
const READERS: usize = 8;

/// Longer than a disk takes, and shorter than a mailbox takes to be listed that is worth it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Nobody writes for so long.
const UNFINISHED: Duration = Duration::from_secs(60 * 60);

/// So long nothing is said of a directory that was complained of.
const SILENCE: Duration = Duration::from_secs(10 * 60);

#[cfg(test)]
mod tests {
    use std::{process::Command, thread};

    use futures_util::future::join_all;
    use tempfile::TempDir;
    use tokio::{task::yield_now, time::advance};

    use super::*;
    use crate::mail::{Deletion, Message, Snapshot, Uid, UidValidity};

    fn known(messages: u32) -> Arc<Known> {
        let messages = (1..=messages).filter_map(Uid::new).map(|uid| Message { uid, octets: 100 });
        let listing = Snapshot::new(UidValidity::new(1), Deletion::Allowed, messages);
        Arc::new(Known::new(Arc::new(listing), None).unwrap())
    }

    fn key(user: &str) -> Key {
        ("here".into(), user.to_owned())
    }

    fn names(directory: &Path) -> Vec<String> {
        let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[tokio::test(start_paused = true)]
    async fn a_listing_outlives_the_process() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("listings");
        let disk = Disk::new(path.clone(), 1 << 20);
        assert_eq!(disk.recall(&key("tim")).await, None);
        for messages in [3, 300, 30] {
            disk.keep(key("tim"), Some(known(messages)));
        }
        disk.keep(key("tom"), Some(known(5)));
        disk.written().await;
        let disk = Disk::new(path.clone(), 1 << 20);
        assert_eq!(disk.recall(&key("tim")).await, Some(known(30)));
        assert_eq!(disk.recall(&key("Tim")).await, None);
        assert_eq!((names(&path).len(), mode(&path), mode(&disk.file(&key("tim")))), (2, 0o700, 0o600));
        disk.keep(key("tim"), None);
        disk.written().await;
        assert_eq!(disk.recall(&key("tim")).await, None);
        assert_eq!(disk.recall(&key("tom")).await, Some(known(5)));
        assert!(disk.complained.lock().unwrap().is_none());
    }

    /// F-33: what fails its check is ignored, never repaired.
    #[tokio::test(start_paused = true)]
    async fn what_was_not_written_there_is_removed() {
        let directory = TempDir::new().unwrap();
        let disk = Disk::new(directory.path().to_owned(), 1 << 20);
        let good = format::encode(&key("tim"), &known(3));
        let mut flipped = good.clone();
        flipped[30] ^= 1;
        let another = format::encode(&key("tom"), &known(3));
        for wrong in [&flipped, &good[..20], b"", &another, &vec![b' '; 2 << 20]] {
            fs::write(disk.file(&key("tim")), wrong).unwrap();
            assert_eq!(disk.recall(&key("tim")).await, None);
            assert!(names(directory.path()).is_empty());
        }
        fs::write(disk.file(&key("tim")), good).unwrap();
        assert_eq!(disk.recall(&key("tim")).await, Some(known(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn names_of_files_are_of_letters_and_digits() {
        let disk = Disk::new("d".into(), 0);
        let keys = [("a", "bc"), ("ab", "c"), ("a", "../../bc"), ("/", "."), ("", "abc"), ("a", "bc\u{e9}")];
        let mut files: Vec<_> = keys.map(|(place, user)| disk.file(&(place.into(), user.to_owned()))).into();
        assert!(files.iter().all(|file| file.parent() == Some(Path::new("d"))));
        assert!(files.iter().all(|file| matches!(kind(file.file_name().unwrap()), Some(Kind::Listing))), "{files:?}");
        files.sort();
        files.dedup();
        assert_eq!(files.len(), keys.len());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_used_for_the_longest_time_makes_room() {
        let directory = TempDir::new().unwrap();
        let disk = Disk::new(directory.path().to_owned(), 8 * 4096);
        disk.written().await;
        let at = |hours: u64| SystemTime::now() - Duration::from_secs(hours * 3600);
        let date =
            |file: &Path, hours| File::options().write(true).open(file).unwrap().set_modified(at(hours)).unwrap();
        for (user, hours) in ["a", "b", "c", "d", "e", "f", "g", "h"].into_iter().zip(2..) {
            disk.write(&key(user), &known(3)).unwrap();
            date(&disk.file(&key(user)), 20 - hours);
        }
        let (new, old) =
            (disk.file(&key("x")).with_extension(unfinished()), disk.file(&key("a")).with_extension("1.new"));
        for file in [&new, &old] {
            fs::write(file, "").unwrap();
        }
        date(&old, 2);
        let theirs = directory.path().join("theirs");
        fs::write(&theirs, [0; 100_000]).unwrap();
        date(&theirs, 100);
        assert!(disk.recall(&key("a")).await.is_some());
        disk.keep(key("i"), Some(known(3)));
        disk.keep(key("larger"), Some(known(40_000)));
        disk.written().await;
        for (user, kept) in [("a", true), ("b", false), ("c", true), ("h", true), ("i", true), ("larger", false)] {
            assert_eq!(disk.recall(&key(user)).await.is_some(), kept, "{user}");
        }
        assert!(new.exists() && !old.exists() && theirs.exists());

        // A lower limit holds from the start.
        date(&disk.file(&key("a")), 0);
        let disk = Disk::new(directory.path().to_owned(), 2 * 4096);
        disk.written().await;
        let left = names(directory.path()).into_iter().filter(|name| name.ends_with(LISTING)).count();
        assert_eq!(left, 1);
    }

    /// Whoever reads sees one listing or the other.
    #[tokio::test(start_paused = true)]
    async fn two_processes_write_the_same_file() {
        let directory = TempDir::new().unwrap();
        let disks = [(); 3].map(|()| Disk::new(directory.path().to_owned(), 1 << 20));
        let listings = [known(2_000), known(20)];
        disks[0].write(&key("tim"), &listings[0]).unwrap();
        thread::scope(|scope| {
            let writers: Vec<_> = (disks.iter().zip(&listings))
                .map(|(disk, listing)| scope.spawn(|| (0..200).for_each(|_| disk.write(&key("tim"), listing).unwrap())))
                .collect();
            let mut reads = 0;
            while reads < 100 || !writers.iter().all(|writer| writer.is_finished()) {
                let read = disks[2].read(&key("tim")).expect("a torn file");
                assert!(listings.contains(&read));
                reads += 1;
            }
        });
        assert_eq!(names(directory.path()).len(), 1, "a file was left half done");
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_bounded_and_the_newest_counts() {
        let directory = TempDir::new().unwrap();
        let disk = Disk::new(directory.path().to_owned(), 1 << 30);
        disk.written().await;
        disk.queue().is_watched = true; // The disk hangs.
        disk.keep(key("large"), Some(known(2_200_000)));
        disk.keep(key("tim"), Some(known(1)));
        assert_eq!(disk.queue().waiting.len(), 1);
        disk.write_all();
        disk.queue().is_watched = true;
        for messages in 1..=1_000 {
            disk.keep(key("tim"), Some(known(messages)));
        }
        assert_eq!(disk.queue().waiting.len(), 1);
        disk.write_all();
        assert_eq!(disk.queue().octets, 0);
        assert!(!disk.queue().is_watched);
        assert_eq!(disk.recall(&key("tim")).await, Some(known(1_000)));
        assert_eq!(disk.read(&key("large")).map(|known| known.listing().len()), Some(2_200_000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_directory_that_is_none_any_more_is_complained_of_once() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("listings");
        let disk = Disk::new(path.clone(), 1 << 20);
        fs::write(&path, "theirs").unwrap();
        let mut complained = None;
        for _ in 0..3 {
            disk.keep(key("tim"), Some(known(3)));
            disk.keep(key("tom"), None);
            disk.written().await;
            assert_eq!(disk.recall(&key("tim")).await, None);
            let at = *disk.complained.lock().unwrap();
            assert!(at.is_some() && complained.is_none_or(|before| before == at));
            complained = Some(at);
        }
        assert_eq!(fs::read(&path).unwrap(), b"theirs");
        fs::remove_file(&path).unwrap();
        disk.keep(key("tim"), Some(known(3)));
        disk.written().await;
        assert_eq!(disk.recall(&key("tim")).await, Some(known(3)), "it is well again");
    }

    /// A pipe that nobody writes to does not even open.
    #[tokio::test(start_paused = true)]
    async fn a_disk_that_hangs_is_not_waited_for() {
        let directory = TempDir::new().unwrap();
        let disk = Disk::new(directory.path().to_owned(), 1 << 20);
        disk.written().await;
        let pipe = directory.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        fs::hard_link(&pipe, disk.file(&key("tim"))).unwrap();
        let reads = (0..READERS + 1).map(|_| async { disk.recall(&key("tim")).await });
        let time = async {
            while disk.readers.available_permits() > 0 {
                yield_now().await;
            }
            // Time does not pass by itself while a thread is busy.
            advance(PATIENCE * 2).await;
        };
        let (read, ()) = tokio::join!(join_all(reads), time);
        // Threads begin in the order in which they are asked for.
        spawn_blocking(|| ()).await.unwrap();
        let free = disk.readers.available_permits();
        // They go on when somebody comes and goes who could write.
        while Arc::strong_count(&disk) > 1 {
            OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
            yield_now().await;
        }
        assert_eq!(read, vec![None; READERS + 1]);
        assert_eq!(free, 0, "more threads could hang");
        assert!(disk.complained.lock().unwrap().is_some());
    }

    #[test]
    fn a_directory_is_looked_at_and_left_as_it_is() {
        let directory = TempDir::new().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("file"), "").unwrap();
        make(&at("good")).unwrap();
        make(&at("open")).unwrap();
        fs::set_permissions(at("open"), PermissionsExt::from_mode(0o750)).unwrap();
        assert!(usable(&at("good")).is_ok());
        assert!(usable(&at("new")).is_ok());
        assert!(matches!(usable(&at("file")), Err(Unusable::Strange(_))));
        assert!(matches!(usable(&at("open")), Err(Unusable::Open(_, 0o750))));
        for name in ["nowhere/new", "file/new", ""] {
            let path = if name.is_empty() { PathBuf::new() } else { at(name) };
            assert!(matches!(usable(&path), Err(Unusable::Refused(..))), "{name}");
        }
        assert_eq!(names(directory.path()), ["file", "good", "open"]);
        assert!(names(&at("good")).is_empty());
    }
}
