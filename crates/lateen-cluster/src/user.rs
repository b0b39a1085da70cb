//! Who sends a request.

use serde_json::{Map, Value, json};

/// An authenticated client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Name, e.g. `admin` or `system:serviceaccount:default:robot`.
    pub name: String,
    /// Identity that is never given to another of the same name; may be empty.
    pub uid: String,
    /// Groups, e.g. `system:masters`.
    pub groups: Vec<String>,
    /// More facts, e.g. the pod that a token is bound to.
    pub extra: Vec<(String, String)>,
}

impl User {
    /// The one administrator, who holds the token of the kubeconfig or is part of this process.
    pub fn admin() -> Self {
        Self {
            name: "admin".to_owned(),
            uid: String::new(),
            groups: vec!["system:masters".into(), "system:authenticated".into()],
            extra: Vec::new(),
        }
    }

    /// A service account, as its tokens authenticate it.
    pub fn service_account(namespace: &str, name: &str, uid: &str) -> Self {
        Self {
            name: format!("system:serviceaccount:{namespace}:{name}"),
            uid: uid.to_owned(),
            groups: vec![
                "system:serviceaccounts".into(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".into(),
            ],
            extra: Vec::new(),
        }
    }

    /// `authentication.k8s.io/v1` `UserInfo`, as reviews and admission requests carry it.
    pub fn to_info(&self) -> Value {
        let mut info = json!({"username": self.name});
        if !self.uid.is_empty() {
            info["uid"] = json!(self.uid);
        }
        info["groups"] = json!(self.groups);
        if !self.extra.is_empty() {
            let extra: Map<String, Value> = self
                .extra
                .iter()
                .map(|(key, value)| (key.clone(), json!([value])))
                .collect();
            info["extra"] = Value::Object(extra);
        }
        info
    }
}
