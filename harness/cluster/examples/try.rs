//! Runs a selection of the suites against KUBECONFIG and prints what fails: for work on this crate.
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use udn_cluster::{Connect, Kube, new_run_id};
use udn_model::event::EventKind;
use udn_model::filter::Filter;
use udn_model::plan::Plan;
use udn_model::verdict::Verdict;
use udn_runner::{Header, Options};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_writer(std::io::stderr)
            .init();
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    let run = new_run_id();
    let kube = Kube::connect(Connect { run: run.clone(), ..Connect::default() }).await?;
    println!("run {run} versions {:?} env {:?} nodes {:?}", kube.versions(), kube.environment(), kube.nodes());
    if words.first().map(String::as_str) == Some("cleanup") {
        println!("{:?}", kube.cleanup(words.get(1).map(String::as_str)).await?);
        return Ok(());
    }
    let suites = udn_suites::all(&udn_fixtures::Fixtures::embedded())?;
    let names: Vec<&str> = suites.iter().map(|suite| suite.name).collect();
    let plan = Plan::new(&suites, &Filter::parse(&words, &names)?, kube.environment())?;
    println!("{} scenarios, {} cells", plan.scenarios.len(), plan.cells().count());
    let (sender, mut events) = tokio::sync::mpsc::unbounded_channel::<udn_model::event::Event>();
    let header = Header {
        run,
        target: "kube".into(),
        context: kube.context().into(),
        versions: kube.versions().clone(),
        ..Header::default()
    };
    let printing = tokio::spawn(async move {
        let begun = std::time::Instant::now();
        let mut shown = 0;
        while let Some(event) = events.recv().await {
            let at = begun.elapsed().as_secs_f64();
            match event.kind {
                EventKind::CellFinished(result) if !matches!(result.verdict, Verdict::Pass | Verdict::Skip) => {
                    shown += 1;
                    if shown < 40 {
                        println!("{at:7.2} {} {}: {}", result.verdict, result.cell.id, result.reason);
                        for attempt in result.attempts.iter().take(4) {
                            println!(
                                "          {}..{} x{} arrived {}: {}",
                                attempt.first_ms, attempt.last_ms, attempt.count, attempt.arrived, attempt.outcome
                            );
                        }
                        if shown < 4 {
                            println!("          {:?}", result.evidence);
                        }
                    }
                }
                EventKind::CellFinished(_) => {}
                other => println!("{at:7.2} {other:?}"),
            }
        }
    });
    let cancel = CancellationToken::new();
    let deadline = std::env::var("TRY_DEADLINE").ok().and_then(|text| text.parse().ok()).map(Duration::from_secs);
    let trigger = cancel.clone();
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        trigger.cancel();
    });
    let seed = u64::from(std::process::id());
    let options = Options { seed, deadline, ..Options::default() };
    let summary = udn_runner::run(header, plan, Arc::new(kube), options, cancel, sender).await;
    printing.await?;
    println!("{summary:?}");
    Ok(())
}
