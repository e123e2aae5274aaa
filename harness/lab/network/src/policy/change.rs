//! What OVN has to what it should have, as operations of one transaction.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use serde_json::{Value, json};

use super::plan::{Acl, Group, Ids, Plan, Set};
use super::rules::Direction;
use crate::ovsdb::Transaction;
use crate::ovsdb::transaction::{map, set, texts};

/// Rules of policies are asked after those that keep networks apart (tier 0).
const TIER: u32 = 2;

/// A row, by its UUID or by its place among the rows that the transaction inserts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Row {
    Known(String),
    New(usize),
}

/// Rows of logical switch ports, by name.
pub(crate) type Ports = HashMap<String, Row>;

/// What OVN has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Applied {
    groups: BTreeMap<String, Installed>,
    sets: BTreeMap<String, Set>,
    /// Groups and sets of a former life, by name: taken over, and put right once all pods are known again.
    left: BTreeSet<(&'static str, String)>,
}

#[derive(Clone, Debug)]
struct Installed {
    acls: BTreeMap<Acl, Row>,
    ports: BTreeMap<String, Row>,
}

impl Row {
    fn value(&self) -> Value {
        match self {
            Self::Known(uuid) => json!(["uuid", uuid]),
            Self::New(position) => Transaction::row(*position),
        }
    }

    fn settle(&mut self, uuids: &[String]) {
        if let Self::New(position) = self {
            *self = Self::Known(uuids.get(*position).cloned().unwrap_or_default());
        }
    }
}

impl Applied {
    /// What a former life of this controller left in OVN: nothing of it is touched before it is known to be wrong, as it
    /// may protect ports that are still there.
    pub(crate) fn leftovers(groups: impl IntoIterator<Item = String>, sets: impl IntoIterator<Item = String>) -> Self {
        let groups = groups.into_iter().map(|name| ("Port_Group", name));
        let left = groups.chain(sets.into_iter().map(|name| ("Address_Set", name))).collect();
        Self { left, ..Self::default() }
    }

    pub(crate) fn has_leftovers(&self) -> bool {
        !self.left.is_empty()
    }

    /// Adds to `transaction` what makes `plan` true; returns what OVN has once it is committed, with [`Self::settled`].
    pub(crate) fn change(&self, plan: &Plan, ports: &Ports, transaction: &mut Transaction) -> Self {
        let mut next = Self { left: self.left.clone(), ..Self::default() };
        for (name, wanted) in &plan.sets {
            self.change_set(name, wanted, transaction);
            next.sets.insert(name.clone(), wanted.clone());
        }
        for (name, wanted) in &plan.groups {
            let installed = self.change_group(name, wanted, ports, transaction);
            next.groups.insert(name.clone(), installed);
        }
        for name in self.groups.keys().filter(|name| !plan.groups.contains_key(*name)) {
            transaction.delete("Port_Group", name);
            next.left.remove(&("Port_Group", name.clone()));
        }
        for name in self.sets.keys().filter(|name| !plan.sets.contains_key(*name)) {
            transaction.delete("Address_Set", name);
            next.left.remove(&("Address_Set", name.clone()));
        }
        next
    }

    /// Adds to `transaction` what frees OVN of what a former life left and nothing stands for.
    pub(crate) fn put_leftovers_right(&mut self, transaction: &mut Transaction) {
        for (table, name) in std::mem::take(&mut self.left) {
            let exact = match table {
                "Port_Group" => self.groups.get(&name).map(|group| json!({"ports": members(group.ports.values())})),
                _ => self.sets.get(&name).map(|set| json!({"addresses": addresses(&set.addresses)})),
            };
            match exact {
                Some(columns) => update(transaction, table, &name, columns),
                None => transaction.delete(table, &name),
            }
        }
    }

    /// With the UUIDs that the commit gave.
    pub(crate) fn settled(mut self, uuids: &[String]) -> Self {
        for group in self.groups.values_mut() {
            group.acls.values_mut().chain(group.ports.values_mut()).for_each(|row| row.settle(uuids));
        }
        self
    }

    /// Adds to `transaction` that `row`, which replaces a port of this name, is in the groups that the port was in.
    pub(crate) fn join_again(&self, port: &str, row: &Row, transaction: &mut Transaction) {
        for (name, _) in self.groups.iter().filter(|(_, group)| group.ports.contains_key(port)) {
            transaction.add("Port_Group", name, "ports", set([row.value()]));
        }
    }

    fn change_set(&self, name: &str, wanted: &Set, transaction: &mut Transaction) {
        match self.sets.get(name) {
            Some(current) => {
                let gone: BTreeSet<IpAddr> = current.addresses.difference(&wanted.addresses).copied().collect();
                let new: BTreeSet<IpAddr> = wanted.addresses.difference(&current.addresses).copied().collect();
                if !gone.is_empty() {
                    transaction.remove("Address_Set", name, "addresses", addresses(&gone));
                }
                if !new.is_empty() {
                    transaction.add("Address_Set", name, "addresses", addresses(&new));
                }
            }
            None if self.left.contains(&("Address_Set", name.to_owned())) => {
                update(transaction, "Address_Set", name, json!({"external_ids": marks(&wanted.ids)}));
                transaction.add("Address_Set", name, "addresses", addresses(&wanted.addresses));
            }
            None => {
                transaction.insert(
                    "Address_Set",
                    json!({
                        "name": name, "addresses": addresses(&wanted.addresses), "external_ids": marks(&wanted.ids),
                    }),
                );
            }
        }
    }

