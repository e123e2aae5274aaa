//! What pods mount: each volume is a directory (or a file) of the lab, bound into containers.
//!
//! * [`contents`]: volumes that are written from objects: config maps, secrets, fields of the pod, tokens
//!
//! Such volumes are written once, when the pod starts; changes of their objects do not reach a running pod.

mod contents;

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, HostPathVolumeSource, Volume};

use crate::container::job::Step;
use crate::kubelet::Host;
use crate::pod::record::PodCell;

/// Why a volume cannot be mounted (yet).
#[derive(Debug, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume \"{volume}\" : {reason}")]
pub(crate) struct VolumeError {
    volume: String,
    reason: String,
}

/// A pod's volumes by name.
#[derive(Debug, Default)]
pub(crate) struct Volumes(HashMap<String, Mountable>);

#[derive(Debug)]
struct Mountable {
    source: PathBuf,
    read_only: bool,
}

/// The pod's directory in the lab's scratch space.
pub(crate) fn directory(host: &Host, pod: &PodCell) -> PathBuf {
    host.directory.join("pods").join(&pod.uid)
}

/// Makes what the pod's volumes need.
pub(crate) async fn prepare(host: &Host, pod: &PodCell) -> Result<Volumes, VolumeError> {
    let base = directory(host, pod).join("volumes");
    let mut volumes = HashMap::new();
    for volume in pod.arrival.spec.as_ref().and_then(|spec| spec.volumes.as_ref()).into_iter().flatten() {
        let mountable = prepare_one(host, pod, volume, &base.join(&volume.name))
            .await
            .map_err(|reason| VolumeError { volume: volume.name.clone(), reason })?;
        volumes.insert(volume.name.clone(), mountable);
    }
    std::fs::create_dir_all(directory(host, pod))
        .map_err(|error| VolumeError { volume: String::new(), reason: error.to_string() })?;
    Ok(Volumes(volumes))
}

async fn prepare_one(host: &Host, pod: &PodCell, volume: &Volume, path: &Path) -> Result<Mountable, String> {
    if let Some(host_path) = &volume.host_path {
        return prepare_host_path(host_path).map_err(|error| format!("hostPath {}: {error}", host_path.path));
    }
    make_directory(path).map_err(|error| error.to_string())?;
    if volume.empty_dir.is_some() {
        return Ok(Mountable { source: path.to_owned(), read_only: false });
    }
    let files = contents::of(host, pod, volume).await?;
    contents::write(path, files).map_err(|error| error.to_string())?;
    Ok(Mountable { source: path.to_owned(), read_only: true })
}

fn make_directory(path: &Path) -> io::Result<()> {
    std::fs::create_dir_all(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))
}

fn prepare_host_path(volume: &HostPathVolumeSource) -> io::Result<Mountable> {
    let path = Path::new(&volume.path);
    match volume.type_.as_deref() {
        Some("DirectoryOrCreate") => std::fs::create_dir_all(path)?,
        Some("FileOrCreate") if !path.exists() => std::fs::write(path, "")?,
        _ => {}
    }
    Ok(Mountable { source: path.canonicalize()?, read_only: false })
}

/// Takes the pod's directory away.
pub(crate) async fn remove(host: &Host, pod: &PodCell) {
    let directory = directory(host, pod);
    let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(directory)).await;
    match removed {
        Ok(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(pod = pod.name, %error, "cannot remove a pod's directory");
        }
        _ => {}
    }
}

impl Volumes {
    /// How a container gets its mounts, outer ones first.
    pub(crate) fn mounts(&self, container: &Container, env: &[(String, String)]) -> Result<Vec<Step>, String> {
        let mut mounts: Vec<_> = container.volume_mounts.iter().flatten().collect();
        mounts.sort_by_key(|mount| Path::new(&mount.mount_path).components().count());
        let mut steps = Vec::new();
        for mount in mounts {
            let volume = self.0.get(&mount.name).ok_or_else(|| {
                format!("cannot find volume \"{}\" to mount into container \"{}\"", mount.name, container.name)
            })?;
            let below = match (&mount.sub_path, &mount.sub_path_expr) {
                (Some(path), _) => path.clone(),
                (None, Some(expression)) => crate::pod::expand(expression, env),
                (None, None) => String::new(),
            };
            if Path::new(&below).components().any(|component| !matches!(component, Component::Normal(_))) {
                return Err(format!("subPath \"{below}\" of volume \"{}\" leads out of the volume", mount.name));
            }
            let source = volume.source.join(&below);
            if !source.exists() && !volume.read_only {
                make_directory(&source).map_err(|error| format!("failed to prepare subPath \"{below}\": {error}"))?;
            }
            let source =
                source.canonicalize().map_err(|error| format!("failed to prepare subPath \"{below}\": {error}"))?;
            let read_only = volume.read_only || mount.read_only.unwrap_or(false);
            steps.push(Step::Bind { source, path: mount.mount_path.clone().into(), read_only });
        }
        Ok(steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(mounts: serde_json::Value) -> Container {
        serde_json::from_value(serde_json::json!({ "name": "c", "volumeMounts": mounts })).unwrap()
    }

    #[test]
    fn mounts_come_from_the_outside_in_and_stay_inside_their_volume() {
        let temporary = tempfile::tempdir().unwrap();
        let source = temporary.path().canonicalize().unwrap();
        let volumes = Volumes([("v".to_owned(), Mountable { source: source.clone(), read_only: false })].into());
        let steps = volumes
            .mounts(
                &container(serde_json::json!([
                    { "name": "v", "mountPath": "/data/inner", "subPath": "one/two" },
                    { "name": "v", "mountPath": "/data", "readOnly": true },
                ])),
                &[],
            )
            .unwrap();
        assert_eq!(
            steps,
            [
                Step::Bind { source: source.clone(), path: "/data".into(), read_only: true },
                Step::Bind { source: source.join("one/two"), path: "/data/inner".into(), read_only: false },
            ]
        );
        for path in ["../x", "/etc", "a/../../x"] {
            let outside = container(serde_json::json!([{ "name": "v", "mountPath": "/x", "subPath": path }]));
            assert!(volumes.mounts(&outside, &[]).is_err(), "{path}");
        }
        let unknown = container(serde_json::json!([{ "name": "w", "mountPath": "/x" }]));
        assert!(volumes.mounts(&unknown, &[]).unwrap_err().contains("cannot find volume \"w\""));
    }
}
