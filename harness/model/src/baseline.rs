//! Cells that are known to fail, with the scope in which they do: data, never a reason to look away elsewhere.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cell::Cell;
use crate::filter::{Filter, FilterError};

/// A known issue as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct KnownIssue {
    /// A short name: `OVNK-5419`.
    pub name: String,
    /// Which cells, as filters of the command line.
    pub cells: Vec<String>,
    /// `lab` or `kube`; none: everywhere.
    #[serde(default)]
    pub targets: Vec<String>,
    /// Per part of the target (`OVN`, `Kubernetes` …) the versions, or beginnings of them, that have it; none: all.
    #[serde(default)]
    pub versions: BTreeMap<String, Vec<String>>,
    /// Whether the cells fail at times only: then one that passes is no news.
    #[serde(default)]
    pub sometimes: bool,
    /// Why they fail.
    pub reason: String,
    /// Where that is followed up.
    #[serde(default)]
    pub issue: Option<String>,
}

impl KnownIssue {
    /// Whether it is one of this target with these versions. A version that is not known is none that has it.
    #[must_use]
    pub fn applies(&self, target: &str, versions: &BTreeMap<String, String>) -> bool {
        let of = |part: &String, begins: &Vec<String>| {
            versions.get(part).is_some_and(|version| begins.iter().any(|begin| begins_with(version, begin)))
        };
        (self.targets.is_empty() || self.targets.iter().any(|known| known == target))
            && self.versions.iter().all(|(part, begins)| of(part, begins))
    }

    /// Where it is one, in words.
    #[must_use]
    pub fn scope(&self) -> String {
        let targets = if self.targets.is_empty() { "every target".into() } else { self.targets.join(" and ") };
        let versions = self.versions.iter().map(|(part, begins)| format!(", {part} {}", begins.join(" or ")));
        let sometimes = if self.sometimes { ", at times" } else { "" };
        format!("{targets}{}{sometimes}", versions.collect::<String>())
    }

    /// Name, issue and reason in one line.
    #[must_use]
    pub fn told(&self) -> String {
        let issue = self.issue.as_ref().map_or_else(String::new, |issue| format!(" ({issue})"));
        format!("{}{issue}: {}", self.name, self.reason)
    }
}

/// `v1.33` begins `v1.33.0`, but not `v1.330.0`.
fn begins_with(version: &str, begin: &str) -> bool {
    let rest = version.strip_prefix(begin);
    rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
}

/// All known issues.
#[derive(Clone, Debug, Default)]
pub struct Baseline {
    issues: Vec<(KnownIssue, Filter)>,
}

/// A baseline that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    /// A filter is none.
    #[error("known issue {name}: {source}")]
    Filter {
        /// The issue's name.
        name: String,
        /// What is wrong.
        source: FilterError,
    },
    /// It would excuse every cell.
    #[error("known issue {name} names no cell; write filters such as `rule:policy/allow-rules` under `cells`")]
    NoCells {
        /// The issue's name.
        name: String,
    },
}

impl Baseline {
    /// From what is written; `suites` are their names.
    ///
    /// # Errors
    /// A filter that is none, or an issue that names no cell.
    pub fn new(issues: Vec<KnownIssue>, suites: &[&str]) -> Result<Self, BaselineError> {
        let with_filter = |issue: KnownIssue| {
            if issue.cells.iter().all(|word| word.starts_with("not:")) {
                return Err(BaselineError::NoCells { name: issue.name });
            }
            match Filter::parse(&issue.cells, suites) {
                Ok(filter) => Ok((issue, filter)),
                Err(source) => Err(BaselineError::Filter { name: issue.name, source }),
            }
        };
        Ok(Self { issues: issues.into_iter().map(with_filter).collect::<Result<_, _>>()? })
    }

    /// The issues of this target with these versions.
    #[must_use]
    pub fn within(&self, target: &str, versions: &BTreeMap<String, String>) -> Self {
        let applies = self.issues.iter().filter(|(issue, _)| issue.applies(target, versions));
        Self { issues: applies.cloned().collect() }
    }

    /// The issues that name a cell.
    pub fn of<'a>(&'a self, cell: &'a Cell) -> impl Iterator<Item = &'a KnownIssue> {
        self.issues.iter().filter(|(_, filter)| filter.selects(cell)).map(|(issue, _)| issue)
    }

    /// All of them.
    pub fn issues(&self) -> impl Iterator<Item = &KnownIssue> {
        self.issues.iter().map(|(issue, _)| issue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issue(targets: &[&str], versions: &[(&str, &str)]) -> KnownIssue {
        KnownIssue {
            name: "X-1".into(),
            cells: vec!["rule:policy/allow-rules".into()],
            targets: targets.iter().map(|target| (*target).into()).collect(),
            versions: versions.iter().map(|(part, begin)| ((*part).into(), vec![(*begin).into()])).collect(),
            sometimes: false,
            reason: "it does not work".into(),
            issue: Some("ovn-kubernetes/ovn-kubernetes#1".into()),
        }
    }

    #[test]
    fn scopes() {
        let versions = BTreeMap::from([("OVN".to_owned(), "25.03.0".to_owned())]);
        assert!(issue(&[], &[]).applies("lab", &versions));
        assert!(!issue(&["kube"], &[]).applies("lab", &versions));
        assert!(issue(&["kube"], &[("OVN", "25.03")]).applies("kube", &versions));
        assert!(!issue(&[], &[("OVN", "25.0")]).applies("kube", &versions), "a number is not cut in two");
        assert!(!issue(&[], &[("Kubernetes", "v1")]).applies("kube", &versions), "an unknown version has nothing");
        assert_eq!(issue(&["kube"], &[("OVN", "25.03")]).scope(), "kube, OVN 25.03");
    }

    #[test]
    fn an_issue_names_cells() {
        let none = KnownIssue { cells: vec!["not:v6".into()], ..issue(&[], &[]) };
        assert!(Baseline::new(vec![none], &[]).unwrap_err().to_string().contains("X-1 names no cell"));
        let wrong = KnownIssue { cells: vec!["rule:".into()], ..issue(&[], &[]) };
        assert!(Baseline::new(vec![wrong], &[]).unwrap_err().to_string().starts_with("known issue X-1: filter"));
        let baseline = Baseline::new(vec![issue(&["kube"], &[])], &[]).unwrap();
        assert_eq!(baseline.within("lab", &BTreeMap::new()).issues().count(), 0);
        assert_eq!(baseline.within("kube", &BTreeMap::new()).issues().count(), 1);
    }
}
