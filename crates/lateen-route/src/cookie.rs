//! Cookies that the proxy makes.

use std::fmt::Write;
use std::time::Duration;

/// A cookie as it is described to the client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CookieTemplate {
    /// Name, never empty.
    pub name: String,
    /// Life time; nothing or zero: until the client ends its session.
    pub ttl: Option<Duration>,
    /// Path attribute; empty: none.
    pub path: String,
    /// Further attributes; one with an empty value is a plain word.
    pub attributes: Vec<(String, String)>,
}

impl CookieTemplate {
    /// The value of `set-cookie`, in the form and order of Envoy.
    pub fn set(&self, value: &str) -> String {
        let mut text = format!("{}=\"{value}\"", self.name);
        // Writing to a string cannot fail.
        if let Some(ttl) = self.ttl.filter(|ttl| ttl.as_secs() > 0) {
            let _ = write!(text, "; Max-Age={}", ttl.as_secs());
        }
        if !self.path.is_empty() {
            let _ = write!(text, "; Path={}", self.path);
        }
        for (name, value) in &self.attributes {
            let _ = if value.is_empty() {
                write!(text, "; {name}")
            } else {
                write!(text, "; {name}={value}")
            };
        }
        text + "; HttpOnly"
    }
}
