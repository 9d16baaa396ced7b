//! Source ports of the node's own addresses: kept away from the node's own connections.

use std::{collections::BTreeSet, fs, ops::RangeInclusive};

use super::Error;

/// Ports that the kernel never picks by itself (ip-sysctl, `ip_local_reserved_ports`); explicit
/// binds are not affected.
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// Refuses a range of which somebody reserved a port already; `ours`: what an earlier agent of the same pins reserved.
pub fn check(range: RangeInclusive<u16>, ours: &[u16]) -> Result<(), Error> {
    let ours: BTreeSet<&u16> = ours.iter().collect();
    let foreign = |port: &&u16| range.contains(port) && !ours.contains(port);
    let taken = read()?.iter().filter(foreign).count();
    if taken > 0 {
        return Err(Error::Ports(format!(
            "{taken} of {}-{} are in {RESERVED} already; somebody else uses them: choose others with \
             --snat-ports, or clear the list if it is left over",
            range.start(),
            range.end()
        )));
    }
    Ok(())
}

/// Reserves a range, beside what is reserved already.
pub fn reserve(range: RangeInclusive<u16>) -> Result<(), Error> {
    let mut set = read()?;
    set.extend(range);
    write(set)
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
    fn ports_survive_parsing_and_rendering() {
        assert_eq!(
            render(parse("8080,10000-10003,10004\n")),
            "8080,10000-10004\n"
        );
        assert_eq!(render(parse("\n")), "\n");
        assert_eq!(render(parse("65535,65534")), "65534-65535\n");
    }
}
