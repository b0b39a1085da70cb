//! Many requests of one sort, which may all be refused for the same reason.

use std::future::Future;

use futures_util::future::join_all;

use super::error::Error;

/// Calls `act` for all items, in batches of 1, 2, 4, ...: when the server refuses them, it is asked only a few times.
/// Stops after the batch in which one failed, with the first of its errors.
pub(super) async fn in_growing_batches<T, F, R>(
    items: impl IntoIterator<Item = T>,
    act: F,
) -> Result<(), Error>
where
    F: Fn(T) -> R,
    R: Future<Output = Result<(), Error>>,
{
    let mut items = items.into_iter();
    let mut size = 1;
    loop {
        let batch: Vec<T> = items.by_ref().take(size).collect();
        if batch.is_empty() {
            return Ok(());
        }
        let outcomes = join_all(batch.into_iter().map(&act)).await;
        outcomes.into_iter().collect::<Result<(), Error>>()?;
        size *= 2;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    async fn check(count: usize, refused: usize, tried: usize) {
        let seen = RefCell::new(0);
        let outcome = in_growing_batches(0..count, |item| {
            *seen.borrow_mut() += 1;
            std::future::ready(if item == refused {
                Err(Error::Waiting {
                    subject: item.to_string(),
                    reason: "it is refused".to_owned(),
                })
            } else {
                Ok(())
            })
        })
        .await;
        assert_eq!(outcome.is_err(), refused < count);
        assert_eq!(seen.into_inner(), tried, "{count} with {refused} refused");
    }

    #[tokio::test]
    async fn a_refusal_ends_the_batches() {
        check(0, 9, 0).await;
        check(7, 9, 7).await;
        check(10, 99, 10).await;
        check(10, 0, 1).await;
        check(10, 2, 3).await;
        check(10, 3, 7).await;
    }
}
