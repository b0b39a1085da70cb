//! Certificates of listeners: how proxies ask for them, and who may have which.

use lateen_api::common::labels_match;

use crate::{Index, Key, Proxy, ProxyKind, index::SERVICE_ANNOTATION};

/// What certificates of the Gateway API's gateways are named after, as Istio has it.
const SCHEME: &str = "kubernetes-gateway://";
/// What the authorities of clients are named after the certificate.
const AUTHORITIES: &str = "-cacert";

/// The name on the discovery stream of a Secret.
pub(super) fn certificate_name(namespace: &str, name: &str) -> String {
    format!("{SCHEME}{namespace}/{name}")
}

/// Namespace and name of what a name on the discovery stream asks for; nothing for other names. The name has the suffix
/// of authorities, when those are asked for.
pub fn parse_certificate_name(name: &str) -> Option<Key> {
    let (namespace, name) = name.strip_prefix(SCHEME)?.split_once('/')?;
    Some(Key::new(namespace, name))
}

impl Index {
    /// Whether a gateway may have a certificate, or the authorities of its clients: a listener that it serves names the
    /// Secret. Listeners that name a Secret which they may not are not served at all.
    pub fn may_have_certificate(&self, proxy: &Proxy, name: &str) -> bool {
        let named = |credential: &String| {
            credential == name || name.strip_suffix(AUTHORITIES) == Some(credential)
        };
        proxy.kind == ProxyKind::Router
            && self.gateway_api.made.values().flatten().any(|key| {
                let gateway = self.gateways.get(key);
                let gateway = gateway.filter(|gateway| self.is_behind(proxy, gateway));
                let servers = gateway
                    .into_iter()
                    .flat_map(|gateway| &gateway.spec.servers);
                let mut settings = servers.filter_map(|server| server.tls.as_ref());
                settings.any(|tls| {
                    named(&tls.credential_name) || tls.credential_names.iter().any(named)
                })
            })
    }

    /// Whether a proxy is behind one of the services that a gateway names.
    fn is_behind(&self, proxy: &Proxy, gateway: &lateen_api::Gateway) -> bool {
        let annotations = gateway.metadata.annotations.as_ref();
        let hosts = annotations.and_then(|all| all.get(SERVICE_ANNOTATION));
        let mut hosts = hosts.iter().flat_map(|hosts| hosts.split(','));
        gateway.namespace() == proxy.namespace
            && hosts.any(|host| {
                let service = self.service_seen_from(host, &proxy.namespace);
                let own = service.filter(|service| service.namespace == proxy.namespace);
                let selector = own.and_then(|service| service.selector.as_ref());
                selector.is_some_and(|selector| labels_match(selector, self.labels_of(proxy)))
            })
    }
}
