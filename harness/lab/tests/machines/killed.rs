//! A program with a lab with guests, killed: nothing may be left.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use udn_lab::{Lab, Options};

use crate::world::World;

/// Part of the names of its guests.
const MARK: &str = "UDN_LAB_TEST_MACHINES";

/// A program that starts a lab with a guest, says so, and waits to be killed.
pub(crate) fn role() -> ExitCode {
    let lab = Lab::start(&Options::default(), &|_| {}).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let world = World::new(&lab.kubeconfig(), "killed").await;
        world.machine("db", "Always").await;
        world.running("db").await;
        println!("running");
        for number in 0.. {
            let name = format!("m{number}");
            world.migrate(&name, "db", serde_json::json!({})).await;
            world.migrated(&name).await;
        }
    });
    ExitCode::SUCCESS
}

pub(crate) fn killed() -> Result<(), Failed> {
    crate::fetched();
    for (round, delay) in [1, 20, 90, 250].into_iter().enumerate() {
        let mark = format!("{}-{round}", std::process::id());
        let mut program =
            Command::new("/proc/self/exe").arg("__start").env(MARK, &mark).stdout(Stdio::piped()).spawn()?;
        let mut said = std::io::BufReader::new(program.stdout.take().unwrap());
        let mut line = String::new();
        std::io::BufRead::read_line(&mut said, &mut line)?;
        assert_eq!(line, "running\n");
        std::thread::sleep(Duration::from_millis(delay));
        program.kill()?;
        program.wait()?;
        let start = Instant::now();
        while marked(&mark) > 0 {
            assert!(start.elapsed() < Duration::from_secs(10), "{} processes are left", marked(&mark));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(())
}

fn processes(wanted: impl Fn(&Path) -> bool) -> usize {
    fs::read_dir("/proc").unwrap().filter_map(Result::ok).filter(|entry| wanted(&entry.path())).count()
}

fn has(file: &Path, word: &[u8]) -> bool {
    fs::read(file).is_ok_and(|bytes| bytes.windows(word.len()).any(|window| window == word))
}

fn marked(mark: &str) -> usize {
    let variable = format!("{MARK}={mark}\0");
    processes(|process| has(&process.join("environ"), variable.as_bytes()))
}

/// Emulators below this program whose guests' names begin so.
pub(crate) fn emulators(name: &str) -> usize {
    let argument = format!("-name\0{name}");
    processes(|process| {
        let ours = has(&process.join("cmdline"), argument.as_bytes()) && !has(&process.join("status"), b"State:\tZ");
        if !ours {
            return false;
        }
        let mut parent = process.to_owned();
        loop {
            let status = fs::read_to_string(parent.join("status")).unwrap_or_default();
            let above = status.lines().find_map(|line| line.strip_prefix("PPid:")).map_or("0", str::trim).to_owned();
            if above == std::process::id().to_string() {
                return true;
            }
            if above == "0" || above == "1" {
                return false;
            }
            parent = Path::new("/proc").join(above);
        }
    })
}
