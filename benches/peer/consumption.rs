//! What a program and the processes that it has started take of the machine, as Linux counts it (`proc_pid_stat(5)`).

use std::fs;

/// Processor seconds since its start, of the process, of all that descend from it, and of those among them that have
/// ended and were waited for. Counted in hundredths of a second.
pub(crate) fn processor_seconds(root: u32) -> f64 {
    let processes = processes();
    let family = family(root, &processes);
    let ticks: u64 = processes.iter().filter(|process| family.contains(&process.id)).map(|process| process.ticks).sum();
    ticks as f64 / 100.0
}

/// Octets of memory, of the process and all that descend from it; what several share is counted once, in parts (PSS).
pub(crate) fn memory(root: u32) -> u64 {
    let rollup = |id: &u32| fs::read_to_string(format!("/proc/{id}/smaps_rollup")).unwrap_or_default();
    let pss = |rollup: String| {
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    family(root, &processes()).iter().map(rollup).map(pss).sum()
}

struct Process {
    id: u32,
    parent: u32,
    ticks: u64,
}

fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter_map(|id| process(id, &fs::read_to_string(format!("/proc/{id}/stat")).ok()?)).collect()
}

fn process(id: u32, stat: &str) -> Option<Process> {
    // The name may hold spaces and brackets; behind the last bracket comes the state, and then the parent.
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    // utime, stime, cutime, cstime
    let ticks = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Some(Process { id, parent: fields.get(1)?.parse().ok()?, ticks })
}

fn family(root: u32, processes: &[Process]) -> Vec<u32> {
    let mut family = vec![root];
    let mut at = 0;
    while let Some(&parent) = family.get(at) {
        family.extend(processes.iter().filter(|process| process.parent == parent).map(|process| process.id));
        at += 1;
    }
    family
}
