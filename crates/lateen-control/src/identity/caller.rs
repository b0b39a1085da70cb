//! Who calls: the identity that a certificate or a service-account token proves.

use std::fmt;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use kube::Client;
use kube::api::{Api, PostParams};
use lateen_identity::peer::peer_id;
use lateen_identity::service::TOKEN_AUDIENCE;
use lateen_identity::{SpiffeId, TrustDomain};
use lateen_xds::server::Caller;
use tonic::Status;

/// Prefix of a service account's user name.
const ACCOUNT_PREFIX: &str = "system:serviceaccount:";
/// Where a token that is bound to a pod names it.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";

/// A proved identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) id: SpiffeId,
    pub(crate) namespace: String,
    pub(crate) account: String,
    /// The pod that a token is bound to, if it is.
    pub(crate) pod: Option<String>,
}

/// Finds out who calls.
#[derive(Clone)]
pub(crate) struct Authenticator {
    client: Client,
    domain: TrustDomain,
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Authenticator({})", self.domain)
    }
}

impl Authenticator {
    pub(crate) fn new(client: Client, domain: TrustDomain) -> Self {
        Self { client, domain }
    }

    /// The identity that a caller proved. A certificate was verified in the handshake; a token is asked about.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` when nothing is proved, `UNAVAILABLE` when the API server cannot be asked.
    pub(crate) async fn identify(&self, caller: &Caller) -> Result<Identity, Status> {
        if !caller.certificates.is_empty() {
            let id = peer_id(Some(&caller.certificates[..]))
                .map_err(|error| Status::unauthenticated(error.to_string()))?;
            return self.of_certificate(id);
        }
        let Some(token) = &caller.token else {
            return Err(Status::unauthenticated(
                "show a service-account token for the audience istio-ca, or a certificate of the mesh",
            ));
        };
        let review = self.review(token).await?;
        self.of_review(&review)
    }

    fn of_certificate(&self, id: SpiffeId) -> Result<Identity, Status> {
        let Some((namespace, account)) = id.namespace_and_account() else {
            return Err(Status::unauthenticated(format!(
                "{id} names no service account"
            )));
        };
        Ok(Identity {
            namespace: namespace.to_owned(),
            account: account.to_owned(),
            pod: None,
            id,
        })
    }

    async fn review(&self, token: &str) -> Result<TokenReview, Status> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                audiences: Some(vec![TOKEN_AUDIENCE.to_owned()]),
                token: token.to_owned(),
            },
            ..TokenReview::default()
        };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        api.create(&PostParams::default(), &review)
            .await
            .map_err(|error| Status::unavailable(format!("the token cannot be checked: {error}")))
    }

    fn of_review(&self, review: &TokenReview) -> Result<Identity, Status> {
        let refused = |reason: &str| Status::unauthenticated(format!("the token {reason}"));
        let status = review.status.as_ref();
        let status = status.ok_or_else(|| refused("was not checked"))?;
        if status.authenticated != Some(true) {
            let why = status.error.as_deref().unwrap_or("is not valid");
            return Err(refused(why));
        }
        // An API server that does not know of audiences leaves them out: its word is no proof then.
        let audiences = status.audiences.iter().flatten();
        if !audiences.into_iter().any(|one| one == TOKEN_AUDIENCE) {
            return Err(refused("is not for the audience istio-ca"));
        }
        let user = status.user.as_ref();
        let user = user.ok_or_else(|| refused("names nobody"))?;
        let (namespace, account) =
            service_account(user).ok_or_else(|| refused("is not of a service account"))?;
        let id = SpiffeId::workload(&self.domain, namespace, account)
            .map_err(|error| refused(&error.to_string()))?;
        let pod = user.extra.as_ref().and_then(|extra| extra.get(POD_NAME));
        Ok(Identity {
            id,
            namespace: namespace.to_owned(),
            account: account.to_owned(),
            pod: pod.and_then(|names| names.first().cloned()),
        })
    }
}

/// Namespace and name of a user that is a service account.
fn service_account(user: &UserInfo) -> Option<(&str, &str)> {
    let rest = user.username.as_deref()?.strip_prefix(ACCOUNT_PREFIX)?;
    let (namespace, account) = rest.split_once(':')?;
    let whole = !namespace.is_empty() && !account.is_empty() && !account.contains(':');
    whole.then_some((namespace, account))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tonic::Code;

    use super::*;

    fn authenticator() -> Authenticator {
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let client = Client::try_from(config).unwrap();
        Authenticator::new(client, "cluster.local".parse().unwrap())
    }

    #[tokio::test]
    async fn reviews_prove_service_accounts_and_nobody_else() {
        let authenticator = authenticator();
        let check = |status: Value, expected: Option<&str>| {
            let review = json!({"spec": {}, "status": status});
            let review: TokenReview = serde_json::from_value(review).unwrap();
            let found = authenticator.of_review(&review);
            match expected {
                Some(id) => assert_eq!(found.unwrap().id.to_string(), id),
                None => assert_eq!(found.unwrap_err().code(), Code::Unauthenticated, "{status}"),
            }
        };
        let user = |name: &str| json!({"username": name});
        let good = "system:serviceaccount:default:web";
        check(
            json!({"authenticated": true, "audiences": ["istio-ca"], "user": user(good)}),
            Some("spiffe://cluster.local/ns/default/sa/web"),
        );
        for status in [
            json!({}),
            json!({"authenticated": false, "audiences": ["istio-ca"], "user": user(good)}),
            json!({"authenticated": true, "user": user(good)}),
            json!({"authenticated": true, "audiences": ["other"], "user": user(good)}),
            json!({"authenticated": true, "audiences": ["istio-ca"]}),
            json!({"authenticated": true, "audiences": ["istio-ca"], "user": user("admin")}),
            json!({"authenticated": true, "audiences": ["istio-ca"], "user": user("system:serviceaccount:default")}),
            json!({"authenticated": true, "audiences": ["istio-ca"], "user": user("system:serviceaccount:a:b:c")}),
            json!({"authenticated": true, "audiences": ["istio-ca"], "user": user("system:serviceaccount:a/b:c")}),
        ] {
            check(status, None);
        }
    }

    #[tokio::test]
    async fn callers_without_proof_are_refused() {
        let peer = lateen_xds::server::Peer::Unix;
        let status = authenticator()
            .identify(&Caller::anonymous(peer))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
    }
}
