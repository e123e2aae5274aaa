//! Network namespaces held open by a file descriptor: they vanish with the last process that holds them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace, alive as long as a clone of this value or a process in it is.
#[derive(Clone, Debug)]
pub struct Netns {
    name: Arc<str>,
    file: Arc<File>,
}

impl Netns {
    /// Makes a new, empty namespace with `lo` down. `name` is for messages only.
    ///
    /// # Errors
    /// The kernel's error when it refuses a new namespace (missing right, limit reached).
    pub fn create(name: &str) -> io::Result<Self> {
        let file = on_fresh_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        })??;
        Ok(Self { name: name.into(), file: Arc::new(file) })
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn current(name: &str) -> io::Result<Self> {
        Ok(Self { name: name.into(), file: Arc::new(File::open("/proc/thread-self/ns/net")?) })
    }

    /// The name given at creation.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `f` on a fresh thread inside the namespace. Sockets opened by `f` stay in the namespace wherever they are
    /// used later; `/proc/sys/net` seen by `f` is the namespace's.
    ///
    /// # Errors
    /// When the thread cannot be started or may not enter the namespace.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_fresh_thread(|| {
            setns(&*self.file, CloneFlags::CLONE_NEWNET)?;
            Ok(f())
        })?
    }

    /// A netlink handle whose requests act inside the namespace. Must be called within a Tokio runtime; the connection
    /// lives as a task of that runtime.
    ///
    /// # Errors
    /// When the netlink socket cannot be opened.
    pub fn netlink(&self) -> io::Result<rtnetlink::Handle> {
        let runtime = tokio::runtime::Handle::current();
        let (connection, handle, _) = self.run(|| {
            let _guard = runtime.enter();
            rtnetlink::new_connection()
        })??;
        runtime.spawn(connection);
        Ok(handle)
    }

    /// Writes `value` to `/proc/sys/net/<path>` as seen inside the namespace.
    ///
    /// # Errors
    /// When the setting does not exist or may not be written.
    pub fn write_sysctl(&self, path: &str, value: &str) -> io::Result<()> {
        self.run(|| std::fs::write(format!("/proc/sys/net/{path}"), value))?
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A fresh thread per call: a thread that has changed its namespace is never used for anything else again.
fn on_fresh_thread<T: Send>(f: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, f)?
            .join()
            .map_err(|_| io::Error::other("a thread inside a network namespace panicked"))
    })
}
