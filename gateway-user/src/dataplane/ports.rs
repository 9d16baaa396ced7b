//! Source ports of the node's own addresses: kept away from the node's own connections.

use std::{fs, ops::RangeInclusive};

use super::Error;

/// Ports that the kernel never picks by itself (ip-sysctl, `ip_local_reserved_ports`); explicit
/// binds are not affected.
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// Refuses a range (first and last) of which somebody else reserved a port; `had` (first and count)
/// is ours.
pub fn check(wanted: Option<(u16, u16)>, had: (u16, u16)) -> Result<(), Error> {
    change(read()?, wanted, had).map(drop)
}

/// Brings the reserved ports from what an earlier agent had (`had`: first and count, count 0 is
/// none) to `wanted` (first and last). A port that somebody else reserved is refused. Returns first
/// and count of what is reserved now.
pub fn take(wanted: Option<(u16, u16)>, had: (u16, u16)) -> Result<(), Error> {
    let set = change(read()?, wanted, had)?;
    if wanted.is_some() || had.1 > 0 {
        write(set)?;
    }
    Ok(())
}

/// The list after the change. Pure.
fn change(
    mut set: Vec<u16>,
    wanted: Option<(u16, u16)>,
    had: (u16, u16),
) -> Result<Vec<u16>, Error> {
    set.retain(|port| port.checked_sub(had.0).is_none_or(|at| at >= had.1));
    if let Some((first, last)) = wanted {
        let taken = set
            .iter()
            .filter(|port| (first..=last).contains(port))
            .count();
        if taken > 0 {
            return Err(Error::Ports(format!(
                "{taken} of {first}-{last} are in {RESERVED} already; somebody else uses them: choose others with \
                 --snat-ports, or clear the list if it is left over"
            )));
        }
        set.extend(first..=last);
    }
    Ok(set)
}

/// Gives a range back.
pub fn release(range: RangeInclusive<u16>) -> Result<(), Error> {
    let mut set = read()?;
    set.retain(|port| !range.contains(port));
    write(set)
}

fn read() -> Result<Vec<u16>, Error> {
    let text =
        fs::read_to_string(RESERVED).map_err(|e| Error::Ports(format!("{RESERVED}: {e}")))?;
    Ok(parse(&text))
}

fn write(set: Vec<u16>) -> Result<(), Error> {
    fs::write(RESERVED, render(set)).map_err(|e| Error::Ports(format!("{RESERVED}: {e}")))
}

/// `1,5-7` as ports; what is not a number is left out.
fn parse(text: &str) -> Vec<u16> {
    let mut ports = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.trim().parse::<u16>(), last.trim().parse()) {
            ports.extend(first..=last);
        }
    }
    ports
}

/// Ports as `1,5-7`. The kernel takes an empty line for "none".
fn render(mut ports: Vec<u16>) -> String {
    ports.sort_unstable();
    ports.dedup();
    let mut parts: Vec<(u16, u16)> = Vec::new();
    for port in ports {
        match parts.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(port) => *last = port,
            _ => parts.push((port, port)),
        }
    }
    let text: Vec<String> = parts
        .into_iter()
        .map(|(first, last)| {
            if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            }
        })
        .collect();
    text.join(",") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_range_replaces_ours_and_leaves_those_of_others() {
        let set = change(vec![5, 10, 11], Some((20, 21)), (10, 2)).unwrap();
        assert_eq!(render(set), "5,20-21\n");
        assert_eq!(
            render(change(vec![5, 10, 11], None, (10, 2)).unwrap()),
            "5\n"
        );
    }

    #[test]
    fn ports_of_others_are_refused_and_our_own_are_not() {
        assert!(change(vec![10], Some((10, 11)), (0, 0)).is_err());
        assert!(change(vec![10, 11], Some((10, 11)), (10, 2)).is_ok());
    }

    #[test]
    fn ports_survive_parsing_and_rendering() {
        assert_eq!(
            render(parse("8080,10000-10003,10004\n")),
            "8080,10000-10004\n"
        );
        assert_eq!(render(parse("\n")), "\n");
        assert_eq!(render(parse("65535,65534")), "65534-65535\n");
    }
}
