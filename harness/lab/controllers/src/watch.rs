//! Fills a cache from a watch, for ever.

use std::collections::HashSet;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use kube::Resource;
use kube::api::Api;
use kube::runtime::watcher;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::cache::Cache;

impl<K> Cache<K>
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
{
    /// Watches for ever. Errors of the connection are retried, first after 20 ms, at last every 2 s.
    pub(crate) async fn watch(self, api: Api<K>, config: watcher::Config) {
        let mut stream = pin!(watcher::watcher(api, config));
        let mut listed = HashSet::new();
        let first = Duration::from_millis(20);
        let mut delay = first;
        let mut last_error = Instant::now();
        while let Some(event) = stream.next().await {
            match event {
                Ok(event) => {
                    delay = first;
                    self.observe(event, &mut listed);
                }
                Err(error) => {
                    tracing::debug!(kind = std::any::type_name::<K>(), %error, "watch interrupted");
                    // A watch that ran for a while and broke starts anew; only failures in a row wait longer.
                    if last_error.elapsed() > delay * 4 {
                        delay = first;
                    }
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(Duration::from_secs(2));
                    last_error = Instant::now();
                }
            }
        }
    }
}
