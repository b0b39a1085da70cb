//! Platforms, and the choice of one from those that an index offers (OCI image-spec, image-index.md).

use std::{env::consts::ARCH, fmt};

use serde::{Deserialize, Serialize};

/// An operating system and processor, in Go's words (`linux`, `amd64`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// Operating system, such as `linux`.
    #[serde(default)]
    pub os: String,
    /// Processor architecture, such as `amd64` or `arm64`.
    #[serde(default)]
    pub architecture: String,
    /// Variant of the architecture, such as `v7` of `arm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// Linux on the architecture that this program was built for.
    pub fn host() -> Self {
        let (architecture, variant) = match ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "powerpc64" => ("ppc64le", None),
            "loongarch64" => ("loong64", None),
            same => (same, None),
        };
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    /// How well something made for `offered` runs here: higher is better, `None` is not at all.
    pub(crate) fn suits(&self, offered: &Self) -> Option<u32> {
        if offered.os != self.os || offered.architecture != self.architecture {
            return None;
        }
        let level = |variant: &Option<String>| -> Option<u32> {
            variant.as_deref().map_or(Some(0), |variant| {
                variant.strip_prefix('v').unwrap_or(variant).parse().ok()
            })
        };
        // A variant is a level of features: lower levels run on higher ones. Without a level of our own only the
        // base is sure to run (`amd64` means `v1`).
        let offered = level(&offered.variant)?;
        (offered <= level(&self.variant)?.max(1)).then_some(offered)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.os, self.architecture)?;
        self.variant
            .iter()
            .try_for_each(|variant| write!(formatter, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        let mut words = text.split('/').map(str::to_owned);
        Platform {
            os: words.next().unwrap(),
            architecture: words.next().unwrap(),
            variant: words.next(),
        }
    }

    #[test]
    fn lower_variants_run_on_higher_ones() {
        for (here, offered, expected) in [
            ("linux/amd64", "linux/amd64", Some(0)),
            ("linux/amd64", "linux/amd64/v1", Some(1)),
            ("linux/amd64", "linux/amd64/v3", None),
            ("linux/amd64", "linux/arm64", None),
            ("linux/amd64", "windows/amd64", None),
            ("linux/arm64/v8", "linux/arm64", Some(0)),
            ("linux/arm64/v8", "linux/arm64/v8", Some(8)),
            ("linux/arm/v7", "linux/arm/v6", Some(6)),
            ("linux/arm/v6", "linux/arm/v7", None),
            ("linux/amd64", "unknown/unknown", None),
            ("linux/amd64", "linux/amd64/odd", None),
        ] {
            assert_eq!(
                platform(here).suits(&platform(offered)),
                expected,
                "{offered} on {here}"
            );
        }
    }
}
