//! The whole ground, brought up side by side.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use super::daemon::Daemon;
use super::health::Health;
use super::links::Links;
use super::{central, node, underlay};
use crate::error::Error;
use crate::netns::Netns;
use crate::ovsdb::Client;
use crate::sandbox::{FOLDER, TREE};
use crate::site::{LOADER, NodeSite, OvnSite, Site, Tools};

/// Names of the nodes, control plane first.
pub const NODES: [&str; 3] = ["ovn-control-plane", "ovn-worker", "ovn-worker2"];
const DEADLINE: Duration = Duration::from_secs(20);

/// The running ground. Its daemons end when it is dropped.
#[derive(Debug)]
pub struct Ground {
    site: Arc<Site>,
    /// The sandbox's own namespace, where the central runs.
    own: Netns,
    pub(super) daemons: Mutex<(Vec<Daemon>, Health)>,
}

impl Ground {
    /// Brings everything up inside a sandbox. `tools` are the host's (`/`) or the tree's; `step` is told what is done.
    ///
    /// # Errors
    /// The first thing that failed, with its cause.
    pub async fn up(tools: Tools, step: &(dyn Fn(&str) + Sync)) -> Result<Self, Error> {
        let limit = getrlimit(Resource::Nofile);
        // A refusal leaves the limit as it was, which is enough for small labs.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
        let folder = Path::new(FOLDER);
        let own = Netns::current("lab").map_err(Error::sandbox("hold its own network namespace"))?;
        Links::open(&own)?.set_up(1).await?;
        let ovn = OvnSite { run: folder.join("ovn") };
        for path in
            [&ovn.run, &folder.join("scratch"), &folder.join("bin"), &"/run/openvswitch".into(), &"/run/ovn".into()]
        {
            fs::create_dir_all(path).map_err(Error::file("create", path))?;
        }
        scripts(&tools, &folder.join("bin"))?;

        let central = central::up(&tools, &ovn, &own);
        let nodes = async {
            let (underlay, external, bridge) = underlay::make().await?;
            let nodes =
                futures::future::try_join_all((1..).zip(NODES).map(|(index, name)| node_site(folder, index, name)))
                    .await?;
            for site in &nodes {
                node::wire(site, &underlay, bridge).await?;
            }
            step("underlay");
            let switches =
                futures::future::try_join_all(nodes.iter().map(|site| node::switch(&tools, site, &ovn))).await?;
            step("switches");
            Ok((underlay, external, nodes, switches))
        };
        let (central, (underlay, external, nodes, switches)) = tokio::try_join!(central, nodes)?;
        let mut daemons = central;
        daemons.extend(switches.into_iter().flatten());
        for site in &nodes {
            node::link_central(site, &ovn)?;
            daemons.push(node::controller(&tools, site)?);
        }
        for netns in nodes.iter().map(|site| &site.netns).chain([&underlay, &external]) {
            name_netns(netns)?;
        }
        let site = Site {
            nodes,
            underlay,
            external,
            ovn,
            tools,
            image_root: TREE.into(),
            scratch: folder.join("scratch"),
            // Found whatever becomes of the file that the program was started from.
            program: PathBuf::from("/proc/self/exe"),
        };
        let ground = Self { site: Arc::new(site), own, daemons: Mutex::new((daemons, Health::default())) };
        // A daemon that died says more than the wait for it.
        tokio::select! {
            result = ground.synced() => result?,
            problem = ground.problem() => return Err(Error::Ended(problem)),
        }
        ground.restarts_keep_flows().await?;
        step("ovn");
        Ok(ground)
    }

    /// Facts for the network and the nodes.
    #[must_use]
    pub fn site(&self) -> Arc<Site> {
        self.site.clone()
    }

    pub(super) fn site_ref(&self) -> &Site {
        &self.site
    }

    pub(super) const fn own(&self) -> &Netns {
        &self.own
    }

    /// Problems of the daemons so far: lab errors, not findings about the network.
    #[must_use]
    pub fn health(&self) -> Vec<String> {
        let mut guard = self.state();
        let (daemons, health) = &mut *guard;
        health.look(daemons)
    }

