//! Virtual machines in a whole lab: guests boot, talk on their consoles, move, and leave nothing.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // tests, though not of the usual harness

#[path = "machines/guest.rs"]
mod guest;
#[path = "machines/world.rs"]
mod world;

use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::json;
use udn_lab::{Lab, Options};
use udn_lab_sys::packages;

use crate::world::World;

fn main() -> ExitCode {
    if let Some(code) = udn_lab::internal(std::env::args_os(), || ()) {
        return code;
    }
    if std::env::args().nth(1).as_deref() == Some("__start") {
        return killed::role();
    }
    let trials = vec![
        Trial::test("a_guest_boots_moves_and_keeps_its_connections", moves),
        Trial::test("guests_that_go_on_from_one_are_machines_of_their_own", copies),
        Trial::test("migrations_that_go_wrong_leave_the_guest_where_it_was", faults),
        Trial::test("run_strategies_start_stop_and_restart", strategies),
        Trial::test("killed_at_any_moment_nothing_is_left", killed::killed),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Runs `test` in a lab with one namespace whose primary network keeps addresses. Other tests' namespaces have other names:
/// each counts the emulators of its own.
fn in_a_world(namespace: &'static str, test: impl AsyncFnOnce(&World)) -> Result<(), Failed> {
    fetched();
    let lab = Lab::start(&Options::default(), &|_| {})?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let world = World::new(&lab.kubeconfig(), namespace).await;
        test(&world).await;
    });
    assert_eq!(lab.status()?.problems, Vec::<String>::new());
    lab.stop()?;
    Ok(())
}

/// What guests run on is there, so that no test waits for packages and blames somebody else.
fn fetched() {
    packages::machines::ensure(&udn_lab::default_folder(), &|_| {}).expect("packages of virtual machines");
}

