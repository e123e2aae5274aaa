//! One connection to a database, many requests in flight; reconnects with the next request after a loss.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::{mpsc, oneshot};

use crate::error::Error;
use crate::ovsdb::Transaction;

/// A database behind a unix socket. Clones share the connection.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    database: &'static str,
    socket: PathBuf,
    connection: tokio::sync::Mutex<Option<Connection>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Connection {
    outgoing: mpsc::UnboundedSender<Value>,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    closed: bool,
    answers: HashMap<u64, oneshot::Sender<Value>>,
}

impl Client {
    pub(crate) fn new(database: &'static str, socket: PathBuf) -> Self {
        Self { shared: Arc::new(Shared { database, socket, connection: tokio::sync::Mutex::new(None) }) }
    }

    /// Runs all operations of `transaction` or none. Returns the UUIDs of inserted rows, in the order of insertion.
    pub(crate) async fn commit(&self, purpose: &str, transaction: Transaction) -> Result<Vec<String>, Error> {
        if transaction.is_empty() {
            return Ok(Vec::new());
        }
        let results = self.transact(purpose, transaction.into_operations()).await?;
        Ok(results.iter().filter_map(|result| result["uuid"][1].as_str().map(str::to_owned)).collect())
    }

    /// Rows of `table` where `column` equals `value`, only `columns`.
    pub(crate) async fn select(
        &self,
        table: &str,
        column: &str,
        value: &Value,
        columns: &[&str],
    ) -> Result<Vec<Value>, Error> {
        self.select_where(table, json!([[column, "==", value]]), columns).await
    }

    /// All rows of `table`, only `columns`.
    pub(crate) async fn select_all(&self, table: &str, columns: &[&str]) -> Result<Vec<Value>, Error> {
        self.select_where(table, json!([]), columns).await
    }

    async fn select_where(&self, table: &str, conditions: Value, columns: &[&str]) -> Result<Vec<Value>, Error> {
        let operation = json!({"op": "select", "table": table, "where": conditions, "columns": columns});
        let results = self.transact(&format!("selecting from {table}"), vec![operation]).await?;
        Ok(results
            .into_iter()
            .next()
            .and_then(|mut result| result["rows"].as_array_mut().map(std::mem::take))
            .unwrap_or_default())
    }

    async fn transact(&self, purpose: &str, operations: Vec<Value>) -> Result<Vec<Value>, Error> {
        let database = self.shared.database;
        let mut parameters = vec![json!(database)];
        parameters.extend(operations);
        let answer = self.call("transact", Value::Array(parameters)).await?;
        let refused = |reason: String| Error::Refused { database, purpose: purpose.to_owned(), reason };
        if !answer["error"].is_null() {
            return Err(refused(answer["error"].to_string()));
        }
        let results = answer["result"].as_array().cloned().unwrap_or_default();
        match results.iter().find(|result| !result["error"].is_null()) {
            Some(failed) => Err(refused(format!("{}: {}", failed["error"], failed["details"]))),
            None => Ok(results),
        }
    }

    async fn call(&self, method: &str, parameters: Value) -> Result<Value, Error> {
        let connect = |source| Error::Connect { database: self.shared.database, source };
        let connection = {
            let mut slot = self.shared.connection.lock().await;
            match slot.as_ref().filter(|connection| !connection.is_closed()) {
                Some(connection) => connection.clone(),
                None => {
                    let (connection, _) = Connection::open(&self.shared.socket).await.map_err(connect)?;
                    slot.insert(connection).clone()
                }
            }
        };
        connection.call(method, parameters).await.map_err(connect)
    }
}

impl Connection {
    /// A connection and the notifications that the server sends on it (`update` of monitors).
    pub(crate) async fn open(socket: &PathBuf) -> io::Result<(Self, mpsc::UnboundedReceiver<Value>)> {
        let (reader, mut writer) = UnixStream::connect(socket).await?.into_split();
        let (outgoing, mut to_send) = mpsc::unbounded_channel::<Value>();
        let (notify, notifications) = mpsc::unbounded_channel();
        let connection = Self { outgoing, waiting: Arc::default() };
        let replies = connection.outgoing.clone();
        tokio::spawn(async move {
            while let Some(message) = to_send.recv().await {
                if writer.write_all(message.to_string().as_bytes()).await.is_err() {
                    break;
                }
            }
        });
        tokio::spawn(connection.clone().receive(reader, replies.downgrade(), notify));
        Ok((connection, notifications))
    }

