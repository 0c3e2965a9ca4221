//! What holds in the end, key by key, and where each value stands. The built-in defaults are read from the manual, which
//! a test holds to them.

use std::fmt;

use figment::{
    Metadata, Source as Place,
    providers::{Format, Toml},
    value::{Dict, Value},
};
use serde_json::Value as Json;

use super::{
    keys::{self, KEYS},
    layers::{Layers, find, show_number},
    problem::masked,
};

/// One key.
#[derive(Clone, PartialEq, Debug)]
pub struct Setting {
    /// In full, the tables of lists by their numbers: `listen.0.url`.
    pub key: String,
    /// What holds; null where nothing is set and nothing built in. As JSON it reads like TOML. What could be a password in
    /// a URL is left out.
    pub value: Json,
    /// Where it stands.
    pub source: Source,
}

/// Where a value stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// Nowhere: it is built in.
    Default,
    /// In this file.
    File(String),
    /// In this variable of the environment.
    Environment(String),
    /// In this option of the command line.
    CommandLine(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(name) | Self::CommandLine(name) => f.write_str(name),
            Self::Environment(name) => write!(f, "{name} in the environment"),
        }
    }
}

/// All keys, in the order of the manual.
pub(super) fn settings(layers: &Layers) -> Vec<Setting> {
    let effective = Effective { layers, manual: Value::from(Toml::from_str::<Dict>(MANUAL).unwrap_or_default()) };
    let mut settings = Vec::new();
    for name in keys::sections() {
        match name {
            "listen" => {
                for index in 0..effective.tables(name) {
                    settings.extend(effective.section(name, &[&format!("{name}.{index}")], "listen.0"));
                }
            }
            "route" => {
                for index in 0..effective.tables(name) {
                    let [route, upstream, maildrop] =
                        ["", ".upstream", ".maildrop"].map(|table| format!("{name}.{index}{table}"));
                    settings.extend(effective.section(name, &[&route], name));
                    settings.extend(effective.section("upstream", &[&upstream], "upstream"));
                    // What a route does not say of its maildrops is said for all.
                    settings.extend(effective.section("maildrop", &[&maildrop, "maildrop"], "maildrop"));
                }
            }
            name => settings.extend(effective.section(name, &[name], name)),
        }
    }
    settings
}

/// What is written, and what is built in.
struct Effective<'a> {
    layers: &'a Layers,
    manual: Value,
}

impl Effective<'_> {
    /// How many tables a list has.
    fn tables(&self, name: &str) -> usize {
        let list = self.layers.merged(name).or_else(|| find(&self.manual, name));
        list.and_then(Value::as_array).map_or(0, <[Value]>::len)
    }

    /// The keys of a section: as the first of `tables` has them that does, else as they are built in. They are called
    /// after the first.
    fn section(&self, name: &str, tables: &[&str], built_in: &str) -> Vec<Setting> {
        let names = KEYS.iter().filter_map(|(key, ..)| key.strip_prefix(name)?.strip_prefix('.'));
        let setting = |name| {
            let keys = || tables.iter().map(|table| format!("{table}.{name}"));
            let (value, source) = match keys().find_map(|key| Some((self.layers.merged(&key)?, key))) {
                Some((value, key)) => (json(value), Source::of(self.layers.metadata(&key))),
                None => {
                    let value = find(&self.manual, &format!("{built_in}.{name}"));
                    (value.map_or(Json::Null, json), Source::Default)
                }
            };
            keys().next().map(|key| Setting { key, value, source })
        };
        names.filter_map(setting).collect()
    }
}

impl Source {
    fn of(layer: Option<&Metadata>) -> Self {
        let Some(layer) = layer else { return Self::Default };
        let name = layer.name.to_string();
        match (&layer.source, name.strip_suffix(" in the environment")) {
            (Some(Place::File(_)), _) => Self::File(name),
            (_, Some(variable)) => Self::Environment(variable.to_owned()),
            _ => Self::CommandLine(name),
        }
    }
}

