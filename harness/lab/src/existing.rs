//! An API server that is there already and that a lab joins: its kubeconfig, as the host reads it and the inside uses it.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use kube::config::{AuthInfo, Cluster, Kubeconfig};
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// An API server and how to speak to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ApiServer {
    /// One context; nothing of it is in other files.
    pub(crate) kubeconfig: Kubeconfig,
    /// As the kubeconfig has it: `https://127.0.0.1:6443`.
    pub(crate) url: String,
    /// Name or address.
    pub(crate) host: String,
    /// TCP port.
    pub(crate) port: u16,
}

impl ApiServer {
    /// Reads the current context of a kubeconfig.
    ///
    /// # Errors
    /// What of it cannot be used, and why.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let refuse = |reason: String| Error::Kubeconfig { path: path.to_owned(), reason };
        let mut kubeconfig = Kubeconfig::read_from(path).map_err(|error| refuse(told(&error)))?;
        let current = kubeconfig.current_context.clone().unwrap_or_default();
        kubeconfig.contexts.retain(|context| context.name == current);
        let context = kubeconfig.contexts.first().and_then(|named| named.context.clone());
        let context = context
            .ok_or_else(|| refuse("it has no current context: set one with `kubectl config use-context`".into()))?;
        kubeconfig.clusters.retain(|cluster| cluster.name == context.cluster);
        kubeconfig.auth_infos.retain(|user| Some(&user.name) == context.user.as_ref());
        let cluster = kubeconfig.clusters.first_mut().and_then(|named| named.cluster.as_mut());
        let cluster = cluster.ok_or_else(|| refuse(format!("context {current} names no cluster of it")))?;
        let url = cluster.server.clone().unwrap_or_default();
        let (host, port) = place(&url).ok_or_else(|| refuse(format!("{url:?} is not where an API server can be")))?;
        take_in_cluster(cluster).map_err(refuse)?;
        if let Some(user) = kubeconfig.auth_infos.first_mut().and_then(|named| named.auth_info.as_mut()) {
            take_in_user(user).map_err(refuse)?;
        }
        Ok(Self { kubeconfig, url, host, port })
    }

    /// PEM text of the authority that vouches for the server; empty where the kubeconfig names none.
    pub(crate) fn authority(&self) -> String {
        let cluster = self.kubeconfig.clusters.first().and_then(|named| named.cluster.as_ref());
        let data = cluster.and_then(|cluster| cluster.certificate_authority_data.as_ref());
        let bytes = data.and_then(|data| STANDARD.decode(data).ok()).unwrap_or_default();
        String::from_utf8(bytes).unwrap_or_default()
    }
}

/// What kube says with its cause.
fn told(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", told(source)),
        None => error.to_string(),
    }
}

fn place(url: &str) -> Option<(String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let default = match uri.scheme_str()? {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
    Some((host, uri.port_u16().unwrap_or(default)))
}

/// What is in a file, or was there already.
fn inlined(data: &mut Option<String>, file: &mut Option<String>) -> Result<(), String> {
    if let Some(path) = file.take().map(PathBuf::from)
        && data.is_none()
    {
        let bytes = fs::read(&path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        *data = Some(STANDARD.encode(bytes));
    }
    Ok(())
}

fn take_in_cluster(cluster: &mut Cluster) -> Result<(), String> {
    if let Some(proxy) = &cluster.proxy_url {
        return Err(format!("it leads through the proxy {proxy}, which a lab cannot use: name one that does without"));
    }
    inlined(&mut cluster.certificate_authority_data, &mut cluster.certificate_authority)
}

fn take_in_user(user: &mut AuthInfo) -> Result<(), String> {
    if user.exec.is_some() || user.auth_provider.is_some() {
        return Err(
            "its user is known by a program's word, which a lab cannot run: name one with a token or a client \
                    certificate"
                .into(),
        );
    }
    inlined(&mut user.client_certificate_data, &mut user.client_certificate)?;
    if let Some(path) = user.client_key.take()
        && user.client_key_data.is_none()
    {
        let bytes = fs::read(&path).map_err(|error| format!("{path} cannot be read: {error}"))?;
        user.client_key_data = Some(STANDARD.encode(bytes).into());
    }
    if let Some(path) = user.token_file.take()
        && user.token.is_none()
    {
        let token = fs::read_to_string(&path).map_err(|error| format!("{path} cannot be read: {error}"))?;
        user.token = Some(token.trim().to_owned().into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kubeconfig with this cluster and user, beside the files `ca` and `key`.
    fn read(cluster: &str, user: &str) -> Result<ApiServer, String> {
        let folder = tempfile::tempdir().unwrap();
        for name in ["ca", "key"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        let text = format!(
            "{{apiVersion: v1, kind: Config, current-context: one, contexts: [{{name: other, context: {{cluster: x}}}}, \
             {{name: one, context: {{cluster: c, user: u}}}}], clusters: [{{name: c, cluster: {cluster}}}], \
             users: [{{name: w, user: {{}}}}, {{name: u, user: {user}}}]}}"
        );
        fs::write(folder.path().join("config"), text).unwrap();
        ApiServer::read(&folder.path().join("config")).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_in_other_files_is_taken_in() {
        let cluster = "{server: 'https://localhost:7443', certificate-authority: ca}";
        let read = read(cluster, "{client-certificate-data: aGk=, client-key: key}").unwrap();
        assert_eq!((read.host.as_str(), read.port, read.authority().as_str()), ("localhost", 7443, "ca"));
        let text = serde_json::to_value(&read.kubeconfig).unwrap();
        assert_eq!(text["users"].as_array().unwrap().len(), 1);
        let user = &text["users"][0]["user"];
        assert_eq!((&user["client-key-data"], user.get("client-key")), (&"a2V5".into(), None), "{user}");
        assert_eq!(text["contexts"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn what_a_lab_cannot_use_is_said() {
        let server = "server: 'https://[fd00::1]'";
        assert_eq!(read(&format!("{{{server}}}"), "{token: t}").unwrap().port, 443);
        for (cluster, user, said) in [
            (format!("{{{server}}}"), "{exec: {command: aws}}", "a program's word"),
            (format!("{{{server}, proxy-url: 'http://proxy:3128'}}"), "{}", "through the proxy"),
            (format!("{{{server}, certificate-authority: gone}}"), "{}", "gone cannot be read"),
            ("{server: 'unix:/run/it'}".into(), "{}", "is not where"),
        ] {
            let refusal = read(&cluster, user).unwrap_err();
            assert!(refusal.contains(said), "{refusal}");
        }
        let nowhere = ApiServer::read(Path::new("/nowhere/config")).unwrap_err().to_string();
        assert!(nowhere.contains("/nowhere/config"), "{nowhere}");
    }
}
