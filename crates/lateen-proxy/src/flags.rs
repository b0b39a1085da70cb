//! Response flags and details: why a request ended as it did, in the words of Envoy's access log.

/// A set of response flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Flags(u32);

macro_rules! flags {
    ($($constant:ident $bit:literal $text:literal;)*) => {
        impl Flags {
            $(#[doc = $text] pub(crate) const $constant: Self = Self(1 << $bit);)*

            /// Every flag with its name in the order in which Envoy writes them.
            const ALL: &'static [(Self, &'static str)] = &[$((Self::$constant, $text),)*];
        }
    };
}

flags! {
    NO_HEALTHY_UPSTREAM 0 "UH";
    UPSTREAM_CONNECTION_FAILURE 1 "UF";
    UPSTREAM_CONNECTION_TERMINATION 2 "UC";
    UPSTREAM_OVERFLOW 3 "UO";
    UPSTREAM_REMOTE_RESET 4 "UR";
    UPSTREAM_REQUEST_TIMEOUT 5 "UT";
    UPSTREAM_RETRY_LIMIT_EXCEEDED 6 "URX";
    NO_ROUTE 7 "NR";
    NO_CLUSTER 8 "NC";
    DELAY_INJECTED 9 "DI";
    FAULT_INJECTED 10 "FI";
    DOWNSTREAM_TERMINATION 11 "DC";
    DOWNSTREAM_PROTOCOL_ERROR 12 "DPE";
    STREAM_IDLE_TIMEOUT 13 "SI";
    DURATION_TIMEOUT 14 "DT";
    DROP_OVERLOAD 27 "DO";
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
            .find(|(_, text)| *text == name)
            .map(|(flag, _)| *flag)
    }

    /// Writes the names, joined by commas; false when there are none.
    pub(crate) fn write(self, out: &mut String) -> bool {
        let mut first = true;
        for (_, text) in Self::ALL.iter().filter(|(flag, _)| self.has(*flag)) {
            if !first {
                out.push(',');
            }
            out.push_str(text);
            first = false;
        }
        !first
    }
}
