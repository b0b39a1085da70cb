//! What routes, virtual hosts, weighted clusters and route configurations say about HTTP filters.

use std::collections::HashMap;

use lateen_xds::pb::envoy::config::route::v3::FilterConfig as Wrapper;
use lateen_xds::pb::envoy::extensions::filters::http as pb;
use lateen_xds::pb::google::protobuf::Any;
use prost::Message;

use crate::cors::CorsPolicy;
use crate::fault::Fault;
use crate::header_mutation::HeaderMutation;
use crate::stateful_session::Session;
use crate::{Invalid, Within, refuse_rest};

const PREFIX: &str = "type.googleapis.com/envoy.extensions.filters.http.";
const WRAPPER: &str = "type.googleapis.com/envoy.config.route.v3.FilterConfig";

/// The filter configuration of one level: an entry a filter, by its name in the chain.
#[derive(Debug, Default)]
pub struct PerFilter(Vec<(String, Override)>);

/// What a level says about one filter.
#[derive(Debug)]
enum Override {
    /// The filter is left out.
    Disabled,
    /// The filter runs, even if its chain has it disabled, with this configuration.
    Config(FilterConfig),
}

/// The configuration of a filter at one level.
#[derive(Debug)]
pub enum FilterConfig {
    /// `envoy.extensions.filters.http.fault.v3.HTTPFault`
    Fault(Box<Fault>),
    /// `envoy.extensions.filters.http.cors.v3.CorsPolicy`
    Cors(Box<CorsPolicy>),
    /// `envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute`; nothing: no sessions are kept.
    StatefulSession(Option<Box<Session>>),
    /// `envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute`
    HeaderMutation(Box<HeaderMutation>),
}

impl PerFilter {
    /// Compiles a `typed_per_filter_config`.
    pub(crate) fn compile(entries: HashMap<String, Any>) -> Result<Self, Invalid> {
        let mut compiled = Vec::new();
        for (name, any) in entries {
            let made = Override::compile(any)
                .map_err(|error| error.within(format_args!("typed_per_filter_config[{name}]")))?;
            if let Some(made) = made {
                compiled.push((name, made));
            }
        }
        Ok(Self(compiled))
    }

    fn get(&self, name: &str) -> Option<&Override> {
        let entry = self.0.iter().find(|(other, _)| other == name);
        entry.map(|(_, found)| found)
    }
}

impl Override {
    /// Nothing for an optional configuration of a filter that is not known.
    fn compile(any: Any) -> Result<Option<Self>, Invalid> {
        if any.type_url != WRAPPER {
            return FilterConfig::compile(&any)?
                .map(|config| Some(Self::Config(config)))
                .ok_or_else(|| unknown(&any));
        }
        let mut wrapper: Wrapper = decode(&any)?;
        let config = wrapper.config.take();
        let optional = std::mem::take(&mut wrapper.is_optional);
        if std::mem::take(&mut wrapper.disabled) {
            return Ok(Some(Self::Disabled));
        }
        refuse_rest(&wrapper)?;
        let config = config.ok_or_else(|| Invalid::new("config", "is required"))?;
        match FilterConfig::compile(&config).within("config")? {
            Some(compiled) => Ok(Some(Self::Config(compiled))),
            None if optional => Ok(None),
            None => Err(unknown(&config).within("config")),
        }
    }
}

fn unknown(any: &Any) -> Invalid {
    let reason = format!(
        "filter configuration `{}` is not supported by this proxy",
        any.type_url
    );
    Invalid::new("", reason)
}

impl FilterConfig {
    /// Nothing when the type is not known.
    fn compile(any: &Any) -> Result<Option<Self>, Invalid> {
        let kind = any.type_url.strip_prefix(PREFIX).unwrap_or_default();
        Ok(Some(match kind {
            "fault.v3.HTTPFault" => Self::Fault(Box::new(Fault::compile(decode(any)?)?)),
            "cors.v3.CorsPolicy" => Self::Cors(Box::new(CorsPolicy::compile(decode(any)?)?)),
            "stateful_session.v3.StatefulSessionPerRoute" => {
                use pb::stateful_session::v3::stateful_session_per_route::Override as O;
                let route: pb::stateful_session::v3::StatefulSessionPerRoute = decode(any)?;
                Self::StatefulSession(match route.r#override {
                    Some(O::StatefulSession(session)) => Session::compile(session)
                        .within("stateful_session")?
                        .map(Box::new),
                    Some(O::Disabled(true)) => None,
                    Some(O::Disabled(false)) => {
                        return Err(Invalid::new("disabled", "can only be true"));
                    }
                    None => return Err(Invalid::new("override", "is required")),
                })
            }
            "header_mutation.v3.HeaderMutationPerRoute" => {
                Self::HeaderMutation(Box::new(HeaderMutation::compile_route(decode(any)?)?))
            }
            _ => return Ok(None),
        }))
    }
}

fn decode<M: Message + Default>(any: &Any) -> Result<M, Invalid> {
    M::decode(any.value.as_slice())
        .map_err(|error| Invalid::new("", format!("`{}` cannot be decoded: {error}", any.type_url)))
}

/// The levels that count for a request, the most specific first.
#[derive(Debug, Clone, Copy, Default)]
pub struct FilterLevels<'t>(pub [Option<&'t PerFilter>; 4]);

impl<'t> FilterLevels<'t> {
    fn entries(self, name: &str) -> impl Iterator<Item = &'t Override> {
        self.0
            .into_iter()
            .flatten()
            .filter_map(move |level| level.get(name))
    }

    /// Whether the filter is left out: the most specific level that knows it decides.
    pub fn disabled(self, name: &str) -> Option<bool> {
        let entry = self.entries(name).next()?;
        Some(matches!(entry, Override::Disabled))
    }

    /// The configurations of a filter, the most specific first.
    pub fn configs(self, name: &str) -> impl Iterator<Item = &'t FilterConfig> {
        self.entries(name).filter_map(|entry| match entry {
            Override::Config(config) => Some(config),
            Override::Disabled => None,
        })
    }
}
