//! The environment of a container's process.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, Secret};
use kube::ResourceExt;
use kube::api::Api;

use super::record::PodCell;
use super::sandbox::host_network;
use crate::container::init::DEFAULT_PATH;
use crate::kubelet::Host;

/// The API server's service.
const API_SERVER: &str = "10.96.0.1";

/// Everything a container's process finds in its environment; an error says what is missing, as a kubelet does.
pub(super) async fn build(
    host: &Host,
    pod: &PodCell,
    latest: &Pod,
    container: &Container,
) -> Result<Vec<(String, String)>, String> {
    let facts = Facts { pod: latest, ips: pod.record().ips, host };
    let hostname = if host_network(latest) { &host.node.name } else { &pod.name };
    let mut env: Vec<(String, String)> = vec![
        ("PATH".into(), DEFAULT_PATH.into()),
        ("HOSTNAME".into(), hostname.clone()),
        ("HOME".into(), "/root".into()),
        ("KUBERNETES_SERVICE_HOST".into(), API_SERVER.into()),
        ("KUBERNETES_SERVICE_PORT".into(), "443".into()),
        ("KUBERNETES_SERVICE_PORT_HTTPS".into(), "443".into()),
        ("KUBERNETES_PORT".into(), format!("tcp://{API_SERVER}:443")),
        ("KUBERNETES_PORT_443_TCP".into(), format!("tcp://{API_SERVER}:443")),
        ("KUBERNETES_PORT_443_TCP_ADDR".into(), API_SERVER.into()),
        ("KUBERNETES_PORT_443_TCP_PORT".into(), "443".into()),
        ("KUBERNETES_PORT_443_TCP_PROTO".into(), "tcp".into()),
    ];
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let mut values = Vec::new();
        if let Some(reference) = &source.config_map_ref {
            let optional = reference.optional.unwrap_or(false);
            if let Some(map) = config_map(host, pod, &reference.name, optional).await? {
                values.extend(map.data.unwrap_or_default());
            }
        }
        if let Some(reference) = &source.secret_ref {
            let optional = reference.optional.unwrap_or(false);
            if let Some(secret) = secret(host, pod, &reference.name, optional).await? {
                values.extend(secret.data.unwrap_or_default().into_iter().map(text_of));
            }
        }
        for (name, value) in values {
            set(&mut env, format!("{prefix}{name}"), value);
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) => Some(expand(value, &env)),
            (None, Some(source)) => facts.resolve(pod, source).await?,
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            set(&mut env, variable.name.clone(), value);
        }
    }
    Ok(env)
}

fn set(env: &mut Vec<(String, String)>, name: String, value: String) {
    env.retain(|(known, _)| *known != name);
    env.push((name, value));
}

fn text_of((name, value): (String, k8s_openapi::ByteString)) -> (String, String) {
    (name, String::from_utf8_lossy(&value.0).into_owned())
}

async fn config_map(host: &Host, pod: &PodCell, name: &str, optional: bool) -> Result<Option<ConfigMap>, String> {
    let maps: Api<ConfigMap> = Api::namespaced(host.client.clone(), &pod.namespace);
    match maps.get_opt(name).await.map_err(|error| error.to_string())? {
        None if !optional => Err(format!("configmap \"{name}\" not found")),
        found => Ok(found),
    }
}

async fn secret(host: &Host, pod: &PodCell, name: &str, optional: bool) -> Result<Option<Secret>, String> {
    let secrets: Api<Secret> = Api::namespaced(host.client.clone(), &pod.namespace);
    match secrets.get_opt(name).await.map_err(|error| error.to_string())? {
        None if !optional => Err(format!("secret \"{name}\" not found")),
        found => Ok(found),
    }
}

/// What `fieldRef` and its kin may ask for.
struct Facts<'a> {
    pod: &'a Pod,
    ips: Vec<IpAddr>,
    host: &'a Host,
}

