//! A small chart in the terminal: replicas and moved users over time.
//!
//! Own code of a page: it has two rows of bars and one line of labels, and must fall back to ASCII.

use std::time::Duration;

/// What was seen at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) at: Duration,
    /// Replicas that are ready.
    pub(super) replicas: usize,
    /// Users that moved since the sample before.
    pub(super) moved: usize,
    /// Answers since the sample before.
    pub(super) answers: usize,
}

/// Characters of bars, from nothing to all of a cell.
struct Bars {
    cells: &'static [char],
    line: char,
}

const UNICODE: Bars = Bars {
    cells: &[' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'],
    line: '─',
};
const ASCII: Bars = Bars {
    cells: &[' ', '.', ':', '|'],
    line: '-',
};

/// Columns left of the bars.
const MARGIN: usize = 12;

/// Whether the locale can show more than ASCII.
pub(super) fn is_unicode() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

/// Draws samples into lines of at most `width` columns; none where nothing was seen.
pub(super) fn draw(samples: &[Sample], width: usize, unicode: bool) -> Vec<String> {
    if samples.is_empty() {
        return Vec::new();
    }
    let bars = if unicode { &UNICODE } else { &ASCII };
    let columns = columns(samples, width.saturating_sub(MARGIN).max(10));
    let row = |label: &str, values: &[usize], most: usize| {
        let cells: String = values
            .iter()
            .map(|value| cell(*value, most, bars))
            .collect();
        format!("{label:<MARGIN$}{cells}")
    };
    let of = |value: fn(&Sample) -> usize| columns.iter().map(value).collect::<Vec<_>>();
    let (replicas, moved, answers) = (
        of(|sample| sample.replicas),
        of(|sample| sample.moved),
        of(|sample| sample.answers),
    );
    let most = |values: &[usize]| values.iter().copied().max().unwrap_or(0).max(1);
    let digits: String = replicas
        .iter()
        .map(|count| char::from_digit(*count as u32 % 36, 36).unwrap_or('?'))
        .collect();
    let end = samples.last().map_or(0, |sample| sample.at.as_secs());
    let axis = bars.line.to_string().repeat(columns.len());
    let end = format!("{end} s");
    let blank = columns.len().saturating_sub(3);
    vec![
        row("replicas", &replicas, most(&replicas)),
        format!("{:<MARGIN$}{digits}", ""),
        row("moved users", &moved, most(&moved)),
        row("requests", &answers, most(&answers)),
        format!("{:<MARGIN$}{axis}", ""),
        format!("{:<MARGIN$}0 s{end:>blank$}", ""),
    ]
}

/// Samples put together so that there are at most `count`: the replicas of the last one, the sums of the others.
fn columns(samples: &[Sample], count: usize) -> Vec<Sample> {
    let each = samples.len().div_ceil(count.max(1)).max(1);
    samples
        .chunks(each)
        .filter_map(|chunk| {
            let last = chunk.last()?;
            Some(Sample {
                moved: chunk.iter().map(|sample| sample.moved).sum(),
                answers: chunk.iter().map(|sample| sample.answers).sum(),
                ..*last
            })
        })
        .collect()
}

/// The bar of a value. What is not nothing can be seen.
fn cell(value: usize, most: usize, bars: &Bars) -> char {
    let steps = bars.cells.len() - 1;
    let step = (value * steps).div_ceil(most.max(1)).min(steps);
    bars.cells[step]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[(usize, usize)]) -> Vec<Sample> {
        let sample = |(position, (replicas, moved)): (usize, &(usize, usize))| Sample {
            at: Duration::from_millis(500 * position as u64),
            replicas: *replicas,
            moved: *moved,
            answers: 10,
        };
        values.iter().enumerate().map(sample).collect()
    }

    fn check(values: &[(usize, usize)], width: usize, unicode: bool, expected: &[&str]) {
        let drawn = draw(&samples(values), width, unicode);
        let drawn: Vec<&str> = drawn.iter().map(|line| line.trim_end()).collect();
        assert_eq!(drawn, expected);
        assert!(drawn.iter().all(|line| line.chars().count() <= width));
    }

    #[test]
    fn replicas_are_steps_and_moves_are_bars() {
        let values = [
            (3, 0),
            (3, 0),
            (5, 0),
            (5, 0),
            (3, 8),
            (3, 1),
            (3, 0),
            (3, 0),
        ];
        check(
            &values,
            40,
            true,
            &[
                "replicas    ▅▅██▅▅▅▅",
                "            33553333",
                "moved users     █▁",
                "requests    ████████",
                "            ────────",
                "            0 s  3 s",
            ],
        );
        check(
            &values,
            40,
            false,
            &[
                "replicas    ::||::::",
                "            33553333",
                "moved users     |.",
                "requests    ||||||||",
                "            --------",
                "            0 s  3 s",
            ],
        );
    }

    #[test]
    fn many_samples_are_put_together() {
        let values: Vec<_> = (0..40)
            .map(|n| (if n < 20 { 3 } else { 5 }, usize::from(n == 21)))
            .collect();
        check(
            &values,
            22,
            false,
            &[
                "replicas    :::::|||||",
                "            3333355555",
                "moved users      |",
                "requests    ||||||||||",
                "            ----------",
                "            0 s   19 s",
            ],
        );
        check(&[], 80, false, &[]);
    }
}
