//! Operations of one transaction, built row by row.

use serde_json::{Map, Value, json};

/// Operations that are committed together or not at all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Transaction {
    operations: Vec<Value>,
    rows: usize,
}

impl Transaction {
    pub(crate) fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// How many rows are inserted so far.
    pub(crate) fn inserted(&self) -> usize {
        self.rows
    }

    pub(crate) fn into_operations(self) -> Vec<Value> {
        self.operations
    }

    /// Inserts a row; the result refers to it within this transaction.
    pub(crate) fn insert(&mut self, table: &str, row: Value) -> Value {
        let name = format!("row{}", self.rows);
        let reference = Self::row(self.rows);
        self.rows += 1;
        self.operations.push(json!({"op": "insert", "table": table, "row": row, "uuid-name": name}));
        reference
    }

    /// Refers to the inserted row at `position`, within this transaction.
    pub(crate) fn row(position: usize) -> Value {
        json!(["named-uuid", format!("row{position}")])
    }

    /// Adds to a set or map column of the row called `name`.
    pub(crate) fn add(&mut self, table: &str, name: &str, column: &str, values: Value) {
        self.mutate(table, name, column, "insert", values);
    }

    /// Removes from a set or map column of the row called `name`.
    pub(crate) fn remove(&mut self, table: &str, name: &str, column: &str, values: Value) {
        self.mutate(table, name, column, "delete", values);
    }

    fn mutate(&mut self, table: &str, name: &str, column: &str, mutator: &str, values: Value) {
        self.operations.push(json!({
            "op": "mutate", "table": table, "where": [["name", "==", name]], "mutations": [[column, mutator, values]],
        }));
    }

    /// Deletes the rows where `column` equals `value`.
    pub(crate) fn delete_where(&mut self, table: &str, column: &str, operator: &str, value: Value) {
        self.operations.push(json!({"op": "delete", "table": table, "where": [[column, operator, value]]}));
    }

    /// Deletes the row called `name`.
    pub(crate) fn delete(&mut self, table: &str, name: &str) {
        self.delete_where(table, "name", "==", json!(name));
    }

    /// Any other operation.
    pub(crate) fn push(&mut self, operation: Value) {
        self.operations.push(operation);
    }

    /// The operations of another transaction after those of this one, which must not have inserted anything yet: rows
    /// refer to each other by position.
    pub(crate) fn append(&mut self, other: Self) {
        debug_assert!(self.rows == 0 || other.rows == 0, "rows of two transactions would be confused");
        self.rows += other.rows;
        self.operations.extend(other.operations);
    }
}

/// A map column.
pub(crate) fn map<K: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (K, V)>) -> Value {
    let pairs: Vec<Value> = pairs.into_iter().map(|(key, value)| json!([key.into(), value.into()])).collect();
    json!(["map", pairs])
}

/// A set column.
pub(crate) fn set(values: impl IntoIterator<Item = Value>) -> Value {
    json!(["set", values.into_iter().collect::<Vec<_>>()])
}

/// A set column of text.
pub(crate) fn texts<T: Into<String>>(values: impl IntoIterator<Item = T>) -> Value {
    set(values.into_iter().map(|value| Value::String(value.into())))
}

/// A row without the columns that are null.
pub(crate) fn row(columns: Value) -> Value {
    match columns {
        Value::Object(columns) => {
            Value::Object(columns.into_iter().filter(|(_, value)| !value.is_null()).collect::<Map<_, _>>())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_refer_to_each_other() {
        let mut transaction = Transaction::default();
        let port = transaction.insert("Logical_Switch_Port", json!({"name": "p"}));
        transaction.insert("Logical_Switch", json!({"name": "s", "ports": set([port])}));
        let operations = transaction.into_operations();
        assert_eq!(operations[0]["uuid-name"], "row0");
        assert_eq!(operations[1]["row"]["ports"], json!(["set", [["named-uuid", "row0"]]]));
    }
}
