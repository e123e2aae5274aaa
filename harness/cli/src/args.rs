//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::help::{BENCH, COMPLETIONS, DIFF, EXIT_CODES, FILTERS, IMAGE, REPORT};
use crate::shards::Shard;

/// Checks which promises of OVN-Kubernetes User Defined Networks a cluster keeps.
///
/// Every cell of a connectivity matrix is probed with real packets and judged on evidence from both ends. Without a
/// command everything runs on the lab: a small cluster inside this program, on real OVN and Open vSwitch, that leaves no
/// trace. No other cluster is touched unless `--target kube` says so.
#[derive(Debug, Parser)]
#[command(name = "udn-conformance", version, after_help = EXIT_CODES, max_term_width = 110)]
pub(crate) struct Cli {
    /// What to do; without it, `run`.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show what exists: suites, scenarios, cells. Needs no cluster.
    #[command(after_help = FILTERS)]
    List(List),
    /// Show what would run on a target, and why the rest would not.
    #[command(after_help = FILTERS)]
    Plan(Plan),
    /// Run scenarios and report which promises hold.
    #[command(after_help = format!("{FILTERS}\n\n{EXIT_CODES}"))]
    Run(Box<Run>),
    /// Make a run's reports again from its events.jsonl. Needs no cluster.
    #[command(after_help = REPORT)]
    Report(Report),
    /// Compare two runs: what newly fails, what is fixed, what takes longer. Needs no cluster.
    #[command(after_help = DIFF.as_str())]
    Diff(Diff),
    /// Explain one cell: its rule and source, what is probed, how it is judged, what was seen last.
    Explain(Explain),
    /// Measure how fast and how small this program is on this machine's lab, beside what it is meant to be.
    #[command(after_help = BENCH)]
    Bench(Bench),
    /// Keep a lab up between runs, for kubectl and for experiments; `run` uses it while it is up.
    #[command(subcommand)]
    Lab(Lab),
    /// Write the image of the virtual machines, for clusters that cannot pull it.
    #[command(after_help = IMAGE)]
    Image(Image),
    /// Remove what runs left in a cluster.
    Cleanup(Cleanup),
    /// Print what a shell needs to complete this program's commands and options.
    #[command(after_help = COMPLETIONS)]
    Completions(Completions),
    /// Print the manual page, with all commands: `udn-conformance man | man -l -`.
    Man,
}

/// How cells are selected and where fixtures come from.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Selection {
    /// Suites, parts or globs of cell ids, `rule:…`, `not:…`; none: everything.
    #[arg(value_name = "FILTER")]
    pub filters: Vec<String>,
    /// Read changed copies of the fixtures from this folder.
    #[arg(long, value_name = "DIR")]
    pub fixtures: Option<PathBuf>,
    /// Only the I-th of N parts of what is selected, about as long as each other, so that N machines share a run.
    #[arg(long, value_name = "I/N")]
    pub shard: Option<Shard>,
}

impl Selection {
    /// What selects, as typed.
    pub(crate) fn typed(&self) -> Vec<String> {
        let shard = self.shard.iter().flat_map(|shard| ["--shard".to_owned(), shard.to_string()]);
        self.filters.iter().cloned().chain(shard).collect()
    }
}

/// A cluster to talk to.
#[derive(Args, Clone, Debug)]
pub(crate) struct Target {
    /// Where to run.
    #[arg(long, value_enum, default_value_t, env = "UDN_TARGET")]
    pub target: TargetKind,
    /// With `--target kube`: the kubeconfig file [default: $KUBECONFIG, else ~/.kube/config].
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// With `--target kube`: the kubeconfig's context [default: its current one].
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// With `--target kube`: a name outside of the cluster that its DNS service knows and that has an IPv4 address.
    #[arg(long, value_name = "NAME", env = "UDN_EXTERNAL_NAME")]
    pub external_name: Option<String>,
    /// With `--target lab`: use the lab of this name if `lab up` started one.
    #[arg(long, value_name = "NAME", default_value = LAB_NAME)]
    pub lab: String,
}

/// The lab that `lab up` starts, and `run` uses if it is up, unless another is named.
pub(crate) const LAB_NAME: &str = "lab";

/// Where to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum TargetKind {
    /// The lab: a cluster inside this program.
    #[default]
    Lab,
    /// The cluster of a kubeconfig.
    Kube,
}

/// How data is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

/// `list`.
#[derive(Args, Debug)]
pub(crate) struct List {
    /// What to show.
    #[command(flatten)]
    pub selection: Selection,
    /// How to write it; json is an array of cells.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Show every cell.
    #[arg(long)]
    pub cells: bool,
}

