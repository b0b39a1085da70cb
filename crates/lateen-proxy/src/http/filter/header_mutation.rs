//! The filter `header_mutation`: changes of headers by the filter's own configuration, then by those of the route's levels.

use http::HeaderMap;
use lateen_route::filter::{FilterConfig, FilterLevels};
use lateen_route::format::Template;
use lateen_route::header_mutation::HeaderMutation;

use crate::http::exchange::Exchange;

/// Changes a request before it is forwarded.
pub(super) fn of_request(
    exchange: &mut Exchange,
    own: &HeaderMutation,
    levels: FilterLevels<'_>,
    name: &str,
) {
    let mut headers = std::mem::take(&mut exchange.head.headers);
    for mutation in in_order(own, levels, name) {
        mutation
            .request
            .apply(&mut headers, |template, headers, out| {
                let mut head = exchange.head.clone_for_values();
                head.headers = headers.clone();
                exchange.record.head = Some(head);
                template.write(&exchange.record, "", out);
            });
        if mutation.query.is_empty() || exchange.head.path.is_empty() {
            continue;
        }
        let mut head = exchange.head.clone_for_values();
        head.headers.clone_from(&headers);
        exchange.record.head = Some(head);
        let record = &exchange.record;
        let write = |template: &Template, out: &mut String| template.write(record, "", out);
        exchange.head.path = mutation.query.apply(&exchange.head.path, write);
    }
    exchange.head.headers = headers;
}

/// Changes a response before it is sent.
pub(super) fn of_response(
    exchange: &mut Exchange,
    own: &HeaderMutation,
    levels: FilterLevels<'_>,
    name: &str,
    headers: &mut HeaderMap,
) {
    for mutation in in_order(own, levels, name) {
        mutation.response.apply(headers, |template, headers, out| {
            exchange.record.head = Some(exchange.head.clone_for_values());
            exchange.record.response_headers = headers.clone();
            template.write(&exchange.record, "", out);
        });
    }
}

/// The configurations that count, in the order in which they apply. What applies last wins.
fn in_order<'m>(
    own: &'m HeaderMutation,
    levels: FilterLevels<'m>,
    name: &str,
) -> impl Iterator<Item = &'m HeaderMutation> {
    let configs = levels.configs(name).filter_map(|config| match config {
        FilterConfig::HeaderMutation(mutation) => Some(&**mutation),
        _ => None,
    });
    // There are as many levels at most, the most specific first.
    let mut of_routes = [None; 4];
    for (place, mutation) in of_routes.iter_mut().zip(configs) {
        *place = Some(mutation);
    }
    if own.most_specific_wins {
        of_routes.reverse();
    }
    std::iter::once(own).chain(of_routes.into_iter().flatten())
}
