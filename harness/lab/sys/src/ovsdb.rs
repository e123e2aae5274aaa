//! Requests to a database of Open vSwitch or OVN over its unix socket (JSON-RPC, RFC 7047), one at a time.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::error::Error;

/// A connection to one database server.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    stream: UnixStream,
    received: Vec<u8>,
    last_id: u64,
}

impl Client {
    /// Connects, waiting until the server has made its socket.
    ///
    /// # Errors
    /// When it has not within `deadline`.
    pub async fn connect(socket: &Path, deadline: Duration) -> Result<Self, Error> {
        let attempt = async {
            loop {
                match UnixStream::connect(socket).await {
                    Ok(stream) => break stream,
                    Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
                }
            }
        };
        let stream = tokio::time::timeout(deadline, attempt).await.map_err(|_| Error::Ovsdb {
            action: "connect".into(),
            socket: socket.to_owned(),
            reason: format!("nobody listened there within {deadline:?}"),
        })?;
        Ok(Self { socket: socket.to_owned(), stream, received: Vec::new(), last_id: 0 })
    }

    /// Runs `operations` on `database` as one transaction and returns their results.
    ///
    /// # Errors
    /// When the server refuses any of them, or the connection ends.
    pub async fn transact(&mut self, database: &str, operations: &[Value]) -> Result<Vec<Value>, Error> {
        self.last_id += 1;
        let mut params = vec![json!(database)];
        params.extend_from_slice(operations);
        let id = json!(self.last_id);
        self.send(&json!({"method": "transact", "params": params, "id": id})).await?;
        loop {
            let message = self.receive().await?;
            if message["method"] == "echo" {
                self.send(&json!({"result": message["params"], "error": null, "id": message["id"]})).await?;
            } else if message["id"] == id {
                return self.results(&message);
            }
        }
    }

    /// Waits until the rows of `table` that match `condition` have exactly these `rows` (in any order), as far as
    /// `columns` go.
    ///
    /// # Errors
    /// When they have not within `deadline`.
    pub async fn wait(
        &mut self,
        database: &str,
        table: &str,
        columns: &[&str],
        rows: Value,
        deadline: Duration,
    ) -> Result<(), Error> {
        let operation = json!({
            "op": "wait", "table": table, "where": [], "columns": columns, "until": "==", "rows": rows,
            "timeout": u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
        });
        self.transact(database, &[operation]).await.map(drop)
    }

    fn results(&self, message: &Value) -> Result<Vec<Value>, Error> {
        let failed = |reason: &Value| self.error("transact", reason.to_string());
        if !message["error"].is_null() {
            return Err(failed(&message["error"]));
        }
        let results = message["result"].as_array().cloned().unwrap_or_default();
        match results.iter().find(|result| result.get("error").is_some_and(|error| !error.is_null())) {
            Some(result) => Err(failed(result)),
            None => Ok(results),
        }
    }

    async fn send(&mut self, message: &Value) -> Result<(), Error> {
        let bytes = message.to_string();
        self.stream.write_all(bytes.as_bytes()).await.map_err(|error| self.error("write", error.to_string()))
    }

    async fn receive(&mut self) -> Result<Value, Error> {
        loop {
            let mut values = serde_json::Deserializer::from_slice(&self.received).into_iter::<Value>();
            match values.next() {
                Some(Ok(value)) => {
                    let used = values.byte_offset();
                    self.received.drain(..used);
                    return Ok(value);
                }
                Some(Err(error)) if !error.is_eof() => return Err(self.error("read", error.to_string())),
                _ => {}
            }
            let count = self.stream.read_buf(&mut self.received).await;
            match count {
                Ok(0) => return Err(self.error("read", "the server closed the connection".into())),
                Ok(_) => {}
                Err(error) => return Err(self.error("read", error.to_string())),
            }
        }
    }

    fn error(&self, action: &str, reason: String) -> Error {
        Error::Ovsdb { action: action.into(), socket: self.socket.clone(), reason }
    }
}
