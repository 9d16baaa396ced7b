//! What an Event tells, and its name: equal content has one name on every node and after every restart.

use gateway_common::hash;

use crate::problem::{ObjectRef, Problem};

/// Longest note the API takes, in bytes. Source: events.k8s.io/v1, `note`.
pub const NOTE_BYTES: usize = 1024;
/// Bytes of the object's name that the Event's name repeats; with the hash it stays below the 253 of a DNS subdomain.
const NAME_BYTES: usize = 200;
/// Kept free for how many problems found no place.
const TAIL_BYTES: usize = 64;
/// Tells these hashes from others over the same bytes.
const SEED: u64 = 0x666c_6565_7467_6174;

/// Why an Event is written. The first four are the reference's.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Reason {
    /// The object has errors: it is not served as written.
    FailedBuildModel,
    /// The object serves, but not all it says.
    IgnoredConfig,
    /// Somebody else writes the status we would write.
    StatusConflict,
    /// The object has no errors.
    SuccessfullyReconciled,
}

impl Reason {
    /// As in the Event.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FailedBuildModel => "FailedBuildModel",
            Self::IgnoredConfig => "IgnoredConfig",
            Self::StatusConflict => "StatusConflict",
            Self::SuccessfullyReconciled => "SuccessfullyReconciled",
        }
    }

    /// Whether somebody has to do something.
    pub const fn is_warning(self) -> bool {
        !matches!(self, Self::SuccessfullyReconciled)
    }
}

/// `apiVersion` of the fleet's kinds that Events are written about.
pub(super) fn api_version(kind: &str) -> Option<&'static str> {
    match kind {
        "AlbConfig" => Some("alibabacloud.com/v1"),
        "Ingress" | "IngressClass" => Some("networking.k8s.io/v1"),
        "Secret" => Some("v1"),
        _ => None,
    }
}

/// One Event that should exist.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Notice {
    /// The object it is about, of the fleet.
    pub object: ObjectRef,
    /// Why.
    pub reason: Reason,
    /// Text for people, at most [`NOTE_BYTES`].
    pub note: String,
    /// Hash of the above and of the object's revision.
    pub content: u64,
}

impl Notice {
    /// Tells all problems of an object, as far as they fit.
    pub fn of_problems(object: &ObjectRef, reason: Reason, problems: &[&Problem]) -> Self {
        let lines = problems
            .iter()
            .map(|it| format!("{}: {}; {}", it.field, it.message, it.remedy));
        Self::new(object.clone(), reason, 0, lines_within(lines))
    }

    /// Tells that an object is in force; again for each revision of it.
    pub fn success(object: ObjectRef, revision: u64, note: String) -> Self {
        Self::new(object, Reason::SuccessfullyReconciled, revision, note)
    }

    /// Tells that `manager` has fields of the object's status which we would write.
    pub fn conflict(object: ObjectRef, fields: &str, manager: &str) -> Self {
        let note = format!(
            "status.loadBalancer: {fields} is written by {manager}, so Fleetgate leaves it alone; stop that writer, or \
             remove the field from its managedFields"
        );
        Self::new(object, Reason::StatusConflict, 0, note)
    }

    fn new(object: ObjectRef, reason: Reason, revision: u64, note: String) -> Self {
        let note = cut(note);
        let bytes = [
            object.kind.as_bytes(),
            object.namespace.as_bytes(),
            object.name.as_bytes(),
            reason.name().as_bytes(),
            note.as_bytes(),
            &revision.to_le_bytes(),
        ]
        .join(&0);
        let content = hash::name(SEED, &bytes);
        Self {
            object,
            reason,
            note,
            content,
        }
    }

    /// Name of the Event: the same for the same content.
    pub fn event_name(&self) -> String {
        let end = self.object.name.floor_char_boundary(NAME_BYTES);
        let stem = self.object.name[..end].trim_end_matches(['.', '-']);
        format!("{stem}.{:016x}", self.content)
    }
}

