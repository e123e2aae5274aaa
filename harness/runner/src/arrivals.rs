//! Matches packets that arrived at targets with the shots that they came from.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, timeout};
use udn_model::cell::Target;
use udn_model::observation::Witness;
use udn_model::words::Transport;

use crate::cluster::{Arrivals, Packet, Shot, Trouble, World};
use crate::judge::FarSide;
use crate::resolve::Lookout;

/// How long an agent is waited for when asked what arrived: a stream that was cut has to be attached to again.
const ASK_TIMEOUT: Duration = Duration::from_secs(25);

/// The same for an agent that was waited for in vain: many rounds may still want to hear from it.
const ASK_AGAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// What arrived at the targets of a phase.
#[derive(Debug, Default)]
pub(crate) struct Sightings {
    seen: HashMap<Target, Seen>,
}

/// What arrived at one target.
#[derive(Debug, Default)]
struct Seen {
    /// Where to go on reading; 0 from the agent's beginning.
    mark: u64,
    witness: Option<Witness>,
    /// Source of the packet with this nonce.
    nonces: HashMap<u64, IpAddr>,
    /// Sources and destinations of the SYNs to this port from that one.
    syns: HashMap<(u16, u16), HashSet<(IpAddr, IpAddr)>>,
    /// When losses were told.
    losses: Vec<Instant>,
    /// Why the last reading failed, if it did.
    trouble: Option<Trouble>,
}

impl Sightings {
    /// Notes where to begin. A target whose agent is not there yet is read from its beginning later.
    pub(crate) async fn begin(&mut self, world: &dyn World, targets: HashSet<Target>) {
        let new: Vec<Target> = targets.into_iter().filter(|target| !self.seen.contains_key(target)).collect();
        let answers = join_all(new.iter().map(|target| ask(world, target, None, ASK_TIMEOUT))).await;
        for (target, answer) in new.into_iter().zip(answers) {
            let mark = answer.map_or(0, |arrivals| arrivals.mark);
            self.seen.insert(target, Seen { mark, ..Seen::default() });
        }
    }

    /// Reads what arrived at these targets up to now.
    pub(crate) async fn read(&mut self, world: &dyn World, targets: HashSet<Target>) {
        let question = |target: Target| {
            let seen = self.seen.entry(target.clone()).or_default();
            let patience = if seen.trouble.is_some() { ASK_AGAIN_TIMEOUT } else { ASK_TIMEOUT };
            (target, seen.mark, patience)
        };
        let questions: Vec<(Target, u64, Duration)> = targets.into_iter().map(question).collect();
        let asked = questions.iter().map(|(target, mark, patience)| ask(world, target, Some(*mark), *patience));
        let answers = join_all(asked).await;
        let now = Instant::now();
        for ((target, ..), answer) in questions.into_iter().zip(answers) {
            let seen = self.seen.entry(target).or_default();
            match answer {
                Ok(arrivals) => seen.take(arrivals, now),
                Err(trouble) => seen.trouble = Some(trouble),
            }
        }
    }

    /// Forgets what an earlier shot with the same source port and destination left behind.
    pub(crate) fn about_to_send(&mut self, lookout: &Lookout, shot: &Shot) {
        if let (Transport::Tcp, Some(port), Some(source_port), Some(seen)) =
            (shot.transport, lookout.port, shot.source_port, self.seen.get_mut(&lookout.at))
        {
            seen.syns.remove(&(port, source_port));
        }
    }

    /// What those who were looked at saw of a shot: it arrived if it arrived at one of them. `known`: every address of
    /// the world, none of which a stranger's source address is.
    pub(crate) fn of(
        &self,
        lookouts: &[Lookout],
        shot: &Shot,
        local: Option<SocketAddr>,
        sent: Instant,
        known: &HashSet<IpAddr>,
    ) -> FarSide {
        let mut together = FarSide::NotAsked;
        for lookout in lookouts {
            let far = self.at(lookout, shot, local, sent, known);
            together = match (together, far) {
                (_, far @ FarSide::Seen { arrived: true, .. }) => return far,
                (unknown @ FarSide::Unknown { .. }, _) => unknown,
                (FarSide::Seen { witness: Witness::RawCapture, .. } | FarSide::NotAsked, far) => far,
                // The one who sees least decides what absence is worth.
                (_, unknown @ FarSide::Unknown { .. }) => unknown,
                (weaker, _) => weaker,
            };
        }
        together
    }

