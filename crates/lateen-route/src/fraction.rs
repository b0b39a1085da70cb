//! Shares of requests, as `FractionalPercent` gives them.

use lateen_xds::pb::envoy::config::core::v3::RuntimeFractionalPercent;
use lateen_xds::pb::envoy::r#type::v3::FractionalPercent;
use lateen_xds::pb::envoy::r#type::v3::fractional_percent::DenominatorType;

use crate::{Invalid, Within};

/// A share of all requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fraction {
    numerator: u64,
    denominator: u64,
}

impl Fraction {
    /// Every request.
    pub const ALL: Self = Self {
        numerator: 1,
        denominator: 1,
    };

    /// Compiles the protobuf form.
    pub fn compile(percent: FractionalPercent) -> Result<Self, Invalid> {
        let denominator = match DenominatorType::try_from(percent.denominator) {
            Ok(DenominatorType::Hundred) => 100,
            Ok(DenominatorType::TenThousand) => 10_000,
            Ok(DenominatorType::Million) => 1_000_000,
            Err(_) => return Err(Invalid::new("denominator", "is not a known denominator")),
        };
        Ok(Self {
            numerator: percent.numerator.into(),
            denominator,
        })
    }

    /// A share with a runtime key. There is no runtime layer, so the default always counts.
    pub fn compile_runtime(percent: RuntimeFractionalPercent) -> Result<Self, Invalid> {
        match percent.default_value {
            Some(value) => Self::compile(value).within("default_value"),
            None => Err(Invalid::new("default_value", "is required")),
        }
    }

    /// No request, which is what a percentage that is not given stands for in most fields.
    pub const NONE: Self = Self {
        numerator: 0,
        denominator: 100,
    };

    /// The share with at most this numerator, in the same denominator.
    #[must_use]
    pub fn at_most(self, numerator: u64) -> Self {
        Self {
            numerator: self.numerator.min(numerator),
            ..self
        }
    }

    /// Whether a random number falls into the share.
    pub fn draws(self, random: u64) -> bool {
        random % self.denominator < self.numerator
    }
}
