//! `aclConfig`: who may connect (contract section 2.5).

use std::collections::BTreeSet;

use super::listeners::Unclear;
use crate::{
    ir::{
        build::notes::Notes,
        model::{AccessList, Network},
    },
    manifest::AclConfig,
    problem::shown,
};

/// "Entries 500."
const MOST_ENTRIES: usize = 500;

/// `Ok(None)`: everyone. `field` is that of the listener.
pub(super) fn read(
    config: Option<&AclConfig>,
    field: &str,
    notes: &mut Notes,
) -> Result<Option<AccessList>, Unclear> {
    let Some(config) = config else {
        return Ok(None);
    };
    let field = format!("{field}.aclConfig");
    let (entries, ids) = (&config.acl_entries, &config.acl_ids);
    // "White = only listed sources pass; Black = listed sources are denied; an empty list under either type passes
    // everything."
    if entries.is_empty() && ids.is_empty() {
        return Ok(None);
    }
    let allow =
        match config.acl_type.as_str() {
            "White" => true,
            "Black" => false,
            other => {
                // "Any other `aclType` (or empty) -> no ACL."
                notes.warning(
                format!("{field}.aclType"),
                format!("{} is no type of a list, so everyone may connect", shown(other)),
                "write White to let only the list in, Black to keep it out, or remove aclConfig",
            );
                return Ok(None);
            }
        };
    if !ids.is_empty() && !entries.is_empty() {
        notes.error(
            field,
            "has both aclEntries and aclIds",
            "keep aclEntries only: lists with an ID are held by the cloud",
        );
        return Err(Unclear::Mistake);
    }
    if !ids.is_empty() {
        notes.restriction(
            format!("{field}.aclIds"),
            format!(
                "names {}, a list that the cloud holds, so this listener is left out rather than open to everyone",
                shown(&ids[0])
            ),
            "write the networks themselves in aclEntries",
        );
        return Err(Unclear::Unknown);
    }
    if entries.len() > MOST_ENTRIES {
        notes.error(
            format!("{field}.aclEntries"),
            format!("has {} entries, more than {MOST_ENTRIES}", entries.len()),
            "join neighbouring networks",
        );
        return Err(Unclear::Mistake);
    }
    let mut networks = BTreeSet::new();
    for (index, entry) in entries.iter().enumerate() {
        let Ok(network) = entry.trim().parse::<Network>() else {
            notes.error(
                format!("{field}.aclEntries[{index}]"),
                format!("{} is neither an address nor a network", shown(entry)),
                "write a network such as 10.0.0.0/8, or an IP address",
            );
            return Err(Unclear::Mistake);
        };
        networks.insert(network);
    }
    Ok(Some(AccessList {
        allow,
        networks: networks.into_iter().collect(),
    }))
}
