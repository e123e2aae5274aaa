//! `conformance.yaml`: which profiles of the promise an implementation keeps, in the manner of the Gateway API's conformance
//! reports, to be published and compared.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;
use udn_model::cell::{Check, Feature};
use udn_model::event::CellResult;
use udn_model::verdict::{Counts, Verdict};
use udn_model::words::Family;

use crate::files::Sink;
use crate::run::RunReport;
use crate::{Error, file, text};

/// What a reader of this file has to know. Fields are added; none changes its meaning.
const API_VERSION: &str = "udn-conformance.io/v1alpha1";

/// Which suites make a profile.
const PROFILES: [(&str, &[&str]); 3] = [
    ("pods-core", &["isolation", "addressing"]),
    ("pods-extended", &["services", "policy", "egress", "objects", "workshop"]),
    ("vms", &["vm"]),
];
/// The workshop's second half is about VMs.
const VMS: (&str, &str) = ("workshop", "vms");

/// Whose network was looked at.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Implementation {
    organization: &'static str,
    project: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    url: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
}

/// A whole file.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    api_version: &'static str,
    kind: &'static str,
    date: String,
    implementation: Implementation,
    target: String,
    context: String,
    versions: BTreeMap<String, String>,
    families: Vec<String>,
    profiles: Vec<Profile>,
    supported_features: Vec<Feature>,
    unsupported_features: Vec<Unsupported>,
    known_issues: Vec<KnownIssue>,
    reproduce: String,
}

#[derive(Debug, Serialize)]
struct Profile {
    name: &'static str,
    result: Conclusion,
    #[serde(skip_serializing_if = "String::is_empty")]
    because: String,
    suites: Vec<String>,
    statistics: Counts,
}

/// What a profile's cells come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Conclusion {
    /// Every cell was tried and holds.
    Success,
    /// Every cell that was tried holds, or fails as a known issue says.
    Partial,
    /// Some cell does not hold.
    Failure,
    /// Some cell could not be judged, or the run did not finish; none that was judged fails.
    Inconclusive,
    /// No cell was tried.
    NotTried,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Unsupported {
    name: Feature,
    reason: &'static str,
}

#[derive(Debug, Serialize)]
struct KnownIssue {
    issue: String,
    cells: usize,
}

/// Takes the cells one by one.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    path: &'a Path,
    report: &'a RunReport,
    counts: BTreeMap<&'static str, (BTreeSet<String>, Counts)>,
    families: BTreeSet<Family>,
    used: BTreeSet<Feature>,
    missing: BTreeSet<Feature>,
    known: BTreeMap<String, usize>,
}

impl<'a> Writer<'a> {
    /// Begins the file of a run.
    pub(crate) fn begin(path: &'a Path, report: &'a RunReport) -> Self {
        Self {
            path,
            report,
            counts: BTreeMap::new(),
            families: BTreeSet::new(),
            used: BTreeSet::new(),
            missing: BTreeSet::new(),
            known: BTreeMap::new(),
        }
    }

    fn document(&self) -> Document {
        let report = self.report;
        let started = jiff::Timestamp::from_microsecond(report.started_us.unwrap_or(report.last_us));
        Document {
            api_version: API_VERSION,
            kind: "ConformanceReport",
            date: started.map(|time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()).unwrap_or_default(),
            implementation: implementation(report),
            target: report.target.clone(),
            context: report.context.clone(),
            versions: report.versions.clone(),
            families: self.families.iter().map(ToString::to_string).collect(),
            profiles: PROFILES.iter().map(|(name, _)| self.profile(name)).collect(),
            supported_features: self.used.difference(&self.missing).copied().collect(),
            unsupported_features: self
                .missing
                .iter()
                .map(|feature| Unsupported { name: *feature, reason: feature.missing() })
                .collect(),
            known_issues: self
                .known
                .iter()
                .map(|(issue, cells)| KnownIssue { issue: issue.clone(), cells: *cells })
                .collect(),
            reproduce: reproduce(report),
        }
    }

