//! TC ingress: a tcx link where the kernel has them, else a filter of the clsact qdisc.

use std::{fs, mem, path::Path};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, SchedClassifier, TcAttachType,
        links::{FdLink, Link},
        tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact},
    },
};
use tracing::warn;

use super::{TcChoice, pin, pinned, program, unpin};
use crate::{
    dataplane::{
        Error, fault,
        load::{self, TC, chain},
        pins::Pins,
    },
    network::Interface,
};

/// Most clsact filters of agents that stopped in the middle of an upgrade, beside the one that stays.
const FRONTS: u16 = 8;
/// Priority of our clsact filters. One that others hardly choose: they begin at 1, and the kernel gives out 49152 and
/// below to those that ask for none.
const PRIORITY: u16 = 0x4647;
/// First kernel with tcx links.
const TCX: (u32, u32) = (6, 6);

/// Which of the two was attached, and why where it is not the better one.
pub(super) struct Attached {
    /// `tcx` or `clsact`.
    pub(super) kind: &'static str,
    /// Empty for what every kernel should have.
    pub(super) reason: String,
}

/// Attaches to one interface, or puts the program in the place of an earlier agent's. What an earlier agent attached in
/// the other way goes afterwards: while both are there, the first that a packet meets serves it.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    pins: &Pins,
    interface: &Interface,
    choice: TcChoice,
) -> Result<Attached, Error> {
    let failed = |cause: String| Error::Attach(format!("{} (TC)", interface.name), cause);
    let old = match choice {
        TcChoice::Clsact => Some("--tc clsact".to_owned()),
        TcChoice::Tcx => None,
        TcChoice::Auto => too_old(load::release().1),
    };
    let why = match old {
        Some(why) => why,
        None => match tcx(ebpf, pins, interface) {
            Ok(()) => {
                let _ = detach(pins, &interface.name);
                return Ok(Attached {
                    kind: "tcx",
                    reason: String::new(),
                });
            }
            Err(Error::Attach(_, cause)) if choice == TcChoice::Auto => {
                format!("the kernel refused a tcx link ({cause})")
            }
            Err(error) => return Err(error),
        },
    };
    clsact(ebpf, pins, interface).map_err(failed)?;
    unpin(pins, &link_name(interface))?;
    Ok(Attached {
        kind: "clsact",
        reason: why,
    })
}

/// Name of the pinned tcx link of an interface.
pub(super) fn link_name(interface: &Interface) -> String {
    format!("tc-{}", interface.name)
}

/// Why a kernel of this version gets no tcx link. One that does not tell its version is tried.
fn too_old(version: Option<(u32, u32)>) -> Option<String> {
    let (major, minor) = version.filter(|version| *version < TCX)?;
    Some(format!(
        "Linux {major}.{minor} has no tcx links, they came with {}.{}",
        TCX.0, TCX.1
    ))
}

fn tcx(ebpf: &mut Ebpf, pins: &Pins, interface: &Interface) -> Result<(), Error> {
    let failed = |cause: String| Error::Attach(format!("{} (tcx)", interface.name), cause);
    let name = link_name(interface);
    let program: &mut SchedClassifier = program(ebpf, TC)?;
    if let Some(link) = pinned(pins, &name) {
        let replaced = SchedClassifierLink::try_from(link)
            .map_err(|e| chain(&e))
            .and_then(|link| program.attach_to_link(link).map_err(|e| chain(&e)))
            .and_then(|id| program.take_link(id).map_err(|e| chain(&e)));
        match replaced {
            // The pin holds the link; this handle of it may go.
            Ok(link) => {
                let _: Result<FdLink, _> = link.try_into();
                return Ok(());
            }
            Err(cause) => {
                warn!(interface = %interface.name, %cause, "TC link is stale, attaching anew")
            }
        }
        unpin(pins, &name)?;
    }
    let options = TcAttachOptions::TcxOrder(LinkOrder::default());
    let id = program
        .attach_with_options(&interface.name, TcAttachType::Ingress, options)
        .map_err(|e| failed(chain(&e)))?;
    let link = program.take_link(id).map_err(|e| failed(chain(&e)))?;
    let link: FdLink = link
        .try_into()
        .map_err(|_| failed("not a link".to_owned()))?;
    pin(pins, &name, link)
}

