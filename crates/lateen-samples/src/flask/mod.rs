//! The pair of the canary scenario: a front end in two versions, and the back end whose lists it shows.

pub(super) mod backend;
pub(super) mod frontend;

#[cfg(test)]
mod tests;

use crate::Error;

/// The port that an argument names, else the default.
fn port(name: &str, given: Option<&String>, default: u16) -> Result<u16, Error> {
    given.map_or(Ok(default), |given| {
        given.parse().map_err(|_| Error::Arguments {
            name: name.to_owned(),
            why: format!("{given:?} is not a port; give a number from 1 to 65535"),
        })
    })
}