/// `plan`.
#[derive(Args, Debug)]
pub(crate) struct Plan {
    /// What to show.
    #[command(flatten)]
    pub selection: Selection,
    /// Whose features count; a cluster is only asked, nothing is created.
    #[command(flatten)]
    pub target: Target,
    /// As of `run`: make no pods in host networks.
    #[arg(long)]
    pub no_host_network: bool,
    /// How to write it; json is an array of cells with `skip`: the reason, or null.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Show every cell.
    #[arg(long)]
    pub cells: bool,
}

/// `run`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Run {
    /// What to run.
    #[command(flatten)]
    pub selection: Selection,
    /// Where.
    #[command(flatten)]
    pub target: Target,
    /// Where events.jsonl and the reports made of it go [default: target/udn-conformance in a cargo workspace, else
    /// udn-conformance-report].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Run so many times, each into a numbered folder below, and tell which cells did not always end alike.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeat: u32,
    /// With `--target lab`: start a lab for this run even if one is up.
    #[arg(long)]
    pub fresh_lab: bool,
    /// What stays after the run; a lab that was started for it stays up with what is kept.
    #[arg(long, value_enum, default_value_t)]
    pub keep: Keep,
    /// Stop after this time (90s, 10m, 1h); what is not judged by then is an error.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub deadline: Option<Duration>,
    /// Choose other source ports and nonces; the same number chooses the same ones.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// junit.xml has a test case per cell, not per scenario and phase.
    #[arg(long)]
    pub junit_cells: bool,
    /// Unstable cells do not fail the run.
    #[arg(long)]
    pub allow_unstable: bool,
    /// Known issues, instead of those that come with the program: a list as in fixtures/baseline.yaml.
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,
    /// Cells that are known to fail and hold do not fail the run.
    #[arg(long)]
    pub allow_fixed: bool,
    /// Consecutive rounds in which a matrix must match before it counts as settled.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub settle_rounds: u32,
    /// How long a matrix may take to settle after what its phase did; one that cannot be tried often enough by then gets longer.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "30s")]
    pub settle_deadline: Duration,
    /// How long a settled matrix must hold (10s, 1m) [default: one more round].
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub hold: Option<Duration>,
    /// How long a probe that must not get through is waited for; at least 2s, since a lost SYN is sent again after 1s.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "2s")]
    pub deny_timeout: Duration,
    /// How long pods may take to get ready.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "2m")]
    pub ready_deadline: Duration,
    /// Image of the containers that probe, where the cluster cannot pull the fixtures' own.
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// Image that guests of VMs are started from, where the nodes do not have udn-conformance.local/guest (`image` writes it).
    #[arg(long, value_name = "IMAGE")]
    pub guest_image: Option<String>,
    /// How long a connection may be out while its VM migrates.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "2s")]
    pub outage_budget: Duration,
    /// Make no pods in host networks, where that is not allowed: cells from and to nodes are skipped.
    #[arg(long)]
    pub no_host_network: bool,
}

/// A command line of its own, to get the defaults of `run` from where they are declared.
#[derive(Debug, Parser)]
struct Bare {
    #[command(flatten)]
    run: Run,
}

impl Run {
    /// `run` without arguments. The environment counts as ever; where it makes no sense the program ends with usage.
    #[must_use]
    pub(crate) fn everything() -> Self {
        Bare::parse_from(["udn-conformance"]).run
    }
}

/// What stays in the cluster after a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Keep {
    /// Nothing.
    #[default]
    Never,
    /// Worlds with a cell that does not hold.
    OnFailure,
    /// Everything.
    Always,
}

