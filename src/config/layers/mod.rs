//! The layers of the configuration, merged by figment, and where each value of the result stands. What the values mean
//! is left out.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use figment::{
    Figment, Metadata, Profile, Provider, Source,
    error::Kind as Trouble,
    providers::{Format, Toml},
    util::nest,
    value::{Dict, Map, Num, Value},
};

use super::{
    CommandLine, Error, Problem,
    keys::{self, Kind},
    problem::quoted,
    raw::Raw,
};

mod environment;

/// All layers in one.
pub(super) struct Layers {
    figment: Figment,
    merged: Value,
}

/// One file, one variable of the environment or one option.
struct Layer {
    /// What messages call it.
    name: String,
    /// Set if it is a file.
    file: Option<PathBuf>,
    values: Dict,
}

impl Layers {
    /// Reads them all. A file that is not there, or is no TOML, is an error; all such are reported.
    pub(super) fn gather(
        files: &[PathBuf],
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        command_line: &CommandLine,
    ) -> Result<Self, Error> {
        let mut problems = Vec::new();
        let mut figment = Figment::new();
        let layers = files.iter().map(|file| read(file));
        let layers = layers.chain(environment::variables(environment)).chain(options(command_line));
        for layer in layers {
            match layer {
                Ok(layer) => figment = figment.merge(layer),
                Err(problem) => problems.push(problem),
            }
        }
        if !problems.is_empty() {
            return Err(Error(problems));
        }
        let merged = figment.find_value("").unwrap_or_else(|_| Value::from(Dict::new()));
        Ok(Self { figment, merged })
    }

    /// The values, with the built-in defaults where no layer says anything.
    pub(super) fn raw(&self) -> Result<Raw, Error> {
        let misshapen = self.lists_for_tables();
        if !misshapen.is_empty() {
            return Err(Error(misshapen));
        }
        self.figment.extract().map_err(|error| Error(error.into_iter().map(|error| self.problem(&error)).collect()))
    }

    /// What the layer is called that a value comes from. `key` is the full one, items of lists by number:
    /// `listen.0.url`. `None` for built-in defaults.
    pub(super) fn source(&self, key: &str) -> Option<String> {
        self.metadata(key).map(|metadata| metadata.name.to_string())
    }

    /// A path as it is written under `key`, made to count from the directory of the file that it stands in.
    pub(super) fn path(&self, key: &str, written: &str) -> PathBuf {
        let file = self.metadata(key).and_then(|metadata| metadata.source.as_ref()?.file_path());
        file.and_then(Path::parent).map_or_else(|| PathBuf::from(written), |directory| directory.join(written))
    }

    /// The value that the layers give a key, or a whole table.
    pub(super) fn merged(&self, key: &str) -> Option<&Value> {
        find(&self.merged, key)
    }

    /// The layer that a value comes from.
    pub(super) fn metadata(&self, key: &str) -> Option<&Metadata> {
        self.figment.get_metadata(find(&self.merged, key)?.tag())
    }

    /// Where a list stands for a table. serde would take its items for the table's values, in the order in which we
    /// happen to name the keys.
    fn lists_for_tables(&self) -> Vec<Problem> {
        let items = |list: &str| self.merged(list).and_then(Value::as_array).map_or(0, <[Value]>::len);
        let tables = keys::sections().into_iter().flat_map(|name| match name {
            "listen" => (0..items(name)).map(|item| format!("{name}.{item}")).collect(),
            "route" => {
                let tables = |item| ["", ".upstream", ".maildrop"].map(|table| format!("{name}.{item}{table}"));
                (0..items(name)).flat_map(tables).collect()
            }
            _ => vec![name.to_owned()],
        });
        let wrong = |table: String| match self.merged(&table)? {
            list @ Value::Array(..) => Some(Problem::value(self.source(&table), &without_numbers(&table), show(list))),
            _ => None,
        };
        tables.filter_map(wrong).collect()
    }

    /// What figment has to say, in our form.
    fn problem(&self, error: &figment::Error) -> Problem {
        // Not one text with points between: whoever writes `"a.b" = 1` has written a single name.
        let mut path: Vec<&str> = error.path.iter().map(String::as_str).collect();
        if let Trouble::MissingField(field) = &error.kind {
            path.push(field);
        }
        let names = self.names(&path);
        let key = written(&names);
        let value = follow(&self.merged, path.iter().copied());
        // A missing key stands nowhere; the table that lacks it does.
        let table = path.split_last().and_then(|(_, table)| follow(&self.merged, table.iter().copied()));
        let layer = [value, table].into_iter().flatten().find_map(|value| self.figment.get_metadata(value.tag()));
        let source = layer.map(|layer| layer.name.to_string());
        match &error.kind {
            Trouble::UnknownField(..) => Problem { key, ..Problem::unknown(source, &names.join(".")) },
            Trouble::MissingField(_) => Problem {
                source,
                found: "not set".to_owned(),
                instead: format!("needed: {}", keys::allowed(&key)),
                key,
            },
            _ => Problem::value(source, &key, value.map_or_else(|| error.to_string(), show)),
        }
    }

