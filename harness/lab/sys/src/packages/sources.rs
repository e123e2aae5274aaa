//! The host's own package mirror, read from its apt configuration, pointed at a release whose packages are new enough.

use std::collections::HashMap;
use std::path::Path;

use crate::error::Error;

/// One archive to fetch from, and the release in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// `debian` or `ubuntu`.
    pub distribution: String,
    /// Release name.
    pub suite: String,
    /// Archive addresses, as the host has them.
    pub uris: Vec<String>,
    /// Archive components that hold what is needed.
    pub components: &'static str,
    /// The host's `Signed-By`, verbatim; none means apt's default keyrings.
    pub signed_by: Option<String>,
}

/// The distributions whose packages are known to work here: `os-release` id, the release to take when the host's own is
/// too old, releases that are, and the components.
const KNOWN: [(&str, &str, &[&str], &str); 2] = [
    ("debian", "trixie", &["buster", "bullseye", "bookworm"], "main"),
    ("ubuntu", "noble", &["bionic", "focal", "jammy", "kinetic", "lunar", "mantic"], "main universe"),
];

impl Source {
    /// Reads the host's `os-release` and apt sources below `root` (`/`).
    ///
    /// # Errors
    /// When the distribution is another, or no archive of it is configured.
    pub fn of_host(root: &Path) -> Result<Self, Error> {
        let release = os_release(&std::fs::read_to_string(root.join("etc/os-release")).unwrap_or_default());
        let field = |name: &str| release.get(name).cloned().unwrap_or_default();
        let names = format!("{} {}", field("ID"), field("ID_LIKE"));
        let Some((distribution, fallback, too_old, components)) =
            names.split_whitespace().find_map(|name| KNOWN.iter().copied().find(|(id, ..)| *id == name))
        else {
            let names = ["PRETTY_NAME", "NAME", "ID"].iter().find_map(|name| release.get(*name).cloned());
            return Err(Error::UnknownDistribution {
                found: names.unwrap_or_else(|| "without /etc/os-release".into()),
            });
        };
        // Derivatives name the release that they are built on, not their own.
        let codename = ["UBUNTU_CODENAME", "DEBIAN_CODENAME", "VERSION_CODENAME"]
            .iter()
            .find_map(|name| release.get(*name))
            .cloned()
            .unwrap_or_else(|| fallback.to_owned());
        let suite = if too_old.contains(&codename.as_str()) { fallback } else { codename.as_str() };

        let archives = read_all(root);
        let holds = |archive: &&Archive, wanted: &str| archive.suites.iter().any(|suite| suite == wanted);
        let main = |archive: &&Archive| archive.components.iter().any(|component| component == "main");
        let archive = archives
            .iter()
            .filter(main)
            .find(|archive| holds(archive, &codename))
            .or_else(|| archives.iter().filter(main).find(|archive| holds(archive, "stable")))
            .ok_or_else(|| Error::NoArchive { distribution: distribution.into(), codename: codename.clone() })?;
        Ok(Self {
            distribution: distribution.into(),
            suite: suite.to_owned(),
            uris: archive.uris.clone(),
            components,
            signed_by: archive.signed_by.clone(),
        })
    }

    /// As a deb822 source file.
    #[must_use]
    pub fn to_deb822(&self) -> String {
        let Self { suite, uris, components, signed_by, .. } = self;
        let signed_by = signed_by.as_ref().map(|value| format!("Signed-By: {value}\n")).unwrap_or_default();
        format!("Types: deb\nURIs: {}\nSuites: {suite}\nComponents: {components}\n{signed_by}", uris.join(" "))
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Archive {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    signed_by: Option<String>,
}

fn os_release(text: &str) -> HashMap<String, String> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.trim().to_owned(), value.trim().trim_matches(['"', '\'']).to_owned()))
        .collect()
}

fn read_all(root: &Path) -> Vec<Archive> {
    let mut files = vec![root.join("etc/apt/sources.list")];
    let mut parts: Vec<_> = std::fs::read_dir(root.join("etc/apt/sources.list.d"))
        .map(|entries| entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect())
        .unwrap_or_default();
    parts.sort();
    files.append(&mut parts);
    let mut archives = Vec::new();
    for file in files {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("sources") => archives.extend(deb822(&text)),
            Some("list") => archives.extend(text.lines().filter_map(one_line)),
            _ => {}
        }
    }
    archives
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// `deb [options] uri suite component…`
fn one_line(line: &str) -> Option<Archive> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb")?;
    let rest = rest.strip_prefix(char::is_whitespace)?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut rest = words(rest).into_iter();
    Some(Archive {
        uris: vec![rest.next()?],
        suites: vec![rest.next()?],
        components: rest.collect(),
        signed_by: options.split_whitespace().find_map(|option| option.strip_prefix("signed-by=")).map(str::to_owned),
    })
}