    fn at(
        &self,
        lookout: &Lookout,
        shot: &Shot,
        local: Option<SocketAddr>,
        sent: Instant,
        known: &HashSet<IpAddr>,
    ) -> FarSide {
        let Some(seen) = self.seen.get(&lookout.at) else { return FarSide::Unknown { why: "never asked".into() } };
        let source = if shot.transport == Transport::Tcp {
            seen.syn(lookout, shot, local, known)
        } else {
            seen.nonces.get(&shot.nonce).copied()
        };
        // A packet that was seen was seen, whatever else was lost.
        if source.is_some() {
            let witness = seen.witness.unwrap_or(Witness::None);
            return FarSide::Seen { witness, arrived: true, source };
        }
        if let Some(trouble) = &seen.trouble {
            return FarSide::Unknown { why: trouble.to_string() };
        }
        if seen.losses.iter().any(|told| *told >= sent) {
            return FarSide::Unknown { why: "the agent there lost track of some packets".into() };
        }
        match seen.witness {
            Some(witness) => FarSide::Seen { witness, arrived: false, source: None },
            None => FarSide::Unknown { why: "the agent there never answered".into() },
        }
    }
}

impl Seen {
    fn take(&mut self, arrivals: Arrivals, now: Instant) {
        self.mark = arrivals.mark;
        self.witness = Some(arrivals.witness);
        self.trouble = None;
        if arrivals.lossy {
            self.losses.push(now);
        }
        for Packet { transport, source, destination, nonce } in arrivals.packets {
            if let Some(nonce) = nonce {
                self.nonces.insert(nonce, source.ip());
            }
            if transport == Transport::Tcp {
                self.syns
                    .entry((destination.port(), source.port()))
                    .or_default()
                    .insert((source.ip(), destination.ip()));
            }
        }
    }

    /// The source address with which a TCP shot arrived. A source port of our own choosing (see [`crate::ports`]) and the
    /// destination name it, though its address may have been translated on the way: not into another pod's.
    fn syn(
        &self,
        lookout: &Lookout,
        shot: &Shot,
        local: Option<SocketAddr>,
        known: &HashSet<IpAddr>,
    ) -> Option<IpAddr> {
        let port = local.map(|local| local.port()).or(shot.source_port)?;
        let seen = self.syns.get(&(lookout.port?, port))?;
        // A pod's own address nothing translates; behind a service it is not the one that was probed.
        let direct = known.contains(&shot.to);
        let meant = seen.iter().filter(|(_, destination)| !direct || *destination == shot.to);
        let sources: HashSet<IpAddr> = meant.map(|(source, _)| *source).collect();
        if let Some(local) = local
            && sources.contains(&local.ip())
        {
            return Some(local.ip());
        }
        // A port of the kernel's choice (ours was taken) may be another sender's as well.
        if shot.source_port != Some(port) {
            return None;
        }
        // Of another family it is not: nothing between here and there translates that.
        let fits = |source: &IpAddr| source.is_ipv4() == shot.to.is_ipv4() && !known.contains(source);
        sources.iter().copied().find(fits)
    }
}

