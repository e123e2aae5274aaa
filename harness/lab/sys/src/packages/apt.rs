//! The system's own apt with a private state folder and source list: nothing is installed, the host's lists stay as
//! they are, signatures are checked as ever.

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::sources::Source;
use crate::error::Error;

/// What apt said when it failed.
#[derive(Debug)]
pub struct Failed(pub String);

/// apt, pointed at a folder of ours.
#[derive(Debug)]
pub struct Apt {
    folder: PathBuf,
}

/// One package file to download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Download {
    /// File name with version.
    pub file: String,
    /// Bytes.
    pub size: u64,
}

impl Apt {
    /// Prepares `folder` (empty) for `source`.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn new(folder: &Path, source: &Source) -> Result<Self, Error> {
        for sub in ["lists/partial", "archives/partial", "log"] {
            let path = folder.join(sub);
            std::fs::create_dir_all(&path).map_err(Error::file("create", path))?;
        }
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).map_err(Error::file("write", path))
        };
        write("status", "")?;
        write("lab.sources", &source.to_deb822())?;
        // Hooks of the host (cleaning its cache, refreshing its desktop's index) are no business of a private folder.
        // apt reads this file last, so that nothing of the host's configuration survives a clear.
        let at = folder.display();
        write(
            "apt.conf",
            &format!(
                "#clear APT::Update::Pre-Invoke;\n#clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n\
                 Dir::Etc::sourcelist \"{at}/lab.sources\";\nDir::Etc::sourceparts \"-\";\n\
                 Dir::Etc::preferences \"-\";\nDir::Etc::preferencesparts \"-\";\n\
                 Dir::State \"{at}\";\nDir::State::lists \"{at}/lists\";\nDir::State::status \"{at}/status\";\n\
                 Dir::Cache \"{at}\";\nDir::Cache::archives \"{at}/archives\";\nDir::Log \"{at}/log\";\n\
                 APT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\n\
                 Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
                 Acquire::IndexTargets::deb::CNF::DefaultEnabled \"false\";\n\
                 Acquire::Retries \"2\";\nAcquire::http::Timeout \"20\";\nAcquire::https::Timeout \"20\";\n"
            ),
        )?;
        Ok(Self { folder: folder.to_owned() })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-c").arg(self.folder.join("apt.conf")).env("LC_ALL", "C").stdin(Stdio::null());
        command
    }

    fn output(&self, mut command: Command) -> Result<String, Failed> {
        let name = command.get_program().to_string_lossy().into_owned();
        let output = command.output().map_err(|error| Failed(format!("cannot run {name}: {error}")))?;
        let errors = String::from_utf8_lossy(&output.stderr);
        // `apt-get update` exits 0 although a list could not be fetched.
        if !output.status.success()
            || errors.lines().any(|line| line.starts_with("E:") || line.starts_with("W: Failed"))
        {
            return Err(Failed(first_errors(&errors)));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Fetches the archive's list of packages and checks its signature.
    ///
    /// # Errors
    /// What apt said.
    pub fn update(&self) -> Result<(), Failed> {
        let mut command = self.command("apt-get");
        command.args(["update", "-q"]);
        self.output(command).map(drop)
    }

    /// The packages `wanted` and all libraries that they need, however far.
    ///
    /// # Errors
    /// What apt said: a name that the archive does not know.
    pub fn closure(&self, wanted: &[&str]) -> Result<Vec<String>, Failed> {
        let mut command = self.command("apt-cache");
        command.args(["depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks"]);
        command.args(["--no-replaces", "--no-enhances"]).args(wanted);
        Ok(libraries_of(wanted, &self.output(command)?))
    }

    /// File names and sizes of `packages`.
    ///
    /// # Errors
    /// What apt said.
    pub fn sizes(&self, packages: &[String]) -> Result<Vec<Download>, Failed> {
        let mut command = self.command("apt-get");
        command.args(["download", "--print-uris", "-q"]).args(packages);
        Ok(self.output(command)?.lines().filter_map(download).collect())
    }

    /// Downloads `packages` into `folder`; `each` is called at the start of each file. apt checks each against the
    /// signed list.
    ///
    /// # Errors
    /// What apt said.
    pub fn download(&self, packages: &[String], folder: &Path, mut each: impl FnMut(&str)) -> Result<(), Failed> {
        let mut command = self.command("apt-get");
        command.args(["download", "-q"]).args(packages).current_dir(folder);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| Failed(format!("cannot run apt-get: {error}")))?;
        // Errors are few lines: they fit the pipe while the output is read.
        if let Some(output) = child.stdout.take() {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if line.starts_with("Get:") {
                    each(line.split_whitespace().nth(4).unwrap_or_default());
                }
            }
        }
        let mut errors = String::new();
        if let Some(mut pipe) = child.stderr.take() {
            let _ = pipe.read_to_string(&mut errors);
        }
        match child.wait() {
            Ok(status) if status.success() => Ok(()),
            _ => Err(Failed(first_errors(&errors))),
        }
    }
}

fn first_errors(text: &str) -> String {
    let lines: Vec<_> =
        text.lines().filter(|line| line.starts_with("E:") || line.starts_with("W: Failed")).take(2).collect();
    if lines.is_empty() { "apt failed and did not say why".into() } else { lines.join("; ") }
}

/// `'uri' file size hash`
fn download(line: &str) -> Option<Download> {
    let mut words = line.strip_prefix('\'')?.split_whitespace().skip(1);
    Some(Download { file: words.next()?.to_owned(), size: words.next()?.parse().ok()? })
}

/// Walks `apt-cache depends` from `wanted` along libraries and kernels only: no interpreter, no service manager, nothing that runs.
fn libraries_of(wanted: &[&str], depends: &str) -> Vec<String> {
    let mut graph: HashMap<&str, Vec<&str>> = HashMap::new();
    let mut current = "";
    for line in depends.lines() {
        if !line.starts_with([' ', '|']) {
            current = line.trim();
        } else if let Some((kind, name)) = line.split_once(": ")
            && kind.ends_with("Depends")
        {
            graph.entry(current).or_default().push(name.trim());
        }
    }
    // A kernel's package of a fixed name stands for one with a version in its name.
    let kernel = |name: &str| name.starts_with("linux-image-") || name.starts_with("linux-modules-");
    let library = |name: &str| {
        (name.starts_with("lib") || name == "zlib1g" || kernel(name))
            && !name.ends_with("-bin")
            && !name.starts_with("libpython")
            && !name.starts_with("libperl")
    };
    let mut packages: BTreeSet<&str> = wanted.iter().copied().collect();
    let mut open: Vec<&str> = wanted.to_vec();
    while let Some(name) = open.pop() {
        for dependency in graph.get(name).into_iter().flatten() {
            if library(dependency) && packages.insert(dependency) {
                open.push(dependency);
            }
        }
    }
    packages.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_libraries_and_nothing_else() {
        let depends = "tool\n  PreDepends: init-system-helpers\n |Depends: kmod\n  Depends: liba1\n  Depends: libcap2-bin\n\
                       liba1\n  Depends: libb2\n  Depends: <libvirtual>\n    libc3\nlibb2\n  Depends: debconf\n";
        assert_eq!(libraries_of(&["tool"], depends), ["liba1", "libb2", "tool"]);
    }

    #[test]
    fn reads_file_and_size() {
        let line = "'http://mirror.test/pool/o/ovn_25.03.0-1_amd64.deb' ovn_25.03.0-1_amd64.deb 12345 SHA256:00";
        assert_eq!(download(line), Some(Download { file: "ovn_25.03.0-1_amd64.deb".into(), size: 12345 }));
    }
}
