//! Counters with Envoy's names, kept per worker so that counting is a plain store, and summed when asked for.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::histogram::{HistogramSums, LazyHistogram};

thread_local! {
    /// Which slot this thread counts in: 0 for the control thread, workers from 1.
    static SLOT: Cell<usize> = const { Cell::new(0) };
}

/// Makes the current thread count in `slot`. Called once at the start of a worker.
pub(crate) fn enter_slot(slot: usize) {
    SLOT.with(|cell| cell.set(slot));
}

/// One number, written by one thread and read by any. Gauges count down by wrapping.
#[derive(Debug, Default)]
pub(crate) struct Stat(AtomicU64);

impl Stat {
    /// Adds without a locked instruction: only one thread writes a slot.
    pub(crate) fn add(&self, amount: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(amount),
            Ordering::Relaxed,
        );
    }

    pub(crate) fn inc(&self) {
        self.add(1);
    }

    pub(crate) fn dec(&self) {
        self.add(u64::MAX);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One copy of a group of counters per thread. The alignment keeps two threads off one cache line.
#[derive(Debug)]
pub(crate) struct PerWorker<T> {
    slots: Box<[Aligned<T>]>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Aligned<T>(T);

impl<T: Default> PerWorker<T> {
    /// Room for the control thread and `workers` workers.
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            slots: (0..=workers).map(|_| Aligned::default()).collect(),
        }
    }

    /// The copy of the current thread.
    pub(crate) fn here(&self) -> &T {
        let slot = SLOT.with(Cell::get);
        &self.slots[slot.min(self.slots.len() - 1)].0
    }

    /// The number over all threads.
    pub(crate) fn sum(&self, stat: impl Fn(&T) -> &Stat) -> u64 {
        self.slots
            .iter()
            .fold(0u64, |sum, slot| sum.wrapping_add(stat(&slot.0).get()))
    }
}

/// Whether a number only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
}