/// Stanzas of `Field: value` lines; a value goes on over indented lines; lines that start with `#` are comments.
fn deb822(text: &str) -> Vec<Archive> {
    let mut archives = Vec::new();
    let mut fields: HashMap<String, String> = HashMap::new();
    let mut last = String::new();
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            archives.extend(stanza(&std::mem::take(&mut fields)));
        } else if line.starts_with(char::is_whitespace) {
            // Kept with its line break: an embedded key is a value of many lines.
            fields.entry(last.clone()).or_default().push_str(&format!("\n{line}"));
        } else if let Some((name, value)) = line.split_once(':') {
            last = name.trim().to_lowercase();
            fields.insert(last.clone(), value.trim().to_owned());
        }
    }
    archives
}

fn stanza(fields: &HashMap<String, String>) -> Option<Archive> {
    let list = |name: &str| fields.get(name).map(|value| words(value)).unwrap_or_default();
    let enabled = fields.get("enabled").is_none_or(|value| !matches!(value.as_str(), "no" | "false" | "0"));
    if !enabled || !list("types").iter().any(|kind| kind == "deb") {
        return None;
    }
    Some(Archive {
        uris: list("uris"),
        suites: list("suites"),
        components: list("components"),
        signed_by: fields.get("signed-by").cloned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(os_release: &str, list: &str, sources: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let parts = root.path().join("etc/apt/sources.list.d");
        std::fs::create_dir_all(&parts).unwrap();
        std::fs::write(root.path().join("etc/os-release"), os_release).unwrap();
        std::fs::write(root.path().join("etc/apt/sources.list"), list).unwrap();
        std::fs::write(parts.join("a.sources"), sources).unwrap();
        root
    }

    #[test]
    fn an_old_debian_takes_trixie_from_its_own_mirror() {
        let sources = "Types: deb\n# a comment\nURIs: http://mirror.test/security\nSuites: bookworm-security\n\
                       Components: main\n\nTypes: deb\nURIs: http://mirror.test/debian\n\
                       Suites: bookworm bookworm-updates\nComponents: main\nSigned-By: /keys/debian.gpg\n";
        let root = host("ID=debian\nVERSION_CODENAME=bookworm\n", "", sources);
        let source = Source::of_host(root.path()).unwrap();
        assert_eq!(source.suite, "trixie");
        assert_eq!(source.uris, ["http://mirror.test/debian"]);
        assert_eq!(
            source.to_deb822(),
            "Types: deb\nURIs: http://mirror.test/debian\nSuites: trixie\nComponents: main\nSigned-By: /keys/debian.gpg\n"
        );
    }

    #[test]
    fn one_line_sources_and_derivatives_are_understood() {
        let list = "# deb http://wrong.test/ubuntu jammy main\ndeb-src http://wrong.test/ubuntu jammy main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://mirror.test/ubuntu jammy main restricted\n";
        let root =
            host("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\nVERSION_CODENAME=x\nUBUNTU_CODENAME=jammy\n", list, "");
        let source = Source::of_host(root.path()).unwrap();
        assert_eq!((source.distribution.as_str(), source.suite.as_str()), ("ubuntu", "noble"));
        assert_eq!(source.uris, ["http://mirror.test/ubuntu"]);
        assert_eq!(source.signed_by.as_deref(), Some("/k.gpg"));
    }

    #[test]
    fn a_new_release_is_its_own_source() {
        let root = host(
            "ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=plucky\n",
            "deb http://mirror.test/ubuntu plucky main\n",
            "",
        );
        assert_eq!(Source::of_host(root.path()).unwrap().suite, "plucky");
    }

    #[test]
    fn a_disabled_archive_is_none() {
        let sources = "Enabled: no\nTypes: deb\nURIs: http://mirror.test/debian\nSuites: trixie\nComponents: main\n";
        let root = host("ID=debian\nVERSION_CODENAME=trixie\n", "", sources);
        assert!(matches!(Source::of_host(root.path()), Err(Error::NoArchive { .. })));
    }

    #[test]
    fn another_distribution_is_named() {
        let root = host("ID=fedora\nPRETTY_NAME=\"Fedora Linux 42\"\n", "", "");
        let message = Source::of_host(root.path()).unwrap_err().to_string();
        assert!(message.contains("Fedora Linux 42") && message.contains("3.3"), "{message}");
    }
}
