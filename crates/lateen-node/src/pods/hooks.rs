//! Lifecycle hooks: `postStart` and `preStop`.

use std::time::Duration;

use k8s_openapi::api::core::v1::LifecycleHandler;

use super::probe;
use super::supervise::Run;

/// Runs the hook, for at most `limit`.
///
/// # Errors
/// With the reason, as the event shows it.
pub(crate) async fn run(
    run: &Run,
    handler: &LifecycleHandler,
    limit: Duration,
) -> Result<(), String> {
    if let Some(action) = &handler.exec {
        probe::exec_action(run, action, limit).await
    } else if let Some(action) = &handler.http_get {
        probe::http_get(&run.network, &run.container, action, limit).await
    } else if let Some(sleep) = &handler.sleep {
        let wanted = Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0));
        tokio::time::sleep(wanted.min(limit)).await;
        Ok(())
    } else {
        // tcpSocket is accepted by Kubernetes for old objects, and does nothing there either.
        Ok(())
    }
}