/// Whole lines as far as they fit, and how many did not.
fn lines_within(lines: impl ExactSizeIterator<Item = String>) -> String {
    let all = lines.len();
    let mut text = String::new();
    for (nth, line) in lines.enumerate() {
        let last = nth + 1 == all;
        let room = if last {
            NOTE_BYTES
        } else {
            NOTE_BYTES - TAIL_BYTES
        };
        if nth > 0 && text.len() + 1 + line.len() > room {
            text.push_str(&format!("\nand {} more; see `fleetgate status`", all - nth));
            return text;
        }
        if nth > 0 {
            text.push('\n');
        }
        // One line that fills everything leaves place to say that there are others.
        let end = line.floor_char_boundary(room - text.len());
        text.push_str(&line[..end]);
        if end < line.len() {
            text.truncate(text.floor_char_boundary(room - 3));
            text.push_str("...");
        }
    }
    text
}

fn cut(mut note: String) -> String {
    if note.len() > NOTE_BYTES {
        note.truncate(note.floor_char_boundary(NOTE_BYTES - 3));
        note.push_str("...");
    }
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object() -> ObjectRef {
        ObjectRef {
            kind: "Ingress".into(),
            namespace: "demo".into(),
            name: "web".into(),
            ..ObjectRef::default()
        }
    }

    fn notice(problems: &[Problem]) -> Notice {
        let problems: Vec<&Problem> = problems.iter().collect();
        Notice::of_problems(&object(), Reason::FailedBuildModel, &problems)
    }

    #[test]
    fn a_note_is_cut_to_1024_bytes_between_two_characters() {
        for lead in 0..4 {
            let message = "x".repeat(lead) + &"\u{20ac}".repeat(1000);
            let told = notice(&[Problem::error(&object(), "spec", message, "shorten it")]);
            assert!(told.note.len() <= NOTE_BYTES && told.note.len() > NOTE_BYTES - 6);
            assert!(told.note.ends_with("\u{20ac}..."));
        }
    }

    #[test]
    fn problems_that_find_no_place_in_a_note_are_counted() {
        let problem = |nth| Problem::error(&object(), format!("f{nth}"), "m".repeat(190), "r");
        let told = notice(&(0..20).map(problem).collect::<Vec<_>>());
        assert!(told.note.len() <= NOTE_BYTES);
        let lines: Vec<&str> = told.note.lines().collect();
        assert_eq!(lines.len(), 5);
        assert_eq!(lines[4], "and 16 more; see `fleetgate status`");

        let long = Problem::error(&object(), "a", "m".repeat(2000), "r");
        let told = notice(&[long, problem(1)]);
        assert!(told.note.len() <= NOTE_BYTES);
        assert!(
            told.note
                .ends_with("...\nand 1 more; see `fleetgate status`")
        );
    }

    #[test]
    fn a_last_line_that_just_fits_is_whole() {
        let first = Problem::error(&object(), "a", "m".repeat(500), "r");
        let second = Problem::error(&object(), "b", "m".repeat(1024 - 506 - 1 - 6), "r");
        let told = notice(&[first, second]);
        assert_eq!(told.note.len(), NOTE_BYTES);
        assert!(told.note.ends_with("mm; r"));
    }

    #[test]
    fn the_name_of_an_event_says_its_content_and_nothing_else() {
        let problem = Problem::error(&object(), "a", "b", "c");
        let first = notice(std::slice::from_ref(&problem));
        assert_eq!(first.event_name(), notice(&[problem]).event_name());
        let other = notice(&[Problem::error(&object(), "a", "b", "d")]);
        assert_ne!(first.event_name(), other.event_name());
        let again = |revision| Notice::success(object(), revision, "served".into()).event_name();
        assert_ne!(again(1), again(2));
        assert_eq!(again(1), again(1));
    }

    #[test]
    fn the_name_of_an_event_stays_a_dns_subdomain() {
        let mut object = object();
        object.name = "a".repeat(199) + "." + &"b".repeat(53);
        let name = Notice::success(object, 0, String::new()).event_name();
        assert_eq!(name.len(), 199 + 1 + 16);
        assert!(!name.contains(".."));
    }
}
