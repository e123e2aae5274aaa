//! Who asks: the administrator, or a service account by a token that was issued here.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::json::{deleting, name, namespace, text};
use crate::server::Cluster;
use crate::store::Store;

/// The group that may do everything, whatever roles there are.
const MASTERS: &str = "system:masters";
const AUTHENTICATED: &str = "system:authenticated";
/// What the names of service accounts begin with.
const ACCOUNTS: &str = "system:serviceaccount:";

/// The holder of the kubeconfig's token.
pub(crate) static ADMIN: LazyLock<User> =
    LazyLock::new(|| User { name: "kubernetes-admin".into(), groups: vec![MASTERS.into(), AUTHENTICATED.into()] });

/// A user, as Kubernetes names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) groups: Vec<String>,
}

impl User {
    /// A service account.
    pub(crate) fn service_account(namespace: &str, name: &str) -> Self {
        Self {
            name: account_name(namespace, name),
            groups: vec![
                "system:serviceaccounts".into(),
                format!("system:serviceaccounts:{namespace}"),
                AUTHENTICATED.into(),
            ],
        }
    }

    /// Whom a request wants to be taken for (`kubectl --as`), if it says so.
    pub(crate) fn impersonated(headers: &HeaderMap) -> Option<Self> {
        let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
        let name = headers.get("impersonate-user").map(text)?;
        let mut groups: Vec<String> = headers.get_all("impersonate-group").iter().map(text).collect();
        if groups.is_empty()
            && let Some((namespace, account)) = name.strip_prefix(ACCOUNTS).and_then(|rest| rest.split_once(':'))
        {
            return Some(Self::service_account(namespace, account));
        }
        groups.push(AUTHENTICATED.into());
        Some(Self { name, groups })
    }

    /// Whether roles do not matter.
    pub(crate) fn may_everything(&self) -> bool {
        self.groups.iter().any(|group| group == MASTERS)
    }

    /// As reviews and admission policies show it.
    pub(crate) fn info(&self) -> Value {
        json!({"username": self.name, "groups": self.groups})
    }
}

/// The user name of a service account.
pub(crate) fn account_name(namespace: &str, name: &str) -> String {
    format!("{ACCOUNTS}{namespace}:{name}")
}

/// Tokens that were issued to service accounts. Each dies with its account and at its time.
#[derive(Default)]
pub(crate) struct Tokens {
    issued: Mutex<HashMap<String, Issued>>,
}

struct Issued {
    namespace: String,
    name: String,
    uid: String,
    until: Timestamp,
}

impl Tokens {
    /// A new token of an account, and until when it is good.
    pub(crate) fn issue(&self, account: &Value, lifetime: Duration) -> (String, Timestamp) {
        let token = format!("lab-{:032x}", rand::random::<u128>());
        let now = Timestamp::now();
        let until = now.checked_add(lifetime).unwrap_or(Timestamp::MAX);
        let issued = Issued {
            namespace: namespace(account).to_owned(),
            name: name(account).to_owned(),
            uid: text(account, &["metadata", "uid"]).to_owned(),
            until,
        };
        let mut all = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, other| other.until > now);
        all.insert(token.clone(), issued);
        (token, until)
    }

    /// The account that a token was issued to; `None` once either is gone.
    fn holder(&self, store: &Store, token: &str) -> Option<User> {
        let all = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        let issued = all.get(token).filter(|issued| issued.until > Timestamp::now())?;
        let account = store.get("serviceaccounts", &issued.namespace, &issued.name)?;
        let same = text(&account, &["metadata", "uid"]) == issued.uid && !deleting(&account);
        same.then(|| User::service_account(&issued.namespace, &issued.name))
    }
}

impl Cluster {
    /// Whose token this is.
    pub(crate) fn user(&self, token: &str) -> Option<User> {
        if same(token.as_bytes(), self.config.admin_token.as_bytes()) {
            return Some(ADMIN.clone());
        }
        self.tokens.holder(&self.store, token)
    }
}

/// Compares in a time that depends on the lengths only.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |sum, (x, y)| sum | (x ^ y)) == 0
}