/// A filter is no link and cannot be pinned: it stays until somebody removes it, and the next agent finds it by its
/// priority and handle. The kernel swaps the program of a filter in one step (`cls_bpf_change` replaces the list entry
/// under RCU), so no packet passes between the old and the new.
fn clsact(ebpf: &mut Ebpf, pins: &Pins, interface: &Interface) -> Result<(), String> {
    let handle = handle(pins.root());
    let program: &mut SchedClassifier = program(ebpf, TC).map_err(|e| e.to_string())?;
    let there = ours(&interface.name, handle)?;
    let id = match program.attach_to_link(there) {
        Ok(id) => id,
        // Nothing to replace; also where something is wrong the reason of the second try is the better one.
        Err(_) => {
            // There already, with other filters or with ours of a moment ago: then the filter tells.
            let added = qdisc_add_clsact(&interface.name);
            let options = TcAttachOptions::Netlink(NlOptions {
                priority: PRIORITY,
                handle,
                classid: None,
            });
            program
                .attach_with_options(&interface.name, TcAttachType::Ingress, options)
                .map_err(|e| match added {
                    Ok(()) => chain(&e),
                    Err(qdisc) => format!("{}; clsact qdisc: {}", chain(&e), chain(&qdisc)),
                })?
        }
    };
    // Dropping a link detaches it.
    mem::forget(program.take_link(id).map_err(|e| chain(&e))?);
    Ok(())
}

/// Attaches to one interface in front of all that is there, beside what stays attached: for the time of an upgrade. What
/// these programs do not know they pass on to the next.
pub(super) fn in_front(
    ebpf: &mut Ebpf,
    pins: &Pins,
    interface: &Interface,
    choice: TcChoice,
) -> Result<(), Error> {
    // A filter never comes before a tcx link.
    let behind_tcx = pinned(pins, &link_name(interface)).is_some();
    let tcx = behind_tcx || choice != TcChoice::Clsact && too_old(load::release().1).is_none();
    if tcx {
        match tcx_in_front(ebpf, pins, interface) {
            Err(Error::Attach(..)) if !behind_tcx && choice == TcChoice::Auto => {}
            other => return other,
        }
    }
    clsact_in_front(ebpf, pins, interface)
        .map_err(|cause| Error::Attach(format!("{} (TC)", interface.name), cause))
}

fn tcx_in_front(ebpf: &mut Ebpf, pins: &Pins, interface: &Interface) -> Result<(), Error> {
    let failed = |cause: String| Error::Attach(format!("{} (tcx)", interface.name), cause);
    // One of an earlier attempt stays until the new one is there, and may not be the first any more.
    let names = front_names(pins, interface);
    let there = names.each_ref().map(|name| pins.link(name).exists());
    let (new, old) = if there[0] { (1, 0) } else { (0, 1) };
    unpin(pins, &names[new])?;
    let suffix = format!("-{}", interface.name);
    let fronts = |name: &String| name.starts_with("front-") && name.ends_with(&suffix);
    let main = pinned(pins, &link_name(interface)).map(SchedClassifierLink::try_from);
    let order = match &main {
        // Behind what others have put before it. Where an attempt was stopped, ours come first of all until the end.
        Some(Ok(main)) if !pins.links().iter().any(fronts) => LinkOrder::before_link(main).ok(),
        _ => None,
    };
    let program: &mut SchedClassifier = program(ebpf, TC)?;
    let mut attach = |order| {
        let options = TcAttachOptions::TcxOrder(order);
        program.attach_with_options(&interface.name, TcAttachType::Ingress, options)
    };
    // The interface of that link may be gone.
    let there = order.and_then(|order| attach(order).ok());
    let id = match there {
        Some(id) => id,
        None => attach(LinkOrder::first()).map_err(|e| failed(chain(&e)))?,
    };
    let link = program.take_link(id).map_err(|e| failed(chain(&e)))?;
    let link: FdLink = link
        .try_into()
        .map_err(|_| failed("not a link".to_owned()))?;
    pin(pins, &names[new], link)?;
    unpin(pins, &names[old])
}

fn front_names(pins: &Pins, interface: &Interface) -> [String; 2] {
    ["a", "b"].map(|it| format!("front-{}-{it}-{}", pins.layout(), interface.name))
}

/// Puts the link that [`in_front`] made into the place of an earlier agent's, whose program goes with it. Not by an update:
/// the kernel takes no program twice on one interface.
pub(super) fn take_the_place(pins: &Pins, interface: &Interface) -> Result<(), Error> {
    for front in front_names(pins, interface).map(|name| pins.link(&name)) {
        if front.exists() {
            let place = pins.link(&link_name(interface));
            fault::point();
            fs::rename(&front, &place).map_err(|e| Error::Pin(place, e.to_string()))?;
        }
    }
    Ok(())
}

