//! Waiting until all chassis have what the northbound database says. Who asks while a round is under way shares the next.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};

use crate::error::Error;
use crate::ovsdb::follow::{Rows, follow};
use crate::ovsdb::{Client, Transaction};

/// How long the chassis may take; on idle cores it takes tens of milliseconds.
const DEADLINE: Duration = Duration::from_secs(20);

type Answer = oneshot::Sender<Result<(), String>>;

/// Asks for rounds.
#[derive(Clone, Debug)]
pub(crate) struct Sync {
    requests: mpsc::UnboundedSender<Answer>,
}

impl Sync {
    pub(crate) fn start(northbound: Client, socket: PathBuf) -> Self {
        let (requests, mut waiting) = mpsc::unbounded_channel::<Answer>();
        let global = follow("OVN_Northbound", socket, "NB_Global", &["nb_cfg", "hv_cfg"]);
        tokio::spawn(async move {
            while let Some(first) = waiting.recv().await {
                let mut answers = vec![first];
                while let Ok(more) = waiting.try_recv() {
                    answers.push(more);
                }
                let result = round(&northbound, global.clone()).await.map_err(|error| error.to_string());
                for answer in answers {
                    let _ = answer.send(result.clone());
                }
            }
        });
        Self { requests }
    }

    /// Returns when every chassis has installed what was committed before the call.
    pub(crate) async fn all_chassis(&self) -> Result<(), Error> {
        let late =
            |reason: &str| Error::Timeout { what: format!("all chassis: {reason}"), seconds: DEADLINE.as_secs() };
        let (answer, result) = oneshot::channel();
        self.requests.send(answer).map_err(|_| late("nobody waits for them any more"))?;
        result.await.map_err(|_| late("the round was abandoned"))?.map_err(|reason| late(&reason))
    }
}

async fn round(northbound: &Client, mut global: watch::Receiver<Rows>) -> Result<(), Error> {
    let mut transaction = Transaction::default();
    transaction.push(json!({"op": "mutate", "table": "NB_Global", "where": [], "mutations": [["nb_cfg", "+=", 1]]}));
    northbound.commit("asking the chassis to confirm", transaction).await?;
    let row = northbound.select_all("NB_Global", &["nb_cfg"]).await?;
    let wanted = row.first().and_then(|row| row["nb_cfg"].as_i64()).unwrap_or_default();
    let confirmed =
        |rows: &Rows| rows.values().any(|row| row["hv_cfg"].as_i64().is_some_and(|number| number >= wanted));
    match tokio::time::timeout(DEADLINE, global.wait_for(confirmed)).await {
        Ok(Ok(_)) => Ok(()),
        _ => Err(Error::Timeout {
            what: format!("all chassis to reach configuration {wanted}"),
            seconds: DEADLINE.as_secs(),
        }),
    }
}
