//! Bearer tokens: the administrator's, which is random, and those of service accounts, which are signed.

mod jwt;

use std::path::Path;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use jwt::Signer;
use serde_json::{Value, json};

use crate::serving::{CertificateError, read, write_private};
use crate::status::{Result, Status};
use crate::store::{Key, Store};
use crate::user::User;
use crate::{clock, names};

/// Who signs service-account tokens, and whom they are for when nothing else is asked.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Life of a token in seconds: the default, and the least and most that can be asked for.
const LIFE: (i64, i64, i64) = (3600, 600, 48 * 3600);

/// The keys to the server.
pub(crate) struct Tokens {
    admin: String,
    signer: Signer,
}

/// What a token is asked for with.
pub(crate) struct TokenRequest<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) account: &'a str,
    pub(crate) account_uid: &'a str,
    pub(crate) audiences: Vec<String>,
    pub(crate) seconds: Option<i64>,
    /// Name and uid of the pod whose life bounds the token's.
    pub(crate) pod: Option<(String, String)>,
}

impl Tokens {
    /// Loads the keys of the state folder, or makes them.
    pub(crate) fn open(folder: &Path) -> Result<Self, CertificateError> {
        let admin = keep(&folder.join("admin.token"), || Some(names::secret()))?;
        let path = folder.join("service-accounts.key");
        let key = keep(&path, Signer::generate)?;
        let signer = Signer::parse(&key).ok_or_else(|| CertificateError::File {
            source: std::io::Error::other("the key in it is damaged"),
            path,
        })?;
        Ok(Self { admin, signer })
    }

    /// The administrator's token.
    pub(crate) fn admin(&self) -> &str {
        &self.admin
    }

    /// Who sends a request: `None` for a request without a token, an error for one with a wrong token.
    pub(crate) fn authenticate(&self, headers: &HeaderMap, store: &Store) -> Result<Option<User>> {
        let Some(header) = headers.get(AUTHORIZATION) else {
            return Ok(None);
        };
        let unauthorized = || Status::new(401, "Unauthorized", "Unauthorized");
        let text = header.to_str().map_err(|_error| unauthorized())?;
        let (scheme, token) = text.split_once(' ').ok_or_else(unauthorized)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(unauthorized());
        }
        let (user, _) = self
            .identify(token.trim(), &[ISSUER.to_owned()], store)
            .ok_or_else(unauthorized)?;
        Ok(Some(user))
    }

    /// The holder of a token that is good for one of `audiences`, and those of them that it is good for.
    pub(crate) fn identify(
        &self,
        token: &str,
        audiences: &[String],
        store: &Store,
    ) -> Option<(User, Vec<String>)> {
        if equal(token.as_bytes(), self.admin.as_bytes()) {
            return Some((User::admin(), audiences.to_vec()));
        }
        let claims = self.signer.verify(token)?;
        if claims["exp"].as_i64()? < clock::unix() {
            return None;
        }
        let held = claims["aud"].as_array()?;
        let good: Vec<String> = audiences
            .iter()
            .filter(|audience| held.iter().any(|entry| entry == *audience))
            .cloned()
            .collect();
        if good.is_empty() {
            return None;
        }
        let about = &claims["kubernetes.io"];
        let namespace = about["namespace"].as_str()?;
        let account = &about["serviceaccount"];
        let (name, uid) = (account["name"].as_str()?, account["uid"].as_str()?);
        // A token dies with the account, and with the pod it was made for.
        alive(store, "serviceaccounts", namespace, name, uid)?;
        let mut user = User::service_account(namespace, name, uid);
        if let Some(pod) = about.get("pod") {
            let (name, uid) = (pod["name"].as_str()?, pod["uid"].as_str()?);
            alive(store, "pods", namespace, name, uid)?;
            user.extra = vec![
                (
                    "authentication.kubernetes.io/pod-name".to_owned(),
                    name.to_owned(),
                ),
                (
                    "authentication.kubernetes.io/pod-uid".to_owned(),
                    uid.to_owned(),
                ),
            ];
        }
        Some((user, good))
    }

    /// A new token and when it expires.
    pub(crate) fn issue(&self, request: TokenRequest<'_>) -> Result<(String, String)> {
        let (default, least, most) = LIFE;
        let life = request.seconds.unwrap_or(default).clamp(least, most);
        let now = clock::unix();
        let audiences = if request.audiences.is_empty() {
            vec![ISSUER.to_owned()]
        } else {
            request.audiences
        };
        let mut about = json!({
            "namespace": request.namespace,
            "serviceaccount": {"name": request.account, "uid": request.account_uid},
        });
        if let Some((name, uid)) = request.pod {
            about["pod"] = json!({"name": name, "uid": uid});
        }
        let claims = json!({
            "aud": audiences,
            "exp": now + life,
            "iat": now,
            "iss": ISSUER,
            "jti": names::uid(),
            "kubernetes.io": about,
            "nbf": now,
            "sub": format!("system:serviceaccount:{}:{}", request.namespace, request.account),
        });
        let token = self
            .signer
            .sign(&claims)
            .ok_or_else(|| Status::internal("cannot sign a token"))?;
        Ok((token, clock::after(life)))
    }

    /// The key by which others can verify service-account tokens.
    pub(crate) fn key_set(&self) -> Value {
        self.signer.key_set()
    }
}

/// `Some` when the object exists with this uid.
fn alive(store: &Store, resource: &str, namespace: &str, name: &str, uid: &str) -> Option<()> {
    let key = Key {
        resource: resource.into(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    let object = store.get(&key)?;
    (object["metadata"]["uid"] == uid).then_some(())
}

/// The text of a private file, which is made when it does not exist.
fn keep(path: &Path, make: impl FnOnce() -> Option<String>) -> Result<String, CertificateError> {
    if let Some(text) = read(path)? {
        return Ok(text.trim().to_owned());
    }
    let text = make().ok_or_else(|| CertificateError::File {
        path: path.to_owned(),
        source: std::io::Error::other("the system gives no randomness"),
    })?;
    write_private(path, &text)?;
    Ok(text)
}

/// Compares in a time that tells nothing of where two secrets differ.
fn equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && one
            .iter()
            .zip(other)
            .fold(0, |difference, (a, b)| difference | (a ^ b))
            == 0
}