    fn is_closed(&self) -> bool {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).closed
    }

    pub(crate) async fn call(&self, method: &str, parameters: Value) -> io::Result<Value> {
        let lost = || io::Error::from(io::ErrorKind::ConnectionAborted);
        let (send, answer) = oneshot::channel();
        let id = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.closed {
                return Err(lost());
            }
            waiting.next += 1;
            let id = waiting.next;
            waiting.answers.insert(id, send);
            id
        };
        self.outgoing.send(json!({"method": method, "params": parameters, "id": id})).map_err(|_| lost())?;
        answer.await.map_err(|_| lost())
    }

    async fn receive(
        self,
        mut reader: OwnedReadHalf,
        replies: mpsc::WeakUnboundedSender<Value>,
        notify: mpsc::UnboundedSender<Value>,
    ) {
        // The clone that lives in this task must not keep the writer alive: when all users are gone, the socket closes.
        let waiting = Arc::clone(&self.waiting);
        drop(self);
        let mut framer = Framer::default();
        let mut chunk = vec![0; 64 * 1024];
        while let Ok(read) = reader.read(&mut chunk).await {
            if read == 0 {
                break;
            }
            for message in framer.push(&chunk[..read]) {
                let Ok(message) = serde_json::from_slice::<Value>(&message) else { continue };
                match message["method"].as_str() {
                    // The server closes a connection that leaves its echo unanswered.
                    Some("echo") => {
                        if let Some(replies) = replies.upgrade() {
                            let answer = json!({"id": message["id"], "result": message["params"], "error": null});
                            let _ = replies.send(answer);
                        }
                    }
                    Some(_) => {
                        let _ = notify.send(message);
                    }
                    None => {
                        let answer = message["id"]
                            .as_u64()
                            .and_then(|id| waiting.lock().unwrap_or_else(PoisonError::into_inner).answers.remove(&id));
                        if let Some(answer) = answer {
                            let _ = answer.send(message);
                        }
                    }
                }
            }
        }
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.closed = true;
        waiting.answers.clear();
    }
}

/// Cuts a stream of JSON objects, written one after the other without separator, into objects.
#[derive(Debug, Default)]
struct Framer {
    buffer: Vec<u8>,
    scanned: usize,
    depth: u32,
    in_string: bool,
    escaped: bool,
}

impl Framer {
    fn push(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.buffer.extend_from_slice(bytes);
        let mut messages = Vec::new();
        while self.scanned < self.buffer.len() {
            let byte = self.buffer[self.scanned];
            self.scanned += 1;
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' => self.depth += 1,
                b'}' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        let rest = self.buffer.split_off(self.scanned);
                        messages.push(std::mem::replace(&mut self.buffer, rest));
                        self.scanned = 0;
                    }
                }
                _ => {}
            }
        }
        messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let stream = br#"{"id":1,"result":[{"a":"}{\"\\"}]}{"method":"echo","params":[],"id":"echo"} {"x":{}}"#;
        for cut in 0..stream.len() {
            let mut framer = Framer::default();
            let mut messages = framer.push(&stream[..cut]);
            messages.extend(framer.push(&stream[cut..]));
            let values: Vec<Value> = messages.iter().map(|message| serde_json::from_slice(message).unwrap()).collect();
            assert_eq!(values.len(), 3, "cut at {cut}");
            assert_eq!(values[0]["result"][0]["a"], "}{\"\\");
            assert_eq!(values[1]["method"], "echo");
        }
    }

    #[tokio::test]
    async fn answers_find_their_requests_and_echo_is_answered() {
        let directory = std::env::temp_dir().join(format!("udn-ovsdb-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("test.sock");
        let _ = std::fs::remove_file(&path);
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(br#"{"method":"echo","params":["x"],"id":"echo"}"#).await.unwrap();
            let mut framer = Framer::default();
            let mut seen = Vec::new();
            let mut chunk = [0; 1024];
            while seen.len() < 3 {
                let read = stream.read(&mut chunk).await.unwrap();
                seen.extend(
                    framer.push(&chunk[..read]).into_iter().map(|m| serde_json::from_slice::<Value>(&m).unwrap()),
                );
            }
            let requests: Vec<&Value> = seen.iter().filter(|message| message["method"] == "transact").collect();
            // answered in the wrong order on purpose
            for request in requests.iter().rev() {
                let uuid = request["params"][1]["row"]["name"].clone();
                let answer = json!({"id": request["id"], "error": null, "result": [{"uuid": ["uuid", uuid]}]});
                stream.write_all(answer.to_string().as_bytes()).await.unwrap();
            }
            seen.iter().any(|message| message["id"] == "echo" && message["result"] == json!(["x"]))
        });
        let client = Client::new("OVN_Northbound", path);
        let insert = |name: &str| {
            let mut transaction = Transaction::default();
            transaction.insert("Logical_Switch", json!({"name": name}));
            transaction
        };
        let (one, two) = tokio::join!(client.commit("one", insert("a")), client.commit("two", insert("b")));
        assert_eq!((one.unwrap(), two.unwrap()), (vec!["a".to_owned()], vec!["b".to_owned()]));
        assert!(server.await.unwrap(), "echo was not answered");
    }
}
