//! The rows of a session: one after the other, and each for itself where two meshes are compared.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A row: its name, and what it claims.
pub type Row<'r> = (&'r str, &'r dyn Fn());

/// Names a file with the rows that are known not to hold: `ROW: REASON` in a line. With it, every row runs whatever the
/// others found, and the rows that fail must be those of the file.
const DIFFERENCES: &str = "LATEEN_TEST_DIFFERENCES";

/// Runs rows in order. The first that fails ends it, unless differences are expected.
pub fn run(rows: &[Row<'_>]) {
    let Some(file) = std::env::var_os(DIFFERENCES) else {
        rows.iter().for_each(|(_, claim)| claim());
        return;
    };
    let text = std::fs::read_to_string(&file).expect("the differences");
    let known: BTreeSet<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| Some(line.split_once(": ")?.0))
        .collect();
    let mut wrong = Vec::new();
    for (name, claim) in rows {
        let holds = catch_unwind(AssertUnwindSafe(claim)).is_ok();
        println!("row {name}: {}", if holds { "the same" } else { "differs" });
        if holds == known.contains(name) {
            wrong.push(*name);
        }
    }
    assert!(wrong.is_empty(), "not as {}: {wrong:?}", file.display());
}

/// The rows of a session by the names of their methods.
#[macro_export]
macro_rules! rows {
    ($session:expr; $($row:ident),* $(,)?) => {
        $crate::support::rows::run(&[$((stringify!($row), &|| $session.$row())),*])
    };
}