fn moves() -> Result<(), Failed> {
    in_a_world("moves", async |world| {
        let applied = std::time::Instant::now();
        world.machine("db", "Always").await;
        let first = world.running("db").await;
        let hello = world.console("db").await.hello(Duration::from_secs(60)).await;
        println!("from the object to the first word on the console: {:?}", applied.elapsed());
        let mut console = world.console("db").await;
        console.hello(Duration::from_secs(10)).await;
        let address = first["interfaces"][0]["ipAddress"].as_str().unwrap().to_owned();
        assert_eq!(first["interfaces"][0]["podInterfaceName"], "ovn-udn1");
        // Whoever comes last has it.
        let mut first_client = world.console("db").await;
        let mut console = {
            drop(console);
            first_client.hello(Duration::from_secs(10)).await;
            world.console("db").await
        };
        console.hello(Duration::from_secs(10)).await;
        assert!(first_client.is_over().await, "the first client was not told that another one came");
        let facts = console.configured(&address).await;
        assert!(facts.contains(&address), "the guest has not got {address} by DHCP: {facts}");
        console.listen(7007).await;
        let mut client = world.client(&address).await;
        assert_eq!(client.say("one").await, "one");

        for (number, memory) in ["shared", "copy"].into_iter().enumerate() {
            let before = world.running("db").await;
            let name = format!("m{number}");
            world.migrate(&name, "db", json!({"lab.udn-conformance.io/migration": memory})).await;
            // The console can be had all the while.
            let mut opened = 0;
            let consoles = async {
                loop {
                    world.console("db").await;
                    opened += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            let migration = tokio::select! {
                migration = world.migrated(&name) => migration,
                () = consoles => unreachable!("it is opened for ever"),
            };
            println!("{opened} consoles were opened meanwhile");
            assert!(opened > 0, "none was had");
            assert_eq!(migration["status"]["phase"], "Succeeded", "{migration:#}");
            let after = world.running("db").await;
            assert_ne!(before["nodeName"], after["nodeName"]);
            assert_eq!(before["interfaces"][0]["mac"], after["interfaces"][0]["mac"]);
            let asked = std::time::Instant::now();
            assert_eq!(client.say("two").await, "two");
            let again = world.console("db").await.hello(Duration::from_secs(10)).await;
            assert_eq!(hello["boot"], again["boot"], "it is another life");
            let annotations = &migration["metadata"]["annotations"];
            println!(
                "{memory}: {} ms, stopped {}, resumed {}; the connection answered {:?} later",
                annotations["lab.udn-conformance.io/total-ms"],
                annotations["lab.udn-conformance.io/stopped-at"],
                annotations["lab.udn-conformance.io/resumed-at"],
                asked.elapsed(),
            );
            let source = world.pod(migration["status"]["migrationState"]["sourcePod"].as_str().unwrap()).await;
            assert_eq!(source, "Succeeded");
        }
        world.delete("db").await;
        world.emulators(0).await;
    })
}

fn copies() -> Result<(), Failed> {
    in_a_world("copies", async |world| {
        let mut addresses = std::collections::BTreeSet::new();
        for (name, boot) in [("first", "snapshot"), ("second", "snapshot"), ("third", "kernel")] {
            if name == "second" {
                // What was kept is old enough by then that its clock would be wrong.
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
            let began = std::time::Instant::now();
            world.machine_by(name, boot).await;
            let status = world.running(name).await;
            let runs = began.elapsed();
            let mut console = world.console(name).await;
            console.hello(Duration::from_secs(60)).await;
            println!("{name}, from {boot}: runs after {runs:?}, answers after {:?}", began.elapsed());
            let interface = &status["interfaces"][0];
            let address = interface["ipAddress"].as_str().unwrap().to_owned();
            let facts = console.configured(&address).await;
            assert!(facts.contains(&address), "{name} has not got {address} by DHCP: {facts}");
            assert!(facts.contains(interface["mac"].as_str().unwrap()), "{name} has another MAC: {facts}");
            assert!(!facts.contains("troubles"), "{name}: {facts}");
            let facts: serde_json::Value = serde_json::from_str(&facts).unwrap();
            let granted = &facts["facts"]["guest"]["dhcpv4"]["granted_us"];
            let granted = std::time::UNIX_EPOCH + Duration::from_micros(granted.as_u64().expect("a lease"));
            let wrong =
                granted.elapsed().map_or_else(|error| error.duration(), |age| age.saturating_sub(began.elapsed()));
            assert!(wrong < Duration::from_secs(2), "{name}'s clock is wrong by {wrong:?}");
            addresses.insert(address);
            assert_eq!(
                world.is_told(name, "FromSnapshot").await,
                boot == "snapshot",
                "{name} has not come from {boot}"
            );
        }
        assert_eq!(addresses.len(), 3, "{addresses:?}");
        world.machine_by("odd", "magic").await;
        world.failed("odd", "lab.udn-conformance.io/boot is").await;
        // A copy moves as others do.
        world.migrate("m", "second", json!({})).await;
        assert_eq!(world.migrated("m").await["status"]["phase"], "Succeeded");
        world.console("second").await.hello(Duration::from_secs(10)).await;
    })
}

fn faults() -> Result<(), Failed> {
    in_a_world("faults", async |world| {
        world.machine("db", "Always").await;
        let before = world.running("db").await;
        let hello = world.console("db").await.hello(Duration::from_secs(60)).await;
        for fault in ["target-never-ready", "aborted"] {
            world.migrate(fault, "db", json!({"lab.udn-conformance.io/fail": fault})).await;
            let migration = world.migrated(fault).await;
            assert_eq!(migration["status"]["phase"], "Failed", "{fault}: {migration:#}");
            let now = world.running("db").await;
            assert_eq!(now["nodeName"], before["nodeName"], "{fault}");
            assert_eq!(now["migrationState"]["failed"], true, "{fault}");
            let again = world.console("db").await.hello(Duration::from_secs(10)).await;
            assert_eq!(hello["boot"], again["boot"], "{fault}: it is another life");
            world.emulators(1).await;
        }
        // Two at once: one after the other.
        world.migrate("one", "db", json!({})).await;
        world.migrate("two", "db", json!({})).await;
        assert_eq!(world.migrated("one").await["status"]["phase"], "Succeeded");
        assert_eq!(world.migrated("two").await["status"]["phase"], "Succeeded");
        for fault in ["announcement-suppressed", "wrong-bridge"] {
            world.migrate(fault, "db", json!({"lab.udn-conformance.io/fail": fault})).await;
            let migration = world.migrated(fault).await;
            assert_eq!(migration["status"]["phase"], "Succeeded", "{fault}: {migration:#}");
        }
        // Without another node the guest stays, and the migration says why it waits, until it is called off.
        world.cordon(true).await;
        world.migrate("nowhere", "db", json!({})).await;
        world.waiting("nowhere", "unschedulable").await;
        world.call_off("nowhere").await;
        world.cordon(false).await;
        // The guest is lost, and comes to life again: its machine shall always run.
        world.migrate("source-killed", "db", json!({"lab.udn-conformance.io/fail": "source-killed"})).await;
        assert_eq!(world.migrated("source-killed").await["status"]["phase"], "Failed");
        world.reborn("db", &before).await;
        let again = world.console("db").await.hello(Duration::from_secs(60)).await;
        assert_ne!(hello["boot"], again["boot"], "it is the same life");
    })
}

fn strategies() -> Result<(), Failed> {
    in_a_world("strategies", async |world| {
        world.machine("db", "Halted").await;
        world.until("db", "Stopped", |machine| machine["status"]["printableStatus"] == "Stopped").await;
        world.act("db", "start").await.unwrap();
        let first = world.running("db").await;
        assert!(world.act("db", "start").await.is_err(), "it runs already");
        world.act("db", "restart").await.unwrap();
        world.reborn("db", &first).await;
        let second = world.running("db").await;
        assert_eq!(first["interfaces"][0]["ipAddress"], second["interfaces"][0]["ipAddress"], "the claim kept it");
        assert!(world.pause("db", "unpause").await.unwrap_err().contains("VMI is not paused"));
        world.pause("db", "pause").await.unwrap();
        assert!(world.pause("db", "pause").await.unwrap_err().contains("VMI is already paused"));
        world.until("db", "Paused", |machine| machine["status"]["printableStatus"] == "Paused").await;
        world.pause("db", "unpause").await.unwrap();
        world.until("db", "Running", |machine| machine["status"]["printableStatus"] == "Running").await;
        // Wherever its migration is by then, a machine that is to stop does.
        for pause in [0, 20, 40, 60, 80, 100, 140, 200].map(Duration::from_millis) {
            world.act("db", "migrate").await.unwrap();
            tokio::time::sleep(pause).await;
            world.act("db", "stop").await.unwrap();
            world.until("db", "Stopped", |machine| machine["status"]["printableStatus"] == "Stopped").await;
            world.emulators(0).await;
            world.act("db", "start").await.unwrap();
            world.running("db").await;
        }
        world.act("db", "stop").await.unwrap();
        // What cannot be had is said, and disturbs nobody.
        world.machine_from("greedy", "Always", "4096Gi", "udn-conformance.local/guest", json!({})).await;
        world.machine_from("other", "Always", "96Mi", "quay.io/fedora", json!({})).await;
        world.failed("greedy", "Insufficient memory").await;
        world.failed("other", "udn-conformance.local/guest").await;
        world.delete_namespace().await;
    })
}

#[path = "machines/killed.rs"]
mod killed;
