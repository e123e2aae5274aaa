//! `bench`: how fast and how small, beside what it is meant to be.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use udn_cluster::rate::Rate;
use udn_cluster::{Connect, Kube};
use udn_lab::Lab;
use udn_model::plan::Environment;
use udn_model::verdict::ExitCode;
use udn_reports::folder::EVENTS;
use udn_reports::text;
use udn_runner::cluster::Cluster;

use crate::args::{self, Format, Run, Selection};
use crate::bench::figures::{Benchmark, Bound, Figure, Samples, Unit};
use crate::bench::processes::Peak;
use crate::bench::runs::Speed;
use crate::bench::wide;
use crate::failure::{Failure, printed};
use crate::reporting::{Events, Reporting};
use crate::{interrupt, select, target, tied};

/// How long a lab may take to get up, packages cached, milliseconds.
const LAB_UP: f64 = 5_000.0;
/// How long a run of these suites may take, milliseconds.
const ISOLATION_RUN: (&[&str], f64) = (&["isolation", "addressing", "objects"], 120_000.0);
/// How long all other suites may take on top of that, milliseconds.
const OTHER_RUN: f64 = 240_000.0;
/// Cells of a round that is to last no longer than the deny timeout and [`ROUND`].
const ROUND_CELLS: usize = 2_000;
/// A matrix of fewer cells than that, with the world for itself.
const MATRIX: [&str; 2] = ["isolation::layer2", "not:icmp"];
/// What a round may take beside the deny timeout, milliseconds.
const ROUND: f64 = 1_000.0;
/// The same for larger rounds.
const LARGE_ROUND: f64 = 3_000.0;
/// Open TCP probes of one agent a second.
const PROBES_PER_SECOND: f64 = 2_000.0;
/// Says how the lab is to start a guest.
const LAB_BOOT: &str = "lab.udn-conformance.io/boot";
/// How soon the guest of a virtual machine may answer, milliseconds: one that goes on from a snapshot.
const GUEST_COPY: f64 = 1_000.0;
/// One that boots from its kernel.
const GUEST_BOOT: f64 = 5_000.0;
/// What the agent's file may have, bytes.
const AGENT_SIZE: f64 = (1 << 20) as f64;
/// What the agent may have in memory, bytes.
const AGENT_MEMORY: f64 = (8 << 20) as f64;
/// What the program may have in memory, bytes.
const PROGRAM_MEMORY: f64 = (150 << 20) as f64;

/// Probes of one measurement.
const PROBES: usize = 5_000;
/// Of them under way at once.
const IN_FLIGHT: usize = 500;
/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Measures and prints.
///
/// # Errors
/// A wrong filter; a lab that does not come up, or a run that cannot be started. Never what was measured.
pub(crate) async fn bench(args: &args::Bench) -> Result<ExitCode, Failure> {
    let selection = Selection { filters: args.filters.clone(), ..Selection::default() };
    select::plan(&select::suites(None)?, &selection, &Environment::complete())?;
    let cancel = interrupt::watch().context("cannot watch for Ctrl-C").map_err(Failure::setup)?;
    let reporting = Reporting::progress_only();
    let events = reporting.events();
    let measured = tokio::select! {
        measured = measure(args, &events) => Some(measured),
        // Labs and runs that were started end with what waits for them.
        () = cancel.cancelled() => None,
    };
    drop(events);
    reporting.end().await;
    let Some(measured) = measured else { return Ok(ExitCode::Interrupted) };
    let benchmark = measured?;
    let output = match args.format {
        Format::Text => benchmark.text(),
        Format::Json => {
            let json = serde_json::to_string_pretty(&benchmark).context("cannot write figures");
            json.map_err(Failure::setup)? + "\n"
        }
    };
    let mut out = io::stdout();
    printed(out.write_all(output.as_bytes()).and_then(|()| out.flush()))?;
    Ok(ExitCode::Passed)
}

