//! As whom a container runs, and with which rights: its own settings before the pod's, and both before the image's.

use k8s_openapi::api::core::v1::{Container, PodSecurityContext, SecurityContext};
use lateen_sys::process::Capability;

use super::shared::Shared;
use crate::images::Program;

/// Rights of a root user in an image, as container engines give them.
const USUAL: [Capability; 13] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Mknod,
    Capability::AuditWrite,
    Capability::Setfcap,
];

/// Rights to change the pod's network, which the mesh's own parts need where they cannot be users of their own.
const NETWORK: [Capability; 2] = [Capability::NetAdmin, Capability::NetRaw];

/// User, groups and rights of a container.
pub(super) struct Security {
    pub(super) user: Option<u32>,
    pub(super) group: Option<u32>,
    pub(super) groups: Vec<u32>,
    pub(super) capabilities: Vec<String>,
    pub(super) read_only: bool,
}

impl Security {
    /// Those of a container that runs this program.
    ///
    /// # Errors
    /// When the container must not run as root, and would.
    pub(super) fn of(
        shared: &Shared,
        container: &Container,
        program: &Program,
    ) -> Result<Self, String> {
        let pod = shared.pod();
        let of_pod = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.security_context.as_ref());
        let own = container.security_context.as_ref();
        // With one user id only, everybody is that user.
        let range = shared.context.config.user_range;
        find(own, of_pod, program, range)
    }
}

fn find(
    own: Option<&SecurityContext>,
    of_pod: Option<&PodSecurityContext>,
    program: &Program,
    range: bool,
) -> Result<Security, String> {
    let id = |id: Option<i64>| id.and_then(|id| u32::try_from(id).ok());
    let image = program.image.as_ref();
    let asked_user = own
        .and_then(|own| id(own.run_as_user))
        .or_else(|| of_pod.and_then(|of_pod| id(of_pod.run_as_user)));
    let asked_group = own
        .and_then(|own| id(own.run_as_group))
        .or_else(|| of_pod.and_then(|of_pod| id(of_pod.run_as_group)));
    let user = asked_user.or_else(|| image.map(|image| image.user));
    let not_root = own
        .and_then(|own| own.run_as_non_root)
        .or_else(|| of_pod.and_then(|of_pod| of_pod.run_as_non_root));
    if not_root == Some(true) && image.is_some() && user == Some(0) {
        return Err("container has runAsNonRoot and image will run as root".to_owned());
    }
    // The image's groups are those of its own user.
    let image = image.filter(|_| asked_user.is_none());
    let group = asked_group
        .or_else(|| image.map(|image| image.group))
        .or(user);
    let mut groups: Vec<u32> = of_pod
        .and_then(|of_pod| of_pod.supplemental_groups.as_ref())
        .into_iter()
        .flatten()
        .filter_map(|group| u32::try_from(*group).ok())
        .collect();
    groups.extend(of_pod.and_then(|of_pod| id(of_pod.fs_group)));
    groups.extend(image.into_iter().flat_map(|image| &image.groups));
    let exists = |id: &u32| range && *id < 65_536;
    let is_root = user.is_none_or(|user| user == 0);
    Ok(Security {
        // Root is who everybody is at first; only another user is to be become.
        user: user
            .filter(exists)
            .filter(|user| *user != 0 || asked_user.is_some()),
        group: group.filter(exists).filter(|group| *group != 0 || !is_root),
        groups: groups.into_iter().filter(exists).collect(),
        capabilities: capabilities(own, program, is_root),
        read_only: own
            .and_then(|own| own.read_only_root_filesystem)
            .unwrap_or(false),
    })
}

