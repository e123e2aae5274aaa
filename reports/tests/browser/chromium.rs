//! A headless Chromium, spoken to by its DevTools protocol over two pipes.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long Chromium may take for anything.
const DEADLINE: Duration = Duration::from_secs(120);

/// Where Chromium is, by the names that distributions give it.
pub(crate) fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|path| path.is_file())
}

/// A browser with one page.
pub(crate) struct Chromium {
    child: Child,
    requests: File,
    answers: BufReader<File>,
    number: u64,
    session: Option<String>,
    /// What it told unasked.
    told: Vec<Value>,
    /// Its profile and pipes, gone with it.
    _folder: tempfile::TempDir,
}

impl Chromium {
    pub(crate) fn start(program: &Path) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(said("make a folder for Chromium"))?;
        let (requests, answers) = (folder.path().join("requests"), folder.path().join("answers"));
        let made = Command::new("mkfifo").args([&requests, &answers]).status().map_err(said("run mkfifo"))?;
        if !made.success() {
            return Err(format!("mkfifo ended with {made}"));
        }
        // The shell gives it the descriptors that it expects: 3 to read requests from, 4 to answer to.
        let mut command = Command::new("sh");
        command.args(["-c", r#"exec "$0" "$@" 3<"$REQUESTS" 4>"$ANSWERS""#]).arg(program).args([
            "--headless",
            "--no-sandbox", // as root, as in a container, it has no other choice; the page is our own
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--remote-debugging-pipe",
        ]);
        command.arg(format!("--user-data-dir={}", folder.path().join("profile").display()));
        command.env("REQUESTS", &requests).env("ANSWERS", &answers);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(said("start Chromium"))?;
        let requests = File::options().write(true).open(&requests).map_err(said("open Chromium's pipe"))?;
        let answers = BufReader::new(File::open(&answers).map_err(said("open Chromium's pipe"))?);
        let mut chromium =
            Self { child, requests, answers, number: 0, session: None, told: Vec::new(), _folder: folder };
        let page = chromium.call("Target.createTarget", json!({"url": "about:blank"}))?;
        let attached =
            chromium.call("Target.attachToTarget", json!({"targetId": page["targetId"], "flatten": true}))?;
        chromium.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Runtime.enable", "Log.enable", "Page.enable"] {
            chromium.call(domain, json!({}))?;
        }
        Ok(chromium)
    }

    /// Opens a file and waits until it is loaded.
    pub(crate) fn open(&mut self, file: &Path) -> Result<(), String> {
        self.call("Page.navigate", json!({"url": format!("file://{}", file.display())}))?;
        let until = Instant::now() + DEADLINE;
        while !self.told.iter().any(|told| told["method"] == "Page.loadEventFired") {
            if Instant::now() > until {
                return Err(format!("{} was not loaded after {} s", file.display(), DEADLINE.as_secs()));
            }
            let told = self.receive()?;
            self.told.push(told);
        }
        Ok(())
    }

    /// What an expression gives; promises are waited for.
    pub(crate) fn evaluate(&mut self, expression: &str) -> Result<Value, String> {
        let asked = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", asked)?;
        match answer.get("exceptionDetails") {
            Some(details) => Err(format!("{expression}: {details}")),
            None => Ok(answer["result"]["value"].clone()),
        }
    }

    /// Presses a key, down and up.
    pub(crate) fn press(&mut self, key: &str, code: u32) -> Result<(), String> {
        for kind in ["rawKeyDown", "keyUp"] {
            let event = json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code});
            self.call("Input.dispatchKeyEvent", event)?;
        }
        Ok(())
    }

    /// Errors and everything else on the console so far.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let loud = ["Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"];
        let told = self.told.iter().filter(|told| loud.iter().any(|method| told["method"] == *method));
        told.map(ToString::to_string).collect()
    }

    fn call(&mut self, method: &str, params: Value) -> Result<Value, String> {
        self.number += 1;
        let mut request = json!({"id": self.number, "method": method, "params": params});
        if let Some(session) = &self.session {
            request["sessionId"] = session.as_str().into();
        }
        let bytes = format!("{request}\0");
        self.requests.write_all(bytes.as_bytes()).map_err(said("write to Chromium"))?;
        loop {
            let message = self.receive()?;
            if message["id"] != self.number {
                self.told.push(message);
            } else if let Some(error) = message.get("error") {
                return Err(format!("{method}: {error}"));
            } else {
                return Ok(message["result"].clone());
            }
        }
    }

    fn receive(&mut self) -> Result<Value, String> {
        let mut bytes = Vec::new();
        self.answers.read_until(0, &mut bytes).map_err(said("read from Chromium"))?;
        bytes.pop();
        serde_json::from_slice(&bytes).map_err(|error| format!("Chromium ended, or said what is no message: {error}"))
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn said(what: &str) -> impl FnOnce(std::io::Error) -> String {
    let what = what.to_owned();
    move |error| format!("cannot {what}: {error}")
}
