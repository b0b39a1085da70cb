//! Pods as processes in namespaces: network, DNS, images, probes, logs and the kubelet endpoint.
