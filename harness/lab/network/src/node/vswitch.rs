//! Ports of br-int by the node's own database, and whether ovn-controller has installed their flows.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::error::Error;
use crate::ovsdb::follow::{Rows, follow, map_value};
use crate::ovsdb::transaction::{map, row, set};
use crate::ovsdb::{Client, Transaction};

const DATABASE: &str = "Open_vSwitch";
/// How long ovn-controller may take to bind a port; on idle cores it takes tens of milliseconds.
const INSTALL_DEADLINE: Duration = Duration::from_secs(20);

/// A node's Open vSwitch.
#[derive(Clone, Debug)]
pub(crate) struct Vswitch {
    client: Client,
    interfaces: watch::Receiver<Rows>,
}

/// A port to be added to br-int.
#[derive(Debug)]
pub(crate) struct BridgePort<'a> {
    pub(crate) interface: &'a str,
    /// The logical switch port that it is.
    pub(crate) logical_port: &'a str,
    /// The pod's UID, which the logical switch port names too.
    pub(crate) uid: Option<&'a str>,
    pub(crate) mac: String,
    /// Made by Open vSwitch itself, with this MTU.
    pub(crate) internal: Option<u32>,
}

impl Vswitch {
    pub(crate) fn open(socket: std::path::PathBuf) -> Self {
        let interfaces = follow(DATABASE, socket.clone(), "Interface", &["name", "external_ids", "ofport", "error"]);
        Self { client: Client::new(DATABASE, socket), interfaces }
    }

    /// Adds ports to br-int, in one transaction.
    pub(crate) async fn add(&self, purpose: &str, ports: &[BridgePort<'_>]) -> Result<(), Error> {
        let mut transaction = Transaction::default();
        for port in ports {
            let mut ids = vec![("iface-id", port.logical_port.to_owned()), ("attached-mac", port.mac.clone())];
            ids.extend(port.uid.map(|uid| ("iface-id-ver", uid.to_owned())));
            let interface = transaction.insert(
                "Interface",
                row(json!({
                    "name": port.interface, "external_ids": map(ids), "type": port.internal.map(|_| "internal"),
                    "mtu_request": port.internal, "mac": port.internal.map(|_| port.mac.clone()),
                })),
            );
            let bridge_port =
                transaction.insert("Port", json!({"name": port.interface, "interfaces": set([interface])}));
            transaction.add("Bridge", "br-int", "ports", set([bridge_port]));
        }
        self.client.commit(purpose, transaction).await.map(|_| ())
    }

    /// Makes interfaces ports of br-ex.
    pub(crate) async fn add_external(&self, interfaces: &[&str]) -> Result<(), Error> {
        let mut transaction = Transaction::default();
        for interface in interfaces {
            for found in self.client.select("Port", "name", &json!(interface), &["_uuid"]).await? {
                transaction.remove("Bridge", "br-ex", "ports", set([found["_uuid"].clone()]));
            }
        }
        self.client.commit("removing ports of br-ex", transaction).await?;
        let mut transaction = Transaction::default();
        for interface in interfaces {
            let row = transaction.insert("Interface", json!({"name": interface}));
            let port = transaction.insert("Port", json!({"name": interface, "interfaces": set([row])}));
            transaction.add("Bridge", "br-ex", "ports", set([port]));
        }
        self.client.commit("adding ports to br-ex", transaction).await?;
        self.present(&interfaces.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).await
    }

    /// Removes ports from br-int; those that are not there are no error.
    pub(crate) async fn remove(&self, interfaces: &[String]) -> Result<(), Error> {
        let mut transaction = Transaction::default();
        for interface in interfaces {
            for found in self.client.select("Port", "name", &json!(interface), &["_uuid"]).await? {
                transaction.remove("Bridge", "br-int", "ports", set([found["_uuid"].clone()]));
            }
        }
        self.client.commit("removing ports", transaction).await.map(|_| ())
    }

    /// The rows of all interfaces, kept current.
    pub(crate) fn interfaces(&self) -> watch::Receiver<Rows> {
        self.interfaces.clone()
    }

    /// Interfaces that the database has and whose names begin with `prefix`.
    pub(crate) fn known(&self, prefix: &str) -> Vec<String> {
        let rows = self.interfaces.borrow();
        rows.values()
            .filter_map(|row| row["name"].as_str())
            .filter(|name| name.starts_with(prefix))
            .map(str::to_owned)
            .collect()
    }

    /// Waits until the flows of these interfaces' ports are installed.
    pub(crate) async fn installed(&self, interfaces: &[String]) -> Result<(), Error> {
        self.until(interfaces, "flows of", |row| map_value(&row["external_ids"], "ovn-installed") == Some("true")).await
    }

    /// Waits until these interfaces are ports of the datapath.
    pub(crate) async fn present(&self, interfaces: &[String]) -> Result<(), Error> {
        self.until(interfaces, "datapath port of", |row| row["ofport"].as_i64().is_some_and(|number| number > 0)).await
    }

    async fn until(&self, interfaces: &[String], what: &str, done: impl Fn(&Value) -> bool) -> Result<(), Error> {
        let mut rows = self.interfaces.clone();
        let missing = |rows: &Rows| -> Vec<String> {
            let is_done = |name: &&String| rows.values().any(|row| row["name"] == ***name && done(row));
            interfaces.iter().filter(|name| !is_done(name)).cloned().collect()
        };
        let waited =
            tokio::time::timeout(INSTALL_DEADLINE, rows.wait_for(|rows| missing(rows).is_empty())).await.is_ok();
        if waited {
            return Ok(());
        }
        let rows = self.interfaces.borrow();
        let errors = rows
            .values()
            .filter(|row| interfaces.iter().any(|name| row["name"] == **name))
            .map(|row| row["error"].to_string());
        let what =
            format!("the {what} {} (errors: {})", missing(&rows).join(", "), errors.collect::<Vec<_>>().join(", "));
        Err(Error::Timeout { what, seconds: INSTALL_DEADLINE.as_secs() })
    }
}
