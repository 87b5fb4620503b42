//! Builds images: those of the rig's pods into the cache (`cargo xtask images`), or Decklog's own into a file
//! (`cargo xtask image`).

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use rig::node::images::{BOX, Images, PAUSE};
use rig::product;

/// Builds the images of the rig's pods, or Decklog's own.
#[derive(Parser)]
struct Arguments {
    /// Decklog's own image instead, of the programs in this directory.
    #[arg(long, requires = "output")]
    product: Option<PathBuf>,
    /// Where to write it.
    #[arg(long, requires = "product")]
    output: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let built = match arguments.product.zip(arguments.output) {
        Some((binaries, output)) => product::write(&binaries, &output)
            .map(|()| println!("{}: {}", product::IMAGE, output.display())),
        None => Images::build()
            .map(|images| println!("{PAUSE} and {BOX}: {}", images.archive.display())),
    };
    match built {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("images: {error:#}");
            ExitCode::FAILURE
        }
    }
}
