//! The tables of `docs/scenarios.md`: each row of the documents, and the tests that show it, from the tests' own comments.
//!
//! A paragraph of a test's comment that begins with rows (`F12, F13: exact and prefix paths`) is a row of the table. In the
//! document, `<!-- rows of PREFIX, PREFIX -->` begins the table of the tests whose files begin so, below
//! `crates/lateen/tests`; `<!-- end -->` ends it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, Result, bail};

use crate::check::workspace;

/// The rows that the documents have.
const ROWS: [std::ops::RangeInclusive<u32>; 13] = [
    1..=8,
    10..=16,
    20..=25,
    30..=33,
    40..=46,
    50..=53,
    60..=63,
    70..=73,
    80..=81,
    90..=98,
    105..=105,
    110..=114,
    118..=119,
];

const DOCUMENT: &str = "docs/scenarios.md";
const TESTS: &str = "crates/lateen/tests";
const BEGIN: &str = "<!-- rows of ";
const END: &str = "<!-- end -->";

/// What a table says: rows and what they promise, with the tests that show it.
type Table = BTreeMap<(Vec<u32>, String), BTreeSet<String>>;

/// A row at one test.
struct Claim {
    rows: Vec<u32>,
    what: String,
    test: String,
    /// Below the tests' folder.
    file: String,
}

/// Writes the tables of the document anew.
pub(crate) fn run() -> Result<bool> {
    let root = workspace()?;
    fs::write(root.join(DOCUMENT), written(&root)?)?;
    Ok(true)
}

/// Complains when the document is not as [`run`] would write it, or a row has no test.
pub(crate) fn check(root: &Path, complaints: &mut Vec<String>) -> Result<()> {
    if fs::read_to_string(root.join(DOCUMENT))? != written(root)? {
        complaints.push(format!("{DOCUMENT} is stale: cargo xtask scenarios"));
    }
    let shown: BTreeSet<u32> = claims(root)?
        .into_iter()
        .flat_map(|claim| claim.rows)
        .collect();
    for row in ROWS.into_iter().flatten() {
        if !shown.contains(&row) {
            complaints.push(format!("no test below {TESTS} shows row F{row:02}"));
        }
    }
    Ok(())
}

/// The document with the tables that follow from the tests.
fn written(root: &Path) -> Result<String> {
    let claims = claims(root)?;
    let mut unplaced: BTreeSet<&str> = claims.iter().map(|claim| claim.file.as_str()).collect();
    let document = fs::read_to_string(root.join(DOCUMENT)).context(DOCUMENT)?;
    let mut text = String::new();
    let mut rest = document.as_str();
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let (prefixes, after) = after.split_once(" -->\n").context("a table's files")?;
        let (_, after) = after.split_once(END).context("the end of a table")?;
        let here = |claim: &&Claim| prefixes.split(", ").any(|of| claim.file.starts_with(of));
        let mut table = Table::new();
        for claim in claims.iter().filter(here) {
            unplaced.remove(claim.file.as_str());
            let row = (claim.rows.clone(), claim.what.clone());
            table.entry(row).or_default().insert(claim.test.clone());
        }
        text += &format!("{before}{BEGIN}{prefixes} -->\n{}{END}", shown(&table));
        rest = after;
    }
    if !unplaced.is_empty() {
        bail!("{DOCUMENT} has no table for {unplaced:?}");
    }
    Ok(text + rest)
}

fn shown(table: &Table) -> String {
    let mut text = "| row | what | test |\n|---|---|---|\n".to_owned();
    for ((rows, what), tests) in table {
        let rows: Vec<String> = rows.iter().map(|row| format!("F{row:02}")).collect();
        let tests: Vec<String> = tests.iter().map(|test| format!("`{test}`")).collect();
        text += &format!("| {} | {what} | {} |\n", rows.join(", "), tests.join(", "));
    }
    text
}

fn claims(root: &Path) -> Result<Vec<Claim>> {
    let tests = root.join(TESTS);
    let mut claims = Vec::new();
    let mut folders = vec![tests.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let file = path.strip_prefix(&tests).unwrap_or(&path).display();
                claims.extend(claims_of(&file.to_string(), &fs::read_to_string(&path)?));
            }
        }
    }
    Ok(claims)
}

/// The claims in a file's text.
fn claims_of(file: &str, text: &str) -> Vec<Claim> {
    let mut claims = Vec::new();
    let mut comment: Vec<String> = vec![String::new()];
    for line in text.lines().map(str::trim) {
        if let Some(words) = line.strip_prefix("///") {
            match (words.trim(), comment.last_mut()) {
                ("", _) => comment.push(String::new()),
                (words, Some(paragraph)) => {
                    paragraph.push_str(if paragraph.is_empty() { "" } else { " " });
                    paragraph.push_str(words);
                }
                (_, None) => {}
            }
        } else if !line.starts_with("#[") {
            let name = line.split_once("fn ").map(|(_, rest)| rest);
            let name = name.and_then(|rest| rest.split(['(', '<']).next());
            for (rows, what) in comment.iter().filter_map(|paragraph| row(paragraph)) {
                claims.extend(name.map(|name| Claim {
                    rows,
                    what: what.to_owned(),
                    test: name.to_owned(),
                    file: file.to_owned(),
                }));
            }
            comment = vec![String::new()];
        }
    }
    claims
}

/// Rows and promise of a paragraph that begins with rows.
fn row(paragraph: &str) -> Option<(Vec<u32>, &str)> {
    let (rows, what) = paragraph.split_once(": ")?;
    let rows = rows
        .split(", ")
        .map(|row| row.strip_prefix('F')?.parse().ok());
    Some((rows.collect::<Option<_>>()?, what.trim_end_matches('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_that_begin_with_rows_are_rows() {
        let text = "/// About it.\n///\n/// F12, F13: two\n/// lines.\n#[test]\nfn shows() {}\n/// F: no row\nfn other() {}\n";
        let claims = claims_of("a.rs", text);
        let found: Vec<_> = claims
            .iter()
            .map(|claim| (&*claim.rows, &*claim.what, &*claim.test, &*claim.file))
            .collect();
        assert_eq!(found, [(&[12, 13][..], "two lines", "shows", "a.rs")]);
    }
}
