//! Pieces of pages. Everything a page needs is in the page, so that pages work without a network.

use std::fmt::Write;

/// The style sheet of all pages.
pub(crate) const STYLE: &str = include_str!("style.css");

/// Text as it may stand in an element or in an attribute between double quotes.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A page with this `title` (text) and `body` (markup).
pub(crate) fn page(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <title>{title}</title>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <link rel=\"icon\" href=\"data:,\">\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )
}

/// A table; all cells are text.
pub(crate) fn table<R: AsRef<[String]>>(headings: &[&str], rows: &[R]) -> String {
    let mut table = "<table>\n<thead><tr>".to_owned();
    for heading in headings {
        let _ = write!(table, "<th>{}</th>", escape(heading));
    }
    table.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        table.push_str("<tr>");
        for cell in row.as_ref() {
            let _ = write!(table, "<td>{}</td>", escape(cell));
        }
        table.push_str("</tr>\n");
    }
    table.push_str("</tbody>\n</table>\n");
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_values_is_shown_and_not_obeyed() {
        let shown = table(&["<a>"], &[["\"b\" & 'c'".to_owned()]]);
        assert!(shown.contains("<th>&lt;a&gt;</th>"), "{shown}");
        assert!(
            shown.contains("<td>&quot;b&quot; &amp; &#39;c&#39;</td>"),
            "{shown}"
        );
        assert!(page("</title>", "").contains("<title>&lt;/title&gt;</title>"));
    }
}
