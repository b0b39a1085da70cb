//! Requests to one repository, with whatever proof of identity the registry asks for
//! (distribution's "Token Authentication Specification", "OAuth2 Token Authentication"; RFC 7617).

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{
    HeaderMap, StatusCode,
    header::{AUTHORIZATION, HeaderValue},
};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::{
    PullError,
    challenge::{Challenge, challenge},
    client::{Answer, Ask, Client},
    url::Url,
};
use crate::{Reference, credentials::Credential};

/// Largest answer of an authentication server, in bytes.
const MAX_TOKEN: u64 = 1 << 20;

/// Requests to the repository of an image.
#[derive(Debug)]
pub(super) struct Session<'a> {
    client: &'a Client,
    name: &'a Reference,
    base: Url,
    /// What to try, in order; `None` is to ask without credentials.
    candidates: Vec<Option<Credential>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    authorization: Option<HeaderValue>,
    challenge: Option<Challenge>,
    /// The candidate that `authorization` was made of.
    candidate: usize,
    /// Did the registry accept this candidate once? Then a refusal means that its token expired.
    proven: bool,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        client: &'a Client,
        name: &'a Reference,
        credentials: Vec<Credential>,
    ) -> Result<Self, PullError> {
        let mut candidates: Vec<Option<Credential>> = credentials.into_iter().map(Some).collect();
        if candidates.is_empty() {
            candidates.push(None);
        }
        Ok(Self {
            client,
            name,
            base: client.registry(name.registry())?,
            candidates,
            state: Mutex::default(),
        })
    }

    /// Gets something of the repository: `manifests/latest`, `blobs/sha256:...`. Answers that are no refusals are the
    /// caller's to judge.
    pub(super) async fn get(&self, what: &str, headers: &HeaderMap) -> Result<Answer, PullError> {
        let mut url = self.base.clone();
        url.path = format!("/v2/{}/{what}", self.name.repository());
        // Once without proof, once with each candidate, and twice again with one that was accepted, since tokens expire.
        for _ in 0..self.candidates.len() + 3 {
            let used = self.state.lock().await.authorization.clone();
            let mut ask = Ask {
                headers: headers.clone(),
                form: None,
            };
            if let Some(used) = &used {
                ask.headers.insert(AUTHORIZATION, used.clone());
            }
            let answer = self.client.send(&url, &ask).await?;
            let refused =
                [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&answer.status);
            // Servers that the registry redirects to have a say of their own.
            if !refused || !answer.url.same_origin(&url) {
                self.state.lock().await.proven |= answer.status.is_success() && used.is_some();
                return Ok(answer);
            }
            let asked = challenge(&answer.headers);
            let PullError::Status { message, .. } = answer.into_error().await else {
                continue;
            };
            self.authorize(used.as_ref(), asked, &message).await?;
        }
        Err(self.unauthorized("it refused every proof that it had asked for"))
    }

    /// Gets another proof than the one that was refused.
    async fn authorize(
        &self,
        refused: Option<&HeaderValue>,
        asked: Option<Challenge>,
        message: &str,
    ) -> Result<(), PullError> {
        // The lock is held, so that several refused requests ask for one token.
        let mut state = self.state.lock().await;
        if state.authorization.as_ref() != refused {
            return Ok(());
        }
        state.challenge = asked.or_else(|| state.challenge.take());
        let Some(challenge) = state.challenge.clone() else {
            let why =
                format!("it refused{message} and asks for no credentials that are known here");
            return Err(self.unauthorized(&why));
        };
        if refused.is_some() && !state.proven {
            state.candidate += 1;
        }
        while let Some(candidate) = self.candidates.get(state.candidate) {
            if let Some(mut header) = self.answer(&challenge, candidate.as_ref()).await? {
                header.set_sensitive(true);
                state.authorization = Some(header);
                return Ok(());
            }
            state.candidate += 1;
        }
        let tried = match self.candidates.as_slice() {
            [None] => "it asks for credentials, and there are none for it".to_owned(),
            some => format!("it refused the credentials ({} tried){message}", some.len()),
        };
        Err(self.unauthorized(&tried))
    }

    /// The proof that a candidate gives; `None` when it gives none.
    async fn answer(
        &self,
        challenge: &Challenge,
        candidate: Option<&Credential>,
    ) -> Result<Option<HeaderValue>, PullError> {
        let (realm, service, scope) = match (challenge, candidate) {
            (Challenge::Basic, Some(Credential::Password { user, password })) => {
                return Ok(basic(user, password));
            }
            (Challenge::Basic, _) => return Ok(None),
            (Challenge::Bearer { .. }, Some(Credential::Registry(token))) => {
                return Ok(bearer(token));
            }
            (
                Challenge::Bearer {
                    realm,
                    service,
                    scope,
                },
                _,
            ) => (realm, service, scope),
        };
        let refuse = |why: String| PullError::Address {
            from: self.base.to_string(),
            why,
        };
        let mut url = Url::parse(realm).map_err(refuse)?;
        if self.base.secure && !url.secure {
            return Err(refuse(format!(
                "the authentication server {url} is not secure"
            )));
        }
        let own_scope = format!("repository:{}:pull", self.name.repository());
        let mut query = vec![("scope", scope.as_deref().unwrap_or(&own_scope))];
        query.extend(service.as_deref().map(|service| ("service", service)));
        let mut ask = Ask::default();
        match candidate {
            Some(Credential::Identity(token)) => {
                query.push(("grant_type", "refresh_token"));
                query.push(("refresh_token", token));
                query.push(("client_id", "lateen"));
                ask.form = Some(form(&query));
            }
            other => {
                let separator = if url.path.contains('?') { '&' } else { '?' };
                url.path = format!("{}{separator}{}", url.path, form(&query));
                if let Some(Credential::Password { user, password }) = other {
                    let Some(mut header) = basic(user, password) else {
                        return Ok(None);
                    };
                    header.set_sensitive(true);
                    ask.headers.insert(AUTHORIZATION, header);
                }
            }
        }
        self.token(&url, &ask).await
    }

    /// Asks an authentication server; `None` when it refuses.
    async fn token(&self, url: &Url, ask: &Ask) -> Result<Option<HeaderValue>, PullError> {
        let answer = self.client.send(url, ask).await?;
        match answer.status.as_u16() {
            200 => {}
            400 | 401 | 403 => return Ok(None),
            _ => return Err(answer.into_error().await),
        }
        let fail = |why: &str| PullError::Token {
            url: url.to_string(),
            why: why.to_owned(),
        };
        let bytes = answer
            .read(MAX_TOKEN)
            .await?
            .ok_or_else(|| fail("its answer is larger than a mebibyte"))?;
        // The reason may quote a token.
        let answer: Token =
            serde_json::from_slice(&bytes).map_err(|_| fail("its answer cannot be read"))?;
        let token = answer
            .token
            .or(answer.access_token)
            .filter(|token| !token.is_empty())
            .ok_or_else(|| fail("its answer has none"))?;
        bearer(&token)
            .map(Some)
            .ok_or_else(|| fail("its token is no text"))
    }

    fn unauthorized(&self, why: &str) -> PullError {
        PullError::Unauthorized {
            registry: self.name.registry().to_owned(),
            repository: self.name.repository().to_owned(),
            why: why.to_owned(),
        }
    }
}

fn form(pairs: &[(&str, &str)]) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(pairs).finish()
}

fn basic(user: &str, password: &str) -> Option<HeaderValue> {
    let encoded = STANDARD.encode(format!("{user}:{password}"));
    HeaderValue::try_from(format!("Basic {encoded}")).ok()
}

fn bearer(token: &str) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("Bearer {token}")).ok()
}
