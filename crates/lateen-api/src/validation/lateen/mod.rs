//! Checks of the kinds of `lateen.dev`.

mod body_to_headers;
mod sticky_session;

pub use body_to_headers::body_to_headers;
pub use sticky_session::sticky_session;

use super::Problems;
use crate::lateen::TargetReference;

/// Most objects that one policy may be attached to, as in the Gateway API.
const MOST_TARGETS: usize = 16;

/// Checks the references of a policy: not too many, none twice, all of a kind that `fits`.
fn target_references(
    references: &[TargetReference],
    expected: &str,
    fits: fn(&TargetReference) -> bool,
    problems: &mut Problems,
) {
    problems.demand(
        references.len() <= MOST_TARGETS,
        "targetRefs",
        format!("at most {MOST_TARGETS} are allowed"),
    );
    problems.each("targetRefs", references, |problems, reference| {
        problems.demand(
            fits(reference),
            "kind",
            format!(
                "{}/{} cannot be a target: use {expected}",
                reference.group, reference.kind
            ),
        );
        problems.demand(!reference.name.is_empty(), "name", "is required");
        let same = references.iter().filter(|other| *other == reference);
        problems.demand(same.count() == 1, "name", "is referred to twice");
    });
}
