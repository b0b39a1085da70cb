//! The filter `header_mutation`: changes of headers one after the other, each of which sees what the one before it left.

use http::{HeaderMap, HeaderName, HeaderValue};
use lateen_xds::pb::envoy::config::common::mutation_rules::v3 as rules;
use lateen_xds::pb::envoy::config::common::mutation_rules::v3::header_mutation::Action;
use lateen_xds::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use lateen_xds::pb::envoy::extensions::filters::http::header_mutation::v3 as pb;

use crate::format::Template;
use crate::mutate::{Addition, compile_addition, removable_name};
use crate::query_mutation::QueryMutations;
use crate::string_match::StringMatch;
use crate::{Invalid, Within, refuse_rest};

/// A compiled `HeaderMutation`, or what a route adds to it.
#[derive(Debug, Default)]
pub struct HeaderMutation {
    /// Changes of requests, after the route was chosen.
    pub request: Steps,
    /// Changes of their query, which follow.
    pub query: QueryMutations,
    /// Changes of responses.
    pub response: Steps,
    /// Of the configurations of routes, the most specific is applied last rather than first. Only the filter's own says so.
    pub most_specific_wins: bool,
}

/// Changes in their order.
#[derive(Debug, Default)]
pub struct Steps(Vec<Step>);

#[derive(Debug)]
enum Step {
    Remove(HeaderName),
    RemoveMatching(StringMatch),
    Add(Addition),
}

impl HeaderMutation {
    /// Compiles the configuration of the filter.
    ///
    /// # Errors
    /// When it is invalid, or says something that is not implemented: trailers are not changed.
    pub fn compile(mut message: pb::HeaderMutation) -> Result<Self, Invalid> {
        let mutations = message.mutations.take().unwrap_or_default();
        let most_specific_wins = std::mem::take(&mut message.most_specific_header_mutations_wins);
        refuse_rest(&message)?;
        Ok(Self {
            most_specific_wins,
            ..Self::compile_mutations(mutations).within("mutations")?
        })
    }

    /// Compiles what a route says.
    ///
    /// # Errors
    /// As those of [`Self::compile`].
    pub fn compile_route(mut message: pb::HeaderMutationPerRoute) -> Result<Self, Invalid> {
        let mutations = message.mutations.take().unwrap_or_default();
        refuse_rest(&message)?;
        Self::compile_mutations(mutations).within("mutations")
    }

    fn compile_mutations(mut message: pb::Mutations) -> Result<Self, Invalid> {
        let request = Steps::compile(
            "request_mutations",
            std::mem::take(&mut message.request_mutations),
        )?;
        let query =
            QueryMutations::compile(std::mem::take(&mut message.query_parameter_mutations))?;
        let response = Steps::compile(
            "response_mutations",
            std::mem::take(&mut message.response_mutations),
        )?;
        refuse_rest(&message)?;
        Ok(Self {
            request,
            query,
            response,
            most_specific_wins: false,
        })
    }
}

impl Steps {
    fn compile(field: &str, messages: Vec<rules::HeaderMutation>) -> Result<Self, Invalid> {
        let mut steps = Vec::new();
        for (index, message) in messages.into_iter().enumerate() {
            steps.push(step(message).within_item(field, index)?);
        }
        Ok(Self(steps))
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes the changes. `write` writes a value with commands, for which it is given the headers as they are by then.
    pub fn apply(
        &self,
        headers: &mut HeaderMap,
        mut write: impl FnMut(&Template, &HeaderMap, &mut String),
    ) {
        for step in &self.0 {
            match step {
                Step::Remove(name) => {
                    headers.remove(name);
                }
                Step::RemoveMatching(matcher) => {
                    let matching = |name: &&HeaderName| matcher.matches(name.as_str().as_bytes());
                    let names: Vec<HeaderName> = headers.keys().filter(matching).cloned().collect();
                    for name in names {
                        headers.remove(name);
                    }
                }
                Step::Add(addition) => add(addition, headers, &mut write),
            }
        }
    }
}

fn add(
    addition: &Addition,
    headers: &mut HeaderMap,
    write: &mut impl FnMut(&Template, &HeaderMap, &mut String),
) {
    let exists = headers.contains_key(&addition.name);
    match addition.action {
        HeaderAppendAction::AddIfAbsent if exists => return,
        HeaderAppendAction::OverwriteIfExists if !exists => return,
        _ => {}
    }
    let mut text = String::new();
    match addition.value.literal() {
        Some(literal) => text.push_str(literal),
        None => write(&addition.value, headers, &mut text),
    }
    if text.is_empty() && !addition.keep_empty {
        return;
    }
    // What a client sent may be in it, and no value.
    let Ok(value) = HeaderValue::from_str(&text) else {
        return;
    };
    match addition.action {
        HeaderAppendAction::AppendIfExistsOrAdd | HeaderAppendAction::AddIfAbsent => {
            headers.append(&addition.name, value);
        }
        HeaderAppendAction::OverwriteIfExists | HeaderAppendAction::OverwriteIfExistsOrAdd => {
            headers.insert(&addition.name, value);
        }
    }
}

fn step(message: rules::HeaderMutation) -> Result<Step, Invalid> {
    match message.action {
        Some(Action::Remove(name)) => removable_name(&name).within("remove").map(Step::Remove),
        Some(Action::Append(option)) => compile_addition(option).within("append").map(Step::Add),
        Some(Action::RemoveOnMatch(remove)) => {
            let path = "remove_on_match.key_matcher";
            let matcher = remove
                .key_matcher
                .ok_or_else(|| Invalid::new(path, "is required"))?;
            let matcher = StringMatch::compile(matcher).within(path)?;
            Ok(Step::RemoveMatching(matcher))
        }
        None => Err(Invalid::new("action", "is required")),
    }
}
