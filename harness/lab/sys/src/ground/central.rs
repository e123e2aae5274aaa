//! OVN's central: the two databases and northd.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::daemon::{Daemon, Start, environment};
use crate::error::Error;
use crate::netns::Netns;
use crate::ovsdb::Client;
use crate::site::{OvnSite, Tools};

const DEADLINE: Duration = Duration::from_secs(10);

/// Makes an empty database file of `schema` (a path below the tree's `usr/share`).
///
/// # Errors
/// What `ovsdb-tool` says.
pub(super) async fn create_database(tools: &Tools, run: &Path, file: &Path, schema: &str) -> Result<(), Error> {
    let mut command = tools.command("ovsdb-tool");
    environment(&mut command, tools, run, run);
    command.arg("create").arg(file).arg(tools.root.join("usr/share").join(schema));
    let output =
        tokio::process::Command::from(command).output().await.map_err(Error::file("run ovsdb-tool create", file))?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::file("create database", file)(std::io::Error::other(message)))
}

/// Starts one database server; returns once it answers.
async fn database(
    tools: &Tools,
    ovn: &OvnSite,
    netns: &Netns,
    name: &str,
    schema: &str,
) -> Result<(Daemon, Client), Error> {
    let file = ovn.run.join(format!("{name}.db"));
    let socket = ovn.run.join(format!("{name}.sock"));
    create_database(tools, &ovn.run, &file, schema).await?;
    let start = Start {
        tools,
        program: "ovsdb-server",
        name,
        place: "central",
        run: &ovn.run,
        switch: &ovn.run,
        netns,
        nice: 0,
    };
    let mut daemon = start.run(&[
        file.display().to_string(),
        format!("--remote=punix:{}", socket.display()),
        format!("--unixctl={}", ovn.run.join(format!("{name}.ctl")).display()),
    ])?;
    let client = daemon.brings(Client::connect(&socket, DEADLINE)).await?;
    Ok((daemon, client))
}

/// Starts the databases, then northd.
pub(super) async fn up(tools: &Tools, ovn: &OvnSite, netns: &Netns) -> Result<Vec<Daemon>, Error> {
    let ((north, mut client), (south, _)) = tokio::try_join!(
        database(tools, ovn, netns, "ovnnb_db", "ovn/ovn-nb.ovsschema"),
        database(tools, ovn, netns, "ovnsb_db", "ovn/ovn-sb.ovsschema"),
    )?;
    // Datapath groups keep the southbound database small; nobody needs to be asked whether a unix socket still lives.
    let options = json!(["map", [["northd_probe_interval", "0"], ["use_logical_dp_groups", "true"]]]);
    client
        .transact("OVN_Northbound", &[json!({"op": "insert", "table": "NB_Global", "row": {"options": options}})])
        .await?;
    Ok(vec![north, south, northd(tools, ovn, netns)?])
}

/// Starts northd. The databases must answer already, else it waits a second before its next try.
pub(super) fn northd(tools: &Tools, ovn: &OvnSite, netns: &Netns) -> Result<Daemon, Error> {
    let start = Start {
        tools,
        program: "ovn-northd",
        name: "ovn-northd",
        place: "central",
        run: &ovn.run,
        switch: &ovn.run,
        netns,
        nice: 0,
    };
    start.run(&[
        format!("--ovnnb-db=unix:{}", ovn.northbound().display()),
        format!("--ovnsb-db=unix:{}", ovn.southbound().display()),
    ])
}
