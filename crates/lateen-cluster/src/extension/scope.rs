//! Finds names in a rule that mean nothing, when the rule is stored rather than when it first runs.
//!
//! This is no type checker: only variables, and fields of values whose schema is known, are looked up. Everything that
//! comes out of a function is taken as it is.

use kube_cel::cel::IdedExpr;
use kube_cel::cel::common::ast::{EntryExpr, Expr};

use super::rule::escaped;
use super::schema::{Schema, Type};

/// Names of types, which are values in CEL.
const TYPES: [&str; 13] = [
    "bool",
    "bytes",
    "double",
    "duration",
    "dyn",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "timestamp",
    "type",
    "uint",
];

/// The first name in `expression` that means nothing, worded as CEL's compiler does. `self` and `oldSelf` have `schema`;
/// `optional` says that `oldSelf` is wrapped, and `root` that they are whole objects.
pub(crate) fn fault(
    expression: &IdedExpr,
    schema: &Schema,
    root: bool,
    optional: bool,
) -> Option<String> {
    let known = Known {
        schema: Some(schema),
        root,
    };
    let old = if optional { Known::default() } else { known };
    let mut scope = Scope {
        names: vec![("self", known), ("oldSelf", old)],
        fault: None,
    };
    scope.walk(expression);
    scope.fault
}

/// What is known of a value.
#[derive(Clone, Copy, Default)]
struct Known<'a> {
    schema: Option<&'a Schema>,
    /// It is a whole object, with a type and metadata.
    root: bool,
}

impl<'a> Known<'a> {
    fn of(schema: Option<&'a Schema>) -> Self {
        Self {
            root: schema.is_some_and(|schema| schema.embedded),
            schema,
        }
    }
}

struct Scope<'a> {
    names: Vec<(&'a str, Known<'a>)>,
    fault: Option<String>,
}

impl<'a> Scope<'a> {
    fn walk(&mut self, expression: &'a IdedExpr) -> Known<'a> {
        match &expression.expr {
            Expr::Ident(name) => self.variable(name),
            Expr::Select(select) => {
                let operand = self.walk(&select.operand);
                self.field(operand, &select.field)
            }
            Expr::Call(call) => {
                // `math.greatest(...)`: the name before the dot is no variable.
                let target = call.target.as_deref();
                if let Some(target) = target
                    && !matches!(&target.expr, Expr::Ident(name) if self.find(name).is_none())
                {
                    self.walk(target);
                }
                let mut first = Known::default();
                for (index, argument) in call.args.iter().enumerate() {
                    let known = self.walk(argument);
                    if index == 0 {
                        first = known;
                    }
                }
                if call.func_name == "_[_]" {
                    element(first)
                } else {
                    Known::default()
                }
            }
            Expr::Comprehension(comprehension) => {
                let range = self.walk(&comprehension.iter_range);
                let outer = self.names.len();
                // Of one variable over a map it is the key, of two over anything the value is the second.
                let item = element(range);
                let is_list = range.schema.is_some_and(|schema| schema.items.is_some());
                let first = match &comprehension.iter_var2 {
                    None if is_list => item,
                    _ => Known::default(),
                };
                self.names.push((&comprehension.iter_var, first));
                if let Some(second) = &comprehension.iter_var2 {
                    self.names.push((second, item));
                }
                self.walk(&comprehension.accu_init);
                self.names.push((&comprehension.accu_var, Known::default()));
                for part in [
                    &comprehension.loop_cond,
                    &comprehension.loop_step,
                    &comprehension.result,
                ] {
                    self.walk(part);
                }
                self.names.truncate(outer);
                Known::default()
            }
            Expr::List(list) => {
                for element in &list.elements {
                    self.walk(element);
                }
                Known::default()
            }
            Expr::Map(map) => {
                map.entries.iter().for_each(|entry| self.entry(&entry.expr));
                Known::default()
            }
            Expr::Struct(made) => {
                made.entries
                    .iter()
                    .for_each(|entry| self.entry(&entry.expr));
                Known::default()
            }
            Expr::Literal(_) | Expr::Unspecified => Known::default(),
        }
    }

    fn entry(&mut self, entry: &'a EntryExpr) {
        match entry {
            EntryExpr::StructField(field) => {
                self.walk(&field.value);
            }
            EntryExpr::MapEntry(pair) => {
                self.walk(&pair.key);
                self.walk(&pair.value);
            }
        }
    }

    fn find(&self, name: &str) -> Option<Known<'a>> {
        self.names
            .iter()
            .rev()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| *value)
    }

    fn variable(&mut self, name: &str) -> Known<'a> {
        let found = self.find(name);
        if found.is_none() && !name.starts_with('@') && !TYPES.contains(&name) {
            self.note(format!(
                "undeclared reference to '{name}' (in container '')"
            ));
        }
        found.unwrap_or_default()
    }

    fn field(&mut self, operand: Known<'a>, name: &str) -> Known<'a> {
        let Some(schema) = operand.schema else {
            return Known::default();
        };
        if schema.type_ != Some(Type::Object) {
            return Known::default();
        }
        if schema.additional.is_some() && schema.properties.is_empty() {
            return Known::of(schema.values());
        }
        let found = schema
            .properties
            .iter()
            .find(|(property, _)| escaped(property).as_deref() == Some(name));
        let own = operand.root && matches!(name, "apiVersion" | "kind" | "metadata");
        if found.is_none() && !own && !schema.preserve_unknown && schema.additional.is_none() {
            self.note(format!("undefined field '{name}'"));
        }
        // What the schema says of `metadata` is not all there is.
        Known::of(found.map(|(_, below)| below).filter(|_| !own))
    }

    fn note(&mut self, fault: String) {
        self.fault.get_or_insert(fault);
    }
}

/// What is known of an item of a list or a value of a map.
fn element(of: Known<'_>) -> Known<'_> {
    let Some(schema) = of.schema else {
        return Known::default();
    };
    Known::of(schema.items.as_deref().or_else(|| schema.values()))
}
