//! Names in bodies, as different readers take them.

/// How a name in a body is to a wanted one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Likeness {
    /// Every reader takes it for the wanted one.
    Same,
    /// Some readers do: Go's `encoding/json` and ASP.NET's forms look at no case.
    Alike,
    /// It is another.
    Other,
}

/// Compares a name with a wanted one.
pub(super) fn compare(
    mut name: impl Iterator<Item = char>,
    mut wanted: impl Iterator<Item = char>,
) -> Likeness {
    let mut likeness = Likeness::Same;
    loop {
        match (name.next(), wanted.next()) {
            (None, None) => return likeness,
            (Some(one), Some(other)) if one == other => {}
            (Some(one), Some(other)) if folded(one) == folded(other) => likeness = Likeness::Alike,
            _ => return Likeness::Other,
        }
    }
}

/// A letter without its case. Two letters outside of ASCII fold into it (Unicode's `CaseFolding.txt`).
fn folded(letter: char) -> char {
    match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    }
}

/// Which wanted name stood in one object or form, and how often.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    same: bool,
    alike: bool,
}

impl Seen {
    /// Notes a name. False when readers could now disagree about which one counts.
    pub(super) fn note(&mut self, likeness: Likeness) -> bool {
        match likeness {
            Likeness::Other => return true,
            Likeness::Same if self.same => return false,
            Likeness::Same => self.same = true,
            Likeness::Alike => self.alike = true,
        }
        !(self.same && self.alike)
    }
}