/// Filters of lower priority numbers come first; those of earlier attempts take the numbers from our own downwards.
fn clsact_in_front(ebpf: &mut Ebpf, pins: &Pins, interface: &Interface) -> Result<(), String> {
    let handle = handle(pins.root());
    let program: &mut SchedClassifier = program(ebpf, TC).map_err(|e| e.to_string())?;
    let added = qdisc_add_clsact(&interface.name);
    let mut refused = String::new();
    fault::point();
    for front in 1..=FRONTS {
        let options = TcAttachOptions::Netlink(NlOptions {
            priority: PRIORITY - front,
            handle,
            classid: None,
        });
        match program.attach_with_options(&interface.name, TcAttachType::Ingress, options) {
            Ok(id) => {
                // Dropping a link detaches it.
                mem::forget(program.take_link(id).map_err(|e| chain(&e))?);
                return Ok(());
            }
            Err(error) => refused = chain(&error),
        }
    }
    // All are taken: the foremost is replaced.
    let last = at(&interface.name, PRIORITY - FRONTS, handle)?;
    let id = program.attach_to_link(last).map_err(|e| match added {
        Ok(()) => format!("{refused}; {}", chain(&e)),
        Err(qdisc) => format!("{refused}; {}; clsact qdisc: {}", chain(&e), chain(&qdisc)),
    })?;
    mem::forget(program.take_link(id).map_err(|e| chain(&e))?);
    Ok(())
}

/// Removes filters of [`in_front`], the foremost first.
pub(super) fn detach_fronts(pins: &Pins, interface: &str) -> bool {
    let mut any = false;
    fault::point();
    for front in (1..=FRONTS).rev() {
        let link = at(interface, PRIORITY - front, handle(pins.root()));
        any |= link.is_ok_and(|link| link.detach().is_ok());
    }
    any
}

/// Removes the clsact filter of this gateway from an interface. False if there was none. The qdisc stays: others may have
/// filters in it.
pub(super) fn detach(pins: &Pins, interface: &str) -> bool {
    ours(interface, handle(pins.root())).is_ok_and(|link| link.detach().is_ok())
}

/// Removes the clsact filters of this gateway from all interfaces but these; returns from which.
pub fn detach_others(pins: &Pins, kept: &[String]) -> Vec<String> {
    // proc(5): two lines of headings, then `name: counters`.
    let devices = fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    devices
        .lines()
        .skip(2)
        .filter_map(|line| Some(line.split_once(':')?.0.trim()))
        .filter(|name| !kept.iter().any(|kept| kept == name))
        .filter(|name| detach_fronts(pins, name) | detach(pins, name))
        .map(str::to_owned)
        .collect()
}

fn ours(interface: &str, handle: TcHandle) -> Result<SchedClassifierLink, String> {
    at(interface, PRIORITY, handle)
}

fn at(interface: &str, priority: u16, handle: TcHandle) -> Result<SchedClassifierLink, String> {
    SchedClassifierLink::attached(interface, TcAttachType::Ingress, priority, handle, None)
        .map_err(|e| e.to_string())
}

/// Handle of this gateway's filters: one for each pin folder (FNV-1a of its path), so that two gateways on one node do
/// not replace each other's. Never 0, which asks the kernel to choose.
fn handle(root: &Path) -> TcHandle {
    let hash = root
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        });
    // The kernel keeps handles as positive numbers of 32 bits.
    TcHandle::from(hash & 0x7fff_ffff | 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_before_6_6_get_a_filter_and_the_reason() {
        assert!(too_old(Some((6, 1))).unwrap().contains("6.6"));
        assert_eq!(too_old(Some((6, 6))), None);
        assert_eq!(too_old(Some((7, 0))), None);
        assert_eq!(too_old(None), None);
    }

    #[test]
    fn gateways_with_other_pins_have_other_filters() {
        let of = |path: &str| u32::from(handle(Path::new(path)));
        assert_eq!(of("/sys/fs/bpf/a"), of("/sys/fs/bpf/a"));
        assert_ne!(of("/sys/fs/bpf/a"), of("/sys/fs/bpf/b"));
        assert_ne!(of(""), 0);
    }
}
