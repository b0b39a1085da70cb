//! Names of fields that were seen lately. Most messages have the same few, which need not be checked and copied each time.

use std::cell::RefCell;

use http::HeaderName;

/// How many are kept by each thread.
const PLACES: usize = 64;

/// Longer ones are not kept.
const MOST_LENGTH: usize = 31;

/// A name in the spelling in which it came.
struct Seen {
    length: u8,
    spelling: [u8; MOST_LENGTH],
    name: HeaderName,
}

thread_local! {
    static SEEN: RefCell<[Option<Seen>; PLACES]> = const { RefCell::new([const { None }; PLACES]) };
}

/// The name that is spelt so, in any case; nothing when that is none.
pub(super) fn of(spelling: &[u8]) -> Option<HeaderName> {
    let (Some(first), Some(last)) = (spelling.first(), spelling.last()) else {
        return None;
    };
    if spelling.len() > MOST_LENGTH {
        return HeaderName::from_bytes(spelling).ok();
    }
    // Whoever makes others miss costs them what all would pay without places.
    let place = (usize::from(*first) * 3 + usize::from(*last) * 5 + spelling.len()) % PLACES;
    SEEN.with_borrow_mut(|seen| {
        let seen = &mut seen[place];
        if let Some(seen) = seen
            && seen.spelling[..usize::from(seen.length)] == *spelling
        {
            return Some(seen.name.clone());
        }
        let name = HeaderName::from_bytes(spelling).ok()?;
        let mut kept = [0; MOST_LENGTH];
        kept[..spelling.len()].copy_from_slice(spelling);
        *seen = Some(Seen {
            length: spelling.len() as u8,
            spelling: kept,
            name: name.clone(),
        });
        Some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_it_would_be_without_others() {
        let long = "x".repeat(MOST_LENGTH);
        let longer = "x".repeat(MOST_LENGTH + 1);
        // The first three want the same place.
        let spellings = [
            "aba", "aca", "aaa", "Aba", "host", "Host", "x-a", "X-A", "", " ", "a b", "ü", &long,
            &longer,
        ];
        for spelling in spellings
            .iter()
            .chain(&spellings)
            .chain(spellings.iter().rev())
        {
            let expected = HeaderName::from_bytes(spelling.as_bytes()).ok();
            assert_eq!(of(spelling.as_bytes()), expected, "{spelling:?}");
        }
    }
}
