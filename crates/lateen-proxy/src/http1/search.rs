//! When to look at a head that comes in parts.

/// Finds out when a head may be complete, so that one that comes byte by byte is not parsed as often.
#[derive(Debug, Default)]
pub(super) struct HeadSearch {
    /// How much of it was seen.
    seen: usize,
    /// Length from which it is parsed, complete or not: what is wrong with it should be said soon.
    next_look: usize,
}

impl HeadSearch {
    /// Whether parsing may find something new.
    pub(super) fn is_worth_a_look(&mut self, received: &[u8]) -> bool {
        let length = received.len();
        let new = &received[self.seen.saturating_sub(2).min(length)..];
        self.seen = length;
        let is_worth = length > self.next_look
            || new.windows(2).any(|it| it == b"\n\n")
            || new.windows(3).any(|it| it == b"\n\r\n");
        if is_worth {
            self.next_look = 2 * length;
        }
        is_worth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_that_come_in_parts_are_parsed_a_few_times() {
        let head = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(5000));
        for end in ["\r\n\r\n", "\n\n", "\n\r\n"] {
            let head = head.replace("\r\n\r\n", end);
            let mut search = HeadSearch::default();
            let looks = (0..=head.len())
                .filter(|length| search.is_worth_a_look(&head.as_bytes()[..*length]));
            let looks: Vec<usize> = looks.collect();
            assert!(
                looks.len() < 16 && looks.last() == Some(&head.len()),
                "{looks:?}"
            );
        }
    }
}