fn json(value: &Value) -> Json {
    match value {
        Value::String(_, text) => Json::from(masked(text).unwrap_or_else(|| text.clone())),
        Value::Char(_, character) => Json::from(character.to_string()),
        Value::Bool(_, on) => Json::from(*on),
        Value::Num(_, number) => show_number(*number).parse().map_or(Json::Null, Json::Number),
        Value::Empty(..) => Json::Null,
        Value::Array(_, items) => items.iter().map(json).collect(),
        Value::Dict(_, table) => table.iter().map(|(key, value)| (key.clone(), json(value))).collect(),
    }
}

const MANUAL: &str = include_str!("../../config/popgate.toml");

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{super::CommandLine, *};

    #[test]
    fn every_value_has_its_source() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let toml = [
            "[[listen]]\nurl = \"pop3://127.0.0.1:1\"\n",
            "[[listen]]\nurl = \"pop3://127.0.0.1:2\"\nproxy_protocol_from = [\"10.0.0.0/8\"]\n",
            "[maildrop]\nseen = \"retr\"\nlock = \"gateway\"\n",
            "[[route]]\ndomains = [\"example.com\"]\n[route.upstream]\nmailbox = \"POP\"\n[route.maildrop]\nuidl = \"uw\"\n",
        ];
        fs::write(file.path(), toml.concat()).unwrap();
        let environment = [("POPGATE_LIMITS__SESSIONS", "7"), ("POPGATE_MAILDROP__LOCK", "none")];
        let environment = environment.map(|(name, value)| (name.into(), value.into()));
        let command_line = CommandLine {
            upstream: Some("imaps://tim:sesame@imap.example.com".into()),
            set: vec!["upstream.dangerous_plaintext=true".into()],
            ..CommandLine::default()
        };
        let layers = Layers::gather(&[file.path().to_owned()], environment, &command_line).unwrap();
        let settings = settings(&layers);
        let shown = |key: &str| {
            let setting = settings.iter().find(|setting| setting.key == key).unwrap();
            format!("{} from {}", setting.value, setting.source).replace(&file.path().display().to_string(), "FILE")
        };
        for (key, expected) in [
            ("listen.0.url", "\"pop3://127.0.0.1:1\" from FILE"),
            ("listen.0.proxy_protocol_from", "[] from default"),
            ("listen.1.url", "\"pop3://127.0.0.1:2\" from FILE"),
            ("listen.1.proxy_protocol_from", "[\"10.0.0.0/8\"] from FILE"),
            ("tls.certificate", "null from default"),
            ("login.plaintext_from", "[\"127.0.0.0/8\",\"::1/128\"] from default"),
            ("login.failure_delay", "\"2s\" from default"),
            ("upstream.url", "\"imaps://…@imap.example.com\" from --upstream"),
            ("upstream.dangerous_plaintext", "true from --set"),
            ("maildrop.on_delete", "null from default"),
            ("maildrop.seen", "\"retr\" from FILE"),
            ("maildrop.lock", "\"none\" from POPGATE_MAILDROP__LOCK in the environment"),
            ("route.0.domains", "[\"example.com\"] from FILE"),
            ("route.0.upstream.url", "null from default"),
            ("route.0.upstream.mailbox", "\"POP\" from FILE"),
            ("route.0.upstream.dangerous_plaintext", "false from default"),
            ("route.0.maildrop.uidl", "\"uw\" from FILE"),
            ("route.0.maildrop.seen", "\"retr\" from FILE"),
            ("route.0.maildrop.lock", "\"none\" from POPGATE_MAILDROP__LOCK in the environment"),
            ("route.0.maildrop.deleted", "\"show\" from default"),
            ("limits.sessions", "7 from POPGATE_LIMITS__SESSIONS in the environment"),
            ("limits.sessions_per_address", "64 from default"),
        ] {
            assert_eq!(shown(key), expected, "{key}");
        }
        let of = |section| KEYS.iter().filter(|(key, ..)| key.starts_with(section)).count();
        assert_eq!(settings.len(), KEYS.len() + of("listen.") + of("upstream.") + of("maildrop."));
    }
}