    fn change_group(&self, name: &str, wanted: &Group, ports: &Ports, transaction: &mut Transaction) -> Installed {
        let current = self.groups.get(name);
        let known = |acl: &Acl| current.and_then(|current| current.acls.get(acl)).cloned();
        let acls: BTreeMap<Acl, Row> = wanted
            .acls
            .iter()
            .map(|acl| (acl.clone(), known(acl).unwrap_or_else(|| insert(transaction, acl))))
            .collect();
        let members_of = |name: &String| Some((name.clone(), ports.get(name)?.clone()));
        let ports: BTreeMap<String, Row> = wanted.ports.iter().filter_map(members_of).collect();
        match current {
            Some(current) => {
                let new = acls.iter().filter(|(acl, _)| !current.acls.contains_key(*acl)).map(|(_, row)| row);
                add_or_remove(transaction, name, "acls", true, new);
                let gone = current.acls.iter().filter(|(acl, _)| !acls.contains_key(*acl)).map(|(_, row)| row);
                add_or_remove(transaction, name, "acls", false, gone);
                let new = ports.iter().filter(|(port, row)| current.ports.get(*port) != Some(*row)).map(|(_, row)| row);
                add_or_remove(transaction, name, "ports", true, new);
                let gone = current.ports.iter().filter(|(port, _)| !ports.contains_key(*port)).map(|(_, row)| row);
                add_or_remove(transaction, name, "ports", false, gone);
            }
            None if self.left.contains(&("Port_Group", name.to_owned())) => {
                let columns = json!({"acls": members(acls.values()), "external_ids": marks(&wanted.ids)});
                update(transaction, "Port_Group", name, columns);
                add_or_remove(transaction, name, "ports", true, ports.values());
            }
            None => {
                transaction.insert(
                    "Port_Group",
                    json!({
                        "name": name, "acls": members(acls.values()), "ports": members(ports.values()),
                        "external_ids": marks(&wanted.ids),
                    }),
                );
            }
        }
        Installed { acls, ports }
    }
}

fn insert(transaction: &mut Transaction, acl: &Acl) -> Row {
    let position = transaction.inserted();
    let (direction, options) = match acl.direction {
        Direction::Ingress => ("to-lport", map::<&str, &str>([])),
        // A service's address is replaced by its backend's before the rules look at it.
        Direction::Egress => ("from-lport", map([("apply-after-lb", "true")])),
    };
    transaction.insert(
        "ACL",
        json!({
            "name": acl.name, "direction": direction, "priority": acl.priority, "match": acl.expression,
            "action": acl.action, "tier": TIER, "options": options, "external_ids": marks(&acl.ids),
        }),
    );
    Row::New(position)
}

fn add_or_remove<'a>(
    transaction: &mut Transaction,
    group: &str,
    column: &str,
    add: bool,
    rows: impl Iterator<Item = &'a Row>,
) {
    let rows: Vec<Value> = rows.map(Row::value).collect();
    match (rows.is_empty(), add) {
        (true, _) => {}
        (false, true) => transaction.add("Port_Group", group, column, set(rows)),
        (false, false) => transaction.remove("Port_Group", group, column, set(rows)),
    }
}

fn update(transaction: &mut Transaction, table: &str, name: &str, row: Value) {
    transaction.push(json!({"op": "update", "table": table, "where": [["name", "==", name]], "row": row}));
}

fn members<'a>(rows: impl Iterator<Item = &'a Row>) -> Value {
    set(rows.map(Row::value))
}

fn addresses(addresses: &BTreeSet<IpAddr>) -> Value {
    texts(addresses.iter().map(ToString::to_string))
}

