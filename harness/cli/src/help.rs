//! What `--help` ends with.

use std::sync::LazyLock;

/// What every `--help` ends with.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
    0  every judged cell holds
    1  some cells fail, are unstable or fixed
    2  the command line or an input file is wrong
    3  some cells could not be judged; none failed
    4  nothing was selected, or everything was skipped
    5  the target could not be set up or the reports not be written
  130  interrupted";

/// What `bench --help` ends with.
pub(crate) const BENCH: &str = "\
Measured on labs of their own: the time of `lab up` with packages cached, open TCP probes of one agent a second, a run
of everything as `run` does it, the rounds of its matrices and of one matrix alone, and the memory of its processes
meanwhile. A figure that misses its target changes no exit code: machines differ. Other work on the machine shows in
every figure.";

/// What `completions --help` ends with.
pub(crate) const COMPLETIONS: &str = "\
For one session:
  source <(udn-conformance completions bash)
For all: write it where the shell looks, for bash ~/.local/share/bash-completion/completions/udn-conformance.";

/// What `image --help` ends with.
pub(crate) const IMAGE: &str = "\
The image udn-conformance.local/guest:latest holds a kernel, an initramfs whose only program is the probe agent, and the
agent. Fixtures with virtual machines boot it. The archive is an OCI image layout that Docker reads too:
  docker load --input FILE
  kind load image-archive FILE
  skopeo copy oci-archive:FILE docker://registry.example/guest:latest";

/// What `report --help` ends with.
pub(crate) const REPORT: &str = "\
Without an option for a file, all are made beside the log: report.html, summary.md, report.json, junit.xml,
metrics.txt and conformance.yaml. docs/reports.md says what is in each.";

/// What `diff --help` ends with.
pub(crate) static DIFF: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{}\n\n{}",
        udn_reports::compare::METHOD,
        "\
Exit codes:
    0  nothing newly fails, is newly unstable or newly an error; slower and longer change nothing
    1  something does
    2  the command line or a log is wrong
    3  the newer run did not finish, and what it judged is no worse"
    )
});

/// What selects cells.
pub(crate) const FILTERS: &str = "\
Filters:
  isolation              the suite of this name
  overlap                cells with this text in their id
  '*::tcp-8080::v6'      cells whose id matches this glob
  'rule:isolation/*'     cells of these rules
  not:icmp               without these, before any of the above
  Several filters select what any of them selects. Controls that a selected cell needs are added.";