impl Facts<'_> {
    async fn resolve(&self, pod: &PodCell, source: &EnvVarSource) -> Result<Option<String>, String> {
        if let Some(field) = &source.field_ref {
            let node = &self.host.node;
            return field_value(self.pod, &field.field_path, &self.ips, &[node.ipv4.into(), node.ipv6.into()])
                .map(Some);
        }
        if let Some(key) = &source.config_map_key_ref {
            let optional = key.optional.unwrap_or(false);
            let map = config_map(self.host, pod, &key.name, optional).await?;
            let value = map.and_then(|map| map.data?.remove(&key.key));
            return required(value, optional, || {
                format!("couldn't find key {} in ConfigMap {}/{}", key.key, pod.namespace, key.name)
            });
        }
        if let Some(key) = &source.secret_key_ref {
            let optional = key.optional.unwrap_or(false);
            let secret = secret(self.host, pod, &key.name, optional).await?;
            let value = secret.and_then(|secret| secret.data?.remove(&key.key));
            let value = value.map(|value| String::from_utf8_lossy(&value.0).into_owned());
            return required(value, optional, || {
                format!("couldn't find key {} in Secret {}/{}", key.key, pod.namespace, key.name)
            });
        }
        Err("the lab's node agent knows fieldRef, configMapKeyRef and secretKeyRef only".to_owned())
    }
}

fn required(value: Option<String>, optional: bool, missing: impl FnOnce() -> String) -> Result<Option<String>, String> {
    if value.is_none() && !optional { Err(missing()) } else { Ok(value) }
}

/// The value of a pod's field, as the downward API has it.
pub(crate) fn field_value(pod: &Pod, path: &str, ips: &[IpAddr], host_ips: &[IpAddr]) -> Result<String, String> {
    let list = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let first = |ips: &[IpAddr]| ips.first().map(ToString::to_string).unwrap_or_default();
    let spec = pod.spec.as_ref();
    if let Some((map, key)) = path.split_once("['").and_then(|(map, rest)| Some((map, rest.strip_suffix("']")?))) {
        let value = match map {
            "metadata.labels" => pod.labels().get(key),
            "metadata.annotations" => pod.annotations().get(key),
            _ => return Err(format!("fieldPath \"{path}\" is not known")),
        };
        return Ok(value.cloned().unwrap_or_default());
    }
    let lines = |map: &std::collections::BTreeMap<String, String>| {
        map.iter().map(|(name, value)| format!("{name}={value:?}\n")).collect::<String>()
    };
    Ok(match path {
        "metadata.name" => pod.name_any(),
        "metadata.namespace" => pod.namespace().unwrap_or_default(),
        "metadata.uid" => pod.uid().unwrap_or_default(),
        "metadata.labels" => lines(pod.labels()),
        "metadata.annotations" => lines(pod.annotations()),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => {
            spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_else(|| "default".into())
        }
        "status.podIP" => first(ips),
        "status.podIPs" => list(ips),
        "status.hostIP" => first(host_ips),
        "status.hostIPs" => list(host_ips),
        _ => return Err(format!("fieldPath \"{path}\" is not known")),
    })
}

/// Replaces `$(NAME)` by the variable's value; `$$` is a dollar sign, and an unknown name stays as it is.
pub(crate) fn expand(text: &str, env: &[(String, String)]) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some(position) = rest.find('$') {
        expanded.push_str(&rest[..position]);
        rest = &rest[position + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inside| inside.split_once(')')) {
            match env.iter().find(|(known, _)| known == name) {
                Some((_, value)) => expanded.push_str(value),
                None => expanded.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            expanded.push('$');
        }
    }
    expanded.push_str(rest);
    expanded
}

/// [`expand`] for each of several texts.
pub(super) fn expand_all(texts: &[String], env: &[(String, String)]) -> Vec<String> {
    texts.iter().map(|text| expand(text, env)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_to_variables_are_expanded_as_kubernetes_does() {
        let env = [("A".to_owned(), "1".to_owned())];
        for (text, expected) in
            [("$(A)", "1"), ("x$(A)y", "x1y"), ("$$(A)", "$(A)"), ("$(B)", "$(B)"), ("$A $", "$A $"), ("$(A", "$(A")]
        {
            assert_eq!(expand(text, &env), expected);
        }
    }

    #[test]
    fn fields_of_a_pod() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": { "name": "p", "namespace": "n", "labels": { "app": "web" } },
            "spec": { "nodeName": "ovn-worker", "containers": [] },
        }))
        .unwrap();
        let ips = ["10.244.1.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        let value = |path: &str| field_value(&pod, path, &ips, &[]);
        assert_eq!(value("status.podIPs").unwrap(), "10.244.1.2,fd00::2");
        assert_eq!(value("status.podIP").unwrap(), "10.244.1.2");
        assert_eq!(value("metadata.labels['app']").unwrap(), "web");
        assert_eq!(value("metadata.labels").unwrap(), "app=\"web\"\n");
        assert!(value("spec.nothing").is_err());
    }
}