/// `bench`.
#[derive(Args, Debug)]
pub(crate) struct Bench {
    /// What the measured run selects, as of `run`; none: everything.
    #[arg(value_name = "FILTER")]
    pub filters: Vec<String>,
    /// How often what takes seconds is measured; the median counts.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repeat: u32,
    /// How often the run is measured; the median counts.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub runs: u32,
    /// How to write it.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// `report`.
#[derive(Args, Debug)]
pub(crate) struct Report {
    /// The folder of the run, or its events.jsonl [default: as of `run`].
    #[arg(value_name = "DIR")]
    pub run: Option<PathBuf>,
    /// Make the page for people: one file, needs no network.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Make the JUnit file.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Make the summary for a job's page.
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// Make the report for machines.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Make the figures for a trend.
    #[arg(long, value_name = "FILE")]
    pub openmetrics: Option<PathBuf>,
    /// Make the statement of which profiles hold.
    #[arg(long, value_name = "FILE")]
    pub conformance: Option<PathBuf>,
    /// Page and summary also say what changed since this older run: its folder or events.jsonl.
    #[arg(long, value_name = "DIR")]
    pub since: Option<PathBuf>,
    /// junit.xml has a test case per cell, not per scenario and phase.
    #[arg(long)]
    pub junit_cells: bool,
    /// In junit.xml unstable cells are no failures, as with this option of `run`.
    #[arg(long)]
    pub allow_unstable: bool,
    /// In junit.xml cells that are known to fail and hold are no failures, as with this option of `run`.
    #[arg(long)]
    pub allow_fixed: bool,
}

/// `diff`.
#[derive(Args, Debug)]
pub(crate) struct Diff {
    /// The older run: its folder or events.jsonl.
    #[arg(value_name = "BEFORE")]
    pub before: PathBuf,
    /// The newer run.
    #[arg(value_name = "AFTER")]
    pub after: PathBuf,
    /// How to write it.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// `explain`.
#[derive(Args, Debug)]
pub(crate) struct Explain {
    /// A cell's id, or a part of it that no other id has.
    pub cell: String,
    /// Read changed copies of the fixtures from this folder.
    #[arg(long, value_name = "DIR")]
    pub fixtures: Option<PathBuf>,
    /// Known issues, as of `run`.
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,
    /// The folder of the run to look into [default: as of `run`].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// `lab`.
#[derive(Debug, Subcommand)]
pub(crate) enum Lab {
    /// Start a lab; it goes on in the background until `lab down`.
    Up(LabUp),
    /// End a lab: its processes and namespaces are gone with it.
    Down(LabName),
    /// Say whether a lab is up, how it is and how to reach it. Exit code 0: up; 1: not; 3: up, but not sound.
    Status(LabStatus),
    /// Print the path of a lab's kubeconfig.
    Kubeconfig(LabName),
    /// Run a program in a network namespace of a lab, with its OVN and Open vSwitch tools at hand.
    Exec(LabExec),
}

/// Which lab.
#[derive(Args, Clone, Debug)]
pub(crate) struct LabName {
    /// The lab's name.
    #[arg(long, value_name = "NAME", default_value = LAB_NAME)]
    pub name: String,
}

/// `lab up`.
#[derive(Args, Debug)]
pub(crate) struct LabUp {
    /// Which lab.
    #[command(flatten)]
    pub name: LabName,
    /// Stay in the foreground; Ctrl-C ends the lab.
    #[arg(long)]
    pub foreground: bool,
    /// Services of the default network that pods of all networks reach by their ClusterIPs, separated by commas
    /// [default: default/kubernetes,kube-system/kube-dns]
    #[arg(long, value_name = "NAMESPACE/NAME", value_delimiter = ',')]
    pub udn_allowed_default_services: Option<Vec<String>>,
    /// Join the API server of this kubeconfig's current context, instead of starting one: nodes, pods, network and virtual
    /// machines are the lab's, objects are there. `lab down` removes what the lab put there. See docs/lab.md
    #[arg(long, value_name = "KUBECONFIG")]
    pub api_server: Option<PathBuf>,
}

/// `lab status`.
#[derive(Args, Debug)]
pub(crate) struct LabStatus {
    /// Which lab.
    #[command(flatten)]
    pub name: LabName,
    /// How to write it.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// `lab exec`.
#[derive(Args, Debug)]
pub(crate) struct LabExec {
    /// Which lab.
    #[command(flatten)]
    pub name: LabName,
    /// ovn-control-plane, ovn-worker, ovn-worker2, external or underlay.
    pub node: String,
    /// The program and its arguments.
    #[arg(required = true, last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// `image`.
#[derive(Args, Debug)]
pub(crate) struct Image {
    /// Where to write the archive.
    #[arg(long, value_name = "FILE")]
    pub archive: PathBuf,
    /// The kernel: a folder that one Debian package linux-image-*-cloud-* is unpacked in (`dpkg -x`); without it the one
    /// that the lab's guests have, fetched where it is not there yet.
    #[arg(long, value_name = "DIR")]
    pub kernel_package: Option<PathBuf>,
}

/// `cleanup`.
#[derive(Args, Debug)]
pub(crate) struct Cleanup {
    /// Only what this run left.
    #[arg(long, value_name = "ID")]
    pub run: Option<String>,
    /// Where; a lab that a run started for itself left nothing.
    #[command(flatten)]
    pub target: Target,
}

/// `completions`.
#[derive(Args, Debug)]
pub(crate) struct Completions {
    /// Which shell.
    pub shell: Shell,
}

/// `90s`, `10m`, `1h`, `500ms`; a bare number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "write a whole number and a unit: 500ms, 90s, 10m, 1h".to_owned())?;
    let ms = match unit {
        "ms" => Some(number),
        "" | "s" => number.checked_mul(1_000),
        "m" | "min" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => return Err(format!("`{unit}` is no unit: write ms, s, m or h")),
    };
    ms.map(Duration::from_millis).ok_or_else(|| "that is too long".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_are_read_with_their_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert!(duration("ten").unwrap_err().contains("10m"));
        assert!(duration("3d").unwrap_err().contains("`d`"));
        assert!(duration("99999999999999999h").is_err());
    }
}
