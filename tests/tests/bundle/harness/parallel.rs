//! Independent runs on all processors.

use rayon::ThreadPoolBuilder;
use rayon::iter::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};

/// Does `work` for every item; the results come in the order of the items. The pool belongs to
/// the call, because threads print into the captured output of the test that started them.
pub(crate) fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> R + Send + Sync,
) -> Vec<R> {
    let pool = ThreadPoolBuilder::new().build().unwrap();
    pool.install(|| items.par_iter().with_max_len(1).map(work).collect())
}
