//! Checks of the kernel and of what this process may do.

use super::{Finding, Reading};

/// Oldest kernel that is tested.
const OLDEST: (u32, u32) = (6, 1);
/// First kernel with tcx links.
const TCX: (u32, u32) = (6, 6);
/// Capabilities that loading, attaching and routing take (linux/capability.h), and their names.
const CAPABILITIES: [(u32, &str); 3] =
    [(12, "CAP_NET_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];
/// Capability that stands for the last two.
const SYS_ADMIN: u32 = 21;
/// What the maps take in their default sizes, with room for the agent, in bytes.
const MEMORY: u64 = 512 << 20;

pub(super) fn judge(reading: &Reading) -> Vec<Finding> {
    let mut findings = vec![version(reading), tcx(reading), btf(reading), jit(reading)];
    findings.extend([bpffs(reading), capabilities(reading), memory(reading)]);
    findings
}

fn version(reading: &Reading) -> Finding {
    let check = "kernel";
    let read = format!("Linux {}", reading.release);
    match reading.version {
        Some(version) if version < OLDEST => Finding::fail(
            check,
            read,
            format!("boot Linux {}.{} or later", OLDEST.0, OLDEST.1),
        ),
        Some(_) => Finding::ok(
            check,
            format!("{read}: sk_lookup, XDP links and batch operations"),
        ),
        None => Finding::unknown(check, format!("{read}: no version in it")),
    }
}

fn tcx(reading: &Reading) -> Finding {
    match reading.version {
        Some(version) if version < TCX => Finding::warn(
            "tcx",
            "no tcx links: TC is a filter of the clsact qdisc, which whoever clears the qdisc removes",
            "nothing has to be done; Linux 6.6 or later has links",
        ),
        Some(_) => Finding::ok("tcx", "tcx links"),
        None => Finding::unknown("tcx", "the kernel's version is unknown"),
    }
}

fn btf(reading: &Reading) -> Finding {
    if reading.btf {
        return Finding::ok("btf", "/sys/kernel/btf/vmlinux");
    }
    Finding::warn(
        "btf",
        "no /sys/kernel/btf/vmlinux",
        "boot a kernel with CONFIG_DEBUG_INFO_BTF=y, which every distribution's has",
    )
}

fn jit(reading: &Reading) -> Finding {
    match reading.jit {
        Some(0) => Finding::warn(
            "jit",
            "net.core.bpf_jit_enable = 0: programs are interpreted",
            "sysctl -w net.core.bpf_jit_enable=1",
        ),
        Some(value) => Finding::ok("jit", format!("net.core.bpf_jit_enable = {value}")),
        // Only the first network namespace has it.
        None => Finding::unknown("jit", "net.core.bpf_jit_enable cannot be read here"),
    }
}

fn bpffs(reading: &Reading) -> Finding {
    if reading.bpffs {
        return Finding::ok("bpffs", "a BPF file system holds the pins");
    }
    Finding::fail(
        "bpffs",
        "the pin folder is not on a BPF file system",
        "mount -t bpf bpf /sys/fs/bpf (the agent does it too, where it may mount)",
    )
}

fn capabilities(reading: &Reading) -> Finding {
    let check = "capabilities";
    let Some(mask) = reading.capabilities else {
        return Finding::unknown(check, "/proc/self/status cannot be read");
    };
    let has = |bit: u32| mask >> bit & 1 == 1;
    let missing: Vec<&str> = CAPABILITIES
        .iter()
        .filter(|(bit, _)| !(has(*bit) || *bit >= 38 && has(SYS_ADMIN)))
        .map(|(_, name)| *name)
        .collect();
    if missing.is_empty() {
        return Finding::ok(check, "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN");
    }
    Finding::fail(
        check,
        format!("this process lacks {}", missing.join(", ")),
        "run as root, or give these capabilities (AmbientCapabilities of systemd, securityContext of a pod)",
    )
}

/// Since Linux 5.11 maps count against the cgroup's memory; RLIMIT_MEMLOCK means nothing any more.
fn memory(reading: &Reading) -> Finding {
    let check = "memory";
    match reading.memory_limit {
        None => Finding::unknown(check, "the cgroup's memory.max cannot be read"),
        Some(u64::MAX) => Finding::ok(
            check,
            "the cgroup sets no memory limit (memlock is not used)",
        ),
        Some(limit) if limit < MEMORY => Finding::warn(
            check,
            format!(
                "the cgroup allows {} MiB; maps count against it",
                limit >> 20
            ),
            format!(
                "allow {} MiB, or give the agent a smaller --max-flows (170 bytes an entry)",
                MEMORY >> 20
            ),
        ),
        Some(limit) => Finding::ok(check, format!("the cgroup allows {} MiB", limit >> 20)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn good() -> Reading {
        Reading {
            release: "6.12.0".into(),
            version: Some((6, 12)),
            btf: true,
            jit: Some(1),
            bpffs: true,
            capabilities: Some(u64::MAX),
            memory_limit: Some(u64::MAX),
            ..Reading::default()
        }
    }

    fn of(reading: &Reading, check: &str) -> Verdict {
        let all = judge(reading);
        all.iter().find(|one| one.check == check).unwrap().verdict
    }

    #[test]
    fn a_good_kernel_is_fine_and_what_was_not_read_is_unknown() {
        assert!(judge(&good()).iter().all(|f| f.verdict == Verdict::Ok));
        let nothing = Reading {
            btf: true,
            bpffs: true,
            ..Reading::default()
        };
        for check in ["kernel", "tcx", "jit", "capabilities", "memory"] {
            assert_eq!(of(&nothing, check), Verdict::Unknown, "{check}");
        }
    }

    #[test]
    fn old_kernels_warn_and_older_ones_fail() {
        let with = |version| Reading {
            version: Some(version),
            ..good()
        };
        assert_eq!(of(&with((5, 15)), "kernel"), Verdict::Fail);
        assert_eq!(of(&with((6, 1)), "kernel"), Verdict::Ok);
        assert_eq!(of(&with((6, 1)), "tcx"), Verdict::Warn);
    }

    #[test]
    fn cap_sys_admin_stands_for_bpf_and_perfmon_but_not_for_net_admin() {
        let with = |mask| Reading {
            capabilities: Some(mask),
            ..good()
        };
        assert_eq!(
            of(&with(1 << 12 | 1 << 38 | 1 << 39), "capabilities"),
            Verdict::Ok
        );
        assert_eq!(of(&with(1 << 12 | 1 << 21), "capabilities"), Verdict::Ok);
        assert_eq!(of(&with(1 << 21), "capabilities"), Verdict::Fail);
    }

    #[test]
    fn every_trouble_says_what_to_do() {
        let bad = Reading {
            release: "5.4".into(),
            version: Some((5, 4)),
            capabilities: Some(0),
            memory_limit: Some(64 << 20),
            jit: Some(0),
            ..Reading::default()
        };
        for finding in judge(&bad) {
            assert!(finding.verdict >= Verdict::Warn, "{finding:?}");
            assert!(!finding.remedy.is_empty(), "{finding:?}");
        }
    }
}
