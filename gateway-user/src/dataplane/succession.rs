//! One agent after the other on the same pins, without a moment in which neither serves requests.
//!
//! The successor **claims** the pins: it holds a lock on the folder `successor` in them. The agent that has the pins sees
//! that and lets go of them, while its proxy goes on as it is. The successor takes them as after any restart, and gives
//! its claim up when it serves; then the other proxy ends what it has in order.
//!
//! Nothing but locks is held, which end with their process: whoever looks can tell what became of the other one. Any two
//! versions meet here, so this stays as it is.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use super::{Error, pins::Pins};

/// What a successor holds until it serves.
#[derive(Debug)]
pub struct Claim {
    folder: PathBuf,
    _lock: File,
}

impl Drop for Claim {
    fn drop(&mut self) {
        // One that stays says nothing without its lock.
        let _ = fs::remove_dir(&self.folder);
    }
}

/// What an agent that has let go of the pins sees of its successor.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Succession {
    /// It is there, and does not serve yet.
    Claimed,
    /// It serves.
    Taken,
    /// It has ended, before it served or after: nobody has the pins.
    Lost,
}

impl Pins {
    /// Asks the agent that has the pins to let go of them.
    ///
    /// # Errors
    /// When another successor does, or the folder cannot be made.
    pub fn claim(&self) -> Result<Claim, Error> {
        let folder = self.successor();
        fs::create_dir_all(&folder).map_err(|e| Error::Pin(folder.clone(), e.to_string()))?;
        match lock(&folder) {
            Ok(Some(lock)) => Ok(Claim {
                folder,
                _lock: lock,
            }),
            Ok(None) => Err(Error::Busy(folder)),
            Err(e) => Err(Error::Pin(folder, e.to_string())),
        }
    }

    /// Whether a successor asks for the pins.
    pub fn is_claimed(&self) -> bool {
        // Without the folder nobody does.
        matches!(lock(&self.successor()), Ok(None))
    }

    /// Whether an agent has the pins. Asked for a moment only: whoever takes them in it is told that they are not free.
    pub fn is_held(&self) -> bool {
        matches!(lock(self.root()), Ok(None))
    }

    /// What has become of the successor that these pins were let go for. The pins are looked at only when it takes them no
    /// more.
    pub fn succession(&self) -> Succession {
        if self.is_claimed() {
            Succession::Claimed
        } else if self.is_held() {
            Succession::Taken
        } else {
            Succession::Lost
        }
    }

    fn successor(&self) -> PathBuf {
        self.root().join("successor")
    }
}

/// The lock of a folder; `None` if somebody else has it.
fn lock(folder: &Path) -> std::io::Result<Option<File>> {
    let folder = File::open(folder)?;
    match folder.try_lock() {
        Ok(()) => Ok(Some(folder)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_let_go_sees_a_successor_come_take_over_and_end() {
        let folder = tempfile::tempdir().unwrap();
        let pins = Pins::new(folder.path());
        assert!(!pins.is_held() && !pins.is_claimed());
        let mine = File::open(folder.path()).unwrap();
        mine.try_lock().unwrap();
        assert!(pins.is_held() && !pins.is_claimed());
        let claim = pins.claim().unwrap();
        assert!(pins.is_claimed());
        assert!(matches!(pins.claim(), Err(Error::Busy(_))), "one at a time");
        drop(mine);
        assert_eq!(pins.succession(), Succession::Claimed);
        let theirs = File::open(folder.path()).unwrap();
        theirs.try_lock().unwrap();
        assert_eq!(pins.succession(), Succession::Claimed, "it does not serve");
        drop(claim);
        assert_eq!(pins.succession(), Succession::Taken);
        drop(theirs);
        assert_eq!(pins.succession(), Succession::Lost);
        let again = pins.claim().unwrap();
        assert_eq!(pins.succession(), Succession::Claimed);
        drop(again);
        assert_eq!(pins.succession(), Succession::Lost, "it ended too early");
    }
}
