//! The variables of the environment that are layers.

use std::ffi::OsString;

use super::{Layer, has_empty_name};
use crate::config::{Problem, keys};

/// What a variable of the environment is meant for.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Meant {
    /// A key, which need not be one that there is.
    Key(String),
    /// A key of ours, but for an underscore.
    Slip(&'static str),
}

/// The variables that are called `POPGATE_SECTION__KEY`. One that is a slip is not to be passed over:
/// `POPGATE_MAILDROP_ON_DELETE=ignore` must not end in mail that is expunged.
pub(super) fn variables(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> impl Iterator<Item = Result<Layer, Problem>> {
    let ours = environment.into_iter().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        let meant = meant(&name)?;
        Some((name, meant, value))
    });
    let mut ours: Vec<_> = ours.collect();
    // The environment has no order; messages should.
    ours.sort();
    ours.into_iter().map(|(name, meant, value)| {
        let source = format!("{name} in the environment");
        match (meant, value.into_string()) {
            (Meant::Slip(key), _) => Err(Problem {
                source: Some(source),
                key: key.to_owned(),
                found: "found one underscore between section and key".to_owned(),
                instead: format!("needed: POPGATE_{}", key.replace('.', "__").to_ascii_uppercase()),
            }),
            (Meant::Key(key), _) if has_empty_name(&key) => Err(Problem::unknown(Some(source), &key)),
            (Meant::Key(key), Ok(value)) => Ok(Layer::one(source, &key, &value)),
            (Meant::Key(key), Err(_)) => Err(Problem::value(Some(source), &key, "octets that are not UTF-8")),
        }
    })
}

/// `None` for what is not ours, though it may begin like it: Kubernetes sets `POPGATE_PORT` and the like for a service
/// called popgate.
fn meant(name: &str) -> Option<Meant> {
    let ours = name.strip_prefix("POPGATE_")?.to_ascii_lowercase();
    if let Some((section, key)) = ours.split_once("__") {
        return Some(Meant::Key(format!("{section}.{}", key.replace("__", "."))));
    }
    let (key, ..) = keys::KEYS.iter().find(|(key, ..)| key.replace('.', "_") == ours)?;
    Some(Meant::Slip(key))
}
