//! Watch: a stream of what happens to the selected objects.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;
use tokio::time::Instant;

use super::{Call, read};
use crate::request::Form;
use crate::respond::{partial, shown};
use crate::selectors::Selector;
use crate::status::Rejection;
use crate::store::{Change, Event};
use crate::table;

/// How often a watch that allows bookmarks gets one. Kubernetes: about a minute.
const BOOKMARK_EVERY: Duration = Duration::from_secs(30);

/// How long a watch lasts when the client does not say. Kubernetes: 30 to 60 minutes.
const LASTS: Duration = Duration::from_secs(45 * 60);

struct Watch {
    call: Call,
    selector: Selector,
    /// Everything up to this version has been told.
    version: u64,
    news: Receiver<u64>,
    ready: VecDeque<Bytes>,
    ends: Instant,
    bookmark: Option<Instant>,
    /// Tables name their columns in the first event only.
    columns_told: bool,
    over: bool,
}

/// Answers a watch; the answer goes on while the client listens.
pub(super) fn open(call: Call) -> Result<Response, Rejection> {
    let selector = read::selector(&call)?;
    let storage = call.resource().storage.clone();
    let news = call.cluster.store.subscribe(&storage);
    let from = call.options.number("resourceVersion")?;
    let initial = call.options.on("sendInitialEvents");
    let lasts = call.options.number("timeoutSeconds")?.filter(|secs| *secs > 0).map_or(LASTS, Duration::from_secs);
    let bookmarks = call.options.on("allowWatchBookmarks");
    let mut watch = Watch {
        selector,
        version: from.unwrap_or(0),
        news,
        ready: VecDeque::new(),
        ends: Instant::now() + lasts,
        bookmark: bookmarks.then(|| Instant::now() + BOOKMARK_EVERY),
        columns_told: false,
        over: false,
        call,
    };
    // Without a version, or with "0", a watch begins with the objects that there are.
    if initial || watch.version == 0 {
        watch.tell_present(initial && bookmarks);
    } else if let Err(rejection) = watch.check_start() {
        watch.fail(&rejection);
    }
    let body = Body::from_stream(stream::unfold(watch, async |mut watch| {
        let line = watch.next().await?;
        Some((Ok::<_, Infallible>(line), watch))
    }));
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

impl Watch {
    /// The next line, or `None` when the watch is over.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            if self.over {
                return None;
            }
            // Seen before reading the log, so that a write in between is not missed.
            self.news.borrow_and_update();
            self.catch_up();
            if !self.ready.is_empty() || self.over {
                continue;
            }
            let wake = self.bookmark.map_or(self.ends, |at| at.min(self.ends));
            tokio::select! {
                changed = self.news.changed() => self.over = changed.is_err(),
                () = tokio::time::sleep_until(wake) => self.on_time(),
            }
        }
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        if now >= self.ends {
            self.over = true;
        } else if self.bookmark.is_some_and(|at| now >= at) {
            self.bookmark = Some(now + BOOKMARK_EVERY);
            self.tell_bookmark(false);
        }
    }

    fn check_start(&self) -> Result<(), Rejection> {
        let current = self.call.cluster.store.version();
        if self.version > current {
            return Err(Rejection::too_large_version(self.version, current));
        }
        Ok(())
    }

    fn tell_present(&mut self, mark_end: bool) {
        let (version, objects) =
            self.call.cluster.store.list(&self.call.resource().storage, self.call.target.namespace.as_deref());
        for object in objects {
            if self.selector.matches(&object) {
                let line = self.line("ADDED", &object, None);
                self.ready.push_back(line);
            }
        }
        self.version = version;
        if mark_end {
            self.tell_bookmark(true);
        }
    }

    fn catch_up(&mut self) {
        let storage = &self.call.target.resource.storage;
        match self.call.cluster.store.since(storage, self.version) {
            Ok((version, events)) => {
                for event in events {
                    self.tell(&event);
                }
                self.version = version;
            }
            Err(_) => {
                let message = format!("too old resource version: {}", self.version);
                self.fail(&Rejection::gone(message));
            }
        }
    }

    fn tell(&mut self, event: &Event) {
        if let Some(namespace) = &self.call.target.namespace
            && *event.namespace != **namespace
        {
            return;
        }
        let (object, previous) = (event.object(), event.previous());
        let before = previous.as_ref().is_some_and(|object| self.selector.matches(object));
        let now = event.change != Change::Deleted && self.selector.matches(&object);
        let line = match (before, now) {
            (true, true) => self.line("MODIFIED", &object, Some(event)),
            (false, true) => self.line("ADDED", &object, Some(event)),
            (true, false) if event.change == Change::Deleted => self.line("DELETED", &object, Some(event)),
            (true, false) => {
                // The object goes on but is no longer selected: its last selected state, at the present version.
                let Some(previous) = previous else { return };
                let mut last = (*previous).clone();
                last["metadata"]["resourceVersion"] = event.version.to_string().into();
                self.line("DELETED", &Arc::new(last), None)
            }
            (false, false) => return,
        };
        self.ready.push_back(line);
    }

    fn line(&mut self, kind: &str, object: &Arc<Value>, event: Option<&Event>) -> Bytes {
        let resource = self.call.resource();
        let body = match self.call.form {
            Form::Table => {
                let table = table::event(resource, object, &self.call.options, self.columns_told);
                self.columns_told = true;
                table.to_string().into_bytes().into()
            }
            Form::Metadata => partial(object).to_string().into_bytes().into(),
            Form::Object | Form::Aggregated => match event {
                Some(event) if read::stored_as_shown(&self.call, object) => event.text().clone(),
                _ => Bytes::from(shown(resource, object).to_string().into_bytes()),
            },
        };
        framed(kind, &body)
    }

    fn tell_bookmark(&mut self, end_of_initial: bool) {
        let resource = self.call.resource();
        let mut object = json!({
            "kind": resource.kind, "apiVersion": resource.api_version(),
            "metadata": {"resourceVersion": self.version.to_string(), "creationTimestamp": null},
        });
        if end_of_initial {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.call.form {
            Form::Table => table::bookmark(&object),
            Form::Metadata => partial(&object),
            Form::Object | Form::Aggregated => object,
        };
        self.ready.push_back(framed("BOOKMARK", object.to_string().as_bytes()));
    }

    fn fail(&mut self, rejection: &Rejection) {
        self.ready.push_back(framed("ERROR", rejection.status().to_string().as_bytes()));
        self.over = true;
    }
}

fn framed(kind: &str, object: &[u8]) -> Bytes {
    let mut line = Vec::with_capacity(object.len() + 40);
    line.extend_from_slice(b"{\"type\":\"");
    line.extend_from_slice(kind.as_bytes());
    line.extend_from_slice(b"\",\"object\":");
    line.extend_from_slice(object);
    line.extend_from_slice(b"}\n");
    line.into()
}
