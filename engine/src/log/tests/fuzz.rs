//! Whole data directories that somebody tampered with.

use super::*;
use crate::{
    log::fuzz::{fuzz_recovery, pack},
    testing::{Rng, for_seeds},
};

/// Every golden directory by itself, and with bytes changed, cut off, taken from elsewhere in it, files lost or exchanged.
#[test]
fn mutated_directories_are_refused_or_sound() {
    let directories = golden::directories();
    assert!(directories.len() >= 4, "the golden directories are there");
    for files in &directories {
        for choice in 0..8 {
            fuzz_recovery(&packed(choice, files));
        }
    }
    for_seeds(600, |seed| {
        let mut rng = Rng::new(seed);
        let mut files = directories[rng.below(directories.len())].clone();
        for _ in 0..1 + rng.below(4) {
            mutate(&mut files, &mut rng);
        }
        fuzz_recovery(&packed(rng.next() as u8, &files));
    });
}

/// Found by libFuzzer: the first start made an empty log, and the second one put the journal's batches back into it.
#[test]
fn a_log_of_which_only_the_journal_is_left_comes_back_at_once() {
    for mut files in golden::directories() {
        files.retain(|(name, _)| name.starts_with("journal/"));
        for choice in 0..8 {
            fuzz_recovery(&packed(choice, &files));
        }
    }
}

/// The directories are where `tests/fuzz/run` begins: they must be no longer than what its fuzzer makes. Writes them into `$FOREBAY_CORPUS`
/// if that is set.
#[test]
#[allow(clippy::disallowed_methods)]
fn the_golden_directories_are_a_corpus() {
    let corpus = std::env::var_os("FOREBAY_CORPUS").map(std::path::PathBuf::from);
    for (number, files) in golden::directories().iter().enumerate() {
        let packed = packed(1, files);
        assert!(
            packed.len() <= 256 << 10,
            "{} bytes, see -max_len in tests/fuzz/run",
            packed.len()
        );
        if let Some(corpus) = &corpus {
            std::fs::write(corpus.join(format!("golden-{number}")), packed)
                .expect("write the corpus");
        }
    }
}

type Files = Vec<(String, Vec<u8>)>;

fn packed(choice: u8, files: &Files) -> Vec<u8> {
    let files = files.iter().map(|(name, content)| (&**name, &**content));
    pack(choice, files)
}

fn mutate(files: &mut Files, rng: &mut Rng) {
    if files.is_empty() {
        return;
    }
    let at = rng.below(files.len());
    let content = files[at].1.clone();
    if content.is_empty() || rng.chance(5) {
        files.remove(at);
        return;
    }
    let content_len = content.len();
    let mutated = &mut files[at].1;
    let position = match rng.chance(50) {
        // Where headers are.
        true => rng.below(content_len.min(200)),
        false => rng.below(content_len),
    };
    match rng.below(7) {
        0 => mutated[position] ^= 1 << rng.below(8),
        1 => mutated[position] = [0, 1, 0x7f, 0x80, 0xff][rng.below(5)],
        2 => mutated[position] = rng.next() as u8,
        3 => mutated.truncate(position),
        4 => {
            let len = (1 + rng.below(600)).min(content_len - position);
            mutated[position..position + len].fill(if rng.chance(70) { 0 } else { 0xff });
        }
        5 => {
            let from = rng.below(content_len);
            let len = (1 + rng.below(600)).min(content_len - position.max(from));
            mutated[position..position + len].copy_from_slice(&content[from..from + len]);
        }
        _ => {
            let other = rng.below(files.len());
            files[at].1 = files[other].1.clone();
        }
    }
}
