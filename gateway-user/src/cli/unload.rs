//! `fleetgate unload`: the one inspection-side command that changes something.

use std::{collections::BTreeSet, fs, iter, path::Path};

use serde::Serialize;

use super::{
    args::UnloadArgs,
    live,
    output::{Failure, Outcome, View, show},
    table::Paint,
};
use crate::dataplane::{Error, attach, pins::Pins, ports, record::Record};

/// What was removed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct UnloadView {
    /// The folder.
    pub pin_dir: String,
    /// Links: programs that were attached.
    pub links: Vec<String>,
    /// There were pins, and they are gone.
    pub pins: bool,
    /// Source ports given back: first and last.
    pub ports: Option<(u16, u16)>,
    /// What could not be told or done.
    pub notes: Vec<String>,
}

/// Unloads and prints.
pub fn run(args: &UnloadArgs) -> Result<Outcome, Failure> {
    let view = unload(&args.inspect.pins.pin_dir, args.force)?;
    show(&view, args.inspect.output.format)?;
    Ok(Outcome::Fine)
}

fn unload(dir: &Path, force: bool) -> Result<UnloadView, Failure> {
    let pins = Pins::new(dir);
    let mut view = UnloadView {
        pin_dir: dir.display().to_string(),
        links: pins.links(),
        ..UnloadView::default()
    };
    if !dir.exists() {
        return Ok(view);
    }
    ours(dir)?;
    // An upgrade that was stopped leaves maps of two layouts.
    let mut records = Vec::new();
    for maps in iter::once(pins.clone()).chain(pins.others()) {
        match Record::of_pins(&maps) {
            Ok(record) => records.extend(record),
            Err(error) => view.notes.push(format!(
                "which source ports were reserved is unknown: {error}"
            )),
        }
    }
    if let Some(record) = records.iter().find(|record| !force && live::alive(record)) {
        return Err(Failure::Refused(format!(
            "the agent is running (pid {}); stop it first, or unload with --force",
            record.pid
        )));
    }
    // Before the pins: these outlive them, and only this folder's name tells whose they are.
    let filters = attach::detach_others(&pins, &[]);
    view.links
        .extend(filters.into_iter().map(|name| format!("clsact-{name}")));
    view.pins = pins.remove()?;
    let ports: BTreeSet<(u16, u16)> = records.iter().map(|record| record.node_ports).collect();
    for (first, count) in ports.into_iter().filter(|(_, count)| *count > 0) {
        let last = first.saturating_add(count - 1);
        match ports::release(first..=last) {
            Ok(()) => view.ports = Some((first, last)),
            Err(error) => view.notes.push(error.to_string()),
        }
    }
    Ok(view)
}

/// Refuses a folder that holds anything but a gateway's pins: it will be removed with all it holds.
fn ours(dir: &Path) -> Result<(), Error> {
    let entries = fs::read_dir(dir).map_err(|e| Error::Pin(dir.to_owned(), e.to_string()))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let known =
            name == "links" || name == "clock" || name == "sweep" || name.starts_with("maps-");
        if !known {
            return Err(Error::Pin(
                dir.to_owned(),
                format!("{name:?} in it is not a gateway's, so the folder is left alone"),
            ));
        }
    }
    Ok(())
}

impl View for UnloadView {
    fn text(&self, _: Paint) -> String {
        let mut out = String::new();
        if self.pins {
            for link in &self.links {
                out.push_str(&format!("detached {link}\n"));
            }
            out.push_str(&format!("removed the pins in {}\n", self.pin_dir));
        } else {
            out.push_str(&format!("nothing is pinned in {}\n", self.pin_dir));
        }
        if let Some((first, last)) = self.ports {
            out.push_str(&format!("gave back source ports {first}-{last}\n"));
        }
        for note in &self.notes {
            out.push_str(&format!("note: {note}\n"));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_holds_anything_else_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("links")).unwrap();
        let precious = dir.path().join("precious");
        fs::write(&precious, "x").unwrap();
        let failure = unload(dir.path(), true).unwrap_err();
        assert!(failure.to_string().contains("precious"), "{failure}");
        assert!(precious.exists());
    }

    #[test]
    fn unloading_twice_is_fine() {
        let dir = tempfile::tempdir().unwrap();
        let view = unload(&dir.path().join("gone"), false).unwrap();
        assert!(!view.pins);
        assert!(view.text(Paint::Plain).starts_with("nothing is pinned"));
    }
}