async fn measure(args: &args::Bench, events: &Events) -> Result<Benchmark, Failure> {
    // Packages are fetched, and what the system caches is cached, before anything counts.
    stop(lab(events).await?.0).await?;
    let mut peak = Peak::default();
    let (mut ups, mut rates) = (Vec::new(), Vec::new());
    for turn in 1..=args.repeat {
        let (lab, took) = lab(events).await?;
        ups.push(milliseconds(took));
        let stage = events.stage(&format!("probes of one agent ({turn} of {})", args.repeat));
        let rate = rate(&lab).await;
        stage.end(rate.as_ref().err());
        rates.push(rate?);
        // Only the agent: this process is not what a run is.
        let mut seen = Peak::default();
        seen.look(std::process::id());
        peak.agent = peak.agent.max(seen.agent);
        stop(lab).await?;
    }
    let mut runs = Vec::new();
    for turn in 1..=args.runs {
        let stage = events.stage(&format!("run ({turn} of {})", args.runs));
        let run = run(&args.filters, &[]).await;
        stage.end(run.as_ref().err());
        let (speed, seen) = run?;
        runs.push(speed);
        peak = peak.with(&seen);
    }
    let stage = events.stage("run of one matrix");
    let alone = run(&MATRIX.map(String::from), &[]).await;
    stage.end(alone.as_ref().err());
    let (alone, _) = alone?;
    let stage = events.stage("run of one large matrix");
    let large = large().await;
    stage.end(large.as_ref().err());
    let large = large?;
    let stage = events.stage("guests of virtual machines");
    let guests = guests(args.repeat, events).await;
    stage.end(guests.as_ref().err());
    let mut figures = vec![up_figure(ups)];
    figures.extend(run_figures(&runs, &alone, &large));
    figures.push(rate_figure(&rates));
    figures.extend(guests?);
    figures.extend(size_figures(&peak));
    Ok(Benchmark {
        build: if cfg!(debug_assertions) { "debug" } else { "release" },
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        versions: runs.pop().unwrap_or_default().versions,
        figures,
    })
}

/// A lab of its own, and how long a user would have waited for it.
async fn lab(events: &Events) -> Result<(Lab, Duration), Failure> {
    let options = udn_lab::Options::default();
    let begun = Instant::now();
    let lab = target::start(options, events.clone()).await?;
    Ok((lab, begun.elapsed()))
}

async fn stop(lab: Lab) -> Result<(), Failure> {
    let stopped = tokio::task::spawn_blocking(move || lab.stop()).await;
    stopped.context("ending a lab ended early").map_err(Failure::setup)?.map(drop).map_err(Failure::setup)
}

async fn connect(lab: &Lab) -> Result<Kube, Failure> {
    let run = udn_cluster::new_run_id();
    let connect = Connect { kubeconfig: Some(lab.kubeconfig()), run, ..Connect::default() };
    Kube::connect(connect).await.map_err(Failure::setup)
}

/// From a virtual machine's object to the first answer of its guest, in a lab with nothing else to do.
async fn guests(repeat: u32, events: &Events) -> Result<[Figure; 2], Failure> {
    let (lab, _) = lab(events).await?;
    let kube = connect(&lab).await?;
    let measured = async {
        // The first makes the snapshot, and waits for packages where there are none yet.
        kube.guest_answers(&json!({})).await?;
        let (mut copies, mut boots) = (Vec::new(), Vec::new());
        for _ in 0..repeat {
            copies.push(milliseconds(kube.guest_answers(&json!({})).await?));
            boots.push(milliseconds(kube.guest_answers(&json!({LAB_BOOT: "kernel"})).await?));
        }
        Ok::<_, udn_cluster::Error>((copies, boots))
    };
    let measured = measured.await.map_err(Failure::setup);
    kube.finish().await.map_err(Failure::setup)?;
    stop(lab).await?;
    let (copies, boots) = measured?;
    let figure = |name: &str, target, samples| Figure {
        name: name.into(),
        unit: Unit::Milliseconds,
        bound: Bound::AtMost,
        target,
        samples: Samples::median(samples),
        note: "from the object to the first answer".into(),
    };
    Ok([figure("guest, from a snapshot", GUEST_COPY, copies), figure("guest, from its kernel", GUEST_BOOT, boots)])
}

