//! Any text where clients write in a language of their own: selectors, paths, expressions, quantities, bodies.

use bytes::Bytes;

use crate::expression::Expression;
use crate::extension::path::Path;
use crate::schema::quantity::Quantity;
use crate::selector::LabelSelector;
use crate::server::body;
use crate::{protobuf, schema};

/// Each is read or refused. The first byte chooses the language.
#[test]
fn languages() {
    bolero::check!(name = "languages")
        .with_iterations(0)
        .for_each(|bytes: &[u8]| {
            let Some((kind, bytes)) = bytes.split_first() else {
                return;
            };
            let text = String::from_utf8_lossy(bytes);
            match kind {
                b'l' => drop(LabelSelector::parse(&text)),
                b'p' => {
                    let value = serde_json::json!({"a": [{"b": "c"}], "d": {"e": 1}});
                    let _ = Path::parse(&text).map(|path| path.first(&value).is_some());
                }
                b'e' => drop(Expression::parse(&text)),
                b'y' => drop(body::yaml(&Bytes::copy_from_slice(bytes))),
                b'd' => drop(schema::duplicate_fields(bytes)),
                b'q' => {
                    if let Ok(quantity) = Quantity::parse(&text) {
                        let canonical = quantity.canonical();
                        let again = Quantity::parse(&canonical).map(Quantity::canonical);
                        assert_eq!(again.ok(), Some(canonical));
                    }
                }
                _ => {}
            }
        });
}

/// Bodies in Kubernetes' protobuf form.
#[test]
fn protobuf_bodies() {
    bolero::check!(name = "protobuf-bodies")
        .with_iterations(0)
        .for_each(|bytes: &[u8]| {
            if let Ok(object) = protobuf::decode(bytes) {
                assert!(object["kind"].is_string());
            }
        });
}
