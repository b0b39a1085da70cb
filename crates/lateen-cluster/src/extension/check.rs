//! Checks a custom resource against its schema, with the wording of Kubernetes' `kube-openapi`.
//!
//! Messages there name the place twice (`spec.size: Invalid value: ...: spec.size in body must be ...`). Faults of
//! `anyOf`, `oneOf` and the like carry no field (`<nil>`) and bring the faults of the alternative that came closest,
//! which is the one with the most checks passed.
//!
//! On updates, a part of the object that is equal to its old value is not checked again, so that an object stays
//! editable when its schema became stricter.

use serde_json::{Map, Value};

use crate::field::{FieldError, FieldErrorKind};

use super::correlate;
use super::format;
use super::outcome::{Outcome, is_whole, native_format, plain, same, type_name};
use super::schema::{Additional, Schema, Type};

/// How Kubernetes prints the path of a fault that has none.
pub(crate) const NO_FIELD: &str = "<nil>";

/// One check run: where its root lies in the object.
#[derive(Clone, Copy)]
struct Checker<'a> {
    /// Path before all fields, e.g. `status`; empty at the root of the object.
    prefix: &'a str,
}

/// All faults of `value`, which lies at `prefix` (empty for a whole object). `old` is the value before an update.
pub(crate) fn check(
    schema: &Schema,
    value: &Value,
    old: Option<&Value>,
    prefix: &str,
) -> Vec<FieldError> {
    Checker { prefix }.value(schema, value, old, "").errors
}

