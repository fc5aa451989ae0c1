//! Reading the layers: defaults, file, environment, flags.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use super::{Config, ConfigError, RawConfig};

/// Environment variables that start with this are configuration, e.g. `ARGOSY__RAFT__HEARTBEAT_MS`.
const PREFIX: &str = "ARGOSY__";

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A flag.
    Flag(String),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::File(path) => write!(f, "{}", path.display()),
            Source::Environment(name) => write!(f, "{name}"),
            Source::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// A checked configuration and where its values came from. What is in no layer is a default.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// `section.key` to its source.
    pub sources: BTreeMap<String, Source>,
}

/// Reads all layers. `environment` is every variable of the process; `flags` are `(flag name, section.key, value)`.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    flags: &[(&str, &str, String)],
) -> Result<Loaded, ConfigError> {
    let mut table = Table::new();
    let mut sources = BTreeMap::new();
    if let Some(path) = file {
        table = read_file(path)?;
        for (section, keys) in &table {
            for key in keys.as_table().into_iter().flat_map(Table::keys) {
                sources.insert(format!("{section}.{key}"), Source::File(path.to_owned()));
            }
        }
    }
    let mut variables: Vec<(String, String)> = environment
        .into_iter()
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect();
    variables.sort();
    for (name, value) in variables {
        let path = name[PREFIX.len()..].to_lowercase().replacen("__", ".", 1);
        set(&mut table, &path, &value, &name)?;
        sources.insert(path, Source::Environment(name));
    }
    for (name, path, value) in flags {
        set(&mut table, path, value, &format!("--{name}"))?;
        sources.insert((*path).to_owned(), Source::Flag((*name).to_owned()));
    }
    let raw =
        RawConfig::deserialize(Value::Table(table)).map_err(|error| ConfigError::Override {
            origin: "configuration".into(),
            message: error.to_string(),
        })?;
    Ok(Loaded {
        config: Config::try_from(raw)?,
        sources,
    })
}

/// Reads the file twice: typed, so that a wrong key is reported with its line, and as a table to merge into.
fn read_file(path: &Path) -> Result<Table, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let syntax = |error: toml::de::Error| ConfigError::Syntax {
        path: path.to_owned(),
        message: error.to_string(),
    };
    toml::from_str::<RawConfig>(&text).map_err(syntax)?;
    toml::from_str::<Table>(&text).map_err(syntax)
}

/// Sets `section.key` and checks at once that the result still deserialises, so that the culprit is named.
fn set(table: &mut Table, path: &str, text: &str, origin: &str) -> Result<(), ConfigError> {
    let refused = |message: String| ConfigError::Override {
        origin: origin.to_owned(),
        message,
    };
    let (section, key) = path
        .split_once('.')
        .ok_or_else(|| refused("expected ARGOSY__SECTION__KEY".into()))?;
    let entry = table
        .entry(section)
        .or_insert_with(|| Value::Table(Table::new()));
    let keys = entry
        .as_table_mut()
        .ok_or_else(|| refused(format!("{section} is not a section")))?;
    // A value is TOML when it reads as TOML (numbers, booleans, lists); anything else is a string.
    let typed = toml::from_str::<Table>(&format!("value = {text}"))
        .ok()
        .and_then(|mut parsed| parsed.remove("value"));
    let before = keys.clone();
    let mut failure = None;
    for candidate in typed.into_iter().chain([Value::String(text.to_owned())]) {
        keys.insert(key.to_owned(), candidate);
        let alone = Table::from_iter([(
            section.to_owned(),
            Value::Table(Table::from_iter([(key.to_owned(), keys[key].clone())])),
        )]);
        match RawConfig::deserialize(Value::Table(alone)) {
            Ok(_) => return Ok(()),
            Err(error) => failure = failure.or(Some(error.to_string())),
        }
    }
    *keys = before;
    Err(refused(failure.unwrap_or_default()))
}

impl Loaded {
    /// Every value and where it comes from, as TOML with comments.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        // Serialising plain numbers, texts and lists cannot fail.
        let table = Table::try_from(&self.config.raw).unwrap_or_default();
        for (section, keys) in &table {
            text.push_str(&format!("[{section}]\n"));
            for (key, value) in keys.as_table().into_iter().flatten() {
                let source = self.sources.get(&format!("{section}.{key}"));
                let source = source.map_or_else(|| "default".to_owned(), Source::to_string);
                text.push_str(&format!("{key} = {value}  # {source}\n"));
            }
            text.push('\n');
        }
        text
    }
}