    fn profile(&self, name: &'static str) -> Profile {
        let (suites, statistics) = self.counts.get(name).cloned().unwrap_or_default();
        let (result, because) = self.conclusion(&statistics);
        Profile { name, result, because, suites: suites.into_iter().collect(), statistics }
    }

    fn conclusion(&self, counts: &Counts) -> (Conclusion, String) {
        let tried = counts.total() - counts.skip;
        let of = |count: usize, what: &str| format!("{} {what}", text::count(count, "cell"));
        if counts.fail + counts.unstable > 0 {
            let bad = counts.fail + counts.unstable;
            return (Conclusion::Failure, of(bad, if bad == 1 { "does not hold" } else { "do not hold" }));
        }
        if let Some(why) = self.report.unfinished() {
            return (Conclusion::Inconclusive, why);
        }
        if counts.error > 0 {
            return (Conclusion::Inconclusive, of(counts.error, "could not be judged"));
        }
        if tried == 0 {
            return (Conclusion::NotTried, String::new());
        }
        let mut less = Vec::new();
        if counts.skip > 0 {
            less.push(of(counts.skip, "skipped"));
        }
        if counts.known > 0 {
            less.push(of(counts.known, "known to fail"));
        }
        if !self.report.filters.is_empty() {
            less.push(format!("only what `{}` selects", self.report.filters.join(" ")));
        }
        if less.is_empty() { (Conclusion::Success, String::new()) } else { (Conclusion::Partial, less.join("; ")) }
    }
}

impl Sink for Writer<'_> {
    fn cell(&mut self, result: &CellResult) -> Result<(), Error> {
        let cell = &result.cell;
        let (suites, counts) = self.counts.entry(profile_of(&cell.suite, &cell.scenario)).or_default();
        if !suites.contains(&cell.suite) {
            suites.insert(cell.suite.clone());
        }
        counts.add(result.verdict);
        if result.verdict == Verdict::Skip {
            let missing = cell.requires.iter().filter(|feature| result.reason.contains(feature.missing()));
            self.missing.extend(missing);
            return Ok(());
        }
        self.used.extend(&cell.requires);
        if let Check::Probe { family, .. } = &cell.check {
            self.families.insert(*family);
        }
        if result.verdict == Verdict::Known {
            // Of all cells of an issue the same, up to what each of them did.
            let issue = result.reason.split("; now ").next().unwrap_or_default();
            *self.known.entry(issue.strip_prefix("known as ").unwrap_or(issue).to_owned()).or_default() += 1;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), Error> {
        let yaml = serde_saphyr::to_string(&self.document())
            .map_err(|error| Error::write(self.path)(std::io::Error::other(error.to_string())))?;
        file::replace(self.path, &yaml)
    }
}

fn profile_of(suite: &str, scenario: &str) -> &'static str {
    if (suite, scenario) == VMS {
        return "vms";
    }
    let of = PROFILES.iter().find(|(_, suites)| suites.contains(&suite));
    // A suite that is new belongs to what is no core.
    of.map_or("pods-extended", |(name, _)| name)
}

/// The lab is no implementation of anybody's: who reads the file has to see that.
fn implementation(report: &RunReport) -> Implementation {
    let version = |name: &str| report.versions.get(name).cloned();
    if report.target == "lab" {
        return Implementation {
            organization: "udn-conformance",
            project: "lab (a stand-in: real OVN and Open vSwitch, not OVN-Kubernetes)",
            url: "",
            version: version("udn-conformance"),
        };
    }
    Implementation {
        organization: "ovn-kubernetes",
        project: "ovn-kubernetes",
        url: "https://github.com/ovn-kubernetes/ovn-kubernetes",
        version: version("OVN-Kubernetes"),
    }
}

