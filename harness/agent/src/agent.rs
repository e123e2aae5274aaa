//! The event loop: who gets which event, and which request is whose.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getpid, getrlimit, setrlimit};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::clock::{monotonic_us, wall_us};
use crate::control::{Control, Task, console};
use crate::facts;
use crate::flow::Flows;
use crate::flow::bulk::Bulks;
use crate::guest::{Guest, Log};
use crate::listen::Listeners;
use crate::probe::Probes;
use crate::protocol::{Body, Failure, Hello, Op, PROTOCOL, Request, WINDOW};
use crate::reactor::{Event, Kind, Reactor, Ready, Token};
use crate::witness::Witness;
use crate::witness::announcements::AnnouncementLog;

/// Open files that are not probes' sockets: flows, echoed connections ([`crate::protocol::FLOWS`] and
/// [`crate::protocol::ECHOES`] at most), listeners, captures, the control stream, an accepted connection.
const OTHER_FILES: u64 = 448;

/// The agent.
pub(crate) struct Agent {
    reactor: Reactor,
    control: Control,
    probes: Probes,
    flows: Flows,
    bulks: Bulks,
    listeners: Listeners,
    witness: Witness,
    announcements: AnnouncementLog,
    /// In a VM of its own: the configuration of its network.
    guest: Option<Guest>,
    boot: u64,
    shut_down: bool,
}

impl Agent {
    /// `socket` is the control socket: it listens and does not block. None where a console is served instead.
    pub(crate) fn new(socket: Option<OwnedFd>) -> Result<Self, Errno> {
        let reactor = Reactor::new()?;
        let control = Control::new(socket);
        if let Some(socket) = control.socket() {
            reactor.watch(socket, Token::new(Kind::Control, 0), Ready::IN)?;
        }
        let witness = Witness::new(&reactor);
        Ok(Self {
            reactor,
            control,
            probes: Probes::new(probe_limit()),
            flows: Flows::new(),
            bulks: Bulks::new(),
            listeners: Listeners::new(),
            witness,
            announcements: AnnouncementLog::new(),
            guest: None,
            boot: random(),
            shut_down: false,
        })
    }

    /// Serves a console as well.
    pub(crate) fn serve_console(&mut self, device: OwnedFd) -> Result<(), Errno> {
        self.control.serve_console(&self.reactor, device)
    }

    /// Configures the network of this VM as the network says, and serves its console: as soon as that is there, unless it is
    /// open already.
    pub(crate) fn be_guest(&mut self, path: String, console: Option<OwnedFd>, log: Log) -> Result<(), Errno> {
        self.guest = Some(Guest::start(&self.reactor, path, log)?);
        if let Some(console) = console {
            self.control.serve_console(&self.reactor, console)?;
        }
        self.look_around();
        Ok(())
    }

    /// A device of the VM may have appeared.
    fn look_around(&mut self) {
        let Some(guest) = &mut self.guest else { return };
        guest.look_around(&mut self.reactor);
        if !self.control.is_attached()
            && let Ok(device) = console::open(guest.console())
            && let Err(errno) = self.control.serve_console(&self.reactor, device)
        {
            guest.note("watch the console", errno);
        }
    }

    /// Lets the last answers leave.
    pub(crate) fn drain(&mut self) {
        self.control.drain(&self.reactor);
    }

