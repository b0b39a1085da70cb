//! Queries of requests.

/// The query of a request. Values are used as they are: they are names and simple patterns.
pub(super) struct Query<'q>(pub(super) &'q str);

impl<'q> Query<'q> {
    pub(super) fn get(&self, name: &str) -> Option<&'q str> {
        self.0.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name).then_some(value)
        })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// A value with its percent escapes resolved.
    pub(super) fn decoded(&self, name: &str) -> Option<String> {
        let value = self.get(name)?.replace('+', " ");
        let mut bytes = Vec::with_capacity(value.len());
        let mut rest = value.as_bytes();
        while let Some((first, tail)) = rest.split_first() {
            let digit = |offset: usize| char::from(*tail.get(offset)?).to_digit(16);
            if let (b'%', Some(high), Some(low)) = (*first, digit(0), digit(1)) {
                bytes.push(u8::try_from(high * 16 + low).unwrap_or(b'%'));
                rest = &tail[2..];
            } else {
                bytes.push(*first);
                rest = tail;
            }
        }
        String::from_utf8(bytes).ok()
    }
}
