//! What the API server refuses, with which words, and what it accepts. Objects are asked about, not made: each is one
//! cell. Those that are changed are there before, and the question is about the change.
//!
//! Every object is one of OVN-Kubernetes' own validation tests, named by its row in the catalog of those: `CELX` refused,
//! `CELV` accepted. The words are those of its rules, and of Kubernetes only as far as all versions agree.

mod networks;
mod others;
mod transports;

use udn_fixtures::{FixtureError, Fixtures};
use udn_model::cell::{Claim, Feature, ObjectRef};
use udn_model::scenario::{Action, Phase, Scenario, WorldSpec};

use crate::phases::{NETWORKS, claim, cudn, phase, udn};

const RULE: &str = "objects/admission";

/// The namespace of what needs one.
const NAMESPACE: &str = "admission";

/// Objects of which the same is promised: the row of the catalog, and the name.
struct Group {
    /// What a refusal says; `None`: accepted.
    words: Option<&'static [&'static str]>,
    objects: &'static [(&'static str, &'static str)],
}

const fn refused(words: &'static [&'static str], objects: &'static [(&'static str, &'static str)]) -> Group {
    Group { words: Some(words), objects }
}

const fn accepted(objects: &'static [(&'static str, &'static str)]) -> Group {
    Group { words: None, objects }
}

impl Group {
    fn claim(&self) -> Claim {
        self.words.map_or(Claim::Accepted, |words| Claim::Refused {
            message_contains: words.iter().map(|word| (*word).to_owned()).collect(),
        })
    }
}

/// Objects of one kind and what is promised of them, in the files that begin with its name.
struct Area {
    name: &'static str,
    object: fn(&str) -> ObjectRef,
    /// Whether the objects are there and are to be changed.
    changed: bool,
    groups: &'static [Group],
}

impl Area {
    fn files(&self) -> impl Iterator<Item = String> {
        let outcomes = [("refused", true), ("accepted", false)].into_iter();
        let there = outcomes.filter(|(_, refused)| self.groups.iter().any(|group| group.words.is_some() == *refused));
        there.map(|(outcome, _)| format!("admission/{}-{outcome}.yaml", self.name))
    }
}

fn network(name: &str) -> ObjectRef {
    cudn(name)
}

fn own_network(name: &str) -> ObjectRef {
    udn(NAMESPACE, name)
}

fn joint(name: &str) -> ObjectRef {
    ObjectRef::cluster(NETWORKS, "ClusterNetworkConnect", name)
}

fn vtep(name: &str) -> ObjectRef {
    ObjectRef::cluster(NETWORKS, "VTEP", name)
}

const fn area(name: &'static str, object: fn(&str) -> ObjectRef, groups: &'static [Group]) -> Area {
    Area { name, object, changed: false, groups }
}

const fn changed(name: &'static str, object: fn(&str) -> ObjectRef, groups: &'static [Group]) -> Area {
    Area { name, object, changed: true, groups }
}

const OF_NETWORKS: &[Area] = &[
    area("topology", network, networks::TOPOLOGY),
    area("localnet", network, networks::LOCALNET),
    area("layer2", network, networks::LAYER2),
    area("layer2-udn", own_network, networks::LAYER2_UDN),
    area("layer3", network, networks::LAYER3),
    changed("layer3-changed", network, networks::LAYER3_CHANGED),
];
const OF_NO_OVERLAY: &[Area] = &[area("no-overlay", network, transports::NO_OVERLAY)];
const OF_EVPN: &[Area] = &[area("evpn", network, transports::EVPN)];
const OF_CONNECTS: &[Area] = &[area("connects", joint, others::CONNECTS)];
const OF_VTEPS: &[Area] = &[area("vteps", vtep, others::VTEPS), changed("vteps-changed", vtep, others::VTEPS_CHANGED)];

/// The scenarios: one for what clusters may serve or not serve by itself.
pub(crate) fn scenarios(fixtures: &Fixtures) -> Result<Vec<Scenario>, FixtureError> {
    let networks = fixtures.world("admission", &["admission/networks.yaml"])?;
    let vteps = fixtures.world("admission-vteps", &["admission/vteps.yaml"])?;
    let needing = |world: &WorldSpec, feature| {
        let mut world = world.clone();
        world.requires.push(feature);
        world
    };
    Ok(vec![
        scenario(fixtures, "admission", "networks", networks.clone(), OF_NETWORKS)?,
        scenario(
            fixtures,
            "admission-no-overlay",
            "networks without overlay",
            needing(&networks, Feature::NoOverlay),
            OF_NO_OVERLAY,
        )?,
        scenario(fixtures, "admission-evpn", "networks over EVPN", needing(&networks, Feature::Evpn), OF_EVPN)?,
        scenario(
            fixtures,
            "admission-connects",
            "joints of networks",
            needing(&networks, Feature::NetworkConnects),
            OF_CONNECTS,
        )?,
        scenario(fixtures, "admission-vteps", "tunnel endpoints", needing(&vteps, Feature::Vteps), OF_VTEPS)?,
    ])
}

fn scenario(
    fixtures: &Fixtures,
    name: &str,
    what: &str,
    world: WorldSpec,
    areas: &[Area],
) -> Result<Scenario, FixtureError> {
    let mut phases = Vec::new();
    for changed in [false, true] {
        let areas: Vec<&Area> = areas.iter().filter(|area| area.changed == changed).collect();
        if !areas.is_empty() {
            phases.push(ask(fixtures, changed, &areas)?);
        }
    }
    Ok(Scenario {
        name: name.into(),
        title: format!("{what}: the invalid ones are refused with the reason, the valid ones are accepted"),
        world,
        exclusive: false,
        phases,
    })
}