fn marks(ids: &Ids) -> Value {
    map(ids.iter().map(|(key, value)| (*key, value.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(expression: &str) -> Acl {
        Acl {
            name: "n".into(),
            direction: Direction::Egress,
            priority: 1001,
            expression: expression.into(),
            action: "allow-related",
            ids: Ids::new(),
        }
    }

    fn plan(acls: &[&str], ports: &[&str], addresses: &[&str]) -> Plan {
        let group = Group {
            ids: Ids::new(),
            acls: acls.iter().map(|text| acl(text)).collect(),
            ports: ports.iter().map(|port| (*port).to_owned()).collect(),
        };
        let set = Set { ids: Ids::new(), addresses: addresses.iter().map(|text| text.parse().unwrap()).collect() };
        Plan { groups: [("g".to_owned(), group)].into(), sets: [("s".to_owned(), set)].into() }
    }

    fn ports(names: &[&str]) -> Ports {
        names.iter().map(|name| ((*name).to_owned(), Row::Known(format!("uuid-{name}")))).collect()
    }

    fn operations(transaction: Transaction) -> Vec<Value> {
        transaction.into_operations()
    }

    fn uuids(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("new{number}")).collect()
    }

    fn apply(applied: &Applied, plan: &Plan, ports: &Ports) -> (Applied, Vec<Value>) {
        let mut transaction = Transaction::default();
        let next = applied.change(plan, ports, &mut transaction);
        (next.settled(&uuids(transaction.inserted())), operations(transaction))
    }

    #[test]
    fn only_differences_are_written() {
        let known = ports(&["p", "q"]);
        let (applied, first) = apply(&Applied::default(), &plan(&["a", "b"], &["p"], &["10.0.0.1"]), &known);
        assert_eq!(first.len(), 4, "{first:#?}");
        assert_eq!(first[1]["row"]["options"], json!(["map", [["apply-after-lb", "true"]]]));
        assert_eq!(first[1]["row"]["tier"], TIER);
        let (applied, nothing) = apply(&applied, &plan(&["a", "b"], &["p"], &["10.0.0.1"]), &known);
        assert!(nothing.is_empty(), "{nothing:#?}");
        let (_, second) = apply(&applied, &plan(&["b", "c"], &["q"], &["10.0.0.1", "10.0.0.2"]), &known);
        let mutations: Vec<&Value> =
            second.iter().filter(|it| it["op"] == "mutate").map(|it| &it["mutations"][0]).collect();
        assert_eq!(
            mutations,
            [
                &json!(["addresses", "insert", ["set", ["10.0.0.2"]]]),
                &json!(["acls", "insert", ["set", [["named-uuid", "row0"]]]]),
                // rule a was the second row of the first transaction, after the address set
                &json!(["acls", "delete", ["set", [["uuid", "new1"]]]]),
                &json!(["ports", "insert", ["set", [["uuid", "uuid-q"]]]]),
                &json!(["ports", "delete", ["set", [["uuid", "uuid-p"]]]]),
            ]
        );
        let (_, last) = apply(&applied, &Plan::default(), &known);
        assert!(last.iter().all(|it| it["op"] == "delete") && last.len() == 2, "{last:#?}");
    }

    #[test]
    fn a_new_port_joins_in_the_transaction_that_makes_it() {
        let (applied, _) = apply(&Applied::default(), &plan(&["a"], &[], &[]), &ports(&[]));
        let mut transaction = Transaction::default();
        transaction.insert("Logical_Switch_Port", json!({"name": "p"}));
        let new = HashMap::from([("p".to_owned(), Row::New(0))]);
        let next = applied.change(&plan(&["a"], &["p"], &[]), &new, &mut transaction).settled(&uuids(1));
        let made = operations(transaction);
        assert_eq!(made[1]["mutations"], json!([["ports", "insert", ["set", [["named-uuid", "row0"]]]]]));
        assert_eq!(next.groups["g"].ports["p"], Row::Known("new0".into()));
    }

    #[test]
    fn a_replaced_port_stays_in_its_groups() {
        let (applied, _) = apply(&Applied::default(), &plan(&["a"], &["p"], &[]), &ports(&["p"]));
        let mut transaction = Transaction::default();
        applied.join_again("p", &Row::New(3), &mut transaction);
        applied.join_again("other", &Row::New(4), &mut transaction);
        let made = operations(transaction);
        assert_eq!(made.len(), 1);
        assert_eq!(made[0]["mutations"], json!([["ports", "insert", ["set", [["named-uuid", "row3"]]]]]));
        let moved = HashMap::from([("p".to_owned(), Row::Known("moved".into()))]);
        let (next, again) = apply(&applied, &plan(&["a"], &["p"], &[]), &moved);
        assert_eq!(again.len(), 1, "{again:#?}");
        assert_eq!(next.groups["g"].ports["p"], Row::Known("moved".into()));
    }

    #[test]
    fn leftovers_protect_until_all_is_known() {
        let left = Applied::leftovers(["g".to_owned(), "old".to_owned()], ["s".to_owned()]);
        let (mut applied, made) = apply(&left, &plan(&["a"], &[], &[]), &ports(&[]));
        assert!(made.iter().all(|it| it["op"] != "delete"), "{made:#?}");
        assert!(made.iter().all(|it| it["row"].get("ports").is_none() && it["row"].get("addresses").is_none()));
        assert!(applied.has_leftovers());
        let mut transaction = Transaction::default();
        applied.put_leftovers_right(&mut transaction);
        let made = operations(transaction);
        assert!(made.iter().any(|it| it["op"] == "delete" && it["where"][0][2] == "old"), "{made:#?}");
        assert!(made.iter().any(|it| it["op"] == "update" && it["row"]["ports"] == json!(["set", []])));
        assert!(!applied.has_leftovers());
    }
}
