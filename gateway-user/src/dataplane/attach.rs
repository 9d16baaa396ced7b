//! Attaches the programs, or puts new ones into the place of an earlier agent's.

mod tc;
mod xdp;

use std::fs::File;

use aya::{
    Ebpf,
    programs::{
        SkLookup,
        links::{FdLink, PinnedLink},
    },
};

use super::{
    Error, fault,
    load::{SK_LOOKUP, chain},
    pins::Pins,
    record::InterfaceRecord,
};
use crate::network::Interface;

pub use tc::detach_others;

/// `--xdp`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum XdpChoice {
    /// Native on network cards, none on virtual links.
    #[default]
    Auto,
    /// Native, or fail.
    Native,
    /// In the stack, for trying things out: slower than TC.
    Generic,
    /// TC alone.
    Off,
}

/// `--tc`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum TcChoice {
    /// A tcx link where the kernel has them, else a filter of the clsact qdisc.
    #[default]
    Auto,
    /// A tcx link (Linux 6.6), or fail.
    Tcx,
    /// A filter of the clsact qdisc.
    Clsact,
}

/// Attaches to every interface. TC is always there: it does what XDP leaves to it.
pub fn interfaces(
    ebpf: &mut Ebpf,
    pins: &Pins,
    interfaces: &[Interface],
    xdp: XdpChoice,
    tc: TcChoice,
) -> Result<Vec<InterfaceRecord>, Error> {
    let mut wanted = vec![SK_LOOKUP_LINK.to_owned()];
    for interface in interfaces {
        wanted.push(tc::link_name(interface));
        wanted.extend(xdp::link_names(interface));
    }
    let records = interfaces
        .iter()
        .map(|interface| {
            let tc = tc::attach(ebpf, pins, interface, tc)?;
            let xdp = xdp::attach(ebpf, pins, interface, xdp)?;
            Ok(record(interface, &tc, &xdp))
        })
        .collect::<Result<_, _>>()?;
    for stale in pins
        .links()
        .into_iter()
        .filter(|name| !wanted.contains(name))
    {
        unpin(pins, &stale)?;
    }
    let names: Vec<String> = interfaces.iter().map(|i| i.name.clone()).collect();
    for name in &names {
        tc::detach_fronts(pins, name);
    }
    detach_others(pins, &names);
    Ok(records)
}

/// Attaches to every interface beside an earlier agent's programs, and in front of them, for the time of an upgrade;
/// [`interfaces`] ends it. A network card has one XDP program: it is replaced, and leaves to TC what it does not know.
pub fn in_front(
    ebpf: &mut Ebpf,
    pins: &Pins,
    interfaces: &[Interface],
    xdp: XdpChoice,
    tc: TcChoice,
) -> Result<(), Error> {
    for interface in interfaces {
        tc::in_front(ebpf, pins, interface, tc)?;
    }
    for interface in interfaces {
        xdp::attach(ebpf, pins, interface, xdp)?;
    }
    Ok(())
}

/// Replaces an earlier agent's programs by those of [`in_front`], one interface after the other. Filters of clsact are left
/// to [`interfaces`].
pub fn take_the_place(pins: &Pins, interfaces: &[Interface]) -> Result<(), Error> {
    interfaces
        .iter()
        .try_for_each(|interface| tc::take_the_place(pins, interface))
}

/// What `status` shows of an interface.
fn record(interface: &Interface, tc: &tc::Attached, xdp: &xdp::Attached) -> InterfaceRecord {
    let hooks = match xdp.kind {
        Some(kind) => format!("{kind} + {}", tc.kind),
        None => tc.kind.to_owned(),
    };
    let reasons = [xdp.reason.as_str(), tc.reason.as_str()];
    let reasons: Vec<&str> = reasons.into_iter().filter(|r| !r.is_empty()).collect();
    InterfaceRecord {
        name: interface.name.clone(),
        hooks,
        reason: reasons.join("; "),
    }
}

/// Name of the pinned socket lookup link.
const SK_LOOKUP_LINK: &str = "sk_lookup";

/// Attaches the socket lookup to this network namespace.
pub fn sk_lookup(ebpf: &mut Ebpf, pins: &Pins) -> Result<(), Error> {
    const WHAT: &str = "the network namespace (sk_lookup)";
    let failed = |cause: String| Error::Attach(WHAT.to_owned(), cause);
    let namespace = File::open("/proc/thread-self/ns/net").map_err(|e| failed(e.to_string()))?;
    let program: &mut SkLookup = program(ebpf, SK_LOOKUP)?;
    let id = program.attach(namespace).map_err(|e| failed(chain(&e)))?;
    let link: FdLink = program.take_link(id).map_err(|e| failed(chain(&e)))?.into();
    // Both programs answer alike while two are attached; then the old one goes.
    unpin(pins, SK_LOOKUP_LINK)?;
    pin(pins, SK_LOOKUP_LINK, link)
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, Error>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program>,
{
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| {
            Error::Load(format!(
                "the object has no program {name} of the right type"
            ))
        })
}

/// Opens a pinned link; `None` if there is none, or its interface is gone.
fn pinned(pins: &Pins, name: &str) -> Option<FdLink> {
    Some(PinnedLink::from_pin(pins.link(name)).ok()?.into())
}

fn pin(pins: &Pins, name: &str, link: FdLink) -> Result<(), Error> {
    fault::point();
    let path = pins.link(name);
    link.pin(&path)
        .map(drop)
        .map_err(|e| Error::Pin(path, chain(&e)))
}

fn unpin(pins: &Pins, name: &str) -> Result<(), Error> {
    fault::point();
    let path = pins.link(name);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::Pin(path, e.to_string())),
        _ => Ok(()),
    }
}
