//! Tasks that do the same side by side.

use forebay_engine::rt::{Class, Rt, Task};

pub fn spawn_all<T: 'static>(
    rt: &Rt,
    work: impl IntoIterator<Item = impl Future<Output = T> + 'static>,
) -> Vec<Task<T>> {
    let spawn = |one| rt.spawn(Class::Foreground, one);
    work.into_iter().map(spawn).collect()
}

/// Waits for all of them, or for the first that failed: the others end with the executor.
pub async fn join_all<E>(tasks: Vec<Task<Result<(), E>>>) -> Result<(), E> {
    for task in tasks {
        task.await?;
    }
    Ok(())
}
