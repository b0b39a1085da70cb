//! Short hashes that stand in names and labels, in the form that Kubernetes gives them.

/// The characters that Kubernetes generates names from: no vowels, so no words.
const SAFE_CHARACTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// Start and factor of the 32-bit FNV hashes (draft-eastlake-fnv, section 5).
const OFFSET_BASIS: u32 = 0x811c_9dc5;
const PRIME: u32 = 0x0100_0193;

/// FNV-1a: what pod templates are hashed by.
pub(super) fn fnv1a(bytes: impl IntoIterator<Item = u8>) -> u32 {
    bytes.into_iter().fold(OFFSET_BASIS, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(PRIME)
    })
}

/// FNV-1: what controller revisions are hashed by.
pub(super) fn fnv1(bytes: impl IntoIterator<Item = u8>) -> u32 {
    bytes.into_iter().fold(OFFSET_BASIS, |hash, byte| {
        hash.wrapping_mul(PRIME) ^ u32::from(byte)
    })
}

/// The hash as a text: each decimal digit becomes a letter or digit that is safe in names.
pub(super) fn safe_text(hash: u32) -> String {
    hash.to_string()
        .bytes()
        .map(|digit| char::from(SAFE_CHARACTERS[usize::from(digit) % SAFE_CHARACTERS.len()]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_draft() {
        for (text, first, second) in [
            ("", 0x811c_9dc5, 0x811c_9dc5),
            ("a", 0x050c_5d7e, 0xe40c_292c),
            ("foobar", 0x31f0_b262, 0xbf9c_f968),
        ] {
            assert_eq!(fnv1(text.bytes()), first, "FNV-1 of {text:?}");
            assert_eq!(fnv1a(text.bytes()), second, "FNV-1a of {text:?}");
        }
    }

    #[test]
    fn texts_spell_no_words() {
        assert_eq!(safe_text(1_234_567_890), "56789bcdf4");
    }
}
