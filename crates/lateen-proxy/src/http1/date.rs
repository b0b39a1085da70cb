//! The date of responses.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut, BytesMut};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

/// A date as RFC 9110 section 5.6.7 wants it.
const DATE: &[BorrowedFormatItem<'_>] = format_description!(
    "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
);

thread_local! {
    /// The current second, and how it is written.
    static NOW: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

/// Writes the field.
pub(super) fn write(out: &mut BytesMut) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    NOW.with_borrow_mut(|(second, text)| {
        if *second != now.as_secs() || text.is_empty() {
            let time = i64::try_from(now.as_secs()).unwrap_or_default();
            let time =
                OffsetDateTime::from_unix_timestamp(time).unwrap_or(OffsetDateTime::UNIX_EPOCH);
            *text = time.format(DATE).unwrap_or_default();
            *second = now.as_secs();
        }
        out.put_slice(b"date: ");
        out.put_slice(text.as_bytes());
        out.put_slice(b"\r\n");
    });
}
