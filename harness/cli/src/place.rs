//! Where reports go.

use std::env;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use udn_reports::folder::EVENTS;

/// The folder in a cargo workspace's `target`.
const IN_TARGET: &str = "target/udn-conformance";
/// The folder elsewhere.
const HERE: &str = "udn-conformance-report";

/// The folder that nobody chose: under the `target` of the cargo workspace that the user stands in, else beside them.
#[must_use]
pub(crate) fn default_folder() -> PathBuf {
    let here = env::current_dir().unwrap_or_default();
    let workspace =
        here.ancestors().find(|folder| folder.join("Cargo.toml").is_file() && folder.join("target").is_dir());
    match workspace {
        // As the user would type it, where that is shorter.
        Some(workspace) if workspace == here => IN_TARGET.into(),
        Some(workspace) => workspace.join(IN_TARGET),
        None => HERE.into(),
    }
}

/// The newest log in a folder or in those that runs at the same time took beside it.
#[must_use]
pub(crate) fn newest_log(folder: &Path) -> Option<PathBuf> {
    let mut candidates = vec![folder.join(EVENTS)];
    candidates.extend(folder.read_dir().ok()?.flatten().map(|entry| entry.path().join(EVENTS)));
    let dated = candidates.into_iter().filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)));
    dated.max_by_key(|(modified, _): &(SystemTime, PathBuf)| *modified).map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_log_is_found() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(newest_log(folder.path()), None);
        std::fs::write(folder.path().join(EVENTS), "").unwrap();
        let newer = folder.path().join("2").join(EVENTS);
        std::fs::create_dir(folder.path().join("2")).unwrap();
        std::fs::write(&newer, "").unwrap();
        let later = SystemTime::now() + std::time::Duration::from_secs(5);
        std::fs::File::open(&newer).unwrap().set_modified(later).unwrap();
        assert_eq!(newest_log(folder.path()), Some(newer));
    }
}
