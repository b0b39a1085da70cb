//! CustomResourceDefinitions, derived from the Rust types.
//!
//! The definitions have Istio's names, short names, categories, versions and printer columns, so that `kubectl` and
//! other tools find what they know. Only kinds that are served are defined: a kind that would be stored and ignored
//! would mislead its user.

pub(crate) mod rules;
mod structural;

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Value, json};

use crate::{
    Kind,
    gateway_api::{
        self, GatewayClassSpec, GrpcRouteSpec, HttpRouteSpec, ReferenceGrantSpec, TcpRouteSpec,
        TlsRouteSpec,
    },
    lateen::{BodyToHeadersSpec, StickySessionSpec},
    networking::{
        DestinationRuleSpec, GatewaySpec, ServiceEntrySpec, SidecarSpec, VirtualServiceSpec,
        service_entry::WorkloadEntryBody,
    },
    security::PeerAuthenticationSpec,
};

/// A printer column: name, path, type and description.
type Column = (&'static str, &'static str, &'static str, &'static str);

/// Category of Lateen's own kinds.
const LATEEN: &str = "lateen";
/// Category of the Gateway API's kinds.
const GATEWAY_API: &str = "gateway-api";

/// API servers refuse definitions in groups of Kubernetes without it. The schemas are derived from our types, so nobody
/// upstream has approved them.
const APPROVAL: (&str, &str) = (
    "api-approved.kubernetes.io",
    "unapproved, the served subset of the Gateway API",
);

/// Whether a policy of Lateen's has an effect, as its status says.
const ACCEPTED: Column = (
    "Accepted",
    ".status.conditions[?(@.type==\"Accepted\")].status",
    "string",
    "Whether the policy is in effect",
);

const AGE: Column = (
    "Age",
    ".metadata.creationTimestamp",
    "date",
    "Time since the object was created",
);

/// What the types do not say about a kind.
struct Presentation {
    short_names: &'static [&'static str],
    category: &'static str,
    /// None at all leaves the columns to the server, which shows the age.
    columns: &'static [Column],
}

impl Presentation {
    /// Names under which `kubectl get` lists the kind with others.
    fn categories(&self) -> Vec<&'static str> {
        match self.category {
            own @ (LATEEN | GATEWAY_API) => vec![own],
            category => vec!["istio-io", category],
        }
    }
}

/// All definitions, sorted by name, as objects that an API server accepts.
pub fn all() -> Vec<Value> {
    let networking = "networking-istio-io";
    let mut definitions = vec![
        definition::<DestinationRuleSpec>(&Presentation {
            short_names: &["dr"],
            category: networking,
            columns: &[
                (
                    "Host",
                    ".spec.host",
                    "string",
                    "Service that the rule is for",
                ),
                AGE,
            ],
        }),
        definition::<GatewaySpec>(&Presentation {
            short_names: &["gw"],
            category: networking,
            columns: &[],
        }),
        definition::<PeerAuthenticationSpec>(&Presentation {
            short_names: &["pa"],
            category: "security-istio-io",
            columns: &[
                (
                    "Mode",
                    ".spec.mtls.mode",
                    "string",
                    "Which connections are accepted",
                ),
                AGE,
            ],
        }),
        definition::<ServiceEntrySpec>(&Presentation {
            short_names: &["se"],
            category: networking,
            columns: &[
                ("Hosts", ".spec.hosts", "string", "Names of the service"),
                (
                    "Location",
                    ".spec.location",
                    "string",
                    "Whether the service is part of the mesh",
                ),
                (
                    "Resolution",
                    ".spec.resolution",
                    "string",
                    "How addresses of endpoints are found",
                ),
                AGE,
            ],
        }),
        definition::<SidecarSpec>(&Presentation {
            short_names: &[],
            category: networking,
            columns: &[],
        }),
        definition::<WorkloadEntryBody>(&Presentation {
            short_names: &["we"],
            category: networking,
            columns: &[
                AGE,
                (
                    "Address",
                    ".spec.address",
                    "string",
                    "Address of the workload",
                ),
            ],
        }),
        definition::<VirtualServiceSpec>(&Presentation {
            short_names: &["vs"],
            category: networking,
            columns: &[
                (
                    "Gateways",
                    ".spec.gateways",
                    "string",
                    "Gateways that apply the rules",
                ),
                (
                    "Hosts",
                    ".spec.hosts",
                    "string",
                    "Hosts that the rules are for",
                ),
                AGE,
            ],
        }),
    ];
    definitions.push(definition::<BodyToHeadersSpec>(&Presentation {
        short_names: &[],
        category: LATEEN,
        columns: &[
            (
                "Targets",
                ".spec.targetRefs[*].name",
                "string",
                "Gateways whose requests are looked at",
            ),
            (
                "Headers",
                ".spec.fields[*].header",
                "string",
                "Headers that take fields of bodies",
            ),
            ACCEPTED,
            AGE,
        ],
    }));
    definitions.push(definition::<StickySessionSpec>(&Presentation {
        short_names: &[],
        category: LATEEN,
        columns: &[
            (
                "Targets",
                ".spec.targetRefs[*].name",
                "string",
                "Services that the session is for",
            ),
            (
                "Idle",
                ".spec.idleTimeout",
                "string",
                "Time without a request after which a client is free",
            ),
            ACCEPTED,
            AGE,
        ],
    }));
    definitions.extend(gateway_api());
    definitions.sort_by_key(|definition| definition["metadata"]["name"].to_string());
    definitions
}

