//! Writes the generated definitions into a folder: `crdgen DIR`.

use std::{env, fs, path::PathBuf};

fn main() -> std::io::Result<()> {
    let folder = PathBuf::from(env::args().nth(1).unwrap_or_else(|| "crds/yaml".to_owned()));
    fs::create_dir_all(&folder)?;
    for (file, body) in evenkeel_crds::definitions() {
        fs::write(folder.join(file), body)?;
    }
    Ok(())
}
