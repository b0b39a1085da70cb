//! Which requests an access log shows.

use lateen_route::fraction::Fraction;
use lateen_route::header_match::HeaderMatch;

use crate::flags::Flags;
use crate::record::Record;

/// A condition on a request or connection that is over.
#[derive(Debug)]
pub(crate) enum LogFilter {
    Status(Comparison),
    /// In milliseconds.
    Duration(Comparison),
    /// One of these flags; an empty list means any flag.
    Flags(Vec<Flags>),
    Header(Box<HeaderMatch>),
    /// A share of the requests. They are drawn by their id, so that every proxy on the way draws the same, or else
    /// independently.
    Share {
        fraction: Fraction,
        independent: bool,
    },
    Grpc {
        statuses: Vec<u16>,
        exclude: bool,
    },
    /// Sampled for tracing.
    Traceable,
    /// Whether it is a request, and not a connection.
    Kind {
        requests: bool,
        connections: bool,
    },
    /// Health checks are not answered here, so that nothing is one.
    NotHealthCheck,
    And(Vec<Self>),
    Or(Vec<Self>),
}

/// A number compared with a configured one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Comparison {
    pub(crate) operation: Operation,
    pub(crate) value: u64,
}

/// How numbers are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Equal,
    AtLeast,
    AtMost,
    Different,
}

impl Comparison {
    fn holds(self, number: u64) -> bool {
        match self.operation {
            Operation::Equal => number == self.value,
            Operation::AtLeast => number >= self.value,
            Operation::AtMost => number <= self.value,
            Operation::Different => number != self.value,
        }
    }
}

impl LogFilter {
    /// Whether the record is shown.
    pub(crate) fn wants(&self, record: &Record) -> bool {
        match self {
            Self::Status(comparison) => comparison.holds(record.status.into()),
            Self::Duration(comparison) => {
                let millis = record.duration.unwrap_or_default().as_millis();
                comparison.holds(u64::try_from(millis).unwrap_or(u64::MAX))
            }
            Self::Flags(list) if list.is_empty() => record.flags != Flags::default(),
            Self::Flags(list) => list.iter().any(|flag| record.flags.has(*flag)),
            Self::Header(header) => {
                let head = record.head.as_ref();
                head.is_some_and(|head| header.matches(&head.view()))
            }
            Self::Share {
                fraction,
                independent,
            } => {
                let by_id = request_number(record).filter(|_| !independent);
                fraction.draws(by_id.unwrap_or_else(|| fastrand::u64(..)))
            }
            Self::Grpc { statuses, exclude } => {
                let status = record
                    .grpc_status()
                    .unwrap_or_else(|| grpc_of(record.status));
                statuses.contains(&status) != *exclude
            }
            Self::Traceable => is_traced(record),
            Self::Kind {
                requests,
                connections,
            } => {
                if record.head.is_some() {
                    *requests
                } else {
                    *connections
                }
            }
            Self::NotHealthCheck => true,
            Self::And(filters) => filters.iter().all(|filter| filter.wants(record)),
            Self::Or(filters) => filters.iter().any(|filter| filter.wants(record)),
        }
    }
}

fn request_id(record: &Record) -> Option<&str> {
    let head = record.head.as_ref()?;
    head.headers.get("x-request-id")?.to_str().ok()
}

/// The first half of a request's id as a number.
fn request_number(record: &Record) -> Option<u64> {
    u64::from_str_radix(request_id(record)?.get(..8)?, 16).ok()
}

/// The request's id says whether it is traced: its 15th character is 9, a or b then.
fn is_traced(record: &Record) -> bool {
    let reason = request_id(record).and_then(|id| id.as_bytes().get(14).copied());
    matches!(reason, Some(b'9' | b'a' | b'b'))
}

/// The gRPC status that stands for an HTTP status.
fn grpc_of(status: u16) -> u16 {
    http::StatusCode::from_u16(status).map_or(2, |status| match status.as_u16() {
        200 => 0,
        _ => crate::http::reply::grpc_status(status),
    })
}
