//! What arrived at an agent: read from it once, kept for many readers who each go on from their own mark.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::Mutex;
use udn_agent::protocol::{self, Body, Evidence, Op};
use udn_model::observation::Witness;
use udn_model::words::Transport;
use udn_runner::cluster::{Arrivals, Packet};

use super::{Agent, AgentError};

/// Entries that are kept; a reader whose mark lies before them is told of the loss.
const KEPT: usize = 200_000;
/// How long one reading may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The log of one agent's arrivals.
#[derive(Debug, Default)]
pub struct ArrivalLog {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The agent's own cursor.
    cursor: u64,
    /// The life of the agent that the cursor belongs to.
    life: Option<u64>,
    capture_drops: u64,
    witness: Option<Witness>,
    /// Number of the first entry that is kept.
    first: u64,
    entries: VecDeque<Entry>,
}

#[derive(Clone, Debug)]
enum Entry {
    Packet(Packet),
    /// Something may be missing here.
    Loss,
}

impl ArrivalLog {
    /// Reads everything that has arrived by now, and tells what came behind the mark; without one only where to begin.
    ///
    /// # Errors
    /// The agent cannot be asked.
    pub async fn since(&self, agent: &Agent, mark: Option<u64>) -> Result<Arrivals, AgentError> {
        let mut state = self.state.lock().await;
        loop {
            let after = state.cursor;
            let answer = agent.call(Op::Arrivals { after }, PATIENCE).await?;
            let Body::Arrivals(arrivals) = answer else {
                return Err(AgentError::Failed(format!("the agent answered {answer:?} when asked what arrived")));
            };
            // A stream that was lost right behind the answer: which life answered is known once it is there again.
            let Some(life) = agent.life() else { continue };
            if state.is_of(life) {
                let more = arrivals.more;
                state.take(arrivals);
                if !more {
                    return Ok(state.tell(mark));
                }
            }
        }
    }
}

impl State {
    /// Whether what was read so far is of this life of the agent; if not, everything is read from its beginning.
    fn is_of(&mut self, life: u64) -> bool {
        match self.life {
            Some(known) if known == life => true,
            Some(_) => {
                self.push(Entry::Loss);
                (self.life, self.cursor, self.capture_drops) = (Some(life), 0, 0);
                false
            }
            None => {
                self.life = Some(life);
                true
            }
        }
    }

    fn take(&mut self, arrivals: protocol::Arrivals) {
        self.cursor = arrivals.cursor;
        self.witness = Some(match arrivals.evidence {
            Evidence::Capture => Witness::RawCapture,
            Evidence::Listener => Witness::ListenerCounter,
        });
        if arrivals.overwritten > 0 || arrivals.capture_drops > self.capture_drops {
            self.push(Entry::Loss);
        }
        self.capture_drops = arrivals.capture_drops;
        for arrival in arrivals.list {
            self.push(Entry::Packet(packet(&arrival)));
        }
    }

    fn push(&mut self, entry: Entry) {
        self.entries.push_back(entry);
        while self.entries.len() > KEPT {
            self.entries.pop_front();
            self.first += 1;
        }
    }

    fn tell(&self, mark: Option<u64>) -> Arrivals {
        let end = self.first + self.entries.len() as u64;
        let witness = self.witness.unwrap_or(Witness::None);
        let Some(mark) = mark else { return Arrivals { mark: end, witness, lossy: false, packets: Vec::new() } };
        let skip = usize::try_from(mark.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let mut lossy = mark < self.first;
        let mut packets = Vec::new();
        for entry in self.entries.iter().skip(skip) {
            match entry {
                Entry::Packet(packet) => packets.push(packet.clone()),
                Entry::Loss => lossy = true,
            }
        }
        Arrivals { mark: end, witness, lossy, packets }
    }
}

fn packet(arrival: &protocol::Arrival) -> Packet {
    let transport = match arrival.transport {
        protocol::Transport::Tcp => Transport::Tcp,
        protocol::Transport::Udp => Transport::Udp,
        protocol::Transport::Icmp => Transport::Icmp,
    };
    Packet { transport, source: plain(arrival.source), destination: plain(arrival.destination), nonce: arrival.nonce }
}

/// Without IPv6's scope and flow, which say nothing of who it is.
pub(crate) fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrived(cursor: u64, nonces: &[u64], overwritten: u64, capture_drops: u64) -> protocol::Arrivals {
        let list = nonces.iter().map(|nonce| protocol::Arrival {
            at_us: 0,
            transport: protocol::Transport::Udp,
            source: "10.0.0.1:1".parse().unwrap(),
            destination: "10.0.0.2:2".parse().unwrap(),
            interface: 1,
            nonce: Some(*nonce),
        });
        protocol::Arrivals {
            cursor,
            evidence: Evidence::Capture,
            more: false,
            overwritten,
            capture_drops,
            list: list.collect(),
        }
    }

    fn nonces(arrivals: &Arrivals) -> Vec<u64> {
        arrivals.packets.iter().filter_map(|packet| packet.nonce).collect()
    }

    #[test]
    fn each_reader_goes_on_from_its_mark() {
        let mut state = State::default();
        state.take(arrived(2, &[1, 2], 0, 0));
        let first = state.tell(None);
        assert_eq!((first.mark, first.packets.len()), (2, 0));
        state.take(arrived(4, &[3, 4], 0, 0));
        assert_eq!(nonces(&state.tell(Some(first.mark))), [3, 4]);
        assert_eq!(nonces(&state.tell(Some(0))), [1, 2, 3, 4]);
        assert_eq!(nonces(&state.tell(Some(4))), Vec::<u64>::new());
    }

    #[test]
    fn a_loss_concerns_those_who_have_not_read_beyond_it() {
        let mut state = State::default();
        state.take(arrived(1, &[1], 0, 0));
        let mark = state.tell(None).mark;
        state.take(arrived(2, &[2], 3, 0));
        let after = state.tell(Some(mark));
        assert!(after.lossy);
        assert!(!state.tell(Some(after.mark)).lossy);
        state.take(arrived(3, &[3], 0, 7));
        let drops = state.tell(Some(after.mark));
        assert!(drops.lossy, "the kernel dropped some");
        state.take(arrived(4, &[4], 0, 7));
        assert!(!state.tell(Some(drops.mark)).lossy, "no more of them");
    }

    #[test]
    fn another_life_is_a_loss() {
        let mut state = State::default();
        assert!(state.is_of(1), "the first life begins");
        assert!(!state.tell(Some(0)).lossy);
        state.take(arrived(9, &[1], 0, 0));
        assert!(state.is_of(1));
        assert!(!state.is_of(2), "what it answered was asked of the other");
        assert_eq!(state.cursor, 0);
        assert!(state.tell(Some(1)).lossy);
    }

    #[test]
    fn old_entries_go_and_are_missed() {
        let mut state = State::default();
        let many: Vec<u64> = (0..KEPT as u64 + 10).collect();
        state.take(arrived(1, &many, 0, 0));
        assert!(state.tell(Some(0)).lossy);
        assert!(!state.tell(Some(10)).lossy);
    }
}
