//! The kernel we run on: old ones are refused at once, in words, before anything is built for them.

use std::fs;

use anyhow::{Context, Result, bail};

/// Oldest kernel the datapath runs on: the first with tcx links.
const OLDEST: (u32, u32) = (6, 6);

/// Fails on a kernel that is too old, saying how to get a newer one.
pub fn ensure() -> Result<()> {
    // What `uname -r` prints.
    let file = "/proc/sys/kernel/osrelease";
    let release = fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    new_enough(release.trim())
}

fn new_enough(release: &str) -> Result<()> {
    let Some(version) = version(release) else {
        bail!(
            "cannot tell the kernel's version from `{release}` (uname -r); Linux 6.6 or later is needed"
        );
    };
    if version < OLDEST {
        bail!(
            "the kernel must be Linux 6.6 or later, and this is {release} (uname -r). Debian 12's own is 6.1; with \
             bookworm-backports among the apt sources, `apt-get install -t bookworm-backports linux-image-amd64` and \
             a reboot bring a newer one. In a container the host's kernel counts. Tests that need no kernel run with: \
             cargo test"
        );
    }
    Ok(())
}

/// Major and minor number of a release such as `6.1.0-18-amd64`, `6.18.5` or `6.6-rc1`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_before_6_6_are_refused_with_the_way_to_a_newer_one() {
        for old in ["6.5.13", "6.1.0-18-amd64", "5.15.0-91-generic", "4.19"] {
            let said = new_enough(old).expect_err(old).to_string();
            assert!(
                said.contains(old) && said.contains("bookworm-backports"),
                "{said}"
            );
        }
    }

    #[test]
    fn kernels_from_6_6_on_are_taken_whatever_follows_the_numbers() {
        for new in ["6.6.0", "6.6-rc1", "6.10.3-1-arch", "6.18.5+", "7.0.0"] {
            new_enough(new).expect(new);
        }
    }

    #[test]
    fn a_release_without_numbers_is_not_taken_for_a_new_one() {
        for odd in ["", "linux", "6"] {
            assert!(new_enough(odd).is_err(), "{odd}");
        }
    }
}