fn reproduce(report: &RunReport) -> String {
    let mut words = vec!["udn-conformance run".to_owned()];
    if report.target != "lab" {
        words.push(format!("--target {}", report.target));
    }
    let quoted = |filter: &String| {
        if filter.chars().all(|c| c.is_ascii_alphanumeric() || "-_:./@".contains(c)) {
            filter.clone()
        } else {
            format!("'{filter}'")
        }
    };
    words.extend(report.filters.iter().map(quoted));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use udn_model::event::{Event, EventKind};
    use udn_model::verdict::ExitCode;

    use super::*;
    use crate::files::Files;
    use crate::testing;

    fn made(events: &[Event]) -> String {
        testing::made(events, |path| Files { conformance: Some(path), ..Files::default() })
    }

    #[test]
    fn a_failing_run() {
        insta::assert_snapshot!(made(&testing::failing_run()));
    }

    #[test]
    fn conclusions() {
        let of = |verdicts: &[Verdict], change: fn(&mut Vec<Event>)| {
            let cells =
                testing::cells().into_iter().zip(verdicts).map(|(cell, verdict)| testing::result(cell.cell, *verdict));
            let mut events = testing::run_of(cells.collect(), ExitCode::Passed);
            change(&mut events);
            let yaml = made(&events);
            let core = yaml.split("name: pods-core").nth(1).unwrap();
            core.lines().find_map(|line| line.trim().strip_prefix("result: ")).unwrap().to_owned()
        };
        use Verdict::{Error, Fail, Fixed, Known, Pass, Skip, Unstable};
        let nothing = |_: &mut Vec<Event>| {};
        assert_eq!(of(&[Pass, Pass], nothing), "success");
        assert_eq!(of(&[Pass, Fixed], nothing), "success");
        assert_eq!(of(&[Pass, Skip], nothing), "partial");
        assert_eq!(of(&[Pass, Known], nothing), "partial");
        assert_eq!(of(&[Pass, Error], nothing), "inconclusive");
        assert_eq!(of(&[Error, Fail], nothing), "failure");
        assert_eq!(of(&[Pass, Unstable], nothing), "failure");
        assert_eq!(of(&[Skip, Skip], nothing), "not-tried");
        assert_eq!(of(&[Pass, Pass], |events| events.truncate(events.len() - 1)), "inconclusive");
        let filtered = |events: &mut Vec<Event>| {
            if let Some(EventKind::RunStarted { filters, .. }) = events.first_mut().map(|event| &mut event.kind) {
                filters.push("not:icmp".into());
            }
        };
        assert_eq!(of(&[Pass, Pass], filtered), "partial");
    }

    #[test]
    fn what_is_missing_and_what_is_known_is_told_once() {
        let mut cells = testing::cells();
        cells.truncate(4);
        for cell in &mut cells[..2] {
            cell.verdict = Verdict::Skip;
            cell.cell.requires = vec![Feature::UserDefinedNetworks, Feature::LoadBalancers];
            cell.reason = Feature::LoadBalancers.missing().into();
        }
        for (cell, now) in cells[2..].iter_mut().zip(["open", "half open"]) {
            cell.verdict = Verdict::Known;
            cell.reason = format!("known as BUG-1 (https://bugs.example/1): reset; now fail: {now}");
        }
        let yaml = made(&testing::run_of(cells, ExitCode::Passed));
        assert!(yaml.contains("supportedFeatures:\n- user-defined-networks\n"), "{yaml}");
        assert!(yaml.contains("unsupportedFeatures:\n- name: load-balancers\n  reason: "), "{yaml}");
        assert!(yaml.contains("BUG-1 (https://bugs.example/1): reset\"\n  cells: 2\n"), "{yaml}");
    }

    #[test]
    fn suites_have_profiles() {
        assert_eq!(profile_of("isolation", "layer2"), "pods-core");
        assert_eq!(profile_of("workshop", "pods"), "pods-extended");
        assert_eq!(profile_of("workshop", "vms"), "vms");
        assert_eq!(profile_of("vm", "migration"), "vms");
    }
}
