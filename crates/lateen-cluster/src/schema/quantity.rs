//! Quantities of resources: `100m`, `1.5Gi`, `2e3`.

use std::cmp::Ordering;

/// Digits after the point that a quantity keeps; finer ones are rounded up.
const PLACES: u32 = 9;

/// 10^9: quantities are counted in billionths.
const UNIT: i128 = 1_000_000_000;

/// The greatest amount that a quantity holds (2^63-1), in billionths.
const MAX: i128 = (i64::MAX as i128) * UNIT;

const BINARY: [(&str, u32); 6] = [
    ("Ki", 10),
    ("Mi", 20),
    ("Gi", 30),
    ("Ti", 40),
    ("Pi", 50),
    ("Ei", 60),
];

/// Powers of ten by suffix, from great to small.
const DECIMAL: [(&str, i32); 10] = [
    ("E", 18),
    ("P", 15),
    ("T", 12),
    ("G", 9),
    ("M", 6),
    ("k", 3),
    ("", 0),
    ("m", -3),
    ("u", -6),
    ("n", -9),
];

/// What Kubernetes says about text that is not a quantity.
pub const FORMAT_MESSAGE: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// Why text is not a quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// The text has not the form of a quantity.
    #[error("{FORMAT_MESSAGE}")]
    Format,
    /// The suffix is not known.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// An amount with the kind of suffix it was written with.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    billionths: i128,
    style: Style,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Decimal,
    Binary,
    Exponent,
}

impl Quantity {
    /// Reads a quantity.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let negative = text.starts_with('-');
        let digits_end = unsigned
            .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
            .unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(digits_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(QuantityError::Format);
        }
        let (style, binary, exponent) = read_suffix(suffix)?;
        let mut amount = Scaled::default();
        for digit in whole.bytes().chain(fraction.bytes()) {
            amount.push(digit);
        }
        let exponent = exponent - i32::try_from(fraction.len()).unwrap_or(i32::MAX);
        let magnitude = amount.billionths(exponent, binary);
        Ok(Self {
            billionths: if negative { -magnitude } else { magnitude },
            style,
        })
    }

    /// A whole number, written without suffix where it is small.
    pub fn whole(amount: i64) -> Self {
        Self {
            billionths: i128::from(amount) * UNIT,
            style: Style::Decimal,
        }
    }

    /// A number of thousandths, e.g. millicores of processor time.
    pub fn thousandths(amount: i64) -> Self {
        Self {
            billionths: i128::from(amount) * (UNIT / 1000),
            style: Style::Decimal,
        }
    }

    /// The same of something that is told with binary suffixes, e.g. bytes of memory.
    pub fn binary_thousandths(amount: i64) -> Self {
        Self {
            style: Style::Binary,
            ..Self::thousandths(amount)
        }
    }

    /// Whether the amount is below zero.
    pub fn is_negative(self) -> bool {
        self.billionths < 0
    }

    /// Whether the amount has no fraction.
    pub fn is_whole(self) -> bool {
        self.billionths % UNIT == 0
    }

    /// Whether the amount is a whole number of thousandths.
    pub fn is_milli(self) -> bool {
        self.billionths % (UNIT / 1000) == 0
    }

    /// The form that Kubernetes stores: no fraction, the greatest suffix that loses nothing.
    pub fn canonical(self) -> String {
        let magnitude = self.billionths.unsigned_abs();
        let sign = if self.billionths < 0 { "-" } else { "" };
        // Below 1024 a binary quantity shows as a decimal one.
        if self.style == Style::Binary && magnitude >= 1024 * UNIT.unsigned_abs() && self.is_whole()
        {
            let whole = magnitude / UNIT.unsigned_abs();
            for (suffix, bits) in BINARY.iter().rev() {
                if whole.is_multiple_of(1 << bits) {
                    return format!("{sign}{}{suffix}", whole >> bits);
                }
            }
            return format!("{sign}{whole}");
        }
        for (suffix, power) in DECIMAL {
            let step = 10_u128.pow(u32::try_from(power + 9).unwrap_or(0));
            if magnitude >= step && magnitude.is_multiple_of(step) {
                let amount = magnitude / step;
                return match (self.style, power) {
                    (Style::Exponent, 0) => format!("{sign}{amount}"),
                    (Style::Exponent, _) => format!("{sign}{amount}e{power}"),
                    _ => format!("{sign}{amount}{suffix}"),
                };
            }
        }
        "0".to_owned()
    }

    /// The amount rounded up to a whole number.
    pub fn ceiling(self) -> i64 {
        let whole =
            self.billionths.div_euclid(UNIT) + i128::from(self.billionths.rem_euclid(UNIT) != 0);
        i64::try_from(whole).unwrap_or(i64::MAX)
    }

    /// The amount in thousandths, rounded up.
    pub fn milli(self) -> i64 {
        let step = UNIT / 1000;
        let milli =
            self.billionths.div_euclid(step) + i128::from(self.billionths.rem_euclid(step) != 0);
        i64::try_from(milli).unwrap_or(i64::MAX)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.billionths == other.billionths
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.billionths.cmp(&other.billionths))
    }
}