async fn ask(world: &dyn World, target: &Target, since: Option<u64>, patience: Duration) -> Result<Arrivals, Trouble> {
    match timeout(patience, world.arrivals(target, since)).await {
        Ok(answer) => answer,
        Err(_) => {
            Err(Trouble(format!("the agent at {target} did not say within {} s what arrived", patience.as_secs())))
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn target() -> Target {
        Target::Node(0)
    }

    fn shot(transport: Transport, source_port: Option<u16>) -> Shot {
        let port = transport.has_ports().then_some(8080);
        Shot {
            nonce: 42,
            transport,
            to: "10.0.0.2".parse().unwrap(),
            port,
            source_port,
            timeout: Duration::from_secs(2),
            introduces: true,
            lookup: None,
            over: crate::cluster::Over::New,
        }
    }

    fn packet(transport: Transport, source: &str, destination: &str, nonce: Option<u64>) -> Packet {
        Packet { transport, source: source.parse().unwrap(), destination: destination.parse().unwrap(), nonce }
    }

    fn sightings(packets: Vec<Packet>, lossy: bool) -> Sightings {
        let mut sightings = Sightings::default();
        let arrivals = Arrivals { mark: 1, witness: Witness::RawCapture, lossy, packets };
        sightings.seen.entry(target()).or_default().take(arrivals, Instant::now());
        sightings
    }

    fn far(sightings: &Sightings, shot: &Shot, local: Option<&str>, sent: Instant) -> FarSide {
        let known = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|ip| ip.parse().unwrap()).into_iter().collect();
        let lookouts = [Lookout { at: target(), port: shot.port }];
        sightings.of(&lookouts, shot, local.map(|local| local.parse().unwrap()), sent, &known)
    }

    #[rstest]
    #[case::same_source("10.0.0.1:40000", "10.0.0.2:8080", true)]
    #[case::another_port("10.0.0.1:40001", "10.0.0.2:8080", false)]
    #[case::another_destination("10.0.0.1:40000", "10.0.0.2:9090", false)]
    #[case::another_pod("10.0.0.3:40000", "10.0.0.2:8080", false)]
    #[case::translated_source("172.18.0.3:40000", "10.0.0.2:8080", true)]
    #[case::another_address_of_the_target("172.18.0.3:40000", "10.9.0.2:8080", false)]
    fn tcp_by_source_port(#[case] source: &str, #[case] destination: &str, #[case] arrived: bool) {
        let sightings = sightings(vec![packet(Transport::Tcp, source, destination, None)], false);
        let far = far(&sightings, &shot(Transport::Tcp, Some(40000)), Some("10.0.0.1:40000"), Instant::now());
        assert_eq!(far.arrived(), arrived, "{far:?}");
    }

    #[rstest]
    #[case::none_asked_for(None)]
    #[case::another_was_taken(Some(20_000))]
    fn a_port_of_the_kernels_choice_matches_only_the_own_address(#[case] asked_for: Option<u16>) {
        let shot = shot(Transport::Tcp, asked_for);
        for (source, arrived) in [("172.18.0.3:40000", false), ("10.0.0.1:40000", true)] {
            let seen = sightings(vec![packet(Transport::Tcp, source, "10.0.0.2:8080", None)], false);
            assert_eq!(far(&seen, &shot, Some("10.0.0.1:40000"), Instant::now()).arrived(), arrived);
        }
    }

    #[rstest]
    #[case(Some(42), true)]
    #[case(Some(43), false)]
    #[case(None, false)]
    fn others_by_nonce(#[case] nonce: Option<u64>, #[case] arrived: bool) {
        for transport in [Transport::Udp, Transport::Icmp] {
            let seen = sightings(vec![packet(transport, "172.18.0.3:0", "10.0.0.2:0", nonce)], false);
            assert_eq!(far(&seen, &shot(transport, None), None, Instant::now()).arrived(), arrived);
        }
    }

    #[test]
    fn losses_make_absence_worthless_but_not_presence() {
        let before = Instant::now();
        let seen = sightings(vec![packet(Transport::Udp, "10.0.0.1:1", "10.0.0.2:8080", Some(42))], true);
        assert!(far(&seen, &shot(Transport::Udp, None), None, before).arrived());
        assert!(matches!(far(&seen, &shot(Transport::Tcp, None), Some("10.0.0.1:9"), before), FarSide::Unknown { .. }));
        let later = Instant::now() + Duration::from_secs(1);
        assert!(matches!(far(&seen, &shot(Transport::Tcp, None), Some("10.0.0.1:9"), later), FarSide::Seen { .. }));
    }

    #[test]
    fn an_older_shot_with_the_same_port_is_forgotten() {
        let mut seen = sightings(vec![packet(Transport::Tcp, "10.0.0.1:40000", "10.0.0.2:8080", None)], false);
        let shot = shot(Transport::Tcp, Some(40000));
        seen.about_to_send(&Lookout { at: target(), port: shot.port }, &shot);
        assert!(!far(&seen, &shot, Some("10.0.0.1:40000"), Instant::now()).arrived());
    }

    #[test]
    fn an_agent_that_was_never_asked_is_unknown() {
        let far = far(&Sightings::default(), &shot(Transport::Tcp, None), None, Instant::now());
        assert!(matches!(far, FarSide::Unknown { .. }));
    }
}
