//! A scripted cluster for tests: who answers what is a function.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::sleep;
use udn_model::cell::{AddressOn, Claim, ObjectRef, Target, VantagePoint};
use udn_model::flow::FlowFigures;
use udn_model::migration::{Mark, Migration, Moment};
use udn_model::observation::{Outcome, Witness};
use udn_model::scenario::{Action, WorldSpec};
use udn_model::words::Family;
use udn_model::world::{NetworkId, PodRef, World as Declared};

use crate::cluster::{
    AddressBook, Arrivals, Cluster, FactQuestion, Found, Over, Packet, PodAddresses, Report, Shot, Trouble, World,
};

/// What becomes of a shot.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Somebody answers at once, and it arrives at the target.
    Open(&'static str),
    /// The same, after a second and a half.
    Slow(&'static str),
    /// An echo reply from the target.
    Echo,
    /// An echo reply from somebody else.
    EchoElsewhere,
    /// Nothing comes back, nothing arrives.
    Silence,
    /// Nothing comes back, though it arrives.
    Leak,
    /// Refused on the way.
    Refused,
    /// Told unreachable.
    Unreachable,
    /// The control stream is lost at once.
    Lost,
    /// No report ever.
    Never,
}

/// A shot as the script sees it.
pub(crate) struct Seen<'a> {
    pub(crate) from: String,
    pub(crate) to: IpAddr,
    pub(crate) shot: &'a Shot,
    /// How many equal ones there were before.
    pub(crate) nth: u32,
    /// Actions done so far.
    pub(crate) actions: u32,
}

type Script = Box<dyn Fn(&Seen<'_>) -> Reply + Send + Sync>;

/// The cluster.
pub(crate) struct Fake {
    pub(crate) script: Arc<Script>,
    pub(crate) log: Arc<Mutex<Log>>,
    /// How long provisioning and actions take, and whether they fail.
    pub(crate) provision: Result<Duration, &'static str>,
    pub(crate) action: Result<Duration, &'static str>,
    pub(crate) witness: Witness,
    pub(crate) holds: bool,
    /// Whether agents are started anew all the time.
    pub(crate) restless: bool,
    /// What flows counted, whichever they are.
    pub(crate) figures: FlowFigures,
}

/// What happened to the cluster.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) provisioned: Vec<String>,
    pub(crate) removed: Vec<String>,
    pub(crate) finished: usize,
    pub(crate) shots: usize,
    pub(crate) alive: usize,
    pub(crate) most_alive: usize,
}

impl Fake {
    pub(crate) fn new(script: impl Fn(&Seen<'_>) -> Reply + Send + Sync + 'static) -> Self {
        Self {
            script: Arc::new(Box::new(script)),
            log: Arc::default(),
            provision: Ok(Duration::from_secs(1)),
            action: Ok(Duration::from_secs(1)),
            witness: Witness::RawCapture,
            holds: true,
            restless: false,
            figures: FlowFigures::default(),
        }
    }
}

/// Pods a and b of blue, a of green: 10.0.0.1, 10.0.0.2, 10.1.0.1.
pub(crate) fn book() -> AddressBook {
    let mut book = AddressBook::default();
    for (namespace, name, address) in [("blue", "a", "10.0.0.1"), ("blue", "b", "10.0.0.2"), ("green", "a", "10.1.0.1")]
    {
        let network = NetworkId::Udn { namespace: namespace.into(), name: "net".into() };
        let primary = vec![address.parse().unwrap()];
        book.pods.insert(
            PodRef::new(namespace, name),
            PodAddresses { network: Some(network), primary, ..PodAddresses::default() },
        );
    }
    book
}

pub(crate) struct FakeWorld {
    script: Arc<Script>,
    log: Arc<Mutex<Log>>,
    action: Result<Duration, &'static str>,
    witness: Witness,
    holds: bool,
    restless: bool,
    figures: FlowFigures,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    nth: HashMap<String, u32>,
    actions: u32,
    lives: u64,
    migrations: Vec<Migration>,
    arrived: BTreeMap<IpAddr, Vec<Packet>>,
}

#[async_trait]
impl Cluster for Fake {
    async fn provision(
        &self,
        spec: &WorldSpec,
        instance: &str,
        progress: UnboundedSender<String>,
    ) -> Result<Arc<dyn World>, Trouble> {
        {
            let mut log = self.log.lock().unwrap();
            log.provisioned.push(format!("{} {instance}", spec.name));
            log.alive += 1;
            log.most_alive = log.most_alive.max(log.alive);
        }
        progress.send("pods".into()).unwrap();
        sleep(self.provision.map_err(|why| Trouble(why.into()))?).await;
        Ok(Arc::new(FakeWorld {
            script: self.script.clone(),
            log: self.log.clone(),
            action: self.action,
            witness: self.witness,
            holds: self.holds,
            restless: self.restless,
            figures: self.figures.clone(),
            state: Mutex::default(),
        }))
    }

    async fn remove(&self, instance: &str) -> Result<(), Trouble> {
        let mut log = self.log.lock().unwrap();
        log.removed.push(instance.into());
        log.alive -= usize::from(log.alive > 0);
        Ok(())
    }