/// Defines a group of counters and a way to visit their sums by name.
macro_rules! stat_group {
    (
        $(#[$doc:meta])* $name:ident { $($kind:ident $field:ident $text:literal,)* }
        $(histograms { $($histogram:ident $histogram_text:literal,)* })?
    ) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub(crate) struct $name {
            $(pub(crate) $field: Stat,)*
            $($(pub(crate) $histogram: LazyHistogram,)*)?
        }

        impl $name {
            /// Calls `visit` with name, kind and sum of every number.
            pub(crate) fn visit(
                group: &PerWorker<Self>,
                visit: &mut dyn FnMut(&'static str, Kind, u64),
            ) {
                $(visit($text, Kind::$kind, group.sum(|slot| &slot.$field));)*
            }

            $(
                /// Calls `visit` with name and sum of every histogram.
                pub(crate) fn visit_histograms(
                    group: &PerWorker<Self>,
                    visit: &mut dyn FnMut(&'static str, HistogramSums),
                ) {
                    $(
                        let mut sums = HistogramSums::default();
                        for slot in &group.slots {
                            slot.0.$histogram.merge_into(&mut sums);
                        }
                        visit($histogram_text, sums);
                    )*
                }
            )?
        }
    };
}

stat_group! {
    /// `cluster.<name>.`
    ClusterStats {
        Gauge cx_active "upstream_cx_active",
        Counter cx_total "upstream_cx_total",
        Counter cx_http1 "upstream_cx_http1_total",
        Counter cx_http2 "upstream_cx_http2_total",
        Counter cx_connect_fail "upstream_cx_connect_fail",
        Counter cx_connect_timeout "upstream_cx_connect_timeout",
        Counter cx_attempts_exceeded "upstream_cx_connect_attempts_exceeded",
        Counter cx_overflow "upstream_cx_overflow",
        Counter cx_destroy "upstream_cx_destroy",
        Counter cx_none_healthy "upstream_cx_none_healthy",
        Counter rx_bytes "upstream_cx_rx_bytes_total",
        Counter tx_bytes "upstream_cx_tx_bytes_total",
        Gauge rq_active "upstream_rq_active",
        Counter redirects_followed "upstream_internal_redirect_succeeded_total",
        Counter redirects_left "upstream_internal_redirect_failed_total",
        Counter rq_total "upstream_rq_total",
        Counter rq_completed "upstream_rq_completed",
        Counter rq_1xx "upstream_rq_1xx",
        Counter rq_2xx "upstream_rq_2xx",
        Counter rq_3xx "upstream_rq_3xx",
        Counter rq_4xx "upstream_rq_4xx",
        Counter rq_5xx "upstream_rq_5xx",
        Gauge rq_pending_active "upstream_rq_pending_active",
        Counter rq_pending_total "upstream_rq_pending_total",
        Counter rq_pending_overflow "upstream_rq_pending_overflow",
        Counter rq_active_overflow "upstream_rq_active_overflow",
        Counter rq_pending_failure_eject "upstream_rq_pending_failure_eject",
        Counter rq_retry "upstream_rq_retry",
        Counter rq_retry_success "upstream_rq_retry_success",
        Counter rq_retry_overflow "upstream_rq_retry_overflow",
        Counter rq_retry_limit_exceeded "upstream_rq_retry_limit_exceeded",
        Counter rq_timeout "upstream_rq_timeout",
        Counter rq_per_try_timeout "upstream_rq_per_try_timeout",
        Counter rq_retry_backoff_exponential "upstream_rq_retry_backoff_exponential",
        Counter rq_retry_backoff_ratelimited "upstream_rq_retry_backoff_ratelimited",
        Counter rq_drop_overload "upstream_rq_drop_overload",
        Counter rq_rx_reset "upstream_rq_rx_reset",
        Counter rq_tx_reset "upstream_rq_tx_reset",
    }
    histograms {
        rq_time "upstream_rq_time",
    }
}

stat_group! {
    /// `cluster.<name>.outlier_detection.`
    OutlierStats {
        Counter enforced_total "ejections_enforced_total",
        Counter overflow "ejections_overflow",
        Counter detected_5xx "ejections_detected_consecutive_5xx",
        Counter enforced_5xx "ejections_enforced_consecutive_5xx",
        Counter detected_gateway "ejections_detected_consecutive_gateway_failure",
        Counter enforced_gateway "ejections_enforced_consecutive_gateway_failure",
        Counter detected_local "ejections_detected_consecutive_local_origin_failure",
        Counter enforced_local "ejections_enforced_consecutive_local_origin_failure",
        Counter detected_success_rate "ejections_detected_success_rate",
        Counter enforced_success_rate "ejections_enforced_success_rate",
        Counter detected_failure_percentage "ejections_detected_failure_percentage",
        Counter enforced_failure_percentage "ejections_enforced_failure_percentage",
        Counter detected_local_success_rate "ejections_detected_local_origin_success_rate",
        Counter enforced_local_success_rate "ejections_enforced_local_origin_success_rate",
        Counter detected_local_failure_percentage "ejections_detected_local_origin_failure_percentage",
        Counter enforced_local_failure_percentage "ejections_enforced_local_origin_failure_percentage",
    }
}

stat_group! {
    /// `http.<stat_prefix>.`
    HttpStats {
        Gauge cx_active "downstream_cx_active",
        Counter cx_total "downstream_cx_total",
        Counter cx_http1 "downstream_cx_http1_total",
        Counter cx_http2 "downstream_cx_http2_total",
        Counter cx_idle_timeout "downstream_cx_idle_timeout",
        Counter cx_drain_close "downstream_cx_drain_close",
        Counter cx_max_duration "downstream_cx_max_duration_reached",
        Counter cx_max_requests "downstream_cx_max_requests_reached",
        Counter cx_upgrades "downstream_cx_upgrades_total",
        Gauge cx_upgrades_active "downstream_cx_upgrades_active",
        Counter ws_on_non_ws_route "downstream_rq_ws_on_non_ws_route",
        Counter cx_protocol_error "downstream_cx_protocol_error",
        Counter rq_too_many_premature_resets "downstream_rq_too_many_premature_resets",
        Counter rq_timeout "downstream_rq_timeout",
        Counter rq_header_timeout "downstream_rq_header_timeout",
        Gauge rq_active "downstream_rq_active",
        Counter rq_total "downstream_rq_total",
        Counter rq_http1 "downstream_rq_http1_total",
        Counter rq_http2 "downstream_rq_http2_total",
        Counter rq_completed "downstream_rq_completed",
        Counter rq_1xx "downstream_rq_1xx",
        Counter rq_2xx "downstream_rq_2xx",
        Counter rq_3xx "downstream_rq_3xx",
        Counter rq_4xx "downstream_rq_4xx",
        Counter rq_5xx "downstream_rq_5xx",
        Counter rx_bytes "downstream_cx_rx_bytes_total",
        Counter tx_bytes "downstream_cx_tx_bytes_total",
        Counter no_route "no_route",
        Counter no_cluster "no_cluster",
        Counter redirect_bad_location "passthrough_internal_redirect_bad_location",
        Counter redirect_no_route "passthrough_internal_redirect_no_route",
        Counter redirect_predicate "passthrough_internal_redirect_predicate",
        Counter redirect_too_many "passthrough_internal_redirect_too_many_redirects",
        Counter redirect_unsafe_scheme "passthrough_internal_redirect_unsafe_scheme",
        Counter redirect "rq_redirect",
        Counter direct "rq_direct_response",
        Counter forwarded "rq_total",
        Counter cx_destroy "downstream_cx_destroy",
        Counter reset_after_downstream_response_started "rq_reset_after_downstream_response_started",
        Counter body_fields_applied "body_to_headers.applied",
        Counter body_fields_unreadable "body_to_headers.unreadable",
        Counter body_fields_too_large "body_to_headers.too_large",
        Counter body_fields_rejected "body_to_headers.rejected",
        Counter body_fields_overflow "body_to_headers.overflow",
        Counter cors_origin_valid "cors.origin_valid",
        Counter cors_origin_invalid "cors.origin_invalid",
        Counter faults_delayed "fault.delays_injected",
        Counter faults_aborted "fault.aborts_injected",
        Counter faults_rate_limited "fault.response_rl_injected",
        Counter faults_overflow "fault.faults_overflow",
        Gauge faults_active "fault.active_faults",
    }
    histograms {
        rq_time "downstream_rq_time",
        cx_length "downstream_cx_length_ms",
    }
}

stat_group! {
    /// `listener.<address>.`
    ListenerStats {
        Gauge cx_active "downstream_cx_active",
        Counter cx_total "downstream_cx_total",
        Counter cx_destroy "downstream_cx_destroy",
        Counter cx_overflow "downstream_cx_overflow",
        Counter no_filter_chain_match "no_filter_chain_match",
        Counter pre_cx_timeout "downstream_pre_cx_timeout",
    }
    histograms {
        cx_length "downstream_cx_length_ms",
    }
}

stat_group! {
    /// `listener.<address>.ssl.` and `cluster.<name>.ssl.`
    SslStats {
        Counter connection_error "connection_error",
        Counter handshake "handshake",
        Counter session_reused "session_reused",
        Counter no_certificate "no_certificate",
        Counter fail_verify_no_cert "fail_verify_no_cert",
        Counter fail_verify_error "fail_verify_error",
        Counter fail_verify_san "fail_verify_san",
        Counter fail_verify_cert_hash "fail_verify_cert_hash",
        Counter was_key_usage_invalid "was_key_usage_invalid",
        Counter not_ready "secrets_not_ready",
    }
}

stat_group! {
    /// `proxy_proto.`, or `proxy_proto.<stat_prefix>.`
    ProxyProtocolStats {
        Counter absent_allowed "not_found_allowed",
        Counter absent_disallowed "not_found_disallowed",
        Counter v1_found "versions.v1.found",
        Counter v1_disallowed "versions.v1.disallowed",
        Counter v1_error "versions.v1.error",
        Counter v2_found "versions.v2.found",
        Counter v2_disallowed "versions.v2.disallowed",
        Counter v2_error "versions.v2.error",
    }
}

stat_group! {
    /// `tcp.<stat_prefix>.`
    TcpStats {
        Counter cx_total "downstream_cx_total",
        Counter cx_no_route "downstream_cx_no_route",
        Counter rx_bytes "downstream_cx_rx_bytes_total",
        Counter tx_bytes "downstream_cx_tx_bytes_total",
        Counter idle_timeout "idle_timeout",
        Counter longest "max_downstream_connection_duration",
    }
}

macro_rules! count_responses {
    ($($name:ident)*) => {$(
        impl $name {
            /// Counts a response of this status class.
            pub(crate) fn response(&self, status: u16) {
                self.rq_completed.inc();
                match status / 100 {
                    1 => self.rq_1xx.inc(),
                    2 => self.rq_2xx.inc(),
                    3 => self.rq_3xx.inc(),
                    4 => self.rq_4xx.inc(),
                    _ => self.rq_5xx.inc(),
                }
            }
        }
    )*};
}

count_responses! { ClusterStats HttpStats }

/// Counts of responses by status. Each class takes room with its first response.
#[derive(Debug, Default)]
pub(crate) struct Codes([OnceLock<Box<[Stat; 100]>>; 5]);

impl Codes {
    /// Counts a response.
    pub(crate) fn inc(&self, status: u16) {
        let class = usize::from(status / 100).wrapping_sub(1);
        if let Some(class) = self.0.get(class) {
            let codes = class.get_or_init(|| Box::new(std::array::from_fn(|_| Stat::default())));
            codes[usize::from(status % 100)].inc();
        }
    }

    /// Calls `visit` with each status that was seen, and its sum.
    pub(crate) fn visit(group: &PerWorker<Self>, visit: &mut dyn FnMut(u16, u64)) {
        for status in 100..600_u16 {
            let of_slot = |slot: &Aligned<Self>| {
                let class = slot.0.0[usize::from(status / 100 - 1)].get()?;
                Some(class[usize::from(status % 100)].get())
            };
            let sum = group
                .slots
                .iter()
                .filter_map(of_slot)
                .fold(0, u64::wrapping_add);
            if sum > 0 {
                visit(status, sum);
            }
        }
    }
}