    /// How daemons ended that are known to end so now and then, and were started again: no problem of the lab's.
    #[must_use]
    pub fn known_ends(&self) -> Vec<String> {
        self.state().1.known()
    }

    /// The first problem, as soon as there is one.
    async fn problem(&self) -> String {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if let Some(problem) = self.health().into_iter().next() {
                return problem;
            }
        }
    }

    /// Name, place and process id of each daemon.
    #[must_use]
    pub fn daemons(&self) -> Vec<(String, String, u32)> {
        let guard = self.state();
        guard.0.iter().map(|daemon| (daemon.name.clone(), daemon.place.clone(), daemon.pid())).collect()
    }

    /// Until every node's controller has registered and done what the northbound database says.
    async fn synced(&self) -> Result<(), Error> {
        let mut south = Client::connect(&self.site.ovn.southbound(), DEADLINE).await?;
        let names: Vec<_> = self.site.nodes.iter().map(|site| json!({"name": site.name})).collect();
        south.wait("OVN_Southbound", "Chassis", &["name"], json!(names), DEADLINE).await?;
        let mut north = Client::connect(&self.site.ovn.northbound(), DEADLINE).await?;
        let bump = json!({"op": "update", "table": "NB_Global", "where": [], "row": {"nb_cfg": 1}});
        north.transact("OVN_Northbound", &[bump]).await?;
        north.wait("OVN_Northbound", "NB_Global", &["hv_cfg"], json!([{"hv_cfg": 1}]), DEADLINE).await
    }
}

async fn node_site(folder: &Path, index: u8, name: &str) -> Result<NodeSite, Error> {
    let own = folder.join("nodes").join(name);
    let site = NodeSite {
        name: name.to_owned(),
        index,
        ipv4: Ipv4Addr::new(172, 18, 0, 1 + index),
        ipv6: Ipv6Addr::new(0xfc00, 0xf853, 0xccd, 0xe793, 0, 0, 0, 1 + u16::from(index)),
        mac: [0x02, 0x42, 0xac, 0x12, 0x00, 1 + index],
        netns: underlay::namespace(name).await?,
        ovs_run: own.join("ovs"),
        ovn_run: own.join("ovn"),
    };
    for path in [&site.ovs_run, &site.ovn_run] {
        fs::create_dir_all(path).map_err(Error::file("create", path))?;
    }
    Ok(site)
}

/// Shows a namespace where `ip netns` looks for it.
fn name_netns(netns: &Netns) -> Result<(), Error> {
    let path = Path::new("/run/netns").join(netns.name());
    fs::File::create(&path).map_err(Error::file("create", &path))?;
    netns
        .run(|| mount(Some("/proc/thread-self/ns/net"), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>))
        .and_then(|result| result.map_err(Into::into))
        .map_err(Error::sandbox(format!("name network namespace {}", netns.name())))
}

/// A script for each tool of the tree, so that a person in the sandbox can type its name.
fn scripts(tools: &Tools, folder: &Path) -> Result<(), Error> {
    if tools.root == Path::new("/") {
        return Ok(());
    }
    let libraries = tools.libraries();
    for place in ["usr/bin", "usr/sbin"] {
        let place = tools.root.join(place);
        for entry in fs::read_dir(&place).map_err(Error::file("read", &place))?.filter_map(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let ours = name.starts_with("ov")
                || ["ip", "ss", "tc", "bridge", "ping", "tcpdump", "nft", "ethtool", "curl"].contains(&name.as_str());
            if !ours || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
                continue;
            }
            let path = folder.join(&name);
            let (loader, libraries, program) = (libraries.join(LOADER), libraries.display(), entry.path());
            let text = format!(
                "#!/bin/sh\nexec {} --library-path {libraries} {} \"$@\"\n",
                loader.display(),
                program.display()
            );
            fs::write(&path, text).map_err(Error::file("write", &path))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
                .map_err(Error::file("make executable", &path))?;
        }
    }
    Ok(())
}
