//! Configurations: they can be read, or it is said what is wrong with them and where.

use std::{env, fs, process};

use crate::config::{CommandLine, Config};

/// A file of any content. What it says of other files is taken as it is, so devices are left out.
pub(super) fn config(octets: &[u8]) {
    if ["dev", "proc", "sys"].iter().any(|place| octets.windows(place.len()).any(|part| part == place.as_bytes())) {
        return;
    }
    let file = env::temp_dir().join(format!("popgate-fuzzing-{}.toml", process::id()));
    fs::write(&file, octets).expect("a file for temporary use");
    let files = [file.clone()];
    let load = || Config::load_settings(&files, [], &CommandLine::default());
    let (loaded, again) = (load(), load());
    fs::remove_file(&file).expect("the file that was written");
    assert_eq!(format!("{loaded:?}"), format!("{again:?}"), "what is loaded again is the same");
    let name = file.display().to_string();
    match loaded {
        Ok((config, settings)) => {
            assert!(!config.listeners.is_empty() && !settings.is_empty());
            assert!(config.upstream.is_some() || !config.routes.is_empty());
        }
        Err(error) => {
            assert!(!error.0.is_empty(), "an error that says nothing");
            for problem in error.0 {
                let text = problem.to_string();
                // What is set nowhere has no place.
                let placed = text.contains(&name) || problem.source.is_none() && problem.found.starts_with("not set");
                assert!(placed, "{text:?} names no file");
                assert!(!text.contains(char::is_control), "{text:?} is more than a line");
            }
        }
    }
}
