//! Service addresses as nftables rules: what kube-proxy does.
