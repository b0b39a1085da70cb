//! The status of Lateen's own kinds and of the Gateway API's, kept as the mesh is.
//!
//! Every replica of the control plane writes: they see the same objects and say the same of them, and what is said
//! already is not written again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use lateen_api::Kind;
use lateen_api::gateway_api::{
    GatewayClassSpec, GatewaySpec, GrpcRouteSpec, HttpRouteSpec, TcpRouteSpec, TlsRouteSpec,
};
use lateen_api::lateen::{BodyToHeadersSpec, RedisStore, StickySessionSpec};
use lateen_mesh::index::{self, PolicyStatus};
use lateen_mesh::{Key, ObjectKind};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use crate::engine::World;
use crate::gateway_status;
use crate::identity::GatewaySecrets;
use crate::store_probe;
use crate::watch::Refused;

/// Changes within this time are told together.
const PAUSE: Duration = Duration::from_millis(100);
/// How long to wait after a write that failed.
const RETRY: Duration = Duration::from_secs(1);

/// How often the servers of sticky sessions are asked.
const PROBE: Duration = Duration::from_secs(10);

/// What is known of the servers of sticky sessions.
type Stores = BTreeMap<Key, index::Condition>;

/// Writes what becomes of each policy, gateway and route, for ever.
pub(crate) async fn keep(world: Arc<World>, client: Client, secrets: Arc<GatewaySecrets>) {
    let mut state = world.state();
    if state.wait_for(|state| state.synced).await.is_err() {
        return;
    }
    let mut stores = Stores::new();
    let mut next_probe = Instant::now();
    loop {
        let wanted = wanted_stores(&world);
        let is_known = |key: &Key| stores.contains_key(key);
        if next_probe <= Instant::now() || !wanted.iter().all(|(key, _)| is_known(key)) {
            let probes = wanted.iter().map(|store| probe(&world, &secrets, store));
            let found = futures_util::future::join_all(probes).await;
            stores = found.into_iter().flatten().collect();
            next_probe = Instant::now() + PROBE;
        }
        let mut failed = false;
        for (kind, key, status) in due(&world, &secrets, &stores, Timestamp::now()) {
            failed |= write(&client, kind, &key, &status).await.is_err();
        }
        if failed {
            tokio::time::sleep(RETRY).await;
        } else {
            tokio::select! {
                changed = state.changed() => if changed.is_err() {
                    return;
                },
                () = sleep_until(next_probe), if !wanted.is_empty() => {}
            }
        }
        tokio::time::sleep(PAUSE).await;
        // What came meanwhile is part of the next look.
        state.mark_unchanged();
    }
}

/// The servers that sticky sessions are shared in, by policy.
fn wanted_stores(world: &World) -> Vec<(Key, RedisStore)> {
    let index = world.index.read();
    let with_store = |status: PolicyStatus| Some((status.key, status.store?));
    index.policy_statuses().filter_map(with_store).collect()
}

async fn probe(
    world: &Arc<World>,
    secrets: &GatewaySecrets,
    (key, store): &(Key, RedisStore),
) -> Option<(Key, index::Condition)> {
    // Without the Secrets nothing can be said; the next look will.
    let secrets = secrets.listed(world, &key.namespace).await.ok()?;
    Some((key.clone(), store_probe::condition(store, &secrets).await))
}

/// The objects whose status does not say what it should, with the fields that it should have.
fn due(
    world: &Arc<World>,
    secrets: &GatewaySecrets,
    stores: &Stores,
    now: Timestamp,
) -> Vec<(ObjectKind, Key, Value)> {
    let conditions = |conditions: Vec<Condition>| json!({ "conditions": conditions });
    // In the engine's order: it notes refusals while it writes the index.
    let index = world.index.read();
    let refused = world.refused.read();
    let own = refused.values().filter(|refused| is_policy(refused.kind));
    let invalid = own.filter_map(|refused| {
        let status = refused.status.as_ref();
        let found = updated(&of_refused(refused), refused.generation, status, now);
        Some((refused.kind, refused.key.clone(), conditions(found?)))
    });
    let judged = index.policy_statuses().filter_map(|status| {
        // A refused change of a good object: that is the news, not how the good form fares.
        if refused.contains_key(&(status.kind, status.key.clone())) {
            return None;
        }
        let mut wanted = status.conditions;
        if status.store.is_some() {
            wanted.extend(stores.get(&status.key).cloned());
        }
        let found = updated(&wanted, status.generation, status.current.as_ref(), now);
        Some((status.kind, status.key, conditions(found?)))
    });
    let of_gateway_api = index.gateway_api_statuses().into_iter();
    let of_gateway_api = of_gateway_api.filter_map(|mut status| {
        gateway_status::look_at_certificates(&mut status, |secret| {
            let known = secrets.of_namespace(world, &secret.namespace);
            known.certificate_problem(&secret.name)
        });
        let fields = gateway_status::wanted(&status, now);
        Some((status.kind, status.key, fields?))
    });
    invalid.chain(judged).chain(of_gateway_api).collect()
}

