//! A table's rows kept current by a monitor, over a connection of its own that is renewed when lost.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::ovsdb::client::Connection;

/// Rows by UUID.
pub(crate) type Rows = HashMap<String, Value>;

/// Between attempts to reach a database that is away.
const RETRY: Duration = Duration::from_millis(250);

/// Follows `columns` of `table`. The task ends when the last receiver is dropped.
pub(crate) fn follow(
    database: &'static str,
    socket: PathBuf,
    table: &'static str,
    columns: &'static [&'static str],
) -> watch::Receiver<Rows> {
    let (sender, receiver) = watch::channel(Rows::new());
    tokio::spawn(async move {
        while !sender.is_closed() {
            let Ok((connection, mut updates)) = Connection::open(&socket).await else {
                tokio::time::sleep(RETRY).await;
                continue;
            };
            let request = json!([database, null, {table: [{"columns": columns}]}]);
            let Ok(initial) = connection.call("monitor", request).await else {
                tokio::time::sleep(RETRY).await;
                continue;
            };
            sender.send_modify(|rows| {
                rows.clear();
                apply(rows, &initial["result"][table]);
            });
            loop {
                tokio::select! {
                    () = sender.closed() => return,
                    update = updates.recv() => match update {
                        Some(update) => sender.send_modify(|rows| apply(rows, &update["params"][1][table])),
                        None => break,
                    },
                }
            }
        }
    });
    receiver
}

fn apply(rows: &mut Rows, changes: &Value) {
    for (uuid, change) in changes.as_object().into_iter().flatten() {
        match change.get("new").filter(|new| !new.is_null()) {
            Some(new) => rows.insert(uuid.clone(), new.clone()),
            None => rows.remove(uuid),
        };
    }
}

/// The value of `key` in an OVSDB map.
pub(crate) fn map_value<'a>(map: &'a Value, key: &str) -> Option<&'a str> {
    map[1].as_array()?.iter().find(|pair| pair[0] == key)?[1].as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_insert_change_and_delete() {
        let mut rows = Rows::new();
        apply(&mut rows, &json!({"u1": {"new": {"name": "a"}}, "u2": {"new": {"name": "b"}}}));
        apply(&mut rows, &json!({"u1": {"old": {"name": "a"}, "new": {"name": "c"}}, "u2": {"old": {"name": "b"}}}));
        assert_eq!(rows.len(), 1);
        assert_eq!(rows["u1"]["name"], "c");
    }

    #[test]
    fn maps_are_pairs() {
        assert_eq!(map_value(&json!(["map", [["a", "1"], ["ovn-installed", "true"]]]), "ovn-installed"), Some("true"));
        assert_eq!(map_value(&json!(["map", []]), "ovn-installed"), None);
    }
}