    async fn finish(&self) -> Result<(), Trouble> {
        self.log.lock().unwrap().finished += 1;
        Ok(())
    }
}

impl FakeWorld {
    fn reply(&self, from: &VantagePoint, shot: &Shot) -> Reply {
        let mut state = self.state.lock().unwrap();
        let key = format!("{from} {} {:?} {}", shot.to, shot.port, shot.transport);
        let nth = state.nth.entry(key).or_default();
        let seen = Seen { from: from.to_string(), to: shot.to, shot, nth: *nth, actions: 0 };
        *nth += 1;
        let seen = Seen { actions: state.actions, ..seen };
        let reply = (self.script)(&seen);
        if matches!(reply, Reply::Open(_) | Reply::Slow(_) | Reply::Echo | Reply::Leak) {
            let destination = SocketAddr::new(shot.to, shot.port.unwrap_or(0));
            let nonce = (shot.transport != udn_model::words::Transport::Tcp).then_some(shot.nonce);
            let source = local(from, shot);
            state.arrived.entry(shot.to).or_default().push(Packet {
                transport: shot.transport,
                source,
                destination,
                nonce,
            });
        }
        reply
    }
}

fn local(from: &VantagePoint, shot: &Shot) -> SocketAddr {
    let address = match from {
        VantagePoint::Pod(pod) => book().pods[pod].primary[0],
        _ => "172.18.0.3".parse().unwrap(),
    };
    SocketAddr::new(address, shot.source_port.unwrap_or(5))
}

#[async_trait]
impl World for FakeWorld {
    async fn act(&self, action: &Action) -> Result<(), Trouble> {
        sleep(self.action.map_err(|why| Trouble(why.into()))?).await;
        if let Action::Migrate { vm, .. } = action {
            self.state.lock().unwrap().migrations.push(Migration {
                vm: vm.clone(),
                from: Some("worker1".into()),
                to: Some("worker2".into()),
                succeeded: true,
                asked_us: 0,
                over_us: 2_000_000,
                marks: vec![Mark { at_us: 1_010_000, what: Moment::Resumed, within_ms: 0 }],
                pause_ms: Some(10),
                announcements: vec![],
            });
        }
        self.state.lock().unwrap().actions += 1;
        Ok(())
    }

    async fn addresses(&self, _declared: &Declared) -> Result<AddressBook, Trouble> {
        let mut book = book();
        let mut state = self.state.lock().unwrap();
        state.lives += u64::from(self.restless);
        book.pods.values_mut().for_each(|pod| pod.life = Some(state.lives));
        Ok(book)
    }

    async fn probe(&self, from: &VantagePoint, shots: Vec<Shot>, reports: UnboundedSender<Report>) {
        self.log.lock().unwrap().shots += shots.len();
        let each = shots.into_iter().map(async |shot| {
            let open = |peer: Option<&str>| Outcome::Open { peer: peer.map(str::to_owned), source: None, rtt_us: 100 };
            let outcome = match self.reply(from, &shot) {
                Reply::Open(peer) => open(Some(peer)),
                Reply::Slow(peer) => {
                    sleep(Duration::from_millis(1500)).await;
                    Outcome::Open { peer: Some(peer.into()), source: None, rtt_us: 1_500_000 }
                }
                Reply::Echo | Reply::EchoElsewhere => open(None),
                Reply::Silence | Reply::Leak => {
                    sleep(shot.timeout).await;
                    Outcome::TimedOut
                }
                Reply::Refused => Outcome::Refused,
                Reply::Unreachable => Outcome::Unreachable { why: "host".into(), by: None },
                Reply::Lost => Outcome::ControlLost { why: "cut".into() },
                Reply::Never => return sleep(Duration::from_secs(3600)).await,
            };
            let local = Some(local(from, &shot));
            let flow = match shot.over {
                Over::New => None,
                Over::Flow(kind) => Some(Box::new(FlowFigures { kind, ..self.figures.clone() })),
            };
            let _ = reports.send(Report { nonce: shot.nonce, outcome, local, flow });
        });
        futures::future::join_all(each).await;
    }

    async fn arrivals(&self, at: &Target, since: Option<u64>) -> Result<Arrivals, Trouble> {
        if self.witness == Witness::None {
            return Err(Trouble("no agent".into()));
        }
        let address = match at {
            Target::Pod { pod, .. } => book().pods[pod].on(&AddressOn::Primary, Family::V4).unwrap(),
            _ => "172.18.0.3".parse().unwrap(),
        };
        let state = self.state.lock().unwrap();
        let packets = state.arrived.get(&address).cloned().unwrap_or_default();
        let mark = packets.len() as u64;
        let packets = match since {
            Some(since) => packets.into_iter().skip(usize::try_from(since).unwrap()).collect(),
            None => vec![],
        };
        Ok(Arrivals { mark, witness: self.witness, lossy: false, packets })
    }

    async fn facts(&self, _declared: &Declared, questions: &[FactQuestion]) -> Vec<Result<Found, Trouble>> {
        questions.iter().map(|_| Ok(Found { holds: self.holds, found: "so".into() })).collect()
    }

    async fn claim(&self, _object: &ObjectRef, _claim: &Claim) -> Result<Found, Trouble> {
        Ok(Found { holds: self.holds, found: "so".into() })
    }

    async fn migrations(&self) -> Vec<Migration> {
        std::mem::take(&mut self.state.lock().unwrap().migrations)
    }

    fn repeat(&self, from: &VantagePoint, shot: &Shot) -> Option<String> {
        Some(format!("probe from {from} to {}", shot.to))
    }

    async fn evidence(&self, pod: &PodRef) -> Vec<String> {
        vec![format!("state of {pod}")]
    }
}
