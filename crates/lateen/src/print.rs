//! What people see: colours, marks and tables. Data goes to standard output, progress to standard error.

use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table, presets};

const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();
const STRONG: Style = Style::new().bold();
const FAINT: Style = Style::new().dimmed();

/// A step that went well, with what it found.
pub(crate) fn step(name: &str, detail: &str) {
    anstream::eprintln!("{GOOD}✓{GOOD:#} {STRONG}{name:<10}{STRONG:#} {detail}");
}

/// An error with its advice on the lines below.
pub(crate) fn error(message: &str) {
    anstream::eprintln!("{BAD}error:{BAD:#} {message}");
}

/// A note that is not an error.
pub(crate) fn note(message: &str) {
    anstream::eprintln!("{FAINT}{message}{FAINT:#}");
}

/// A heading on standard output.
pub(crate) fn heading(text: &str) {
    anstream::println!("\n{STRONG}{text}{STRONG:#}");
}

/// A judged statement on standard output.
pub(crate) fn verdict(holds: bool, text: &str) {
    if holds {
        anstream::println!("{GOOD}✓{GOOD:#} {text}");
    } else {
        anstream::println!("{BAD}✗{BAD:#} {text}");
    }
}

/// Columns of the terminal; 80 where there is none.
pub(crate) fn width() -> usize {
    Table::new().width().map_or(80, usize::from)
}

/// A bar of bytes on standard error, if that is a terminal, until dropped.
pub(crate) async fn progress_of_bytes(
    mut seen: tokio::sync::watch::Receiver<lateen_image::Progress>,
) {
    let style = "{wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}";
    let bar = indicatif::ProgressBar::new(0);
    // The text above is a valid template.
    if let Ok(style) = indicatif::ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    while seen.changed().await.is_ok() {
        let progress = *seen.borrow_and_update();
        bar.set_length(progress.total);
        bar.set_position(progress.done);
    }
    bar.finish_and_clear();
}

/// A table without lines, as `kubectl` prints them.
pub(crate) fn table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.iter().map(|heading| heading.to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_aligned_columns_and_no_trailing_blanks() {
        let text = table(
            &["name", "n"],
            [
                vec!["a".into(), "10".into()],
                vec!["long".into(), "2".into()],
            ],
        );
        assert_eq!(text, "NAME  N\na     10\nlong  2");
    }
}
