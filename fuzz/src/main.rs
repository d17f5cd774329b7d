//! Runs every target for a while on the stable toolchain, and holds what each input takes of memory against its length:
//! `cargo run -p fuzz -- --seconds 60`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use fuzz::{Mutator, TARGETS, Target};
use peak_alloc::PeakAlloc;

#[derive(Debug, Parser)]
#[command(name = "fuzz", about = "Tries mutations of the corpus against everything that must hold of any bytes.")]
struct Args {
    /// How long to try, over all targets.
    #[arg(long, default_value_t = 60)]
    seconds: u64,

    /// Only this target.
    #[arg(long)]
    target: Option<String>,

    /// Where the mutations begin; another one finds others. Printed, so that a run can be had again.
    #[arg(long)]
    seed: Option<u64>,
}

/// Counts what is taken.
#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What an input may take at most, in bytes: so much whatever it is, and so much for each of its bytes. Most of it is what the targets
/// themselves compare with: trees of `serde_json`, copies, answers.
const BASE: usize = 128 << 10;
const FOR_EACH_BYTE: usize = 64;

fn main() -> Result<()> {
    let Args { seconds, target, seed } = Args::parse();
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    let chosen: Vec<Target> =
        TARGETS.into_iter().filter(|one| target.as_deref().is_none_or(|name| name == one.name)).collect();
    let each = Duration::from_secs(seconds) / u32::try_from(chosen.len().max(1)).unwrap_or(1);
    for target in chosen {
        say(&format!("{}: seed {seed}", target.name));
        let tried = try_out(target, seed, each)?;
        say(&format!("{}: {tried} inputs, all well", target.name));
    }
    Ok(())
}

fn try_out(target: Target, seed: u64, time: Duration) -> Result<u64> {
    let corpus = corpus(target.name)?;
    for input in &corpus {
        (target.run)(input);
    }
    let mut mutator = Mutator::new(corpus, seed);
    let (begun, mut tried) = (Instant::now(), 0);
    while begun.elapsed() < time {
        for _ in 0..64 {
            let input = mutator.next_input();
            let before = MEMORY.current_usage();
            MEMORY.reset_peak_usage();
            let held = std::panic::catch_unwind(|| (target.run)(&input));
            let taken = MEMORY.peak_usage().saturating_sub(before);
            let most = BASE + input.len() * FOR_EACH_BYTE;
            if taken > most {
                say(&format!("{}: an input of {} bytes took {taken}, more than {most}", target.name, input.len()));
            }
            if held.is_err() || taken > most {
                let file = std::env::temp_dir().join(format!("fuzz-{}-{seed}", target.name));
                std::fs::write(&file, &input).with_context(|| format!("writing {}", file.display()))?;
                anyhow::bail!("{} fails for the input in {}", target.name, file.display());
            }
            tried += 1;
        }
    }
    Ok(tried)
}

/// The inputs of a target, in the order of their names.
fn corpus(name: &str) -> Result<Vec<Vec<u8>>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let entries = std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    files.iter().map(|file| std::fs::read(file).with_context(|| format!("reading {}", file.display()))).collect()
}

#[expect(clippy::print_stderr, reason = "what it says is for the person who started it")]
fn say(line: &str) {
    eprintln!("fuzz: {line}");
}
