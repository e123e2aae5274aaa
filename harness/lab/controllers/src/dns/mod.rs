//! kube-dns: writes down, for the DNS server's pods, the names that services, endpoint slices and namespaces give, and
//! those of the config map `kube-system/coredns`.
//!
//! * [`names`]: objects to records, pure

mod names;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::Error;
use crate::cache::Key;
use crate::objects::{Kind, Objects};
use crate::queue::{Queue, drive};

/// Where the config map is.
pub(crate) const NAMESPACE: &str = "kube-system";
const CONFIG: &str = "coredns";
/// Its key with lines `address name…`, as in `/etc/hosts`, which come before what services say. A line `- name…` takes
/// names away.
const HOSTS: &str = "hosts";

pub(crate) struct Dns {
    pub(crate) services: Objects<Service>,
    pub(crate) slices: Objects<EndpointSlice>,
    pub(crate) namespaces: Objects<Namespace>,
    /// Those of [`NAMESPACE`].
    pub(crate) maps: Objects<ConfigMap>,
    pub(crate) file: PathBuf,
}

impl Dns {
    pub(crate) async fn run(self) {
        let queue = Queue::new();
        wake(&self.services, &queue);
        wake(&self.slices, &queue);
        wake(&self.namespaces, &queue);
        wake(&self.maps, &queue);
        queue.add(());
        self.services.cache.synced().await;
        self.slices.cache.synced().await;
        self.namespaces.cache.synced().await;
        self.maps.cache.synced().await;
        drive("dns", queue, 1, move |()| {
            let written = self.write();
            async move { written.map(|()| None::<Duration>) }
        })
        .await;
    }

    fn write(&self) -> Result<(), Error> {
        let config = self.maps.get(&Key::new(NAMESPACE, CONFIG));
        let hosts =
            config.as_ref().and_then(|map| map.data.as_ref()?.get(HOSTS)).map(String::as_str).unwrap_or_default();
        let text =
            names::records(&self.namespaces.cache.all(), &self.services.cache.all(), &self.slices.cache.all(), hosts);
        replace(&self.file, &text).map_err(|source| Error::Records { file: self.file.display().to_string(), source })
    }
}

fn wake<K: Kind>(objects: &Objects<K>, queue: &Queue<()>) {
    let queue = queue.clone();
    objects.cache.on_change(move |_| queue.add(()));
}

/// Replaces a file as a whole, unless it says so already: readers never see half of it.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    if std::fs::read_to_string(file).is_ok_and(|current| current == text) {
        return Ok(());
    }
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let next = file.with_extension("next");
    std::fs::write(&next, text)?;
    std::fs::rename(&next, file)
}
