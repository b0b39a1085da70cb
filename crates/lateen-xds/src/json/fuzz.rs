//! Any message, and any JSON that may be one.

use envoy_types::pb::google::protobuf::Any;
use prost::Message;
use serde_json::Value;

use super::{FieldNames, from_any, to_any, unsupported_fields};

/// What is read from JSON is written so that it is read again, as the same message. The bytes are the JSON of an `Any`, or
/// the `Any` itself.
#[test]
fn messages() {
    bolero::check!(name = "messages")
        .with_iterations(0)
        .for_each(|bytes: &[u8]| {
            let any = match serde_json::from_slice::<Value>(bytes) {
                Ok(value) => to_any(&value).ok(),
                Err(_) => Any::decode(bytes).ok(),
            };
            let Some(any) = any else { return };
            let _ = unsupported_fields(&any, |_, _| true);
            for names in [FieldNames::Camel, FieldNames::Proto] {
                let Ok(written) = from_any(&any, names) else {
                    return;
                };
                // What no descriptor knows is shown as bytes.
                if written.to_string().contains("@value") {
                    return;
                }
                let again = match to_any(&written) {
                    Ok(again) => again,
                    // JSON has no word for a number that is none, as which prost-reflect writes those of wrappers.
                    Err(_) if written.to_string().contains("null") => return,
                    Err(error) => panic!("{written} cannot be read: {error}"),
                };
                // Fields that nobody knows have no JSON form.
                let same = from_any(&again, names).expect("and written again");
                assert_eq!(same, written);
            }
        });
}