async fn rate(lab: &Lab) -> Result<Rate, Failure> {
    let kube = connect(lab).await?;
    let rate = kube.tcp_rate(PROBES, IN_FLIGHT).await.map_err(Failure::setup);
    kube.finish().await.map_err(Failure::setup)?;
    rate
}

/// A run of the largest matrix, with the world for itself.
async fn large() -> Result<Speed, Failure> {
    let folder = tempfile::tempdir().context("cannot make a folder for fixtures").map_err(Failure::setup)?;
    wide::fixtures(folder.path())?;
    let fixtures = [OsStr::new("--fixtures"), folder.path().as_os_str()];
    run(&wide::FILTERS.map(String::from), &fixtures).await.map(|(speed, _)| speed)
}

/// A run in a process of its own, as a user starts it.
async fn run(filters: &[String], options: &[&OsStr]) -> Result<(Speed, Peak), Failure> {
    // Among the labs, by a name by which the next lab knows whose it was, and removes it if this is killed.
    let out = tempfile::Builder::new()
        .prefix(&format!("run-{}-bench-", std::process::id()))
        .tempdir_in(udn_lab::default_folder().join("labs"))
        .context("cannot make a folder for a run's reports")
        .map_err(Failure::setup)?;
    let child = Command::new("/proc/self/exe")
        .args(tied::arguments())
        .args(["run", "--fresh-lab", "--out"])
        .arg(out.path())
        .args(options)
        .args(filters)
        .env_remove("UDN_TARGET")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start a run")
        .map_err(Failure::setup)?;
    let (said, peak) = watched(child).await.context("cannot wait for a run").map_err(Failure::setup)?;
    let speed = Speed::read(&out.path().join(EVENTS)).map_err(Failure::setup)?;
    match speed.exit {
        // A cell that does not hold, or could not be judged, is no hindrance; the figure's note says so.
        Some(ExitCode::Passed | ExitCode::Failed | ExitCode::Errors) => Ok((speed, peak)),
        _ => Err(Failure::setup(anyhow!("the run that was to be measured did not finish: {}", said.trim()))),
    }
}

/// Waits for a run and looks at its memory meanwhile. Returns what it said on standard error.
async fn watched(mut child: Child) -> io::Result<(String, Peak)> {
    let mut peak = Peak::default();
    let root = child.id().unwrap_or_default();
    let mut errors = child.stderr.take();
    let listen = async {
        let mut said = Vec::new();
        if let Some(errors) = &mut errors {
            errors.read_to_end(&mut said).await?;
        }
        child.wait().await?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    };
    tokio::pin!(listen);
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            said = &mut listen => return said.map(|said| (said, peak)),
            _ = ticks.tick() => {
                peak = tokio::task::spawn_blocking(move || { peak.look(root); peak }).await?;
            }
        }
    }
}

fn up_figure(samples: Vec<f64>) -> Figure {
    Figure {
        name: "lab up, packages cached".into(),
        unit: Unit::Milliseconds,
        bound: Bound::AtMost,
        target: LAB_UP,
        samples: Samples::median(samples),
        note: String::new(),
    }
}

