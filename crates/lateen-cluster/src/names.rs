//! Random names and ids.

use uuid::Uuid;

/// The letters of generated names: no vowels and nothing that reads like another letter.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Longest name that `generateName` may lead to, without the suffix (`apiserver/pkg/storage/names`).
const LONGEST_BASE: usize = 63 - SUFFIX;

const SUFFIX: usize = 5;

/// A new uid.
pub(crate) fn uid() -> String {
    Uuid::new_v4().to_string()
}

/// 244 random bits of the system's generator, in hexadecimal.
pub(crate) fn secret() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

/// `base` with a random suffix of five letters, cut to what fits a DNS label.
pub(crate) fn generate(base: &str) -> String {
    let mut end = base.len().min(LONGEST_BASE);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = base[..end].to_owned();
    for byte in &Uuid::new_v4().as_bytes()[..SUFFIX] {
        name.push(LETTERS[usize::from(*byte) % LETTERS.len()] as char);
    }
    name
}
