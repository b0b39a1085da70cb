//! What an autoscaler's status says.

use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus,
};

use crate::controllers::meta::now;

/// Sets a condition; the time of its last transition changes with its status alone.
pub(super) fn set_condition(
    status: &mut HorizontalPodAutoscalerStatus,
    type_: &str,
    holds: bool,
    reason: &str,
    message: impl Into<String>,
) {
    let conditions = status.conditions.get_or_insert_default();
    let position = conditions.iter().position(|one| one.type_ == type_);
    let position = position.unwrap_or_else(|| {
        conditions.push(HorizontalPodAutoscalerCondition {
            type_: type_.to_owned(),
            ..HorizontalPodAutoscalerCondition::default()
        });
        conditions.len() - 1
    });
    let condition = &mut conditions[position];
    let text = if holds { "True" } else { "False" };
    if condition.status != text {
        condition.status = text.to_owned();
        condition.last_transition_time = Some(now());
    }
    condition.reason = Some(reason.to_owned());
    condition.message = Some(message.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_time_while_its_status_stays() {
        let mut status = HorizontalPodAutoscalerStatus::default();
        set_condition(&mut status, "AbleToScale", true, "A", "a");
        let of =
            |status: &HorizontalPodAutoscalerStatus| status.conditions.clone().unwrap_or_default();
        let long_ago = k8s_openapi::jiff::Timestamp::UNIX_EPOCH;
        if let Some(conditions) = &mut status.conditions {
            conditions[0].last_transition_time = Some(
                k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(long_ago),
            );
        }
        set_condition(&mut status, "AbleToScale", true, "B", "b");
        assert_eq!(of(&status)[0].reason.as_deref(), Some("B"));
        assert_eq!(
            of(&status)[0].last_transition_time.as_ref().map(|t| t.0),
            Some(long_ago)
        );
        set_condition(&mut status, "AbleToScale", false, "C", "c");
        assert_ne!(
            of(&status)[0].last_transition_time.as_ref().map(|t| t.0),
            Some(long_ago)
        );
        assert_eq!(of(&status).len(), 1);
    }
}