/// The rights: what images and the mesh's own parts have anyway, less what is dropped, and what is added.
fn capabilities(own: Option<&SecurityContext>, program: &Program, is_root: bool) -> Vec<String> {
    let asked = own.and_then(|own| own.capabilities.as_ref());
    let list = |list: Option<&Vec<String>>| -> Vec<String> {
        let names = list.into_iter().flatten();
        names
            .map(|name| name.trim_start_matches("CAP_").to_owned())
            .collect()
    };
    let dropped = list(asked.and_then(|asked| asked.drop.as_ref()));
    let added = list(asked.and_then(|asked| asked.add.as_ref()));
    let mut rights: Vec<&str> = Vec::new();
    if program.image.is_some() && is_root && !dropped.iter().any(|name| name == "ALL") {
        let usual = USUAL.iter().map(|capability| capability.name());
        rights.extend(usual.filter(|name| !dropped.iter().any(|dropped| dropped == name)));
    }
    let all = added.iter().any(|name| name == "ALL");
    for (name, capability) in Capability::NAMED {
        let network = NETWORK.contains(&capability);
        // The host's programs get no rights but over the pod's network.
        let possible = program.image.is_some() || network;
        let asked_for = all || added.iter().any(|added| added == name);
        // The two are of use together: packets are marked with either.
        let with_network = network
            && NETWORK
                .iter()
                .any(|it| added.iter().any(|a| a == it.name()));
        let wanted = program.network_admin && network || possible && (asked_for || with_network);
        if wanted && !rights.contains(&name) {
            rights.push(name);
        }
    }
    rights.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Capabilities;

    use super::*;
    use crate::images::Unpacked;

    fn of_image(user: u32) -> Program {
        Program {
            image: Some(Unpacked {
                layers: Vec::new(),
                folder: None,
                user,
                group: user,
                groups: vec![7],
                stop_signal: None,
                id: String::new(),
            }),
            ..Program::default()
        }
    }

    fn with(add: &[&str], drop: &[&str]) -> SecurityContext {
        let words = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect());
        SecurityContext {
            capabilities: Some(Capabilities {
                add: words(add),
                drop: words(drop),
            }),
            ..SecurityContext::default()
        }
    }

    #[test]
    fn the_image_says_who_unless_the_pod_does() {
        let check = |program: &Program, asked: Option<i64>, range: bool, expected| {
            let own = SecurityContext {
                run_as_user: asked,
                ..SecurityContext::default()
            };
            let found = find(Some(&own), None, program, range).unwrap();
            let found = (found.user, found.group, found.groups);
            assert_eq!(found, expected, "{asked:?} {range}");
        };
        check(&of_image(101), None, true, (Some(101), Some(101), vec![7]));
        check(&of_image(101), Some(5), true, (Some(5), Some(5), vec![]));
        check(&of_image(101), None, false, (None, None, vec![]));
        check(&of_image(0), None, true, (None, None, vec![7]));
        check(&Program::default(), None, true, (None, None, vec![]));
        let host = Program::default();
        check(&host, Some(1337), true, (Some(1337), Some(1337), vec![]));
    }

    #[test]
    fn root_is_refused_where_it_must_not_be() {
        let own = SecurityContext {
            run_as_non_root: Some(true),
            ..SecurityContext::default()
        };
        assert!(find(Some(&own), None, &of_image(0), true).is_err());
        assert!(find(Some(&own), None, &of_image(101), true).is_ok());
        assert!(find(Some(&own), None, &Program::default(), true).is_ok());
    }

    #[test]
    fn rights_are_the_usual_ones_of_images_and_those_that_are_added() {
        let check = |program: &Program, own: &SecurityContext, user: bool, expected: &[&str]| {
            let found = capabilities(Some(own), program, user);
            assert_eq!(found, expected, "{own:?}");
        };
        let usual: Vec<_> = USUAL.iter().map(|capability| capability.name()).collect();
        check(&of_image(0), &with(&[], &[]), true, &usual);
        check(&of_image(9), &with(&[], &[]), false, &[]);
        check(
            &of_image(0),
            &with(&["CAP_CHOWN"], &["ALL"]),
            true,
            &["CHOWN"],
        );
        check(&of_image(0), &with(&[], &["CHOWN"]), true, &usual[1..]);
        let host = Program::default();
        check(&host, &with(&["CHOWN"], &[]), true, &[]);
        let network = ["NET_ADMIN", "NET_RAW"];
        check(&host, &with(&["NET_ADMIN"], &[]), true, &network);
        check(&host, &with(&["ALL"], &[]), true, &network);
        let own_part = Program {
            network_admin: true,
            ..Program::default()
        };
        check(&own_part, &with(&[], &["ALL"]), false, &network);
    }
}