fn run_figures(runs: &[Speed], alone: &Speed, wide: &Speed) -> Vec<Figure> {
    let mut verdicts: Vec<String> = runs.iter().map(verdict).collect();
    verdicts.dedup();
    let known = |suite: &String| ISOLATION_RUN.0.contains(&suite.as_str());
    let suites = || runs.iter().flat_map(|run| &run.suites);
    let target =
        if suites().any(known) { ISOLATION_RUN.1 } else { 0.0 } + if suites().all(known) { 0.0 } else { OTHER_RUN };
    let durations = runs.iter().filter_map(|run| run.duration_ms).map(as_f64).collect();
    let deny_ms = milliseconds(Run::everything().deny_timeout);
    let rounds = |runs: &[Speed], large: bool| {
        let all = runs.iter().flat_map(|run| &run.rounds);
        let of_size = all.filter(move |(cells, _)| (*cells > ROUND_CELLS) == large);
        of_size.map(|(_, ms)| as_f64(*ms)).collect::<Vec<f64>>()
    };
    let round = |name: String, beside: f64, samples: Vec<f64>, about: &str| Figure {
        name,
        unit: Unit::Milliseconds,
        bound: Bound::AtMost,
        target: deny_ms + beside,
        samples: Samples::worst(samples),
        note: format!("the deny timeout is {}{about}", Unit::Milliseconds.text(deny_ms)),
    };
    let beside = ", other worlds are made meanwhile";
    let limit = text::number(ROUND_CELLS);
    let mut figures = vec![
        Figure {
            name: "run, its lab included".into(),
            unit: Unit::Milliseconds,
            bound: Bound::AtMost,
            target,
            samples: Samples::median(durations),
            note: verdicts.join(", "),
        },
        round(format!("round of up to {limit} cells"), ROUND, rounds(std::slice::from_ref(alone), false), ""),
        round("the same, in the run".into(), ROUND, rounds(runs, false), beside),
    ];
    let large = rounds(runs, true);
    if !large.is_empty() {
        figures.push(round(format!("round of more than {limit} cells"), LARGE_ROUND, large, beside));
    }
    let widest = wide.rounds.iter().filter(|(cells, _)| *cells >= wide::CELLS);
    let limit = text::number(wide::CELLS);
    figures.push(round(
        format!("round of {limit} cells or more"),
        LARGE_ROUND,
        widest.map(|(_, ms)| as_f64(*ms)).collect(),
        &format!(", {}", verdict(wide)),
    ));
    figures
}

fn verdict(run: &Speed) -> String {
    let cells = text::count(run.counts.total(), "cell");
    match run.counts.total() - run.counts.pass - run.counts.skip {
        0 => format!("{cells} hold"),
        bad => format!("{} of {cells} do not hold", text::number(bad)),
    }
}

fn rate_figure(rates: &[Rate]) -> Figure {
    let (probes, open) = rates.iter().fold((0, 0), |(probes, open), rate| (probes + rate.probes, open + rate.open));
    Figure {
        name: "open TCP probes of one agent".into(),
        unit: Unit::PerSecond,
        bound: Bound::AtLeast,
        target: PROBES_PER_SECOND,
        samples: Samples::median(rates.iter().map(Rate::per_second).collect()),
        note: format!("{} of {} open, {IN_FLIGHT} under way at once", text::number(open), text::number(probes)),
    }
}

fn size_figures(peak: &Peak) -> [Figure; 3] {
    let figure = |name: &str, target, bytes: u64, note: &str| Figure {
        name: name.into(),
        unit: Unit::Bytes,
        bound: Bound::AtMost,
        target,
        samples: Samples::worst(if bytes == 0 { vec![] } else { vec![as_f64(bytes)] }),
        note: note.into(),
    };
    let size = u64::try_from(udn_binaries::AGENT.len()).unwrap_or_default();
    [
        figure("agent, its file", AGENT_SIZE, size, ""),
        figure("agent, resident", AGENT_MEMORY, peak.agent, "the largest of all, at its largest"),
        figure(
            "program, resident",
            PROGRAM_MEMORY,
            peak.program,
            "command and lab together at their largest, without OVN's daemons and pods",
        ),
    ]
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

#[allow(clippy::cast_precision_loss)] // milliseconds and bytes are far below 2^52
fn as_f64(number: u64) -> f64 {
    number as f64
}
