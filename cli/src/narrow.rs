//! `iota evidence`: from evidence of a window to evidence of one tile, as an exchange of files between whoever accuses and the
//! accused. In a run the two exchange messages (`second.rs`, `witness.rs`); this is for whoever was not asked then.

use crate::failure::{Failure, Result};
use engine::data::TokenShard;
use engine::trace::Performer;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use validator::evidence::tile::{Doubt, Matter, read_trace, trace_file};
use validator::evidence::{FileBytes, Parts, unpack};
use wire::{Key, Signed};

#[derive(clap::Subcommand)]
pub enum Command {
    /// The accused's side: sign what every op gave (FILE.trace); with --output, show one of them (FILE.output)
    Answer {
        /// The evidence of the window
        file: PathBuf,
        /// The accused's key
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The output that is asked for, by its number
        #[arg(long, value_name = "NUMBER")]
        output: Option<u32>,
        /// The run's training shard, where it is too long to travel inside
        #[arg(long, value_name = "FILE")]
        shard: Option<PathBuf>,
        /// Perform it as this adversary does: for trials
        #[arg(long, hide = true)]
        adversary: Option<miner::Adversary>,
    },
    /// The accuser's side: say which output is wrong, from FILE.trace; with FILE.output too, write FILE.tile.evidence,
    /// which `iota verify evidence` decides in seconds
    Narrow {
        /// The evidence of the window
        file: PathBuf,
        /// The run's training shard, where it is too long to travel inside
        #[arg(long, value_name = "FILE")]
        shard: Option<PathBuf>,
    },
}

pub fn run(command: Command) -> Result<()> {
    match command {
        Command::Answer { file, key, output, shard, adversary } => {
            let bytes = read(&file)?;
            let window = Opened::of(&file, &bytes, shard.as_deref())?;
            let key = transport::identity::load(&key)
                .map_err(|e| Failure::input(format!("{}: {e}", key.display())))?;
            let path = window.answer(&key, output, adversary)?;
            println!("{}", path.display());
            Ok(())
        }
        Command::Narrow { file, shard } => {
            let bytes = read(&file)?;
            let window = Opened::of(&file, &bytes, shard.as_deref())?;
            let doubt = window.doubt()?;
            if !beside(&file, "output").exists() {
                println!(
                    "output {} is wrong: ask the accused for its {} bytes with BLAKE3 {} (`iota evidence answer --output {}`)",
                    doubt.value, doubt.bytes, doubt.output, doubt.value
                );
                return Ok(());
            }
            println!("iota verify evidence {}", window.narrow(&doubt)?.display());
            Ok(())
        }
    }
}

/// The file of another kind beside an evidence file.
fn beside(file: &Path, kind: &str) -> PathBuf {
    file.with_extension(kind)
}

/// Evidence of a window, read.
struct Opened<'a> {
    file: PathBuf,
    parts: Parts<'a>,
    shard: Option<FileBytes>,
}

impl<'a> Opened<'a> {
    fn of(file: &Path, bytes: &'a [u8], shard: Option<&Path>) -> Result<Self> {
        let parts = unpack(bytes).map_err(|e| Failure::input(format!("{}: refused: {e}", file.display())))?;
        if parts.case.order.window.is_beginning() {
            let name = file.display();
            return Err(Failure::input(format!(
                "{name}: no evidence of one tile: it is of where an epoch began, and decided without work"
            )));
        }
        // Where it travels inside, it is there.
        let shard = shard.filter(|_| !parts.objects.contains_key(&parts.run.data.train)).map(|path| {
            TokenShard::open(path).map_err(|e| Failure::input(format!("{}: {e}", path.display())))?;
            read(path)
        });
        Ok(Self { file: file.to_path_buf(), parts, shard: shard.transpose()? })
    }

    fn refused(&self, why: impl std::fmt::Display) -> Failure {
        Failure::input(format!("{}: no evidence of one tile: {why}; the window decides", self.file.display()))
    }

    fn matter(&self) -> Matter<'_> {
        Matter::of(&self.parts, self.shard.as_deref().unwrap_or_default())
    }

    fn answer(&self, key: &Key, output: Option<u32>, adversary: Option<miner::Adversary>) -> Result<PathBuf> {
        let mut performer: Box<Performer<'_>> = match adversary {
            Some(adversary) => miner::performer(adversary),
            None => Box::new(engine::perform),
        };
        let keep: BTreeSet<u32> = output.into_iter().collect();
        let (body, mut performed) =
            self.matter().answer(keep, &mut *performer).map_err(|e| self.refused(e))?;
        let (kind, bytes) = match output {
            None => ("trace", trace_file(&Signed::new(body, key), &performed.digests)),
            Some(value) => {
                let bytes = performed.kept.remove(&value);
                ("output", bytes.ok_or_else(|| self.refused(format!("there is no output {value}")))?)
            }
        };
        write(&beside(&self.file, kind), &bytes)
    }

    fn doubt(&self) -> Result<Doubt> {
        let (trace, digests) = self.trace()?;
        self.matter().doubt(&trace, &digests).map_err(|e| self.refused(e))
    }

    fn trace(&self) -> Result<(Signed<wire::Trace>, Vec<spec::Digest>)> {
        read_trace(&read(&beside(&self.file, "trace"))?).map_err(|e| self.refused(e))
    }

    fn narrow(&self, doubt: &Doubt) -> Result<PathBuf> {
        let (trace, digests) = self.trace()?;
        let output = read(&beside(&self.file, "output"))?;
        let file = self.matter().file(&trace, &digests, doubt, &output).map_err(|e| self.refused(e))?;
        write(&beside(&self.file, "tile.evidence"), &file)
    }
}

fn read(path: &Path) -> Result<FileBytes> {
    let failed = |e: std::io::Error| Failure::input(format!("{}: cannot be read ({e})", path.display()));
    FileBytes::open(path).map_err(failed)
}

fn write(path: &Path, bytes: &[u8]) -> Result<PathBuf> {
    std::fs::write(path, bytes)
        .map_err(|e| Failure::run(format!("{}: cannot be written ({e})", path.display())))?;
    Ok(path.to_path_buf())
}