/// The Gateway API's kinds, with its names and columns.
fn gateway_api() -> [Value; 7] {
    const HOSTNAMES: Column = (
        "Hostnames",
        ".spec.hostnames",
        "string",
        "Hosts at gateways",
    );
    let kind = |short_names, columns| Presentation {
        short_names,
        category: GATEWAY_API,
        columns,
    };
    [
        definition::<GatewayClassSpec>(&kind(
            &["gc"],
            &[
                (
                    "Controller",
                    ".spec.controllerName",
                    "string",
                    "Who takes care of gateways",
                ),
                ACCEPTED,
                AGE,
            ],
        )),
        definition::<gateway_api::GatewaySpec>(&kind(
            &["gtw"],
            &[
                (
                    "Class",
                    ".spec.gatewayClassName",
                    "string",
                    "Who takes care of it",
                ),
                (
                    "Address",
                    ".status.addresses[*].value",
                    "string",
                    "Where it is reached",
                ),
                (
                    "Programmed",
                    ".status.conditions[?(@.type==\"Programmed\")].status",
                    "string",
                    "Whether its proxies have its listeners",
                ),
                AGE,
            ],
        )),
        definition::<HttpRouteSpec>(&kind(&[], &[HOSTNAMES, AGE])),
        definition::<GrpcRouteSpec>(&kind(&[], &[HOSTNAMES, AGE])),
        definition::<TcpRouteSpec>(&kind(&[], &[AGE])),
        definition::<TlsRouteSpec>(&kind(&[], &[HOSTNAMES, AGE])),
        definition::<ReferenceGrantSpec>(&kind(&["refgrant"], &[AGE])),
    ]
}

/// The structural schema of a specification.
pub fn schema<S: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings
        .into_generator()
        .into_root_schema_for::<S>()
        .to_value();
    structural::make_structural(&mut schema);
    schema
}

