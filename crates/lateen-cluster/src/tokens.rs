//! Bearer tokens: the administrator's and those of service accounts.

use std::path::Path;
use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::names;
use crate::server::Api;
use crate::serving::CertificateError;
use crate::status::{Result, Status};
use crate::user::User;

/// The keys to the server.
pub struct Tokens {
    admin: String,
}

impl Tokens {
    /// Loads the tokens of the state folder, or makes them.
    pub(crate) fn open(folder: &Path) -> Result<Self, CertificateError> {
        let path = folder.join("admin.token");
        let admin = match crate::serving::read(&path)? {
            Some(token) => token.trim().to_owned(),
            None => {
                let token = names::secret();
                crate::serving::write_private(&path, &token)?;
                token
            }
        };
        Ok(Self { admin })
    }

    /// The administrator's token.
    pub(crate) fn admin(&self) -> &str {
        &self.admin
    }

    /// Who sends a request: `None` for a request without a token, an error for one with a wrong token.
    pub(crate) fn authenticate(
        &self,
        headers: &HeaderMap,
        _api: &Arc<Api>,
    ) -> Result<Option<User>> {
        let Some(header) = headers.get(AUTHORIZATION) else {
            return Ok(None);
        };
        let unauthorized = || Status::new(401, "Unauthorized", "Unauthorized");
        let text = header.to_str().map_err(|_error| unauthorized())?;
        let (scheme, token) = text.split_once(' ').ok_or_else(unauthorized)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(unauthorized());
        }
        let token = token.trim();
        if equal(token.as_bytes(), self.admin.as_bytes()) {
            return Ok(Some(User::admin()));
        }
        Err(unauthorized())
    }
}

/// Compares in a time that tells nothing of where two secrets differ.
fn equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && one
            .iter()
            .zip(other)
            .fold(0, |difference, (a, b)| difference | (a ^ b))
            == 0
}
