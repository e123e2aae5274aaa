//! Announcements that agents heard.

use std::sync::{Mutex, PoisonError};

use tokio::sync::OnceCell;
use udn_agent::protocol::{self, AnnouncementKind, Body, Op};
use udn_model::fact::{Announcement, Said};

use crate::agent::{Agent, AgentError, clock};
use crate::world::FACTS_PATIENCE;

/// What an agent heard so far.
#[derive(Debug, Default)]
pub(crate) struct Ear {
    open: OnceCell<()>,
    log: Mutex<Log>,
    reading: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Log {
    cursor: u64,
    heard: Vec<Announcement>,
}

impl Ear {
    /// Begins to listen on all interfaces.
    ///
    /// # Errors
    /// The agent cannot.
    pub(crate) async fn open(&self, agent: &Agent) -> Result<(), AgentError> {
        let open = self.open.get_or_try_init(async || {
            let Body::Facts(facts) = agent.call(Op::Facts, FACTS_PATIENCE).await? else { return Ok(()) };
            let interfaces = facts.interfaces.iter().filter(|interface| interface.name != "lo").map(|it| it.index);
            let watch = Op::WatchAnnouncements { interfaces: interfaces.collect() };
            agent.call(watch, FACTS_PATIENCE).await.map(drop)
        });
        open.await.copied()
    }

    /// Whether it listens.
    pub(crate) fn listens(&self) -> bool {
        self.open.initialized()
    }

    /// Everything that was heard, oldest first.
    ///
    /// # Errors
    /// The agent cannot be asked, or does not listen.
    pub(crate) async fn heard(&self, agent: &Agent) -> Result<Vec<Announcement>, AgentError> {
        self.open(agent).await?;
        let _one = self.reading.lock().await;
        loop {
            let after = self.log().cursor;
            let answer = agent.call(Op::Announcements { after }, FACTS_PATIENCE).await?;
            let Body::Announcements(answer) = answer else {
                return Err(AgentError::Failed(format!("the agent answered {answer:?} when asked what was announced")));
            };
            let ahead_us = agent.ahead_us();
            let mut log = self.log();
            log.cursor = answer.cursor;
            log.heard.extend(answer.list.iter().filter_map(|it| read(it, ahead_us)));
            if !answer.more {
                return Ok(log.heard.clone());
            }
        }
    }

    fn log(&self) -> std::sync::MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What nobody had asked for. A router that says that it is none any more announces nothing.
fn read(heard: &protocol::Announcement, ahead_us: i64) -> Option<Announcement> {
    let (said, address) = match heard.kind {
        AnnouncementKind::ArpRequest | AnnouncementKind::ArpReply => (Said::Arp, heard.sender),
        AnnouncementKind::RarpRequest | AnnouncementKind::RarpReply => (Said::Rarp, None),
        AnnouncementKind::NeighbourAdvertisement => (Said::NeighbourAdvertisement, heard.target),
        AnnouncementKind::RouterAdvertisement if heard.lifetime_s == Some(0) => return None,
        AnnouncementKind::RouterAdvertisement => (Said::RouterAdvertisement, heard.sender),
    };
    let mac = if heard.mac.is_empty() { &heard.source } else { &heard.mac };
    let told = Announcement { at_us: clock(heard.at_us) + ahead_us, said, mac: mac.to_lowercase(), address };
    heard.unsolicited.then_some(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(kind: AnnouncementKind) -> protocol::Announcement {
        protocol::Announcement {
            at_us: 1_000_000,
            monotonic_us: 5,
            interface: 2,
            kind,
            unsolicited: true,
            source: "0A:58:0a:01:00:05".into(),
            destination: "ff:ff:ff:ff:ff:ff".into(),
            mac: String::new(),
            sender: "10.1.0.5".parse().ok(),
            target: "fd01::5".parse().ok(),
            lifetime_s: None,
        }
    }

    #[test]
    fn announcements_are_read_by_the_harness_clock() {
        let arp = read(&heard(AnnouncementKind::ArpReply), 250).unwrap();
        assert_eq!((arp.at_us, arp.said, arp.mac.as_str()), (1_000_250, Said::Arp, "0a:58:0a:01:00:05"));
        assert_eq!(arp.address, "10.1.0.5".parse().ok());
        assert_eq!(read(&heard(AnnouncementKind::NeighbourAdvertisement), 0).unwrap().address, "fd01::5".parse().ok());
        let answered = protocol::Announcement { unsolicited: false, ..heard(AnnouncementKind::ArpReply) };
        assert_eq!(read(&answered, 0), None);
        let retired = protocol::Announcement { lifetime_s: Some(0), ..heard(AnnouncementKind::RouterAdvertisement) };
        assert_eq!(read(&retired, 0), None);
    }
}
