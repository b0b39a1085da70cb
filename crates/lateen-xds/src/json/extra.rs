//! Descriptors of messages that control planes of a mesh send and that `envoy-types` does not have, written as a table.

use prost_reflect::DescriptorPool;
use prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
use prost_reflect::prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto, MessageOptions,
};

/// A file: name, package, imports, messages with their fields, enumerations with their values.
struct File {
    name: &'static str,
    package: &'static str,
    imports: &'static [&'static str],
    messages: &'static [(&'static str, &'static [Field])],
    enums: &'static [(&'static str, &'static [&'static str])],
}

/// A field: name, number, type, and whether it is repeated. A type that is no scalar is a full name, with `enum ` before
/// it for enumerations.
type Field = (&'static str, i32, &'static str, bool);

const FILES: &[File] = &[
    File {
        name: "udpa/type/v1/typed_struct.proto",
        package: "udpa.type.v1",
        imports: &["google/protobuf/struct.proto"],
        messages: &[("TypedStruct", TYPED_STRUCT)],
        enums: &[],
    },
    File {
        name: "xds/type/v3/typed_struct.proto",
        package: "xds.type.v3",
        imports: &["google/protobuf/struct.proto"],
        messages: &[("TypedStruct", TYPED_STRUCT)],
        enums: &[],
    },
    File {
        name: "stats/config.proto",
        package: "stats",
        imports: &["google/protobuf/duration.proto"],
        messages: &[
            (
                "PluginConfig",
                &[
                    ("disable_host_header_fallback", 6, "bool", false),
                    (
                        "tcp_reporting_duration",
                        7,
                        ".google.protobuf.Duration",
                        false,
                    ),
                    ("metrics", 8, ".stats.MetricConfig", true),
                    ("definitions", 9, ".stats.MetricDefinition", true),
                    ("reporter", 10, "enum .stats.Reporter", false),
                    ("rotation_interval", 11, ".google.protobuf.Duration", false),
                    (
                        "graceful_deletion_interval",
                        12,
                        ".google.protobuf.Duration",
                        false,
                    ),
                ],
            ),
            (
                "MetricConfig",
                &[
                    ("dimensions", 1, ".stats.MetricConfig.DimensionsEntry", true),
                    ("name", 2, "string", false),
                    ("tags_to_remove", 3, "string", true),
                    ("match", 4, "string", false),
                    ("drop", 5, "bool", false),
                ],
            ),
            (
                "MetricDefinition",
                &[
                    ("name", 1, "string", false),
                    ("value", 2, "string", false),
                    ("type", 3, "enum .stats.MetricType", false),
                ],
            ),
        ],
        enums: &[
            ("MetricType", &["COUNTER", "GAUGE", "HISTOGRAM"]),
            ("Reporter", &["UNSPECIFIED", "SERVER_GATEWAY"]),
        ],
    },
];

const TYPED_STRUCT: &[Field] = &[
    ("type_url", 1, "string", false),
    ("value", 2, ".google.protobuf.Struct", false),
];

/// Adds the descriptors to a pool that has protobuf's own.
pub(super) fn add_to(pool: &mut DescriptorPool) {
    for file in FILES {
        pool.add_file_descriptor_proto(descriptor(file))
            .expect("the table is valid, which a test of each message shows");
    }
}

fn descriptor(file: &File) -> FileDescriptorProto {
    let messages = file.messages.iter().map(|(name, fields)| DescriptorProto {
        name: Some((*name).to_owned()),
        field: fields.iter().map(field).collect(),
        nested_type: fields.iter().filter_map(map_entry).collect(),
        ..DescriptorProto::default()
    });
    let enums = file.enums.iter().map(|(name, values)| EnumDescriptorProto {
        name: Some((*name).to_owned()),
        value: (0..)
            .zip(*values)
            .map(|(number, value)| EnumValueDescriptorProto {
                name: Some((*value).to_owned()),
                number: Some(number),
                options: None,
            })
            .collect(),
        ..EnumDescriptorProto::default()
    });
    FileDescriptorProto {
        name: Some(file.name.to_owned()),
        package: Some(file.package.to_owned()),
        syntax: Some("proto3".to_owned()),
        dependency: file.imports.iter().map(|name| (*name).to_owned()).collect(),
        message_type: messages.collect(),
        enum_type: enums.collect(),
        ..FileDescriptorProto::default()
    }
}

fn field((name, number, type_name, repeated): &Field) -> FieldDescriptorProto {
    let (kind, type_name) = match *type_name {
        "bool" => (Type::Bool, None),
        "string" => (Type::String, None),
        other => match other.strip_prefix("enum ") {
            Some(name) => (Type::Enum, Some(name.to_owned())),
            None => (Type::Message, Some(other.to_owned())),
        },
    };
    let label = if *repeated {
        Label::Repeated
    } else {
        Label::Optional
    };
    FieldDescriptorProto {
        name: Some((*name).to_owned()),
        number: Some(*number),
        label: Some(label.into()),
        r#type: Some(kind.into()),
        type_name,
        ..FieldDescriptorProto::default()
    }
}

/// The message of a map's entries, for fields whose type is named like one. All maps here are of strings to strings.
fn map_entry((_, _, type_name, _): &Field) -> Option<DescriptorProto> {
    let name = type_name
        .rsplit('.')
        .next()
        .filter(|name| name.ends_with("Entry"))?;
    Some(DescriptorProto {
        name: Some(name.to_owned()),
        field: vec![
            field(&("key", 1, "string", false)),
            field(&("value", 2, "string", false)),
        ],
        options: Some(MessageOptions {
            map_entry: Some(true),
            ..MessageOptions::default()
        }),
        ..DescriptorProto::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::json::{FieldNames, from_any, to_any};

    #[test]
    fn messages_of_the_table_have_a_json_form() {
        for message in [
            json!({
                "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
                "type_url": "type.googleapis.com/some.Config",
                "value": { "list": [{ "a": true }] },
            }),
            json!({
                "@type": "type.googleapis.com/xds.type.v3.TypedStruct",
                "type_url": "x",
            }),
            json!({
                "@type": "type.googleapis.com/stats.PluginConfig",
                "disable_host_header_fallback": true,
                "tcp_reporting_duration": "15s",
                "metrics": [{
                    "dimensions": { "a": "request.host" },
                    "name": "requests_total",
                    "tags_to_remove": ["b"],
                }],
                "definitions": [{ "name": "c", "value": "1", "type": "GAUGE" }],
                "reporter": "SERVER_GATEWAY",
            }),
        ] {
            let any = to_any(&message).unwrap();
            assert_eq!(from_any(&any, FieldNames::Proto).unwrap(), message);
        }
    }
}