impl Checker<'_> {
    fn value(self, schema: &Schema, value: &Value, old: Option<&Value>, path: &str) -> Outcome {
        let mut outcome = Outcome::default();
        if old.is_some_and(|old| old == value) {
            return outcome;
        }
        if value.is_null() {
            outcome.merge(self.types(schema, value, path));
            outcome.merge(self.choices(schema, value, path));
            return outcome;
        }
        if !schema.type_names().is_empty() || !schema.format.is_empty() {
            outcome.applied(self.types(schema, value, path));
        }
        outcome.applied(self.alternatives(schema, value, path));
        match value {
            Value::String(text) => {
                outcome.applied(self.text(schema, text, path));
                if !schema.format.is_empty() && format::is_known(&schema.format) {
                    outcome.applied(self.format(schema, text, path));
                }
            }
            Value::Number(_) => outcome.applied(self.number(schema, value, path)),
            Value::Array(items) => outcome.applied(self.list(schema, items, old, path)),
            _ => {}
        }
        outcome.applied(self.choices(schema, value, path));
        if let Value::Object(fields) = value {
            outcome.applied(self.object(schema, fields, old, path));
        }
        outcome.matched += 1;
        outcome
    }

    /// The field of `path` as errors name it.
    fn field(self, path: &str) -> String {
        let path = path.strip_prefix('.').unwrap_or(path);
        match (self.prefix, path) {
            ("", "") => NO_FIELD.to_owned(),
            (prefix, "") => prefix.to_owned(),
            ("", path) => path.to_owned(),
            (prefix, path) => format!("{prefix}.{path}"),
        }
    }

    fn invalid(self, path: &str, value: Value, fault: &str) -> FieldError {
        FieldError::invalid(self.field(path), value, format!("{path} in body {fault}"))
    }

    /// A fault that Kubernetes reports for the root, whatever its place.
    fn unplaced(self, detail: String) -> FieldError {
        let field = if self.prefix.is_empty() {
            NO_FIELD
        } else {
            self.prefix
        };
        FieldError::invalid(field, Value::String(String::new()), detail)
    }

    fn wrong_type(self, path: &str, wanted: &str, found: &str) -> Outcome {
        let detail = format!("{path} in body must be of type {wanted}: {found:?}");
        let mut error = FieldError::invalid(self.field(path), Value::from(found), detail);
        error.kind = FieldErrorKind::TypeInvalid;
        Outcome::failed(error)
    }

    fn types(self, schema: &Schema, value: &Value, path: &str) -> Outcome {
        let wanted = schema.type_names();
        let found = type_name(value);
        if value.is_null() {
            return if wanted.is_empty() || schema.nullable {
                Outcome::passed()
            } else {
                self.wrong_type(path, &wanted.join(","), found)
            };
        }
        let fits = wanted.contains(&found)
            || (found == "number" && wanted.contains(&"integer") && is_whole(value))
            || (found == "integer" && wanted.contains(&"number"));
        let numeric = wanted.contains(&"number") || wanted.contains(&"integer");
        if !schema.format.is_empty() {
            if !matches!(value, Value::String(_) | Value::Array(_)) && !fits {
                return self.wrong_type(path, &schema.format, native_format(value));
            }
            // A string with a format is judged by the format alone.
            if !numeric && matches!(value, Value::String(_) | Value::Array(_)) {
                return Outcome::passed();
            }
        }
        if fits {
            Outcome::passed()
        } else {
            self.wrong_type(path, &wanted.join(","), found)
        }
    }

    fn choices(self, schema: &Schema, value: &Value, path: &str) -> Outcome {
        if schema.choices.is_empty() || schema.choices.iter().any(|choice| same(choice, value)) {
            return Outcome::default();
        }
        let names: Vec<String> = schema.choices.iter().map(plain).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        Outcome::failed(FieldError::not_supported(
            self.field(path),
            value.clone(),
            &names,
        ))
    }

    fn text(self, schema: &Schema, text: &str, path: &str) -> Outcome {
        let length = text.chars().count() as u64;
        if let Some(most) = schema.length.most.filter(|most| length > *most) {
            return Outcome::failed(FieldError::too_long(self.field(path), most));
        }
        if let Some(least) = schema.length.least.filter(|least| length < *least) {
            let fault = format!("should be at least {least} chars long");
            return Outcome::failed(self.invalid(path, Value::from(text), &fault));
        }
        match &schema.pattern {
            Some(pattern)
                if !pattern
                    .compiled
                    .as_ref()
                    .is_some_and(|regex| regex.is_match(text)) =>
            {
                let fault = format!("should match '{}'", pattern.source);
                Outcome::failed(self.invalid(path, Value::from(text), &fault))
            }
            _ => Outcome::default(),
        }
    }

    fn format(self, schema: &Schema, text: &str, path: &str) -> Outcome {
        if format::fits(&schema.format, text) {
            Outcome::default()
        } else {
            self.wrong_type(path, &schema.format, text)
        }
    }

    fn number(self, schema: &Schema, value: &Value, path: &str) -> Outcome {
        let mut outcome = Outcome::default();
        let number = value.as_f64().unwrap_or(f64::NAN);
        if schema.format == "int32"
            && value
                .as_i64()
                .is_none_or(|whole| i32::try_from(whole).is_err())
        {
            let detail =
                format!("Checked value must be of type integer with format int32 in {path}");
            outcome.add(self.unplaced(detail));
        }
        if let Some(factor) = schema.multiple_of
            && (number / factor).fract() != 0.0
        {
            let fault = format!("should be a multiple of {factor}");
            outcome.add(self.invalid(path, value.clone(), &fault));
        }
        if let Some(least) = schema.value.least {
            let (wrong, words) = match schema.exclusive_least {
                true => (number <= least, "greater than"),
                false => (number < least, "greater than or equal to"),
            };
            if wrong {
                outcome.add(self.invalid(
                    path,
                    value.clone(),
                    &format!("should be {words} {least}"),
                ));
            }
        }
        if let Some(most) = schema.value.most {
            let (wrong, words) = match schema.exclusive_most {
                true => (number >= most, "less than"),
                false => (number > most, "less than or equal to"),
            };
            if wrong {
                outcome.add(self.invalid(
                    path,
                    value.clone(),
                    &format!("should be {words} {most}"),
                ));
            }
        }
        outcome.matched += 1;
        outcome
    }

    fn list(self, schema: &Schema, items: &[Value], old: Option<&Value>, path: &str) -> Outcome {
        let mut outcome = Outcome::default();
        if let Some(below) = &schema.items {
            let before = correlate::Items::new(schema, old);
            for (index, item) in items.iter().enumerate() {
                let place = format!("{path}[{index}]");
                outcome.merge(self.value(below, item, before.of(item), &place));
            }
        }
        let count = items.len();
        if let Some(least) = schema
            .item_count
            .least
            .filter(|least| (count as u64) < *least)
        {
            let fault = format!("should have at least {least} items");
            outcome.add(self.invalid(path, Value::from(count), &fault));
        }
        if let Some(most) = schema.item_count.most.filter(|most| count as u64 > *most) {
            outcome.add(FieldError::too_many(self.field(path), count, most));
        }
        outcome.matched += 1;
        outcome
    }

    fn object(
        self,
        schema: &Schema,
        fields: &Map<String, Value>,
        old: Option<&Value>,
        path: &str,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let count = fields.len();
        if let Some(least) = schema
            .property_count
            .least
            .filter(|least| (count as u64) < *least)
        {
            let fault = format!("should have at least {least} properties");
            outcome.add(self.invalid(path, Value::from(count), &fault));
        }
        if let Some(most) = schema
            .property_count
            .most
            .filter(|most| count as u64 > *most)
        {
            outcome.add(FieldError::too_many(self.field(path), count, most));
        }
        let before = |name: &str| old.and_then(|old| old.get(name));
        for (name, value) in fields
            .iter()
            .filter(|(name, _)| !schema.properties.contains_key(*name))
        {
            match schema.additional.as_ref() {
                Some(Additional::Any(false)) => {
                    let detail = format!("{path}.{name} in body is a forbidden property");
                    let field = self.field(path);
                    outcome.add(FieldError::invalid(
                        field,
                        Value::from(name.as_str()),
                        detail,
                    ));
                }
                Some(Additional::Schema(below)) => {
                    let place = format!("{path}.{name}");
                    outcome.merge(self.value(below, value, before(name), &place));
                }
                _ => {}
            }
        }
        for (name, below) in &schema.properties {
            if let Some(value) = fields.get(name) {
                let place = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                outcome.merge(self.value(below, value, before(name), &place));
            }
        }
        for name in schema
            .required
            .iter()
            .filter(|name| !fields.contains_key(*name))
        {
            outcome.add(FieldError::required(
                self.field(&format!("{path}.{name}")),
                "",
            ));
        }
        outcome
    }

    fn alternatives(self, schema: &Schema, value: &Value, path: &str) -> Outcome {
        let mut outcome = Outcome::default();
        let try_all = |schemas: &[Schema]| -> (usize, Option<Outcome>, Option<Outcome>) {
            let (mut valid, mut first, mut closest) = (0, None, None::<Outcome>);
            for schema in schemas {
                let result = self.value(schema, value, None, path);
                if result.errors.is_empty() {
                    valid += 1;
                    first.get_or_insert(result);
                } else if closest
                    .as_ref()
                    .is_none_or(|best| result.matched > best.matched)
                {
                    closest = Some(result);
                }
            }
            (valid, first, closest)
        };
        if !schema.any_of.is_empty() {
            match try_all(&schema.any_of) {
                (0, _, closest) => {
                    let fault = "must validate at least one schema (anyOf)";
                    outcome.add(self.unplaced(format!("{path:?} {fault}")));
                    outcome.merge(closest.unwrap_or_default());
                }
                (_, first, _) => outcome.merge(first.unwrap_or_default()),
            }
        }
        if !schema.one_of.is_empty() {
            let fault = "must validate one and only one schema (oneOf)";
            match try_all(&schema.one_of) {
                (0, _, closest) => {
                    outcome.add(self.unplaced(format!("{path:?} {fault}. Found none valid")));
                    outcome.merge(closest.unwrap_or_default());
                }
                (1, first, _) => outcome.merge(first.unwrap_or_default()),
                (valid, _, _) => {
                    let found = format!("Found {valid} valid alternatives");
                    outcome.add(self.unplaced(format!("{path:?} {fault}. {found}")));
                }
            }
        }
        if !schema.all_of.is_empty() {
            let mut valid = 0;
            for below in &schema.all_of {
                let result = self.value(below, value, None, path);
                valid += usize::from(result.errors.is_empty());
                outcome.merge(result);
            }
            if valid != schema.all_of.len() {
                let none = if valid == 0 { ". None validated" } else { "" };
                let detail = format!("{path:?} must validate all the schemas (allOf){none}");
                outcome.add(self.unplaced(detail));
            }
        }
        if let Some(not) = &schema.not
            && self.value(not, value, None, path).errors.is_empty()
        {
            outcome.add(self.unplaced(format!("{path:?} must not validate the schema (not)")));
        }
        outcome.matched += 1;
        outcome
    }
}

impl Schema {
    /// The JSON types that a value may have; empty when any will do.
    fn type_names(&self) -> Vec<&'static str> {
        if self.int_or_string {
            return vec![Type::Integer.name(), Type::String.name()];
        }
        self.type_.map(Type::name).into_iter().collect()
    }
}
