//! Tells the operator what lies in the data directory and belongs to nothing.

use std::{collections::HashSet, path::PathBuf, rc::Rc};

use forebay_engine::{Fault, LogName, PartitionIndex, Strays, rt::DirEntry};

use super::directory::DataDir;
use crate::{meta, shard::Shard};

/// So many are named; the metric counts all.
const NAMED_MAX: usize = 20;

pub async fn report(shard: &Rc<Shard>) {
    let strays = match find(shard).await {
        Ok(strays) => strays,
        Err(fault) => {
            tracing::warn!(%fault, "cannot tell what in the data directory belongs to nothing");
            return;
        }
    };
    shard.counters.strays.set(strays.len() as u64);
    if !strays.is_empty() {
        tracing::warn!(
            of_former_shards = %names(&strays.former_shards),
            unknown = %names(&strays.unknown),
            "the data directory holds what belongs to nothing, which is left alone. What a former, larger number of cores left (of_former_shards) may be \
             removed while the broker is stopped; whether the rest is needed only you can tell"
        );
    }
}

async fn find(shard: &Shard) -> Result<Strays, Fault> {
    let image = shard.image();
    let mut logs = HashSet::from([meta::log_name().to_string()]);
    for topic in image.topics.values() {
        logs.extend((0..topic.partitions.len()).map(|index| {
            let name = LogName {
                topic: topic.name.clone(),
                partition: PartitionIndex(index as i32),
            };
            name.to_string()
        }));
    }
    let is_known = |entry: &DirEntry| match entry.is_dir {
        true => logs.contains(&entry.name),
        false => DataDir::is_own(&entry.name),
    };
    let data_dir = &shard.config.data_dir;
    Strays::find(&shard.rt, data_dir, shard.shard_count(), is_known).await
}

fn names(paths: &[PathBuf]) -> String {
    let mut names: Vec<String> = paths
        .iter()
        .take(NAMED_MAX)
        .map(|path| path.display().to_string())
        .collect();
    if paths.len() > NAMED_MAX {
        names.push(format!("and {} more", paths.len() - NAMED_MAX));
    }
    names.join(", ")
}