fn definition<S: Kind + JsonSchema>(presentation: &Presentation) -> Value {
    let schema = json!({
        "openAPIV3Schema": {
            "type": "object",
            "properties": {
                "spec": schema::<S>(),
                // Written by the control plane only.
                "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            },
        },
    });
    let columns: Vec<Value> = presentation
        .columns
        .iter()
        .map(|(name, path, kind, description)| {
            json!({"name": name, "jsonPath": path, "type": kind, "description": description})
        })
        .collect();
    let versions: Vec<Value> = S::VERSIONS
        .iter()
        .enumerate()
        .map(|(index, version)| {
            let mut version = json!({
                "name": version,
                "served": true,
                "storage": index == 0,
                "schema": schema,
                "subresources": {"status": {}},
            });
            if !columns.is_empty() {
                version["additionalPrinterColumns"] = json!(columns);
            }
            version
        })
        .collect();
    let mut names = json!({
        "kind": S::KIND,
        "listKind": format!("{}List", S::KIND),
        "plural": S::PLURAL,
        "singular": S::KIND.to_lowercase(),
        "categories": presentation.categories(),
    });
    if !presentation.short_names.is_empty() {
        names["shortNames"] = json!(presentation.short_names);
    }
    let mut metadata = json!({"name": format!("{}.{}", S::PLURAL, S::GROUP)});
    if S::GROUP.ends_with(".k8s.io") {
        metadata["annotations"] = json!({APPROVAL.0: APPROVAL.1});
    }
    let scope = if S::CLUSTER_SCOPED {
        "Cluster"
    } else {
        "Namespaced"
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": metadata,
        "spec": {"group": S::GROUP, "names": names, "scope": scope, "versions": versions},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defines_the_served_kinds_as_istio_does() {
        let check = |name: &str, short: Value, versions: &[&str]| {
            let all = all();
            let found = all
                .iter()
                .find(|definition| definition["metadata"]["name"] == name)
                .expect(name);
            assert_eq!(found["spec"]["names"]["shortNames"], short, "{name}");
            let served: Vec<&str> = found["spec"]["versions"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|version| version["name"].as_str())
                .collect();
            assert_eq!(served, versions, "{name}");
        };
        let three = ["v1", "v1beta1", "v1alpha3"];
        check("virtualservices.networking.istio.io", json!(["vs"]), &three);
        check(
            "destinationrules.networking.istio.io",
            json!(["dr"]),
            &three,
        );
        check("gateways.networking.istio.io", json!(["gw"]), &three);
        check("serviceentries.networking.istio.io", json!(["se"]), &three);
        check("sidecars.networking.istio.io", Value::Null, &three);
        check("workloadentries.networking.istio.io", json!(["we"]), &three);
        check(
            "peerauthentications.security.istio.io",
            json!(["pa"]),
            &["v1", "v1beta1"],
        );
    }

    /// What Kubernetes demands of a structural schema.
    fn assert_structural(schema: &Value, path: &str, inside_logic: bool) {
        let fields = schema
            .as_object()
            .unwrap_or_else(|| panic!("{path} is no object"));
        let known = [
            "type",
            "description",
            "properties",
            "additionalProperties",
            "items",
            "required",
            "enum",
            "oneOf",
            "anyOf",
            "not",
            "format",
            "minimum",
            "maximum",
            "minItems",
            "maxItems",
            "maxLength",
            "minLength",
            "x-kubernetes-validations",
            "x-kubernetes-preserve-unknown-fields",
            "x-kubernetes-int-or-string",
        ];
        for key in fields.keys() {
            assert!(known.contains(&key.as_str()), "{path} has {key}");
        }
        // Whole numbers and texts share a field without a type.
        let typed =
            fields.contains_key("type") || fields.contains_key("x-kubernetes-int-or-string");
        assert_eq!(typed, !inside_logic, "type of {path}");
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            assert_structural(inner, &format!("{path}.{name}"), inside_logic);
        }
        for key in ["items", "additionalProperties"] {
            if let Some(inner) = fields.get(key) {
                assert_structural(inner, &format!("{path}.{key}"), inside_logic);
            }
        }
        for key in ["oneOf", "anyOf"] {
            for inner in fields
                .get(key)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                assert_structural(inner, &format!("{path}.{key}"), true);
            }
        }
        if let Some(inner) = fields.get("not") {
            assert_structural(inner, &format!("{path}.not"), true);
        }
    }

    #[test]
    fn schemas_are_structural() {
        for definition in all() {
            for version in definition["spec"]["versions"]
                .as_array()
                .into_iter()
                .flatten()
            {
                let schema = &version["schema"]["openAPIV3Schema"];
                assert_structural(schema, &definition["metadata"]["name"].to_string(), false);
            }
        }
    }

    #[test]
    fn schemas_say_what_is_required_and_allowed() {
        let schema = schema::<VirtualServiceSpec>();
        let route = &schema["properties"]["http"]["items"]["properties"];
        let destination = &route["route"]["items"]["properties"]["destination"];
        assert_eq!(destination["required"], json!(["host"]));
        assert_eq!(route["timeout"]["type"], "string");
        assert_eq!(
            route["match"]["items"]["properties"]["uri"]["oneOf"]
                .as_array()
                .map(Vec::len),
            Some(4)
        );
        let preflights = &route["corsPolicy"]["properties"]["unmatchedPreflights"];
        assert_eq!(
            preflights["enum"],
            json!(["UNSPECIFIED", "FORWARD", "IGNORE"])
        );
        assert_eq!(route["mirrorPercent"]["maximum"], json!(4_294_967_295_u32));
    }
}
