"""Makes a snapshot of a recording of istiod: JSON with `clusters`, `endpoints`, `listeners` and `routes`.

Addresses in a recording are placeholders (`pod:NAME`, `vip:NAME`) or those of another network, and its certificates come from
an agent. So: endpoints become loopback upstreams that say which cluster they stand for, secrets come over ADS, filters
that only Istio's own Envoy has are left out, delays are cut short, and all traces are sampled. Everything else is as
istiod sent it. Requests follow from listeners, filter chains and routes (`walk.py`).
"""

import ipaddress
import json

import samples
import walk

UPSTREAM_PORT = 7070
LONGEST_DELAY = 0.1
TYPE = "type.googleapis.com/"
SELF = "spiffe://cluster.local/ns/default/sa/conformance"


def name_of(path):
    """A snapshot's name: recordings of different scenarios have steps of the same name."""
    return f"{path.parent.name}.{path.stem}" if path.suffix == ".json" else path.stem


class Addresses:
    """Numbers for the names of pods and services, the same for the same recording."""

    def __init__(self):
        self.known = {}

    def of(self, text):
        try:
            return str(ipaddress.ip_address(text))
        except ValueError:
            return self.known.setdefault(text, str(ipaddress.ip_address("10.1.0.1") + len(self.known)))


def every(value):
    """All objects inside a JSON value, the value itself first."""
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from every(item)


def foreign(config):
    """Whether a filter is one that a stock Envoy does not have."""
    url = config.get("typedConfig", {}).get("@type", TYPE + "envoy.")
    return not url.removeprefix(TYPE).startswith("envoy.extensions.") and "typedConfig" in config


def adapt(resource, addresses):
    """What must be otherwise here, in place."""
    for each in every(resource):
        for key in ("httpFilters", "listenerFilters", "filters"):
            if isinstance(each.get(key), list):
                each[key] = [entry for entry in each[key] if not foreign(entry)]
        if "sdsConfig" in each:
            each["sdsConfig"] = {"ads": {}, "resourceApiVersion": "V3", "initialFetchTimeout": "0s"}
        if "fixedDelay" in each:
            each["fixedDelay"] = f"{min(walk.seconds(each['fixedDelay']), LONGEST_DELAY)}s"
        if "randomSampling" in each:
            each["randomSampling"] = {"value": 100}
        if isinstance(each.get("address"), str):
            each["address"] = addresses.of(each["address"])
        if isinstance(each.get("addressPrefix"), str):
            each["addressPrefix"] = addresses.of(each["addressPrefix"])
        for host in each.get("virtualHosts", []):
            host["domains"] = [addresses.of(domain) if domain.startswith(("vip:", "pod:")) else domain
                               for domain in host["domains"]]


def loopback(clusters, assignments):
    """Gives every endpoint a loopback address of its own; returns which upstream it is."""
    hashed = {each.get("edsClusterConfig", {}).get("serviceName") or each["name"] for each in clusters
              if each.get("lbPolicy") in walk.HASHING}
    inline = [each["loadAssignment"] for each in clusters if "loadAssignment" in each]
    names, following = {}, ipaddress.ip_address("127.1.0.1")
    for assignment in assignments + inline:
        cluster = assignment["clusterName"]
        for number, endpoint in enumerate(each["endpoint"] for locality in assignment.get("endpoints", [])
                                          for each in locality.get("lbEndpoints", []) if "endpoint" in each):
            if "socketAddress" not in endpoint["address"]:
                continue
            endpoint["address"]["socketAddress"] = {"address": str(following), "portValue": UPSTREAM_PORT}
            # Which endpoint it was is chance, unless a hash says.
            names[str(following)] = f"{cluster} {number}" if cluster in hashed else cluster
            following += 1
    return names


def secrets(resources):
    """The names of secrets that are referred to: certificates, and authorities."""
    owners, authorities = set(), set()
    for each in every(resources):
        owners |= {one["name"] for one in each.get("tlsCertificateSdsSecretConfigs", [])}
        if "validationContextSdsSecretConfig" in each:
            authorities.add(each["validationContextSdsSecretConfig"]["name"])
    return owners, authorities


def subjects(resources):
    """Names that certificates need so that peers are content with them."""
    found = set()
    for each in every(resources):
        typed = [one["matcher"] for one in each.get("matchTypedSubjectAltNames", [])]
        for matcher in each.get("matchSubjectAltNames", []) + typed:
            found.add(samples.string(matcher))
    uris = {name for name in found if "://" in name}
    return sorted(uris) or [SELF], sorted(found - uris)


def snapshot(path):
    """The recording as a snapshot for `play.py`."""
    resources = json.loads(path.read_text())
    resources = {kind: resources.get(kind, []) for kind in ("clusters", "endpoints", "listeners", "routes")}
    names = loopback(resources["clusters"], resources["endpoints"])
    adapt(resources, Addresses())
    uris, dns = subjects(resources)
    owners, authorities = secrets(resources)
    resources["secrets"] = [{"name": name, "tls_certificate": {
        "certificate_chain": {"inline_string": "$chain:proxy"}, "private_key": {"inline_string": "$key:proxy"}}} for name in sorted(owners)]
    resources["secrets"] += [{"name": name, "validation_context": {"trusted_ca": {"inline_string": "$chain:authority"}}}
                             for name in sorted(authorities)]
    made = walk.Walk(resources)
    return {
        "tier": "recordings",
        "certificates": {
            "authority": {"authority": True}, "stranger-authority": {"authority": True},
            "proxy": {"by": "authority", "uris": [SELF]}, "upstream": {"by": "authority", "uris": uris, "dns": dns},
            "client": {"by": "authority", "uris": [*uris, SELF]}, "stranger": {"by": "stranger-authority", "uris": [SELF]}},
        "resources": resources,
        "redirects": made.redirects,
        "network": {"names": names, "port": UPSTREAM_PORT, "ports": sorted(made.destinations), "identity": "upstream"},
        "requests": made.requests,
    }
