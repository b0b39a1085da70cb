//! Who is signed in: a signed cookie, so that a visitor cannot write one by hand.
//!
//! Any password is right, so the key protects no secret; it is the same in all replicas unless `SECRET_KEY` says otherwise.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Value, json};

use crate::identity::variable;

/// Longest name of a user, in bytes.
const NAME_LIMIT: usize = 256;

/// Signs and reads session cookies.
#[derive(Debug)]
pub(super) struct Sessions {
    key: hmac::Key,
}

impl Sessions {
    pub(super) fn new() -> Self {
        let secret = variable("SECRET_KEY").unwrap_or_else(|| "lateen bookinfo".to_owned());
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()),
        }
    }

    /// The user that a request's cookie names.
    pub(super) fn user(&self, headers: &HeaderMap) -> Option<String> {
        headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().strip_prefix("session="))
            .find_map(|cookie| self.read(cookie))
    }

    fn read(&self, cookie: &str) -> Option<String> {
        let (content, signature) = cookie.split_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        hmac::verify(&self.key, content.as_bytes(), &signature).ok()?;
        let content: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(content).ok()?).ok()?;
        Some(content.get("user")?.as_str()?.to_owned())
    }

    /// The `set-cookie` that signs `user` in; `None` for a name that cannot be a header's value.
    pub(super) fn sign_in(&self, user: &str) -> Option<HeaderValue> {
        HeaderValue::from_str(user)
            .ok()
            .filter(|_| !user.is_empty() && user.len() <= NAME_LIMIT)?;
        let content = URL_SAFE_NO_PAD.encode(json!({"user": user}).to_string());
        let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, content.as_bytes()));
        HeaderValue::from_str(&format!(
            "session={content}.{signature}; HttpOnly; Path=/; SameSite=Lax"
        ))
        .ok()
    }

    /// The `set-cookie` that signs out.
    pub(super) fn sign_out() -> HeaderValue {
        HeaderValue::from_static(
            "session=; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; HttpOnly; Path=/; SameSite=Lax",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cookie: &str, expected: Option<&str>) {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, cookie.parse().expect("a header"));
        let user = Sessions::new().user(&headers);
        assert_eq!(user.as_deref(), expected, "{cookie}");
    }

    #[test]
    fn only_cookies_of_our_own_sign_in() {
        let cookie = Sessions::new().sign_in("jason").expect("a cookie");
        let cookie = cookie
            .to_str()
            .expect("text")
            .split(';')
            .next()
            .expect("a part")
            .to_owned();
        check(&cookie, Some("jason"));
        check(&format!("a=b; {cookie}; c=d"), Some("jason"));
        check(&format!("session=x.y; {cookie}"), Some("jason"));
        check(&cookie.replace("session=", "other="), None);
        check(&format!("{cookie}x"), None);
        let (_, signature) = cookie.split_once('.').expect("two parts");
        let forged = URL_SAFE_NO_PAD.encode(r#"{"user":"admin"}"#);
        check(&format!("session={forged}.{signature}"), None);
        for broken in ["session=", "session=.", "session", "user=jason", ""] {
            check(broken, None);
        }
    }

    #[test]
    fn names_that_cannot_be_a_header_do_not_sign_in() {
        for name in ["", "a\nb", "a\0b", &"x".repeat(257)] {
            assert_eq!(Sessions::new().sign_in(name), None, "{name:?}");
        }
    }
}
