package main

import (
	admissionregistration "k8s.io/api/admissionregistration/v1"
	apps "k8s.io/api/apps/v1"
	appsv1beta1 "k8s.io/api/apps/v1beta1"
	authentication "k8s.io/api/authentication/v1"
	authorization "k8s.io/api/authorization/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	coordination "k8s.io/api/coordination/v1"
	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	events "k8s.io/api/events/v1"
	extensionsv1beta1 "k8s.io/api/extensions/v1beta1"
	policy "k8s.io/api/policy/v1"
	rbac "k8s.io/api/rbac/v1"
	scheduling "k8s.io/api/scheduling/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// roots are the kinds that lateen-cluster stores, and those that it takes as the body of a request.
func roots() []any {
	return []any{
		core.Binding{}, core.ConfigMap{}, core.Endpoints{}, core.Event{}, core.Namespace{}, core.Node{}, core.Pod{},
		core.Secret{}, core.Service{}, core.ServiceAccount{},
		apps.ControllerRevision{}, apps.Deployment{}, apps.ReplicaSet{}, apps.StatefulSet{},
		appsv1beta1.Deployment{}, appsv1beta1.Scale{}, appsv1beta1.StatefulSet{},
		extensionsv1beta1.Deployment{}, extensionsv1beta1.ReplicaSet{}, extensionsv1beta1.Scale{},
		autoscalingv1.HorizontalPodAutoscaler{}, autoscalingv1.Scale{}, autoscalingv2.HorizontalPodAutoscaler{},
		admissionregistration.MutatingWebhookConfiguration{}, admissionregistration.ValidatingWebhookConfiguration{},
		admissionregistration.ValidatingAdmissionPolicy{}, admissionregistration.ValidatingAdmissionPolicyBinding{},
		apiextensions.CustomResourceDefinition{},
		authentication.SelfSubjectReview{}, authentication.TokenRequest{}, authentication.TokenReview{},
		authorization.LocalSubjectAccessReview{}, authorization.SelfSubjectAccessReview{},
		authorization.SelfSubjectRulesReview{}, authorization.SubjectAccessReview{},
		coordination.Lease{}, discovery.EndpointSlice{}, events.Event{},
		policy.Eviction{}, policy.PodDisruptionBudget{},
		rbac.ClusterRole{}, rbac.ClusterRoleBinding{}, rbac.Role{}, rbac.RoleBinding{},
		scheduling.PriorityClass{},
		meta.DeleteOptions{}, meta.Patch{}, meta.Status{},
	}
}
