//! The memory of this program's processes, and of the agents that it sent into pods, as `/proc` says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// What an agent's process is called.
const AGENT: &str = "agent";

/// Most of what was seen while looking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Peak {
    /// All processes of the program together, bytes: command, lab, and what keeps the lab. A page that several of them
    /// share counts once; daemons of Open vSwitch and OVN, and what runs in pods, do not count.
    pub program: u64,
    /// The largest agent, bytes.
    pub agent: u64,
    /// Processes of the program at the last look.
    seen: BTreeSet<u32>,
}

impl Peak {
    /// Looks once more at a process and all that descend from it. Between its start and its own program a child has its
    /// parent's memory, which would count twice: a process that was not there the last time does not count yet, nor does one
    /// that is still in the same place as its parent.
    pub(crate) fn look(&mut self, root: u32) {
        let Some(program) = identity(std::process::id()) else { return };
        let mut sum = 0;
        let mut seen = BTreeSet::new();
        let parents = parents();
        for pid in family(root, &parents) {
            if identity(pid) == Some(program) {
                let borrowed = parents.get(&pid).is_some_and(|parent| share_memory(pid, *parent));
                if self.seen.contains(&pid) && !borrowed {
                    sum += number(pid, "smaps_rollup", "Pss:").unwrap_or_default();
                }
                seen.insert(pid);
            } else if fs::read_to_string(entry(pid, "comm")).is_ok_and(|name| name.trim() == AGENT) {
                self.agent = self.agent.max(number(pid, "status", "VmHWM:").unwrap_or_default());
            }
        }
        self.program = self.program.max(sum);
        self.seen = seen;
    }

    /// The larger of each.
    pub(crate) fn with(self, other: &Self) -> Self {
        let (program, agent) = (self.program.max(other.program), self.agent.max(other.agent));
        Self { program, agent, ..Self::default() }
    }
}

fn entry(pid: u32, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{name}"))
}

/// Device and inode of a process' program: its path may differ from one mount namespace to the next.
fn identity(pid: u32) -> Option<(u64, u64)> {
    fs::metadata(entry(pid, "exe")).ok().map(|file| (file.dev(), file.ino()))
}

/// Whether two processes' memory lies at the same addresses, which are random for every program that starts.
fn share_memory(one: u32, other: u32) -> bool {
    let first = |pid| fs::read_to_string(entry(pid, "maps")).ok()?.lines().next().map(str::to_owned);
    first(one).is_some_and(|one| Some(one) == first(other))
}

/// A number in KiB of one of a process' files, in bytes.
fn number(pid: u32, file: &str, field: &str) -> Option<u64> {
    let text = fs::read_to_string(entry(pid, file)).ok()?;
    kibibytes(&text, field).map(|number| number * 1024)
}

fn kibibytes(text: &str, field: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(field))?.split_whitespace().next()?.parse().ok()
}

/// Every process' parent. Processes come and go: one that cannot be read is gone.
fn parents() -> BTreeMap<u32, u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, parent(&fs::read_to_string(entry(pid, "stat")).ok()?)?))).collect()
}

/// The parent in a `stat` file. The process' name, in parentheses, may hold anything.
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// A process and all that descend from it.
fn family(root: u32, parents: &BTreeMap<u32, u32>) -> BTreeSet<u32> {
    let mut family = BTreeSet::from([root]);
    loop {
        let more: Vec<u32> = parents
            .iter()
            .filter(|(pid, parent)| family.contains(parent) && !family.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            return family;
        }
        family.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_has_all_generations_and_no_stranger() {
        let parents = BTreeMap::from([(1, 0), (10, 1), (11, 10), (12, 11), (20, 1), (5, 12)]);
        assert_eq!(family(10, &parents), BTreeSet::from([5, 10, 11, 12]));
        assert_eq!(parent("7 (a) b (c) S 42 1 1"), Some(42));
    }

    #[test]
    fn another_program_has_memory_of_its_own() {
        let own = std::process::id();
        let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let shared = share_memory(own, other.id());
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!((share_memory(own, own), shared), (true, false));
    }

    #[test]
    fn this_process_has_a_size() {
        let mut peak = Peak::default();
        peak.look(std::process::id());
        assert_eq!(peak.program, 0);
        peak.look(std::process::id());
        assert!((1 << 20..1 << 32).contains(&peak.program), "{peak:?}");
        assert_eq!(peak.agent, 0);
        assert_eq!(kibibytes("VmPeak:  7 kB\nVmHWM:\t  840 kB\n", "VmHWM:"), Some(840));
    }
}
