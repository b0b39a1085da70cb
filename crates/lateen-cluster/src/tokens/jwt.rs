//! JSON Web Tokens, signed with ECDSA on P-256 (`ES256`, RFC 7518).

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Longer tokens are not looked at.
const LONGEST: usize = 16 * 1024;

/// The key that signs.
pub(super) struct Signer {
    pair: EcdsaKeyPair,
    id: String,
}

impl Signer {
    /// A new key in PKCS #8 form, in base64; `None` when the system has no randomness.
    pub(super) fn generate() -> Option<String> {
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        document.ok().map(|key| STANDARD.encode(key.as_ref()))
    }

    /// Reads what [`Signer::generate`] gave.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text.trim()).ok()?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &bytes).ok()?;
        let digest = Sha256::digest(pair.public_key().as_ref());
        Some(Self {
            id: URL_SAFE_NO_PAD.encode(digest),
            pair,
        })
    }

    /// A token with these claims; `None` when the system has no randomness.
    pub(super) fn sign(&self, claims: &Value) -> Option<String> {
        let header = json!({"alg": "ES256", "kid": self.id});
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(claims));
        let signature = self
            .pair
            .sign(&SystemRandom::new(), signed.as_bytes())
            .ok()?;
        Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The claims of a token that this key signed.
    pub(super) fn verify(&self, token: &str) -> Option<Value> {
        if token.len() > LONGEST {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key().as_ref());
        key.verify(signed.as_bytes(), &signature).ok()?;
        let (_, claims) = signed.split_once('.')?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
    }

    /// The public key as a JSON Web Key Set.
    pub(super) fn key_set(&self) -> Value {
        // An uncompressed point: a marker byte, then the two coordinates.
        let point = self.pair.public_key().as_ref();
        let half = (point.len() - 1) / 2;
        json!({"keys": [{
            "use": "sig",
            "kty": "EC",
            "kid": self.id,
            "crv": "P-256",
            "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(&point[1..=half]),
            "y": URL_SAFE_NO_PAD.encode(&point[1 + half..]),
        }]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tokens_of_this_key_are_verified() {
        let signer = Signer::parse(&Signer::generate().unwrap()).unwrap();
        let other = Signer::parse(&Signer::generate().unwrap()).unwrap();
        let claims = json!({"sub": "robot"});
        let token = signer.sign(&claims).unwrap();
        assert_eq!(token.split('.').count(), 3);
        assert_eq!(signer.verify(&token), Some(claims));
        assert_eq!(other.verify(&token), None);
        let parts: Vec<&str> = token.split('.').collect();
        let forged = URL_SAFE_NO_PAD.encode(json!({"sub": "admin"}).to_string());
        let forged = format!("{}.{forged}.{}", parts[0], parts[2]);
        assert_eq!(signer.verify(&forged), None);
        assert_eq!(signer.verify("a.b"), None);
    }
}
