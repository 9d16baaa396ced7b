//! What a process and its children have used, by `/proc`.

use std::{fs, path::Path};

use crate::process;

/// Processor time and memory so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// Time on a CPU, ns, of all living threads: user and system.
    pub(super) cpu_ns: u64,
    /// The same of the threads named `proxy-*`.
    pub(super) proxy_ns: u64,
    /// Clock ticks in user mode; only their share of both is exact enough to use.
    pub(super) user_ticks: u64,
    /// Clock ticks in system mode.
    pub(super) system_ticks: u64,
    /// Resident memory, bytes.
    pub(super) rss_bytes: u64,
}

impl Usage {
    /// Of a process and its children; `None` if it has ended.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let mut sum = Self::of_one(pid)?;
        // nginx: the master has workers, and no workers have workers.
        for child in process::children(pid) {
            if let Some(one) = Self::of_one(child.pid) {
                sum.cpu_ns += one.cpu_ns;
                sum.user_ticks += one.user_ticks;
                sum.system_ticks += one.system_ticks;
                sum.rss_bytes += one.rss_bytes;
            }
        }
        Some(sum)
    }

    fn of_one(pid: u32) -> Option<Self> {
        let home = Path::new("/proc").join(pid.to_string());
        let mut usage = Self::default();
        for task in fs::read_dir(home.join("task")).ok()? {
            let task = task.ok()?.path();
            // Linux, Documentation/scheduler/sched-stats.rst: the first number is time on a CPU in ns.
            let stat = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
            let ns = stat
                .split(' ')
                .next()
                .and_then(|text| text.parse().ok())
                .unwrap_or(0_u64);
            usage.cpu_ns += ns;
            let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
            if name.starts_with("proxy-") {
                usage.proxy_ns += ns;
            }
        }
        let stat = fs::read_to_string(home.join("stat")).ok()?;
        // proc(5): the command (field 2) may hold blanks and parentheses; utime and stime are fields 14 and 15.
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace().skip(11);
        usage.user_ticks = fields.next()?.parse().ok()?;
        usage.system_ticks = fields.next()?.parse().ok()?;
        let status = fs::read_to_string(home.join("status")).ok()?;
        usage.rss_bytes = resident(&status)?;
        Some(usage)
    }
}

/// What all CPUs of the machine have done so far, in clock ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Machine {
    /// At work for anybody, the kernel and its interrupts too.
    pub(super) busy: u64,
    /// With nothing to do, or taken away by the host.
    pub(super) idle: u64,
}

/// Clock ticks of a second (time(7)).
pub(super) const TICKS: f64 = 100.0;

impl Machine {
    pub(super) fn now() -> Option<Self> {
        Self::read(&fs::read_to_string("/proc/stat").ok()?)
    }

    /// proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal; guests are in user already.
    fn read(stat: &str) -> Option<Self> {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let all: Vec<u64> = line
            .split_ascii_whitespace()
            .map_while(|text| text.parse().ok())
            .collect();
        let [user, nice, system, idle, waiting, irq, softirq, steal, ..] = all[..] else {
            return None;
        };
        Some(Self {
            busy: user + nice + system + irq + softirq,
            idle: idle + waiting + steal,
        })
    }
}

/// `VmRSS` of a `/proc/<pid>/status`, in bytes.
fn resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    12 kB\n"), Some(12 * 1024));
        assert_eq!(resident("Name:\tx\n"), None);
    }

    #[test]
    fn the_work_of_the_machine_is_told_from_its_rest() {
        let stat = "cpu  1 2 4 8 16 32 64 128 1 1\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        let (busy, idle) = (103, 152);
        assert_eq!(Machine::read(stat), Some(Machine { busy, idle }));
        assert_eq!(Machine::read("cpu  1 2\n"), None);
    }

    #[test]
    fn this_process_uses_memory_and_a_processor() {
        let usage = Usage::of(std::process::id()).expect("we run");
        assert!(usage.rss_bytes > 0 && usage.cpu_ns > 0);
    }
}
