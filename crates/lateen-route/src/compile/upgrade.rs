//! Changes of protocol that routes allow.

use lateen_xds::pb::envoy::config::core::v3::ProxyProtocolConfig;
use lateen_xds::pb::envoy::config::core::v3::proxy_protocol_config::Version;
use lateen_xds::pb::envoy::config::route::v3::route_action::UpgradeConfig;
use lateen_xds::pb::envoy::config::route::v3::route_action::upgrade_config::ConnectConfig;

use crate::constraint::not_empty;
use crate::route::{Announcement, RouteUpgrade, Terminate};
use crate::{Invalid, Within, refuse_rest};

/// The name of tunnels.
const CONNECT: &str = "connect";

/// Compiles an `upgrade_configs`.
pub(super) fn compile(configs: Vec<UpgradeConfig>) -> Result<Vec<RouteUpgrade>, Invalid> {
    let mut upgrades: Vec<RouteUpgrade> = Vec::new();
    for (index, config) in configs.into_iter().enumerate() {
        let upgrade = upgrade(config).within_item("upgrade_configs", index)?;
        if upgrades.iter().any(|other| other.name == upgrade.name) {
            let reason = format!("`{}` appears twice", upgrade.name);
            return Err(Invalid::new("upgrade_type", reason)).within_item("upgrade_configs", index);
        }
        upgrades.push(upgrade);
    }
    Ok(upgrades)
}

fn upgrade(config: UpgradeConfig) -> Result<RouteUpgrade, Invalid> {
    not_empty("upgrade_type", &config.upgrade_type)?;
    let name = config.upgrade_type.to_ascii_lowercase();
    if config.connect_config.is_some() && name != CONNECT {
        return Err(Invalid::new("connect_config", "is for CONNECT only"));
    }
    Ok(RouteUpgrade {
        name,
        enabled: config.enabled.is_none_or(|value| value.value),
        terminates: config
            .connect_config
            .map(terminate)
            .transpose()
            .within("connect_config")?,
    })
}

fn terminate(mut config: ConnectConfig) -> Result<Terminate, Invalid> {
    let announces = config
        .proxy_protocol_config
        .take()
        .map(announcement)
        .transpose()
        .within("proxy_protocol_config")?;
    refuse_rest(&config)?;
    Ok(Terminate { announces })
}

fn announcement(mut config: ProxyProtocolConfig) -> Result<Announcement, Invalid> {
    let announcement = match Version::try_from(std::mem::take(&mut config.version)) {
        Ok(Version::V1) => Announcement::V1,
        Ok(Version::V2) => Announcement::V2,
        Err(_) => return Err(Invalid::new("version", "is not a known version")),
    };
    refuse_rest(&config)?;
    Ok(announcement)
}
