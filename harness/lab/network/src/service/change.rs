//! From the load balancers that OVN has of a service to those that it should have, as one transaction.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::rows::{LoadBalancer, Rows};
use crate::ovsdb::Transaction;
use crate::ovsdb::transaction::{map, set, texts};

/// What sticks to a client: the datapath loses the first connection of each with a timeout, a hash of both ends does not.
const AFFINITY: [&str; 2] = ["ip_src", "ip_dst"];

/// Operations that make `new` of `old`, and the names of inserted rows in their order. `uuids` are those of rows in `old`.
pub(crate) fn change(
    service: &str,
    old: &Rows,
    new: &Rows,
    uuids: &BTreeMap<String, String>,
) -> (Transaction, Vec<String>) {
    let mut transaction = Transaction::default();
    let mut inserted = Vec::new();
    for (name, before) in &old.load_balancers {
        if new.load_balancers.get(name).is_none_or(|after| !same_kind(before, after)) {
            transaction.delete("Load_Balancer", name);
        }
    }
    variables(&mut transaction, &old.variables, &new.variables);
    for (name, after) in &new.load_balancers {
        match old.load_balancers.get(name).filter(|before| same_kind(before, after)) {
            Some(before) => {
                if before.vips != after.vips {
                    transaction.push(json!({
                        "op": "update", "table": "Load_Balancer", "where": [["name", "==", name]],
                        "row": {"vips": vips(after)},
                    }));
                }
                let Some(uuid) = uuids.get(name) else { continue };
                let member = || set([json!(["uuid", uuid])]);
                for group in before.groups.difference(&after.groups) {
                    transaction.remove("Load_Balancer_Group", group, "load_balancer", member());
                }
                for group in after.groups.difference(&before.groups) {
                    transaction.add("Load_Balancer_Group", group, "load_balancer", member());
                }
            }
            None => {
                insert(&mut transaction, service, name, after);
                inserted.push(name.clone());
            }
        }
    }
    (transaction, inserted)
}

/// Whether one becomes the other by changing addresses, endpoints and groups.
fn same_kind(one: &LoadBalancer, other: &LoadBalancer) -> bool {
    one.protocol == other.protocol && one.options == other.options && one.affinity == other.affinity
}

fn insert(transaction: &mut Transaction, service: &str, name: &str, row: &LoadBalancer) {
    let fields = if row.affinity { &AFFINITY[..] } else { &[] };
    let inserted = transaction.insert(
        "Load_Balancer",
        json!({
            "name": name, "protocol": row.protocol.lower(), "vips": vips(row), "options": map(row.options.clone()),
            "selection_fields": texts(fields.iter().copied()),
            "external_ids": map([("k8s.ovn.org/kind", "Service"), ("k8s.ovn.org/owner", service)]),
        }),
    );
    for group in &row.groups {
        transaction.add("Load_Balancer_Group", group, "load_balancer", set([inserted.clone()]));
    }
}

fn vips(row: &LoadBalancer) -> Value {
    map(row.vips.clone())
}

fn variables(
    transaction: &mut Transaction,
    old: &BTreeMap<String, BTreeMap<String, String>>,
    new: &BTreeMap<String, BTreeMap<String, String>>,
) {
    let none = BTreeMap::new();
    for chassis in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
        let (before, after) = (old.get(chassis).unwrap_or(&none), new.get(chassis).unwrap_or(&none));
        let gone: Vec<&String> =
            before.iter().filter(|(name, value)| after.get(*name) != Some(value)).map(|(name, _)| name).collect();
        let come: Vec<(&str, &str)> = after
            .iter()
            .filter(|(name, value)| before.get(*name) != Some(value))
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let mut mutations = Vec::new();
        if !gone.is_empty() {
            mutations.push(json!(["variables", "delete", texts(gone.into_iter().map(String::as_str))]));
        }
        if !come.is_empty() {
            mutations.push(json!(["variables", "insert", map(come)]));
        }
        if !mutations.is_empty() {
            transaction.push(json!({
                "op": "mutate", "table": "Chassis_Template_Var", "where": [["chassis", "==", chassis]],
                "mutations": mutations,
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::Protocol;
    use super::*;

    fn rows(vips: &[(&str, &str)], groups: &[&str]) -> Rows {
        let load_balancer = LoadBalancer {
            protocol: Protocol::Tcp,
            vips: vips.iter().map(|(vip, backends)| ((*vip).to_owned(), (*backends).to_owned())).collect(),
            options: BTreeMap::from([("reject", "true")]),
            affinity: false,
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        };
        Rows { load_balancers: BTreeMap::from([("s".to_owned(), load_balancer)]), variables: BTreeMap::new() }
    }

    fn operations(old: &Rows, new: &Rows) -> Vec<String> {
        let uuids = BTreeMap::from([("s".to_owned(), "u".to_owned())]);
        let operations = change("a/s", old, new, &uuids).0.into_operations();
        operations
            .iter()
            .map(|it| format!("{} {}", it["op"].as_str().unwrap(), it["table"].as_str().unwrap()))
            .collect()
    }

    #[test]
    fn an_endpoint_costs_one_update() {
        let (one, two) = (rows(&[("v", "a")], &["g"]), rows(&[("v", "a,b")], &["g"]));
        assert_eq!(operations(&one, &two), ["update Load_Balancer"]);
        assert!(operations(&one, &one).is_empty());
    }

    #[test]
    fn rows_come_into_their_groups_and_go() {
        let one = rows(&[("v", "a")], &["g", "h"]);
        let groups = ["mutate Load_Balancer_Group", "mutate Load_Balancer_Group"];
        assert_eq!(operations(&Rows::default(), &one)[1..], groups);
        assert_eq!(operations(&one, &Rows::default()), ["delete Load_Balancer"]);
        assert_eq!(operations(&one, &rows(&[("v", "a")], &["g", "i"])), groups);
    }

    #[test]
    fn another_kind_is_another_row() {
        let one = rows(&[("v", "a")], &["g"]);
        let mut two = one.clone();
        two.load_balancers.get_mut("s").unwrap().affinity = true;
        assert_eq!(
            operations(&one, &two),
            ["delete Load_Balancer", "insert Load_Balancer", "mutate Load_Balancer_Group"]
        );
    }

    #[test]
    fn a_variable_is_replaced_not_kept() {
        let with = |value: &str| Rows {
            variables: BTreeMap::from([("n1".to_owned(), BTreeMap::from([("x".to_owned(), value.to_owned())]))]),
            ..Rows::default()
        };
        let operations = change("a/s", &with("1"), &with("2"), &BTreeMap::new()).0.into_operations();
        assert_eq!(operations[0]["mutations"][0][1], "delete");
        assert_eq!(operations[0]["mutations"][1][2], json!(["map", [["x", "2"]]]));
    }
}
