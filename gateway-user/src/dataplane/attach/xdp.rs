//! XDP: native, native for frames in several buffers, or generic.

use aya::{
    Ebpf,
    programs::{
        Xdp, XdpMode,
        links::FdLink,
        xdp::{XdpLink, XdpLinkId},
    },
};

use super::{XdpChoice, pin, pinned, program, unpin};
use crate::{
    dataplane::{
        Error,
        load::{XDP, XDP_FRAGS, chain},
        pins::Pins,
    },
    network::Interface,
};

/// What was attached; nothing where the reason says why not.
pub(super) struct Attached {
    /// `xdp native`, `xdp native frags` or `xdp generic`.
    pub(super) kind: Option<&'static str>,
    /// Why.
    pub(super) reason: String,
}

pub(super) fn attach(
    ebpf: &mut Ebpf,
    pins: &Pins,
    interface: &Interface,
    choice: XdpChoice,
) -> Result<Attached, Error> {
    let [native, generic] = link_names(interface);
    let none = |reason: String| -> Result<Attached, Error> {
        unpin(pins, &native)?;
        unpin(pins, &generic)?;
        Ok(Attached { kind: None, reason })
    };
    let mode = match (choice, &interface.kind) {
        (XdpChoice::Off, _) => return none("--xdp off".into()),
        (XdpChoice::Auto, Some(kind)) => {
            return none(format!(
                "{kind} is a virtual link: its frames carry partial checksums and GSO, which TC keeps"
            ));
        }
        (XdpChoice::Generic, _) => XdpMode::Skb,
        _ => XdpMode::Driver,
    };
    // A device takes one XDP program; a link keeps the mode it was made with.
    let (name, other) = match mode {
        XdpMode::Skb => (&generic, &native),
        _ => (&native, &generic),
    };
    unpin(pins, other)?;
    match negotiate(ebpf, pins, interface, name, mode) {
        Ok(attached) => Ok(attached),
        Err(cause) if choice == XdpChoice::Auto => {
            none(format!("the driver refused native XDP: {cause}"))
        }
        Err(cause) => Err(Error::Attach(
            format!("{} (XDP)", interface.name),
            format!("{cause}; try --xdp auto or --xdp generic"),
        )),
    }
}

/// Names of the pinned links of an interface: native, generic.
pub(super) fn link_names(interface: &Interface) -> [String; 2] {
    ["xdp", "xdp-generic"].map(|kind| format!("{kind}-{}", interface.name))
}

/// The plain program, or the one that takes frames in several buffers: a driver refuses the first where its MTU needs
/// the second. An earlier agent's link gets the program in place.
fn negotiate(
    ebpf: &mut Ebpf,
    pins: &Pins,
    interface: &Interface,
    name: &str,
    mode: XdpMode,
) -> Result<Attached, String> {
    let plain = match mode {
        XdpMode::Skb => "xdp generic",
        _ => "xdp native",
    };
    if pinned(pins, name).is_some() {
        for (which, kind) in [(XDP, plain), (XDP_FRAGS, "xdp native frags")] {
            // Opened anew for each: a refused update takes the handle with it.
            let link = pinned(pins, name).map(XdpLink::try_from);
            if let Some(Ok(link)) = link
                && let Ok(program) = loaded(ebpf, which)
                && let Ok(id) = program.attach_to_link(link)
                && let Ok(link) = program.take_link(id)
            {
                // The pin holds the link; this handle of it may go.
                let _: Result<FdLink, _> = link.try_into();
                return Ok(described(kind, interface));
            }
        }
        unpin(pins, name).map_err(|e| e.to_string())?;
    }
    let refused = match attach_as(ebpf, interface, XDP, mode) {
        Ok(link) => {
            return pin(pins, name, link)
                .map(|()| described(plain, interface))
                .map_err(|e| e.to_string());
        }
        Err(cause) => cause,
    };
    if mode == XdpMode::Skb {
        return Err(refused);
    }
    let link = attach_as(ebpf, interface, XDP_FRAGS, mode).map_err(|frags| {
        if frags == refused {
            refused
        } else {
            format!("{refused}; for frames in several buffers: {frags}")
        }
    })?;
    pin(pins, name, link)
        .map(|()| described("xdp native frags", interface))
        .map_err(|e| e.to_string())
}

fn described(kind: &'static str, interface: &Interface) -> Attached {
    let reason = if kind.ends_with("frags") {
        format!(
            "with an MTU of {} the driver takes XDP for frames in several buffers only; TC does those",
            interface.mtu
        )
    } else {
        "TC does what XDP leaves".to_owned()
    };
    Attached {
        kind: Some(kind),
        reason,
    }
}

fn attach_as(
    ebpf: &mut Ebpf,
    interface: &Interface,
    which: &str,
    mode: XdpMode,
) -> Result<FdLink, String> {
    let program = loaded(ebpf, which)?;
    let id: XdpLinkId = program
        .attach(&interface.name, mode)
        .map_err(|e| chain(&e))?;
    let link = program.take_link(id).map_err(|e| chain(&e))?;
    link.try_into()
        .map_err(|_| "the kernel has no XDP links".to_owned())
}

/// The frags program is loaded when an interface needs it first.
fn loaded<'a>(ebpf: &'a mut Ebpf, which: &str) -> Result<&'a mut Xdp, String> {
    let program: &mut Xdp = program(ebpf, which).map_err(|e| e.to_string())?;
    if program.fd().is_err() {
        program.load().map_err(|e| chain(&e))?;
    }
    Ok(program)
}