    /// Serves until told to shut down.
    pub(crate) fn run(&mut self) -> Result<(), Errno> {
        let mut events = Vec::new();
        while !self.shut_down {
            self.reactor.wait(&mut events, self.probes.can_start())?;
            for event in events.drain(..) {
                self.handle(event);
            }
            self.probes.start_some(&mut self.reactor);
            let flows = self.flows.take_ended().into_iter().chain(self.bulks.take_ended());
            for (id, result) in self.probes.take_ended().into_iter().chain(flows) {
                self.control.answer(id, result);
            }
            self.control.flush(&self.reactor);
        }
        Ok(())
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Due(token) if token.kind() == Kind::Flow => self.flows.due(&mut self.reactor, token.key()),
            Event::Due(token) if token.kind() == Kind::Bulk => self.bulks.due(&mut self.reactor, token.key()),
            Event::Due(token) if token.kind() == Kind::Guest => {
                if let Some(guest) = &mut self.guest {
                    guest.due(&mut self.reactor, token.key());
                }
            }
            Event::Due(token) => self.probes.due(&mut self.reactor, token.key()),
            Event::Ready(token, ready) => match token.kind() {
                Kind::Control => {
                    let hello = self.hello();
                    self.control.accept(&self.reactor, hello);
                }
                Kind::Attachment => {
                    for task in self.control.ready(token.key(), ready) {
                        match task {
                            Task::Forget => {
                                self.probes.cancel_all(&mut self.reactor);
                                self.flows.cancel_all(&mut self.reactor);
                                self.bulks.cancel_all(&mut self.reactor);
                            }
                            Task::Greet(id) => {
                                let hello = self.hello();
                                self.control.greet(id, hello);
                            }
                            Task::Do(request) => self.serve(request),
                        }
                    }
                }
                Kind::Probe => self.probes.ready(&mut self.reactor, token.key()),
                Kind::Echo => self.probes.echo_ready(&mut self.reactor, token.key()),
                Kind::Listener => {
                    let witness = &mut self.witness;
                    self.listeners.ready(&self.reactor, token.key(), &mut |arrival| witness.served(arrival));
                }
                Kind::Capture => self.witness.ready(token.key()),
                Kind::Flow => self.flows.ready(&mut self.reactor, token.key()),
                Kind::Mirror => self.listeners.mirror_ready(&self.reactor, token.key()),
                Kind::Bulk => self.bulks.ready(&mut self.reactor, token.key()),
                Kind::Guest => {
                    let appeared = self.guest.as_mut().is_some_and(|guest| guest.ready(&mut self.reactor, token.key()));
                    if appeared {
                        self.look_around();
                    }
                }
                Kind::Herald => self.announcements.ready(token.key()),
            },
        }
    }

    fn serve(&mut self, request: Request) {
        let body = match request.op {
            Op::Probe(probe) => {
                self.probes.take(request.id, probe);
                return;
            }
            Op::Resolve(question) => {
                self.probes.take_question(request.id, question);
                return;
            }
            Op::Flow(flow) => {
                self.flows.take(&mut self.reactor, request.id, flow);
                return;
            }
            Op::Bulk(bulk) => {
                self.bulks.take(&mut self.reactor, request.id, &bulk);
                return;
            }
            Op::FlowState { flow } => {
                let state = self.flows.state(flow).map(Body::FlowState);
                state.or_else(|| self.bulks.state(flow).map(Body::BulkState)).unwrap_or_else(|| {
                    let attempted = "look at a flow: it does not run, or not any more".to_string();
                    Body::Failed(Failure { attempted, errno: 0 })
                })
            }
            Op::EndFlow { flow } => {
                self.flows.end_by_request(&mut self.reactor, flow);
                self.bulks.end_by_request(&mut self.reactor, flow);
                Body::Done
            }
            Op::Listen(listen) => {
                self.listeners.open(&self.reactor, &listen).map_or_else(Body::Failed, |()| Body::Done)
            }
            Op::Unlisten { transport, port } => {
                self.listeners.shut(transport, port);
                Body::Done
            }
            Op::Arrivals { after } => Body::Arrivals(self.witness.tell(after)),
            Op::WatchAnnouncements { interfaces } => {
                let watched = self.announcements.watch(&self.reactor, interfaces);
                watched.map_or_else(Body::Failed, |()| Body::Done)
            }
            Op::Announcements { after } => Body::Announcements(self.announcements.tell(after)),
            Op::Facts => facts::collect().map_or_else(Body::Failed, |mut facts| {
                facts.guest = self.guest.as_ref().map(|guest| Box::new(guest.facts()));
                Body::Facts(facts)
            }),
            Op::Shutdown => {
                self.shut_down = true;
                Body::Done
            }
            // The first three never get here: the control stream keeps them.
            Op::Greet | Op::Attach { .. } | Op::Ack { .. } | Op::Ping => Body::Done,
        };
        self.control.answer(request.id, body);
    }

    fn hello(&self) -> Body {
        Body::Hello(Hello {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_string(),
            pid: getpid().as_raw_nonzero().get().cast_unsigned(),
            boot: self.boot,
            session: self.control.session(),
            last_seq: self.control.last_seq(),
            evidence: self.witness.evidence(),
            icmp: self.probes.icmp(),
            max_probes: self.probes.limit() as u32,
            now_us: wall_us(),
        })
    }
}

/// Raises the limit of open files as far as it goes and says how many probes that allows.
pub(crate) fn probe_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let wanted = WINDOW as u64 + OTHER_FILES;
    let reachable = limit.maximum.unwrap_or(u64::MAX).min(wanted.max(limit.current.unwrap_or(u64::MAX)));
    let raised = Rlimit { current: Some(reachable), maximum: limit.maximum };
    let files =
        if setrlimit(Resource::Nofile, raised).is_ok() { reachable } else { limit.current.unwrap_or(reachable) };
    // Where the limit is very low, half of it.
    files.saturating_sub(OTHER_FILES).max(files / 2).clamp(1, WINDOW as u64) as usize
}

/// A number that no other agent has, nor this one after a restart.
pub(crate) fn random() -> u64 {
    let mut bytes = [0; 8];
    // Early in a VM's boot there may be no randomness yet; the clock and the process id have to do then.
    let _ = getrandom(&mut bytes, GetRandomFlags::NONBLOCK);
    u64::from_ne_bytes(bytes) ^ wall_us() ^ monotonic_us().rotate_left(32)
}
