//! A matrix of more than five thousand cells: the tenants' world with more pods and services, as fixtures of its own.

use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};
use udn_fixtures::Fixtures;

use crate::failure::Failure;

/// The scenario whose world is made larger.
pub(crate) const FILTERS: [&str; 1] = ["services::layer2"];
/// Cells that its rounds have at least.
pub(crate) const CELLS: usize = 5_000;

const PODS: &str = "workloads/tenants.yaml";
const SERVICES: &str = "services/tenants.yaml";
/// With the thirteen that there are, the two nodes and the external host, 24 vantage points.
const MORE_PODS: [(&str, &str); 8] = [
    ("blue", "k"),
    ("blue", "l"),
    ("green", "k"),
    ("green", "l"),
    ("overlapping-with-blue", "k"),
    ("overlapping-with-blue", "l"),
    ("plain", "k"),
    ("plain", "l"),
];
/// Of each service of the name `web` there are so many more.
const MORE_SERVICES: usize = 2;

/// Writes the fixtures below `folder`.
///
/// # Errors
/// They cannot be written, or are not what this was written for.
pub(crate) fn fixtures(folder: &Path) -> Result<(), Failure> {
    let write = || -> Result<(), anyhow::Error> {
        Fixtures::write_to(folder).context("cannot write fixtures")?;
        let own = Fixtures::embedded();
        add(folder, PODS, &more_pods(&own.manifests(&[PODS])?)?)?;
        add(folder, SERVICES, &more_services(&own.manifests(&[SERVICES])?))
    };
    write().map_err(Failure::setup)
}

/// Appends documents to a file.
fn add(folder: &Path, file: &str, objects: &[Value]) -> Result<(), anyhow::Error> {
    let path = folder.join(file);
    let mut text = std::fs::read_to_string(&path)?;
    for object in objects {
        // JSON is YAML.
        text.push_str("\n---\n");
        text.push_str(&serde_json::to_string(object)?);
    }
    Ok(std::fs::write(path, text)?)
}

fn is(object: &Value, namespace: &str, name: &str) -> bool {
    object["metadata"]["namespace"] == namespace && object["metadata"]["name"] == name
}

/// Like the second pod of their namespace, on both nodes in turn.
fn more_pods(pods: &[Value]) -> Result<Vec<Value>, anyhow::Error> {
    let more = MORE_PODS.iter().enumerate().map(|(index, (namespace, name))| {
        let model = pods.iter().find(|pod| is(pod, namespace, "b"));
        let mut pod = model.with_context(|| format!("{PODS} has no pod {namespace}/b"))?.clone();
        pod["metadata"]["name"] = json!(name);
        pod["metadata"]["labels"]["udn-conformance.io/node"] = json!((index % 2).to_string());
        Ok(pod)
    });
    more.collect()
}

fn more_services(services: &[Value]) -> Vec<Value> {
    let models = services.iter().filter(|service| service["metadata"]["name"] == "web");
    let copies = models.flat_map(|model| {
        (2..2 + MORE_SERVICES).map(|number| {
            let mut service = model.clone();
            service["metadata"]["name"] = json!(format!("web-{number}"));
            service
        })
    });
    copies.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use udn_model::plan::Environment;

    use super::*;
    use crate::args::Selection;
    use crate::select;

    #[test]
    fn twenty_four_vantage_points_make_more_than_five_thousand_cells() {
        let folder = tempfile::tempdir().unwrap();
        fixtures(folder.path()).unwrap();
        let suites = select::suites(Some(folder.path())).unwrap();
        let selection = Selection { filters: FILTERS.map(String::from).into(), ..Selection::default() };
        let plan = select::plan(&suites, &selection, &Environment::complete()).unwrap();
        assert_eq!(plan.scenarios.len(), 1);
        let cells = plan.scenarios[0].cells();
        assert!(cells.clone().count() >= CELLS, "{}", cells.count());
        let from: BTreeSet<_> =
            plan.scenarios[0].cells().map(|cell| cell.cell.id.as_str().split("::").nth(4)).collect();
        assert_eq!(from.len(), 24, "{from:?}");
    }
}