    /// What keys are called by: a path without the numbers of items.
    fn names<'a>(&self, path: &[&'a str]) -> Vec<&'a str> {
        let is_item = |depth: usize| {
            let list = follow(&self.merged, path[..depth].iter().copied());
            matches!(list, Some(Value::Array(..)))
        };
        path.iter().enumerate().filter(|(depth, _)| !is_item(*depth)).map(|(_, name)| *name).collect()
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        let metadata = Metadata::named(self.name.clone());
        match &self.file {
            Some(file) => metadata.source(Source::File(file.clone())),
            None => metadata,
        }
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.values.clone())]))
    }
}

fn read(file: &Path) -> Result<Layer, Problem> {
    let name = file.display().to_string();
    let text = fs::read_to_string(file).map_err(|error| Problem {
        source: None,
        key: name.clone(),
        found: format!("cannot be read: {error}"),
        instead: "allowed: a TOML file".to_owned(),
    })?;
    let values = Toml::from_str(&text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        Problem {
            source: Some(name.clone()),
            key: format!("line {}", before.matches('\n').count() + 1),
            found: error.message().replace('\n', ", "),
            instead: "allowed: TOML, as in config/popgate.toml".to_owned(),
        }
    })?;
    Ok(Layer { name, file: Some(file.to_owned()), values })
}

fn options(command_line: &CommandLine) -> impl Iterator<Item = Result<Layer, Problem>> {
    let CommandLine { listen, upstream, upstream_ca, set } = command_line;
    let listen = (!listen.is_empty()).then(|| {
        let listeners: Vec<_> = listen.iter().map(|url| nest("url", Value::from(url.as_str()))).collect();
        Layer::of("--listen".to_owned(), nest("listen", Value::from(listeners)))
    });
    let upstream = upstream.iter().map(|url| Layer::one("--upstream".to_owned(), "upstream.url", url));
    let ca = upstream_ca.iter().map(|file| Layer::one("--upstream-ca".to_owned(), "upstream.ca", file));
    let set = set.iter().map(|text| match text.split_once('=') {
        Some((key, value)) if key.contains('.') && !has_empty_name(key) => {
            Ok(Layer::one("--set".to_owned(), key, value))
        }
        _ => Err(Problem {
            source: None,
            key: "--set".to_owned(),
            found: format!("found {}", quoted(text)),
            instead: "allowed: section.key=value".to_owned(),
        }),
    });
    // What is said by its own option outranks what is said by the one for everything.
    set.chain(listen.into_iter().chain(upstream).chain(ca).map(Ok))
}

impl Layer {
    /// One value that is written as a text without TOML's quotes.
    fn one(name: String, key: &str, text: &str) -> Self {
        if key == "listen.url" {
            // A single listener, which replaces the list: lists of tables cannot be written in one line.
            let listener = nest("url", Value::from(text));
            return Self::of(name, nest("listen", Value::from(vec![listener])));
        }
        let value = match keys::kind(key) {
            Some(Kind::Text) => Value::from(text),
            Some(Kind::List) if !text.trim_start().starts_with('[') => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Value::from(items.map(Value::from).collect::<Vec<_>>())
            }
            // figment reads numbers, switches and lists, and what is none of them as a text. It never fails.
            _ => text.parse().unwrap_or_else(|never| match never {}),
        };
        Self::of(name, nest(key, value))
    }

    fn of(name: String, values: Value) -> Self {
        Self { name, file: None, values: values.into_dict().unwrap_or_default() }
    }
}

/// The value of a key, or a whole table; items of lists by their numbers.
pub(super) fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    follow(value, key.split('.').filter(|part| !part.is_empty()))
}

/// The same for a path whose names may have points in them.
fn follow<'a, 'b>(value: &'a Value, mut path: impl Iterator<Item = &'b str>) -> Option<&'a Value> {
    path.try_fold(value, |value, part| match value {
        Value::Dict(_, dict) => dict.get(part),
        Value::Array(_, items) => items.get(part.parse::<usize>().ok()?),
        _ => None,
    })
}

/// Such a key is none: figment would read `upstream..url` as `upstream.url`, and `.url` as nothing.
fn has_empty_name(key: &str) -> bool {
    key.split('.').any(str::is_empty)
}

/// `listen.url` for `listen.0.url`.
pub(super) fn without_numbers(path: &str) -> String {
    let parts: Vec<_> = path.split('.').filter(|part| part.parse::<usize>().is_err()).collect();
    parts.join(".")
}

