//! Volumes that are written from objects.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path};

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Secret, ServiceAccount, ServiceAccountTokenProjection, Volume,
};
use kube::api::{Api, PostParams};

use crate::kubelet::Host;
use crate::pod::field_value;
use crate::pod::record::PodCell;

/// The mode of files whose volume names none.
const DEFAULT_MODE: i32 = 0o644;

/// A file to write.
pub(super) struct File {
    path: String,
    mode: u32,
    content: Vec<u8>,
}

/// What a volume holds; an error says what is missing.
pub(super) async fn of(host: &Host, pod: &PodCell, volume: &Volume) -> Result<Vec<File>, String> {
    let mut files = Vec::new();
    if let Some(source) = &volume.config_map {
        let map = config_map(host, pod, &source.name, source.optional).await?;
        add(&mut files, map, source.items.as_deref(), source.default_mode)?;
    } else if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        let secret = secret(host, pod, name, source.optional).await?;
        add(&mut files, secret, source.items.as_deref(), source.default_mode)?;
    } else if let Some(source) = &volume.downward_api {
        add_fields(&mut files, host, pod, source.items.as_deref(), source.default_mode)?;
    } else if let Some(projected) = &volume.projected {
        let mode = projected.default_mode;
        for source in projected.sources.iter().flatten() {
            if let Some(source) = &source.config_map {
                let map = config_map(host, pod, &source.name, source.optional).await?;
                add(&mut files, map, source.items.as_deref(), mode)?;
            }
            if let Some(source) = &source.secret {
                let secret = secret(host, pod, &source.name, source.optional).await?;
                add(&mut files, secret, source.items.as_deref(), mode)?;
            }
            if let Some(source) = &source.downward_api {
                add_fields(&mut files, host, pod, source.items.as_deref(), mode)?;
            }
            if let Some(source) = &source.service_account_token {
                let content = token(host, pod, source).await?.into_bytes();
                files.push(File { path: source.path.clone(), mode: mode_bits(None, mode), content });
            }
        }
    } else {
        return Err("the lab's node agent has no volumes of this kind".to_owned());
    }
    Ok(files)
}

/// Writes the files below `directory`.
pub(super) fn write(directory: &Path, files: Vec<File>) -> io::Result<()> {
    for file in files {
        let path = Path::new(&file.path);
        if path.components().any(|component| !matches!(component, Component::Normal(_))) {
            return Err(io::Error::other(format!("path \"{}\" leads out of the volume", file.path)));
        }
        let path = directory.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, file.content)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode))?;
    }
    Ok(())
}

fn mode_bits(own: Option<i32>, default: Option<i32>) -> u32 {
    u32::try_from(own.or(default).unwrap_or(DEFAULT_MODE)).unwrap_or(0o644)
}

type Values = BTreeMap<String, Vec<u8>>;

fn add(files: &mut Vec<File>, values: Values, items: Option<&[KeyToPath]>, mode: Option<i32>) -> Result<(), String> {
    let Some(items) = items else {
        files.extend(values.into_iter().map(|(path, content)| File { path, mode: mode_bits(None, mode), content }));
        return Ok(());
    };
    for item in items {
        let content =
            values.get(&item.key).cloned().ok_or_else(|| format!("references non-existent key: {}", item.key))?;
        files.push(File { path: item.path.clone(), mode: mode_bits(item.mode, mode), content });
    }
    Ok(())
}

fn add_fields(
    files: &mut Vec<File>,
    host: &Host,
    pod: &PodCell,
    items: Option<&[DownwardAPIVolumeFile]>,
    mode: Option<i32>,
) -> Result<(), String> {
    let latest = pod.latest();
    let host_ips = [host.node.ipv4.into(), host.node.ipv6.into()];
    for item in items.unwrap_or_default() {
        let Some(field) = &item.field_ref else {
            return Err("the lab's node agent knows fieldRef only".to_owned());
        };
        let content = field_value(&latest, &field.field_path, &pod.record().ips, &host_ips)?;
        files.push(File { path: item.path.clone(), mode: mode_bits(item.mode, mode), content: content.into_bytes() });
    }
    Ok(())
}

async fn config_map(host: &Host, pod: &PodCell, name: &str, optional: Option<bool>) -> Result<Values, String> {
    let maps: Api<ConfigMap> = Api::namespaced(host.client.clone(), &pod.namespace);
    let Some(map) = maps.get_opt(name).await.map_err(|error| error.to_string())? else {
        return missing(optional, format!("configmap \"{name}\" not found"));
    };
    let text = map.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_bytes()));
    let binary = map.binary_data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0));
    Ok(text.chain(binary).collect())
}

async fn secret(host: &Host, pod: &PodCell, name: &str, optional: Option<bool>) -> Result<Values, String> {
    let secrets: Api<Secret> = Api::namespaced(host.client.clone(), &pod.namespace);
    let Some(secret) = secrets.get_opt(name).await.map_err(|error| error.to_string())? else {
        return missing(optional, format!("secret \"{name}\" not found"));
    };
    Ok(secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect())
}

fn missing(optional: Option<bool>, message: String) -> Result<Values, String> {
    if optional.unwrap_or(false) { Ok(Values::new()) } else { Err(message) }
}

async fn token(host: &Host, pod: &PodCell, source: &ServiceAccountTokenProjection) -> Result<String, String> {
    let spec = pod.arrival.spec.as_ref();
    let account = spec.and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
    let accounts: Api<ServiceAccount> = Api::namespaced(host.client.clone(), &pod.namespace);
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: source.audience.iter().cloned().collect(),
            expiration_seconds: source.expiration_seconds,
            ..TokenRequestSpec::default()
        },
        ..TokenRequest::default()
    };
    let answer: TokenRequest = accounts
        .create_subresource("token", account, &PostParams::default(), &request)
        .await
        .map_err(|error| format!("failed to fetch token: {error}"))?;
    answer.status.map(|status| status.token).ok_or_else(|| "failed to fetch token: the answer has none".to_owned())
}