/// Style, power of two and power of ten of a suffix.
fn read_suffix(suffix: &str) -> Result<(Style, u32, i32), QuantityError> {
    if let Some((_, bits)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return Ok((Style::Binary, *bits, 0));
    }
    if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Ok((Style::Decimal, 0, *power));
    }
    if let Some(exponent) = suffix.strip_prefix(['e', 'E']) {
        let power = exponent.parse::<i32>().map_err(|_| QuantityError::Suffix)?;
        return Ok((Style::Exponent, 0, power.clamp(-1000, 1000)));
    }
    let allowed = |letter: char| "eEinumkKMGTP+-0123456789".contains(letter);
    if suffix.chars().all(allowed) {
        Err(QuantityError::Suffix)
    } else {
        Err(QuantityError::Format)
    }
}

/// Decimal digits as they are read, with those that no longer fit counted as a power of ten.
#[derive(Default)]
struct Scaled {
    digits: u128,
    dropped: i32,
    inexact: bool,
}

impl Scaled {
    fn push(&mut self, digit: u8) {
        let digit = u128::from(digit - b'0');
        // 10^28 leaves room for the scaling below.
        if self.digits < 10_u128.pow(28) && self.dropped == 0 {
            self.digits = self.digits * 10 + digit;
        } else {
            self.dropped = self.dropped.saturating_add(1);
            self.inexact |= digit != 0;
        }
    }

    /// The amount times 10^`exponent` times 2^`binary` in billionths, rounded up, at most the greatest quantity.
    fn billionths(self, exponent: i32, binary: u32) -> i128 {
        let max = MAX.unsigned_abs();
        let mut amount = self.digits;
        let mut power = exponent
            .saturating_add(self.dropped)
            .saturating_add(PLACES as i32);
        let mut round_up = self.inexact;
        let mut bits = binary;
        if amount == 0 {
            return 0;
        }
        while power > 0 || bits > 0 {
            // Binary first while there are decimals to take away again: nothing is lost.
            if bits > 0 {
                bits -= 1;
                amount = amount.saturating_mul(2);
            } else {
                power -= 1;
                amount = amount.saturating_mul(10);
            }
            if amount >= max && power >= 0 {
                return MAX;
            }
            if power < 0 && amount > u128::MAX / 4 {
                round_up |= !amount.is_multiple_of(10);
                amount /= 10;
                power += 1;
            }
        }
        while power < 0 && amount > 0 {
            round_up |= !amount.is_multiple_of(10);
            amount /= 10;
            power += 1;
        }
        let amount = amount + u128::from(round_up);
        i128::try_from(amount.min(max)).unwrap_or(MAX)
    }
}