fn ask(fixtures: &Fixtures, changed: bool, areas: &[&Area]) -> Result<Phase, FixtureError> {
    let files: Vec<String> = areas.iter().flat_map(|area| area.files()).collect();
    let manifests = fixtures.manifests(&files.iter().map(String::as_str).collect::<Vec<_>>())?;
    let mut claims = Vec::new();
    for area in areas {
        for group in area.groups {
            claims.extend(group.objects.iter().map(|(_, name)| claim(RULE, &(area.object)(name), group.claim())));
        }
    }
    let (name, action) =
        if changed { ("changed", Action::TryChange(manifests)) } else { ("created", Action::TryCreate(manifests)) };
    Ok(phase(name, vec![action], claims))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use udn_model::scenario::Assertion;

    use super::*;

    fn all() -> impl Iterator<Item = &'static Area> {
        [OF_NETWORKS, OF_NO_OVERLAY, OF_EVPN, OF_CONNECTS, OF_VTEPS].into_iter().flatten()
    }

    /// How many rows of each kind the catalog has.
    #[test]
    fn every_row_of_the_catalog_is_there_once() {
        let mut rows = BTreeSet::new();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for group in all().flat_map(|area| area.groups) {
            for (row, name) in group.objects {
                assert!(rows.insert(*row), "{row} ({name}) twice");
                assert_eq!(row.starts_with("CELX-"), group.words.is_some(), "{row} ({name})");
                assert!(
                    group.words.is_none_or(|words| !words.is_empty()),
                    "{row} ({name}) is refused without a reason"
                );
                *counts.entry(row.rsplit_once('-').expect("row").0).or_default() += 1;
            }
        }
        let expected = [
            ("CELV-CNC", 5),
            ("CELV-EVPN", 19),
            ("CELV-L2", 17),
            ("CELV-L3", 5),
            ("CELV-LN", 3),
            ("CELV-NOV", 6),
            ("CELV-VTEP", 7),
            ("CELV-VTEPU", 12),
            ("CELX-CNC", 22),
            ("CELX-EVPN", 22),
            ("CELX-L2", 17),
            ("CELX-L3", 13),
            ("CELX-LNM", 4),
            ("CELX-LNP", 9),
            ("CELX-LNR", 2),
            ("CELX-LNS", 15),
            ("CELX-LNV", 5),
            ("CELX-MIS", 6),
            ("CELX-NOV", 5),
            ("CELX-VTEP", 7),
            ("CELX-VTEPU", 13),
        ];
        assert_eq!(counts.into_iter().collect::<Vec<_>>(), expected);
    }

    /// Every object that is asked about is judged, and nothing else is. Answers are kept by world and object, so that no
    /// two questions in one world may be about the same.
    #[test]
    fn objects_and_claims_are_the_same() {
        let mut worlds: BTreeMap<String, BTreeSet<(String, String)>> = BTreeMap::new();
        for scenario in scenarios(&Fixtures::embedded()).expect("fixtures") {
            for phase in &scenario.phases {
                let (asked, there) = match phase.actions.as_slice() {
                    [Action::TryCreate(manifests)] => (manifests, false),
                    [Action::TryChange(manifests)] => (manifests, true),
                    other => panic!("{other:?}"),
                };
                let key = |manifest: &serde_json::Value| {
                    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
                    (text(&manifest["kind"]), text(&manifest["metadata"]["name"]))
                };
                let asked: BTreeSet<_> = asked.iter().map(key).collect();
                let judged: Vec<_> = phase
                    .matrix
                    .iter()
                    .map(|assertion| match assertion {
                        Assertion::Object { object, .. } => (object.kind.clone(), object.name.clone()),
                        other => panic!("{other:?}"),
                    })
                    .collect();
                assert_eq!(judged.len(), asked.len(), "{}", scenario.name);
                assert_eq!(judged.into_iter().collect::<BTreeSet<_>>(), asked, "{}", scenario.name);
                let present: BTreeSet<_> = scenario.world.manifests.iter().map(key).collect();
                let all = worlds.entry(scenario.world.name.clone()).or_default();
                for object in asked {
                    assert_eq!(present.contains(&object), there, "{}: {object:?}", scenario.name);
                    assert!(all.insert(object.clone()), "{}: {object:?} is asked about twice", scenario.name);
                }
            }
        }
    }

    #[test]
    fn files_say_what_becomes_of_their_objects() {
        let fixtures = Fixtures::embedded();
        for area in all() {
            for (outcome, wanted) in [("refused", true), ("accepted", false)] {
                let names: BTreeSet<&str> = area
                    .groups
                    .iter()
                    .filter(|group| group.words.is_some() == wanted)
                    .flat_map(|group| group.objects.iter().map(|(_, name)| *name))
                    .collect();
                if names.is_empty() {
                    continue;
                }
                let file = format!("admission/{}-{outcome}.yaml", area.name);
                let manifests = fixtures.manifests(&[&file]).expect("fixture");
                let found: BTreeSet<&str> =
                    manifests.iter().filter_map(|manifest| manifest["metadata"]["name"].as_str()).collect();
                assert_eq!(found, names, "{file}");
            }
        }
    }
}
