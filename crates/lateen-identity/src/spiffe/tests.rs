//! The grammar of SPIFFE ids, as tables.

use super::{MAX_ID, MAX_TRUST_DOMAIN, SpiffeError, SpiffeId, TrustDomain};

#[test]
fn a_valid_id_is_read_and_written_back_unchanged() {
    let longest_domain = format!("spiffe://{}/a", "d".repeat(MAX_TRUST_DOMAIN));
    let longest = format!("spiffe://d/{}", "p".repeat(MAX_ID - "spiffe://d/".len()));
    for text in [
        "spiffe://cluster.local/ns/default/sa/bookinfo-reviews",
        "spiffe://cluster.local",
        "spiffe://a_b-c.1/Upper.Case/...",
        longest_domain.as_str(),
        longest.as_str(),
    ] {
        let id: SpiffeId = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(id.to_string(), text);
    }
}

#[test]
fn an_ambiguous_or_malformed_id_is_refused() {
    let long_domain = format!("spiffe://{}/a", "d".repeat(MAX_TRUST_DOMAIN + 1));
    let long = format!("spiffe://d/{}", "p".repeat(MAX_ID));
    for text in [
        "",
        "spiffe:",
        "spiffe://",
        "spiffe:///ns/a",
        "https://cluster.local/ns/a/sa/b",
        "SPIFFE://cluster.local/ns/a/sa/b",
        "spiffe://Cluster.Local/ns/a/sa/b",
        "spiffe://cluster.local/",
        "spiffe://cluster.local/ns/a/sa/b/",
        "spiffe://cluster.local//ns/a",
        "spiffe://cluster.local/ns/../sa/b",
        "spiffe://cluster.local/./ns",
        "spiffe://cluster.local/ns/a%2fb",
        "spiffe://cluster.local/ns/a\0b",
        "spiffe://cluster.local\0.evil/ns/a",
        "spiffe://cluster.local/ns/a?x=1",
        "spiffe://cluster.local/ns/a#f",
        "spiffe://cluster.local:443/ns/a",
        "spiffe://user@cluster.local/ns/a",
        "spiffe://cluster.local/ns/ä",
        " spiffe://cluster.local/ns/a",
        "spiffe://cluster.local/ns/a\n",
        long_domain.as_str(),
        long.as_str(),
    ] {
        assert!(text.parse::<SpiffeId>().is_err(), "{text:?} was accepted");
    }
}

/// Every byte, put into each part of an id: accepted exactly when the standard's character set has it.
#[test]
fn each_character_is_accepted_only_where_the_grammar_has_it() {
    for byte in 0..=127_u8 {
        let c = char::from(byte);
        let lower = c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        let domain = format!("spiffe://x{c}x/a").parse::<SpiffeId>();
        // A slash ends the domain, and what follows is a valid path.
        assert_eq!(domain.is_ok(), lower || c == '/', "domain {c:?}");
        let path = format!("spiffe://d/x{c}x").parse::<SpiffeId>();
        let in_path = lower || c.is_ascii_uppercase() || c == '/';
        assert_eq!(path.is_ok(), in_path, "path {c:?}");
        let workload = SpiffeId::workload(&domain_of("d"), &format!("x{c}x"), "sa");
        assert_eq!(workload.is_ok(), in_path && c != '/', "namespace {c:?}");
    }
}

#[test]
fn the_workload_form_is_made_and_taken_apart() {
    let id = SpiffeId::workload(&domain_of("cluster.local"), "default", "reviews").unwrap();
    assert_eq!(
        id.to_string(),
        "spiffe://cluster.local/ns/default/sa/reviews"
    );
    assert_eq!(id.namespace_and_account(), Some(("default", "reviews")));
    for other in [
        "spiffe://d/ns/a/sa/b/c",
        "spiffe://d/ns/a/b/sa/c",
        "spiffe://d/spire/agent",
        "spiffe://d",
    ] {
        let id: SpiffeId = other.parse().unwrap();
        assert_eq!(id.namespace_and_account(), None, "{other}");
    }
}

#[test]
fn an_error_repeats_only_the_start_of_a_long_string() {
    let error = "x".repeat(MAX_ID).parse::<SpiffeId>().unwrap_err();
    assert_eq!(error, SpiffeError::Scheme("x".repeat(80)));
}

fn domain_of(name: &str) -> TrustDomain {
    name.parse().unwrap()
}
