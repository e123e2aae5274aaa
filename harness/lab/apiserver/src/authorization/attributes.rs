//! What a request, or a review, asks to do.

use http::Method;
use serde::Serialize;
use serde_json::Value;

use crate::identity::User;
use crate::json::{list, text};
use crate::request::{Options, segments};
use crate::status::{GroupResource, Rejection};

/// An action on objects, or on a path that leads to none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Attributes {
    Resource(Action),
    Path { path: String, verb: String },
}

/// An action on objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Action {
    pub(crate) verb: String,
    pub(crate) group: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Action {
    /// `pods`, `pods/exec`.
    fn combined(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }
}

impl Attributes {
    /// What a request asks to do, by its path alone: whether the kind exists is asked later.
    pub(crate) fn of_request(method: &Method, path: &str, options: &Options) -> Self {
        let all = segments(path);
        let parts: Vec<&str> = all.iter().map(String::as_str).collect();
        let (group, rest) = match parts.as_slice() {
            ["api", _, rest @ ..] if !rest.is_empty() => ("", rest),
            ["apis", group, _, rest @ ..] if !rest.is_empty() => (*group, rest),
            _ => return Self::Path { path: path.to_owned(), verb: method.as_str().to_lowercase() },
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, plural, ..] if !matches!(*plural, "status" | "finalize") => {
                (*namespace, &rest[2..])
            }
            // A namespace lies in itself: a role in it may speak of it.
            ["namespaces", namespace, ..] => (*namespace, rest),
            _ => ("", rest),
        };
        let part = |at: usize| rest.get(at).copied().unwrap_or_default();
        let mut name = part(1);
        let watches = options.on("watch");
        let verb = match (method.as_str(), name.is_empty()) {
            ("POST", _) => "create",
            ("GET", false) => "get",
            ("GET", true) if watches => "watch",
            ("GET", true) => "list",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", false) => "delete",
            ("DELETE", true) => "deletecollection",
            _ => "",
        };
        // Who lists or watches one object by its name may be granted that name.
        let mut selected = options.get("fieldSelector").into_iter().flat_map(|selector| selector.split(','));
        if matches!(verb, "list" | "watch" | "deletecollection")
            && let Some(only) = selected.find_map(|one| one.trim().strip_prefix("metadata.name="))
        {
            name = only.trim_start_matches('=');
        }
        Self::Resource(Action {
            verb: verb.to_owned(),
            group: group.to_owned(),
            resource: part(0).to_owned(),
            subresource: part(2).to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }

    /// What the spec of an access review asks about.
    pub(crate) fn of_review(spec: &Value) -> Option<Self> {
        if let Some(path) = spec.get("nonResourceAttributes").filter(|path| path.is_object()) {
            return Some(Self::Path { path: text(path, &["path"]).into(), verb: text(path, &["verb"]).into() });
        }
        let asked = spec.get("resourceAttributes").filter(|asked| asked.is_object())?;
        let field = |key: &str| text(asked, &[key]).to_owned();
        Some(Self::Resource(Action {
            verb: field("verb"),
            group: field("group"),
            resource: field("resource"),
            subresource: field("subresource"),
            namespace: field("namespace"),
            name: field("name"),
        }))
    }

    pub(crate) fn namespace(&self) -> &str {
        match self {
            Self::Resource(action) => &action.namespace,
            Self::Path { .. } => "",
        }
    }

    pub(crate) fn with_verb(self, verb: &str) -> Self {
        match self {
            Self::Resource(action) => Self::Resource(Action { verb: verb.into(), ..action }),
            Self::Path { path, .. } => Self::Path { path, verb: verb.into() },
        }
    }

    /// The creation that opening a stream to a pod with a GET amounts to.
    pub(crate) fn as_creation_of_stream(&self) -> Option<Self> {
        let Self::Resource(Action { verb, group, resource, subresource, .. }) = self else { return None };
        let stream = verb == "get"
            && group.is_empty()
            && resource == "pods"
            && matches!(subresource.as_str(), "exec" | "attach" | "portforward");
        stream.then(|| self.clone().with_verb("create"))
    }

    /// Whether a rule of a role covers it; paths only where the role is bound for the whole cluster.
    pub(crate) fn granted_by(&self, rule: &Value, everywhere: bool) -> bool {
        let has = |key: &str, fits: &dyn Fn(&str) -> bool| {
            list(rule, &[key]).iter().filter_map(Value::as_str).any(|one| one == "*" || fits(one))
        };
        match self {
            Self::Path { path, verb } => {
                let covers = |url: &str| match url.strip_suffix('*') {
                    Some(beginning) => path.starts_with(beginning),
                    None => url == path,
                };
                everywhere && has("verbs", &|one| one == verb) && has("nonResourceURLs", &covers)
            }
            Self::Resource(action) => {
                let combined = action.combined();
                let below = (!action.subresource.is_empty()).then(|| format!("*/{}", action.subresource));
                let names = list(rule, &["resourceNames"]);
                has("verbs", &|one| one == action.verb)
                    && has("apiGroups", &|one| one == action.group)
                    && has("resources", &|one| one == combined || below.as_deref() == Some(one))
                    && (names.is_empty() || names.iter().any(|name| *name == action.name.as_str()))
            }
        }
    }

    /// As Kubernetes refuses it.
    pub(crate) fn refusal(&self, user: &User) -> Rejection {
        match self {
            Self::Path { path, verb } => {
                Rejection::no_right(None, "", &format!("User {:?} cannot {verb} path {path:?}", user.name))
            }
            Self::Resource(action) => {
                let Action { verb, group, namespace, .. } = action;
                let place = if namespace.is_empty() {
                    "at the cluster scope".to_owned()
                } else {
                    format!("in the namespace {namespace:?}")
                };
                let combined = action.combined();
                let why =
                    format!("User {:?} cannot {verb} resource {combined:?} in API group {group:?} {place}", user.name);
                let resource = GroupResource { group, resource: &action.resource };
                Rejection::no_right(Some(&resource), &action.name, &why)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(method: &str, path: &str) -> Attributes {
        let uri: http::Uri = path.parse().unwrap();
        Attributes::of_request(&method.parse().unwrap(), uri.path(), &Options::of(&uri).unwrap())
    }

    fn told(method: &str, path: &str) -> String {
        of(method, path).refusal(&User::service_account("ci", "runner")).message
    }

    /// Texts of a Kubernetes API server.
    #[test]
    fn refusals_are_worded_as_kubernetes_words_them() {
        assert_eq!(
            told("GET", "/api/v1/pods"),
            r#"pods is forbidden: User "system:serviceaccount:ci:runner" cannot list resource "pods" in API group "" at the cluster scope"#
        );
        assert_eq!(
            told("POST", "/apis/apps/v1/namespaces/a/deployments"),
            r#"deployments.apps is forbidden: User "system:serviceaccount:ci:runner" cannot create resource "deployments" in API group "apps" in the namespace "a""#
        );
        assert_eq!(
            told("POST", "/api/v1/namespaces/a/pods/b/exec?command=x"),
            r#"pods "b" is forbidden: User "system:serviceaccount:ci:runner" cannot create resource "pods/exec" in API group "" in the namespace "a""#
        );
        assert_eq!(
            told("DELETE", "/api/v1/namespaces/a"),
            r#"namespaces "a" is forbidden: User "system:serviceaccount:ci:runner" cannot delete resource "namespaces" in API group "" in the namespace "a""#
        );
        assert_eq!(
            told("GET", "/metrics"),
            r#"forbidden: User "system:serviceaccount:ci:runner" cannot get path "/metrics""#
        );
    }

    #[test]
    fn verbs_and_names_are_those_of_kubernetes() {
        let action = |method: &str, path: &str| match of(method, path) {
            Attributes::Resource(action) => action,
            path @ Attributes::Path { .. } => panic!("{path:?} is no action"),
        };
        assert_eq!(action("GET", "/api/v1/pods?watch=true").verb, "watch");
        assert_eq!(action("DELETE", "/api/v1/namespaces/a/pods").verb, "deletecollection");
        let one = action("GET", "/api/v1/namespaces/a/pods?watch=true&fieldSelector=metadata.name%3Db");
        assert_eq!((one.verb.as_str(), one.name.as_str()), ("watch", "b"));
        let status = action("PATCH", "/api/v1/namespaces/a/status");
        assert_eq!((status.resource.as_str(), status.subresource.as_str()), ("namespaces", "status"));
        assert_eq!(status.namespace, "a");
        assert!(matches!(of("GET", "/apis/apps/v1"), Attributes::Path { .. }));
    }

    #[test]
    fn a_rule_covers_what_it_names_and_nothing_else() {
        let exec = of("POST", "/api/v1/namespaces/a/pods/b/exec");
        let rule = |resources: &[&str], names: &[&str]| json!({"apiGroups": [""], "resources": resources, "verbs": ["create"], "resourceNames": names});
        for (resources, names, covered) in [
            (&["pods/exec"][..], &[][..], true),
            (&["*/exec"], &[], true),
            (&["*"], &[], true),
            (&["pods"], &[], false),
            (&["pods/*"], &[], false),
            (&["pods/exec"], &["b"], true),
            (&["pods/exec"], &["c"], false),
        ] {
            assert_eq!(exec.granted_by(&rule(resources, names), false), covered, "{resources:?} {names:?}");
        }
        assert!(!of("GET", "/api/v1/namespaces/a/pods/b/exec").granted_by(&rule(&["pods/exec"], &[]), true));
        let path = of("GET", "/apis/apps");
        let urls = json!({"nonResourceURLs": ["/apis/*"], "verbs": ["get"]});
        assert!(path.granted_by(&urls, true) && !path.granted_by(&urls, false));
        assert!(!of("GET", "/api").granted_by(&urls, true));
    }
}