/// Whether the conditions of a kind are those of the whole object, and ours.
fn is_policy(kind: ObjectKind) -> bool {
    matches!(kind, ObjectKind::StickySession | ObjectKind::BodyToHeaders)
}

fn of_refused(refused: &Refused) -> [index::Condition; 1] {
    [index::Condition {
        kind: "Accepted",
        holds: false,
        reason: "Invalid",
        message: refused.reason.clone(),
    }]
}

/// The conditions to write, unless the current status says the same.
fn updated(
    wanted: &[index::Condition],
    generation: i64,
    status: Option<&Value>,
    now: Timestamp,
) -> Option<Vec<Condition>> {
    let current = status.map(|status| status["conditions"].clone());
    let current: Vec<Condition> = current
        .and_then(|conditions| serde_json::from_value(conditions).ok())
        .unwrap_or_default();
    let wanted = with_times(wanted, generation, &current, now);
    (wanted != current).then_some(wanted)
}

/// Conditions as they are written. One that holds, or does not, as before keeps the time of its last transition.
pub(crate) fn with_times(
    wanted: &[index::Condition],
    generation: i64,
    current: &[Condition],
    now: Timestamp,
) -> Vec<Condition> {
    wanted
        .iter()
        .map(|condition| {
            let status = if condition.holds { "True" } else { "False" };
            let mut before = current.iter();
            let before = before.find(|old| old.type_ == condition.kind && old.status == status);
            Condition {
                type_: condition.kind.to_owned(),
                status: status.to_owned(),
                reason: condition.reason.to_owned(),
                message: condition.message.clone(),
                observed_generation: Some(generation),
                last_transition_time: before
                    .map_or_else(|| Time(now), |before| before.last_transition_time.clone()),
            }
        })
        .collect()
}

async fn write(
    client: &Client,
    kind: ObjectKind,
    key: &Key,
    status: &Value,
) -> Result<(), kube::Error> {
    let Some(resource) = resource(kind) else {
        return Ok(());
    };
    let api: Api<DynamicObject> = match key.namespace.as_str() {
        "" => Api::all_with(client.clone(), &resource),
        namespace => Api::namespaced_with(client.clone(), namespace, &resource),
    };
    let patch = Patch::Merge(json!({ "status": status }));
    match api
        .patch_status(&key.name, &PatchParams::default(), &patch)
        .await
    {
        Ok(_) => Ok(()),
        // It was deleted: the watch tells.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => {
            let Key { namespace, name } = key;
            tracing::warn!(?kind, namespace, name, %error, "cannot write the status");
            Err(error)
        }
    }
}

/// How the kinds that have a status of ours are served.
fn resource(kind: ObjectKind) -> Option<ApiResource> {
    fn of<S: Kind>() -> ApiResource {
        let gvk = GroupVersionKind::gvk(S::GROUP, S::VERSIONS[0], S::KIND);
        ApiResource::from_gvk_with_plural(&gvk, S::PLURAL)
    }
    match kind {
        ObjectKind::StickySession => Some(of::<StickySessionSpec>()),
        ObjectKind::BodyToHeaders => Some(of::<BodyToHeadersSpec>()),
        ObjectKind::GatewayClass => Some(of::<GatewayClassSpec>()),
        ObjectKind::KubernetesGateway => Some(of::<GatewaySpec>()),
        ObjectKind::HttpRoute => Some(of::<HttpRouteSpec>()),
        ObjectKind::GrpcRoute => Some(of::<GrpcRouteSpec>()),
        ObjectKind::TcpRoute => Some(of::<TcpRouteSpec>()),
        ObjectKind::TlsRoute => Some(of::<TlsRouteSpec>()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn accepted(holds: bool, message: &str) -> index::Condition {
        index::Condition {
            kind: "Accepted",
            holds,
            reason: "Reason",
            message: message.to_owned(),
        }
    }

    /// What is written at second 20 when at second 10 a condition was.
    fn check(
        before: &index::Condition,
        after: &index::Condition,
        generation: i64,
        expected: Option<i64>,
    ) {
        let first = updated(std::slice::from_ref(before), 1, None, at(10)).expect("news");
        let status = json!({"conditions": first});
        let found = updated(
            std::slice::from_ref(after),
            generation,
            Some(&status),
            at(20),
        );
        let found = found.map(|conditions| conditions[0].last_transition_time.0);
        assert_eq!(found, expected.map(at), "{before:?} {after:?}");
    }

    #[test]
    fn a_status_is_written_when_it_says_something_new() {
        let good = accepted(true, "a");
        check(&good, &good, 1, None);
        check(&good, &good, 2, Some(10));
        check(&good, &accepted(true, "b"), 1, Some(10));
        check(&good, &accepted(false, "a"), 1, Some(20));
    }
}
