//! The guest's way from one emulator to another. By default its memory is a file that both map, so that only the state of
//! its devices travels; else all of it does.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use udn_lab_sys::packages::version::COPYING_QEMU;
use udn_lab_sys::packages::Version;

use super::fault::Fault;
use crate::emulator::machine::Machine;
use crate::emulator::qmp::Event;
use crate::error::Error;

/// How long a guest may be on its way. Shared memory: ten milliseconds; copied: a second.
const JOURNEY: Duration = Duration::from_secs(60);
/// No limit that an emulator on the same host would reach, bytes a second.
const BANDWIDTH: u64 = 16 << 30;

/// How memory gets to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Both map the same file.
    Shared,
    /// It is sent.
    Copied,
}

impl Memory {
    /// What was asked for, if the emulator can do it.
    ///
    /// # Errors
    /// When a guest would be lost every now and then.
    pub(crate) fn asked(word: Option<&str>, qemu: Version) -> Result<Self, Error> {
        match word {
            None | Some("shared") => Ok(Self::Shared),
            Some("copy") if qemu >= COPYING_QEMU => Ok(Self::Copied),
            Some("copy") => Err(Error::Unsupported {
                asked: format!("memory is to be copied by QEMU {qemu}, which loses pages of emulated guests"),
                has: "copying with QEMU >= 9.0 only",
            }),
            Some(word) => Err(Error::Unsupported {
                asked: format!("lab.udn-conformance.io/migration is {word:?}"),
                has: "the ways `shared` and `copy`",
            }),
        }
    }

    /// All of them: an emulator remembers those of the migration that brought the guest.
    fn capabilities(self, pauses: bool) -> [(&'static str, bool); 3] {
        [("events", true), ("x-ignore-shared", self == Self::Shared), ("pause-before-switchover", pauses)]
    }
}

/// The moments of a migration, by the emulators' clock.
#[derive(Clone, Debug)]
pub(crate) struct Moments {
    /// The guest stopped at the source.
    pub(crate) stopped: Option<Timestamp>,
    /// The guest went on at the target.
    pub(crate) resumed: Timestamp,
}

/// Makes the target listen.
pub(crate) async fn receive(target: &Machine, memory: Memory, fault: Option<Fault>) -> Result<(), Error> {
    target.qmp.capabilities(&memory.capabilities(false)).await?;
    if fault == Some(Fault::AnnouncementSuppressed) {
        // The guest's own announcement has as many rounds.
        target.qmp.run("migrate-set-parameters", json!({"announce-rounds": 0})).await?;
    }
    let uri = format!("unix:{}", target.incoming.display());
    target.qmp.run("migrate-incoming", json!({"uri": uri})).await?;
    if fault == Some(Fault::TargetNeverReady) {
        target.kill().await;
    }
    Ok(())
}

/// Sends the guest to the target, and waits until it runs there.
///
/// # Errors
/// When it does not arrive; the guest then goes on at the source, unless that is gone.
pub(crate) async fn send(source: &Machine, target: &Machine, memory: Memory, fault: Option<Fault>) -> Result<Moments, Error> {
    let paused = matches!(fault, Some(Fault::Aborted | Fault::SourceKilled));
    source.qmp.capabilities(&memory.capabilities(paused)).await?;
    source.qmp.run("migrate-set-parameters", json!({"max-bandwidth": BANDWIDTH, "downtime-limit": 300})).await?;
    let began = Timestamp::now();
    let uri = format!("unix:{}", target.incoming.display());
    source.qmp.run("migrate", json!({"uri": uri})).await?;
    if paused {
        let what = "the guest to be ready to leave";
        source.qmp.event(what, JOURNEY, |event| at(event, began, "pre-switchover") || over(event, began)).await?;
        match fault {
            Some(Fault::SourceKilled) => source.kill().await,
            _ => source.qmp.run("migrate_cancel", json!({})).await.map(drop)?,
        }
    }
    let left = source.qmp.event("the guest to leave its node", JOURNEY, |event| over(event, began));
    let arrived = target.qmp.event("the guest to run at its new node", JOURNEY, |event| event.name == "RESUME");
    let mut arrived = std::pin::pin!(arrived);
    let resumed = tokio::select! {
        biased;
        resumed = &mut arrived => resumed,
        left = left => match left {
            Ok(event) if event.data["status"] == "completed" => arrived.await,
            Ok(_) => Err(Error::Migration(why(source).await)),
            // The source has ended: has the guest got away?
            Err(error) if fault == Some(Fault::SourceKilled) => Err(error),
            Err(_) => arrived.await,
        },
    };
    let resumed = resumed.map_err(|error| Error::Migration(error.to_string()))?;
    let stop = |event: &Event| event.name == "STOP" && event.at >= began;
    let stopped = source.qmp.events().iter().rev().find(|event| stop(event)).map(|event| event.at);
    Ok(Moments { stopped, resumed: resumed.at })
}

/// Whether the guest still runs at the source, or goes on there after a migration that failed.
pub(crate) async fn stays(source: &Machine) -> bool {
    match source.qmp.status().await {
        Ok((true, _)) => true,
        Ok((false, status)) if status == "postmigrate" || status == "finish-migrate" => {
            source.qmp.run("cont", json!({})).await.is_ok()
        }
        Ok((false, status)) => status == "paused",
        Err(_) => false,
    }
}

fn at(event: &Event, began: Timestamp, status: &str) -> bool {
    event.name == "MIGRATION" && event.at >= began && event.data["status"] == status
}

fn over(event: &Event, began: Timestamp) -> bool {
    ["completed", "failed", "cancelled"].iter().any(|status| at(event, began, status))
}

async fn why(source: &Machine) -> String {
    match source.qmp.migration().await {
        Ok(migration) => match migration.error_desc {
            Some(error) => format!("{} at the source: {error}", migration.status),
            None => format!("{} at the source", migration.status),
        },
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copying_is_refused_where_it_loses_guests() {
        assert_eq!(Memory::asked(None, Version(7, 2, 0)).unwrap(), Memory::Shared);
        assert_eq!(Memory::asked(Some("copy"), Version(10, 0, 0)).unwrap(), Memory::Copied);
        assert!(Memory::asked(Some("copy"), Version(7, 2, 0)).unwrap_err().to_string().contains("7.2.0"));
        assert!(Memory::asked(Some("magic"), Version(10, 0, 0)).is_err());
    }
}