/// A key as it would stand in a TOML file.
fn written(names: &[&str]) -> String {
    let is_bare = |name: &str| {
        !name.is_empty() && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-_".contains(&octet))
    };
    let names = names.iter().map(|name| if is_bare(name) { (*name).to_owned() } else { quoted(name) });
    names.collect::<Vec<_>>().join(".")
}

/// A value as it would stand in a TOML file.
fn show(value: &Value) -> String {
    match value {
        Value::String(_, text) => quoted(text),
        Value::Char(_, character) => format!("{:?}", character.to_string()),
        Value::Bool(_, on) => on.to_string(),
        Value::Num(_, number) => show_number(*number),
        Value::Empty(..) => "nothing".to_owned(),
        Value::Array(_, items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(", ")),
        Value::Dict(_, table) => match table.get(DATE) {
            Some(Value::String(_, date)) => date.clone(),
            _ => "a table".to_owned(),
        },
    }
}

/// What the crate `toml` makes of a date or a time: a table with this key.
const DATE: &str = "$__toml_private_datetime";

/// A number's digits.
pub(super) fn show_number(number: Num) -> String {
    let whole = number.to_i128().map(|number| number.to_string());
    let whole = whole.or_else(|| number.to_u128().map(|number| number.to_string()));
    whole.or_else(|| number.to_f64().map(|number| number.to_string())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(environment: &[(&str, &str)], set: &[&str]) -> Result<Raw, Error> {
        let environment = environment.iter().map(|(name, value)| (name.into(), value.into()));
        let command_line = CommandLine { set: set.iter().map(|&text| text.into()).collect(), ..CommandLine::default() };
        Layers::gather(&[], environment, &command_line)?.raw()
    }

    #[test]
    fn texts_of_the_environment_become_values_by_their_key() {
        let raw = gather(
            &[
                ("POPGATE_UPSTREAM__MAILBOX", "2024"),
                ("POPGATE_LIMITS__SESSIONS", "7"),
                ("POPGATE_UPSTREAM__DANGEROUS_PLAINTEXT", "true"),
                ("POPGATE_LOGIN__PLAINTEXT_FROM", "10.0.0.0/8, ::1"),
                ("POPGATE_LISTEN__URL", "pop3://[::]:110"),
                ("POPGATE_MAILDROP__UIDL", "{uid}"),
            ],
            &[],
        )
        .unwrap();
        assert_eq!(raw.upstream.mailbox, "2024");
        assert_eq!(raw.limits.sessions, 7);
        assert!(raw.upstream.dangerous_plaintext);
        assert_eq!(raw.login.plaintext_from, ["10.0.0.0/8", "::1"]);
        assert_eq!(raw.listen.len(), 1);
        assert_eq!(raw.listen[0].url, "pop3://[::]:110");
        assert_eq!(raw.maildrop.uidl.as_deref(), Some("{uid}"));
    }

    #[test]
    fn lists_may_have_brackets_or_be_empty() {
        let set = |text| gather(&[], &[text]).unwrap().login.plaintext_from;
        assert_eq!(set("login.plaintext_from=[10.0.0.0/8, \"::1/128\"]"), ["10.0.0.0/8", "::1/128"]);
        assert_eq!(set("login.plaintext_from=[]"), [""; 0]);
        assert_eq!(set("login.plaintext_from="), [""; 0]);
    }

    #[test]
    fn other_variables_are_left_alone() {
        let links = [("POPGATE_PORT", "tcp://10.0.0.1:110"), ("POPGATE_SERVICE_HOST", "10.0.0.1"), ("POPGATE__X", "1")];
        assert_eq!(gather(&links, &[]).unwrap(), Raw::default());
    }

    #[test]
    fn keys_and_fields_are_the_same() {
        for section in ["listen", "tls", "login", "upstream", "maildrop", "route", "cache", "limits", "log"] {
            let unknown = nest("?", Value::from(""));
            let unknown = if matches!(section, "listen" | "route") { Value::from(vec![unknown]) } else { unknown };
            let error = Figment::from(Layer::of(String::new(), nest(section, unknown))).extract::<Raw>().unwrap_err();
            let Trouble::UnknownField(_, fields) = error.kind else { panic!("{error}") };
            let keys = keys::KEYS.iter().filter_map(|(key, ..)| key.split_once('.'));
            let keys = keys.filter(|(of, _)| *of == section).map(|(_, name)| name);
            // The tables of a route are sections of their own.
            let tables = ["upstream", "maildrop"].into_iter().filter(|_| section == "route");
            assert_eq!(keys.chain(tables).collect::<Vec<_>>(), fields, "{section}");
        }
    }
}
