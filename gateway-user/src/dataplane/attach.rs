//! Attaches the programs, or puts new ones into the links of an earlier agent.

use std::fs::File;

use aya::{
    Ebpf,
    programs::{
        SchedClassifier, SkLookup, TcAttachType, Xdp, XdpMode,
        links::{FdLink, PinnedLink},
        tc::SchedClassifierLink,
        xdp::XdpLink,
    },
};
use tracing::warn;

use super::{
    Error,
    load::{SK_LOOKUP, TC, XDP, chain},
    pins::Pins,
    record::InterfaceRecord,
};
use crate::network::Interface;

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

/// Attaches to every interface. TC is always there: it does what XDP leaves to it.
pub fn interfaces(
    ebpf: &mut Ebpf,
    pins: &Pins,
    interfaces: &[Interface],
    choice: XdpChoice,
) -> Result<Vec<InterfaceRecord>, Error> {
    let wanted: Vec<String> = interfaces
        .iter()
        .flat_map(|i| {
            [
                format!("tc-{}", i.name),
                xdp_name(i, XdpMode::Driver),
                xdp_name(i, XdpMode::Skb),
            ]
        })
        .chain([SK_LOOKUP_LINK.to_owned()])
        .collect();
    let records = interfaces
        .iter()
        .map(|interface| {
            tc(ebpf, pins, interface)?;
            xdp(ebpf, pins, interface, choice)
        })
        .collect::<Result<_, _>>()?;
    for stale in pins
        .links()
        .into_iter()
        .filter(|name| !wanted.contains(name))
    {
        unpin(pins, &stale)?;
    }
    Ok(records)
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

fn tc(ebpf: &mut Ebpf, pins: &Pins, interface: &Interface) -> Result<(), Error> {
    let failed = |cause: String| Error::Attach(format!("{} (TC)", interface.name), cause);
    let name = format!("tc-{}", interface.name);
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
    let id = program
        .attach(&interface.name, TcAttachType::Ingress)
        .map_err(|e| failed(chain(&e)))?;
    let link = program.take_link(id).map_err(|e| failed(chain(&e)))?;
    let link: FdLink = link.try_into().map_err(|_| {
        failed(
            "the kernel has no tcx links (Linux 6.6), so the program could not outlive the agent"
                .into(),
        )
    })?;
    pin(pins, &name, link)
}

fn xdp(
    ebpf: &mut Ebpf,
    pins: &Pins,
    interface: &Interface,
    choice: XdpChoice,
) -> Result<InterfaceRecord, Error> {
    let record = |hooks: &str, reason: String| InterfaceRecord {
        name: interface.name.clone(),
        hooks: hooks.to_owned(),
        reason,
    };
    let (native, generic) = (
        xdp_name(interface, XdpMode::Driver),
        xdp_name(interface, XdpMode::Skb),
    );
    let mode = match (choice, &interface.kind) {
        (XdpChoice::Off, _) => {
            unpin(pins, &native)?;
            unpin(pins, &generic)?;
            return Ok(record("tc", "--xdp off".into()));
        }
        (XdpChoice::Auto, Some(kind)) => {
            unpin(pins, &native)?;
            unpin(pins, &generic)?;
            let reason = format!(
                "{kind} is a virtual link: its frames carry partial checksums and GSO, which TC keeps"
            );
            return Ok(record("tc", reason));
        }
        (XdpChoice::Generic, _) => XdpMode::Skb,
        _ => XdpMode::Driver,
    };
    let hooks = if choice == XdpChoice::Generic {
        "xdp generic + tc"
    } else {
        "xdp native + tc"
    };
    // A device takes one XDP program; a link keeps the mode it was made with.
    let (name, other) = match mode {
        XdpMode::Skb => (generic, native),
        _ => (native, generic),
    };
    unpin(pins, &other)?;
    match attach_xdp(ebpf, pins, interface, &name, mode) {
        Ok(()) => Ok(record(hooks, "TC does what XDP leaves".into())),
        Err(cause) if choice == XdpChoice::Auto => Ok(record(
            "tc",
            format!("the driver refused native XDP: {cause}"),
        )),
        Err(cause) => Err(Error::Attach(
            format!("{} (XDP)", interface.name),
            format!("{cause}; try --xdp auto or --xdp generic"),
        )),
    }
}

/// Name of the pinned XDP link of an interface in a mode.
fn xdp_name(interface: &Interface, mode: XdpMode) -> String {
    match mode {
        XdpMode::Skb => format!("xdp-generic-{}", interface.name),
        _ => format!("xdp-{}", interface.name),
    }
}

fn attach_xdp(
    ebpf: &mut Ebpf,
    pins: &Pins,
    interface: &Interface,
    name: &str,
    mode: XdpMode,
) -> Result<(), String> {
    let program: &mut Xdp = program(ebpf, XDP).map_err(|e| e.to_string())?;
    if let Some(link) = pinned(pins, name) {
        let replaced = XdpLink::try_from(link)
            .map_err(|e| chain(&e))
            .and_then(|link| program.attach_to_link(link).map_err(|e| chain(&e)))
            .and_then(|id| program.take_link(id).map_err(|e| chain(&e)));
        if let Ok(link) = replaced {
            let _: Result<FdLink, _> = link.try_into();
            return Ok(());
        }
        unpin(pins, name).map_err(|e| e.to_string())?;
    }
    let id = program
        .attach(&interface.name, mode)
        .map_err(|e| chain(&e))?;
    let link = program.take_link(id).map_err(|e| chain(&e))?;
    let link: FdLink = link
        .try_into()
        .map_err(|_| "the kernel has no XDP links".to_owned())?;
    pin(pins, name, link).map_err(|e| e.to_string())
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
    let path = pins.link(name);
    link.pin(&path)
        .map(drop)
        .map_err(|e| Error::Pin(path, chain(&e)))
}

fn unpin(pins: &Pins, name: &str) -> Result<(), Error> {
    let path = pins.link(name);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::Pin(path, e.to_string())),
        _ => Ok(()),
    }
}
