//! Makes the list of provider specs from the files in `providers/`, so that adding a
//! provider is adding a file.

#![expect(clippy::disallowed_methods, reason = "this runs where the crate is built")]

use std::error::Error;
use std::fmt::Write as _;
use std::{env, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let folder = root.join("../providers").canonicalize()?;
    println!("cargo:rerun-if-changed={}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        let is_spec = path.extension().is_some_and(|kind| kind == "json")
            && path.file_stem().is_some_and(|stem| stem != "schema");
        if is_spec {
            names.push(path);
        }
    }
    names.sort();
    let mut list = String::from("&[\n");
    for path in names {
        println!("cargo:rerun-if-changed={}", path.display());
        let file = path.file_name().and_then(|name| name.to_str()).ok_or("a file name")?;
        writeln!(list, "    ({file:?}, include_str!({:?})),", path.display().to_string())?;
    }
    list.push_str("]\n");
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("providers.rs"), list)?;
    Ok(())
}
