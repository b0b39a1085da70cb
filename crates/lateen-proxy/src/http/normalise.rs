//! Path normalisation (RFC 3986, section 6, as browsers and Envoy do it).

/// The normal form of a path with its query, if it differs; an error when it has none.
///
/// Escaped characters that need no escape are unescaped, backslashes become slashes, and dot segments are resolved.
/// The query is not touched.
pub(crate) fn path(path_and_query: &str) -> Result<Option<String>, ()> {
    let end = path_and_query.find('?').unwrap_or(path_and_query.len());
    let (path, query) = path_and_query.split_at(end);
    if !path.starts_with('/') {
        // `*` of OPTIONS.
        return Ok(None);
    }
    if !path.contains(['%', '\\']) && !path.contains("/.") {
        return Ok(None);
    }
    let unescaped = unescape_unreserved(path)?;
    let mut segments: Vec<&str> = Vec::new();
    let mut parts = unescaped[1..].split('/').peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        match part {
            "." | ".." => {
                if part == ".." {
                    segments.pop();
                }
                // The slash before a final dot segment stays.
                if last {
                    segments.push("");
                }
            }
            _ => segments.push(part),
        }
    }
    let mut normal = String::with_capacity(path_and_query.len());
    for segment in &segments {
        normal.push('/');
        normal.push_str(segment);
    }
    if segments.is_empty() {
        normal.push('/');
    }
    normal.push_str(query);
    Ok((normal != path_and_query).then_some(normal))
}

/// Unescapes letters, digits and `-._~`, and turns backslashes into slashes. Whoever does that again must find nothing to do,
/// so a percent sign of which it makes a new escape (`%2%66`) is escaped itself, as in Envoy.
fn unescape_unreserved(path: &str) -> Result<String, ()> {
    let bytes = path.as_bytes();
    let mut out = String::with_capacity(path.len());
    let mut no_escapes = Vec::new();
    let mut characters = path.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '\\' => out.push('/'),
            '%' => match escaped(bytes, index) {
                Some(0) => return Err(()),
                Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                    out.push(char::from(byte));
                    characters.nth(1);
                }
                escape => {
                    if escape.is_none() {
                        no_escapes.push(out.len());
                    }
                    out.push('%');
                }
            },
            other => out.push(other),
        }
    }
    for at in no_escapes.into_iter().rev() {
        if escaped(out.as_bytes(), at).is_some() {
            out.insert_str(at + 1, "25");
        }
    }
    Ok(out)
}

/// The byte that an escape at `index` stands for.
fn escaped(bytes: &[u8], index: usize) -> Option<u8> {
    let digit = |offset: usize| char::from(*bytes.get(index + offset)?).to_digit(16);
    u8::try_from(digit(1)? * 16 + digit(2)?).ok()
}

/// Whether a path has an escaped slash or backslash.
pub(crate) fn has_escaped_slash(path: &str) -> bool {
    let escape =
        |part: &[u8]| matches!(part, [b'%', b'2', b'f' | b'F'] | [b'%', b'5', b'c' | b'C']);
    path.as_bytes().windows(3).any(escape)
}

/// The path with escaped slashes unescaped, if it has any.
pub(crate) fn unescape_slashes(path_and_query: &str) -> Option<String> {
    let end = path_and_query.find('?').unwrap_or(path_and_query.len());
    let (path, query) = path_and_query.split_at(end);
    has_escaped_slash(path).then(|| {
        let mut out = path.to_owned();
        for (escape, plain) in [("%2f", "/"), ("%2F", "/"), ("%5c", "\\"), ("%5C", "\\")] {
            out = out.replace(escape, plain);
        }
        out + query
    })
}

/// The path with runs of slashes as one, if it has any.
pub(crate) fn merge_slashes(path_and_query: &str) -> Option<String> {
    let end = path_and_query.find('?').unwrap_or(path_and_query.len());
    let (path, query) = path_and_query.split_at(end);
    path.contains("//").then(|| {
        let mut out = String::with_capacity(path_and_query.len());
        for character in path.chars() {
            if character != '/' || !out.ends_with('/') {
                out.push(character);
            }
        }
        out + query
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_one_form() {
        for (given, normal) in [
            ("/", "/"),
            ("/a/b?x=../y", "/a/b?x=../y"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/../../x", "/x"),
            ("/%2e%2e/x", "/x"),
            ("/%61%2fb", "/a%2fb"),
            ("/a\\..\\b", "/b"),
            ("//a", "//a"),
            ("/%zz", "/%zz"),
            ("/%2%66", "/%252f"),
            ("/%2%44%%36%31", "/%252D%2561"),
            ("/é/./", "/é/"),
        ] {
            let found = path(given).unwrap().unwrap_or_else(|| given.to_owned());
            assert_eq!(found, normal, "{given}");
            assert_eq!(path(&found), Ok(None), "{given}: not idempotent");
        }
        assert_eq!(path("/a%00"), Err(()));
    }

    #[test]
    fn slashes_are_merged_and_unescaped() {
        assert_eq!(merge_slashes("//a///b?x=//"), Some("/a/b?x=//".to_owned()));
        assert_eq!(merge_slashes("/a/b"), None);
        assert_eq!(
            unescape_slashes("/a%2Fb%5cc?%2f"),
            Some("/a/b\\c?%2f".to_owned())
        );
        assert!(has_escaped_slash("/%2f") && !has_escaped_slash("/%2e"));
    }
}
