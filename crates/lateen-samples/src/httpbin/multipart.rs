//! Bodies of type `multipart/form-data` (RFC 7578), as far as an echo needs them.

/// Most parts that are shown.
const PARTS_LIMIT: usize = 1000;

/// One field.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part<'a> {
    pub(super) name: String,
    pub(super) is_file: bool,
    pub(super) content: &'a [u8],
}

/// The boundary that a content type names, if it is one of forms.
pub(super) fn boundary(content_type: &str) -> Option<String> {
    let parameters = content_type.strip_prefix("multipart/form-data")?;
    let boundary = attribute(parameters, "boundary")?;
    (!boundary.is_empty()).then_some(boundary)
}

/// The fields of a body; what is not a field is left out.
pub(super) fn parts<'a>(body: &'a [u8], boundary: &str) -> Vec<Part<'a>> {
    let delimiter = format!("--{boundary}");
    let mut parts = Vec::new();
    let Some(mut at) = find(body, delimiter.as_bytes()) else {
        return parts;
    };
    while parts.len() < PARTS_LIMIT {
        let rest = &body[at + delimiter.len()..];
        let Some(end) = find(rest, format!("\r\n{delimiter}").as_bytes()) else {
            return parts;
        };
        parts.extend(part(&rest[..end]));
        at += delimiter.len() + end + 2;
    }
    parts
}

fn part(text: &[u8]) -> Option<Part<'_>> {
    let split = find(text, b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&text[..split]);
    let disposition = head.lines().find(|line| {
        line.to_ascii_lowercase()
            .starts_with("content-disposition:")
    })?;
    Some(Part {
        name: attribute(disposition, "name")?,
        is_file: attribute(disposition, "filename").is_some(),
        content: &text[split + 4..],
    })
}

/// `name="value"` among parameters that semicolons separate.
fn attribute(parameters: &str, name: &str) -> Option<String> {
    parameters.split(';').find_map(|parameter| {
        let (known, value) = parameter.split_once('=')?;
        (known.trim().eq_ignore_ascii_case(name)).then(|| value.trim().trim_matches('"').to_owned())
    })
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len())
        .position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_files_are_told_apart() {
        let body = b"--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x\r\n\
            content-disposition: form-data; name=\"f\"; filename=\"n\"\r\nContent-Type: text/plain\r\n\r\nline\r\n\r\n--x--\r\n";
        let found: Vec<_> = parts(body, "x")
            .into_iter()
            .map(|part| (part.name, part.is_file, part.content.to_vec()))
            .collect();
        assert_eq!(
            found,
            [
                ("a".to_owned(), false, b"1".to_vec()),
                ("f".to_owned(), true, b"line\r\n".to_vec())
            ]
        );
        assert_eq!(
            boundary("multipart/form-data; boundary=\"x\""),
            Some("x".to_owned())
        );
        assert_eq!(boundary("text/plain; boundary=x"), None);
    }

    #[test]
    fn broken_bodies_have_no_fields() {
        for body in [
            &b""[..],
            b"--x",
            b"--x--",
            b"--x\r\n\r\n--x--",
            b"--x\r\nname=a\r\n\r\n1\r\n--x--",
        ] {
            assert_eq!(parts(body, "x"), [], "{}", String::from_utf8_lossy(body));
        }
    }
}
