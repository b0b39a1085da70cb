//! Response flags and details: why a request ended as it did, in the words of Envoy's access log.

/// A set of response flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Flags(u32);

macro_rules! flags {
    ($($constant:ident $bit:literal $text:literal $long:literal;)*) => {
        #[allow(dead_code, reason = "the names of all flags may be asked for in configurations")]
        impl Flags {
            $(#[doc = $text] pub(crate) const $constant: Self = Self(1 << $bit);)*

            /// Every flag with its names, in the order in which Envoy writes them.
            const ALL: &'static [(Self, &'static str, &'static str)] =
                &[$((Self::$constant, $text, $long),)*];
        }
    };
}

flags! {
    FAILED_LOCAL_HEALTH_CHECK 0 "LH" "FailedLocalHealthCheck";
    NO_HEALTHY_UPSTREAM 1 "UH" "NoHealthyUpstream";
    UPSTREAM_REQUEST_TIMEOUT 2 "UT" "UpstreamRequestTimeout";
    LOCAL_RESET 3 "LR" "LocalReset";
    UPSTREAM_REMOTE_RESET 4 "UR" "UpstreamRemoteReset";
    UPSTREAM_CONNECTION_FAILURE 5 "UF" "UpstreamConnectionFailure";
    UPSTREAM_CONNECTION_TERMINATION 6 "UC" "UpstreamConnectionTermination";
    UPSTREAM_OVERFLOW 7 "UO" "UpstreamOverflow";
    NO_ROUTE 8 "NR" "NoRouteFound";
    DELAY_INJECTED 9 "DI" "DelayInjected";
    FAULT_INJECTED 10 "FI" "FaultInjected";
    RATE_LIMITED 11 "RL" "RateLimited";
    UNAUTHORIZED_EXTERNAL_SERVICE 12 "UAEX" "UnauthorizedExternalService";
    RATE_LIMIT_SERVICE_ERROR 13 "RLSE" "RateLimitServiceError";
    DOWNSTREAM_TERMINATION 14 "DC" "DownstreamConnectionTermination";
    UPSTREAM_RETRY_LIMIT_EXCEEDED 15 "URX" "UpstreamRetryLimitExceeded";
    STREAM_IDLE_TIMEOUT 16 "SI" "StreamIdleTimeout";
    INVALID_ENVOY_REQUEST_HEADERS 17 "IH" "InvalidEnvoyRequestHeaders";
    DOWNSTREAM_PROTOCOL_ERROR 18 "DPE" "DownstreamProtocolError";
    UPSTREAM_MAX_STREAM_DURATION_REACHED 19 "UMSDR" "UpstreamMaxStreamDurationReached";
    RESPONSE_FROM_CACHE 20 "RFCF" "ResponseFromCacheFilter";
    NO_FILTER_CONFIG 21 "NFCF" "NoFilterConfigFound";
    DURATION_TIMEOUT 22 "DT" "DurationTimeout";
    UPSTREAM_PROTOCOL_ERROR 23 "UPE" "UpstreamProtocolError";
    NO_CLUSTER 24 "NC" "NoClusterFound";
    OVERLOAD_MANAGER 25 "OM" "OverloadManagerTerminated";
    DNS_FAILURE 26 "DF" "DnsResolutionFailed";
    DROP_OVERLOAD 27 "DO" "DropOverload";
    DOWNSTREAM_REMOTE_RESET 28 "DR" "DownstreamRemoteReset";
    UNCONDITIONAL_DROP_OVERLOAD 29 "UDO" "UnconditionalDropOverload";
}

impl Flags {
    pub(crate) fn set(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub(crate) fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The set as a number.
    pub(crate) fn bits(self) -> u32 {
        self.0
    }

    /// The flag of this name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, text, _)| *text == name)
            .map(|(flag, ..)| *flag)
    }

    /// Writes the short names, joined by commas; false when there are none.
    pub(crate) fn write(self, out: &mut String) -> bool {
        self.join(out, |(_, short, _)| short)
    }

    /// Writes the long names, joined by commas; false when there are none.
    pub(crate) fn write_long(self, out: &mut String) -> bool {
        self.join(out, |(_, _, long)| long)
    }

    fn join(
        self,
        out: &mut String,
        name: impl Fn(&(Self, &'static str, &'static str)) -> &'static str,
    ) -> bool {
        let mut first = true;
        for flag in Self::ALL.iter().filter(|(flag, ..)| self.has(*flag)) {
            if !first {
                out.push(',');
            }
            out.push_str(name(flag));
            first = false;
        }
        !first
    }
}
