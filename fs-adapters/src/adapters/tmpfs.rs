//! tmpfs: the page cache is the store, so nothing is ever evicted to a device and no block is reused.

use crate::adapter::{Adapter, Store};
use crate::reuse::Reuse;

/// The adapter.
#[derive(Debug)]
pub struct Tmpfs;

impl Adapter for Tmpfs {
    fn name(&self) -> &'static str {
        "tmpfs"
    }

    fn drivers(&self) -> &'static [&'static str] {
        &["tmpfs"]
    }

    fn store(&self) -> Store<'_> {
        Store::Memory
    }

    fn reuse(&self, _driver: &str) -> Reuse {
        Reuse::Never("tmpfs has no blocks")
    }
}
