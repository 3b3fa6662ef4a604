//! Reading what a caught panic said.
//!
//! Panics are caught in two places only: around the database file, and around applying a command.

use std::any::Any;

/// Returns the message of a caught panic.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("unknown panic").to_string()
}
