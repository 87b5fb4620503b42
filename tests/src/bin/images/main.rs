//! Builds the images of the rig's pods into the cache: `cargo xtask images`.

use std::process::ExitCode;

use rig::node::images::{BOX, Images, PAUSE};

fn main() -> ExitCode {
    match Images::build() {
        Ok(images) => {
            println!("{PAUSE} and {BOX}: {}", images.archive.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("images: {error:#}");
            ExitCode::FAILURE
        }
    }
}
