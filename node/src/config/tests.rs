use super::*;

fn from_text(text: &str) -> Result<Config, ConfigError> {
    let raw: RawConfig = toml::from_str(text).expect("test configuration parses");
    Config::try_from(raw)
}

fn members(count: u64) -> String {
    let list: Vec<String> = (1..=count)
        .map(|id| format!("{{ id = {id}, grpc = \"10.0.0.{id}:5100\" }}"))
        .collect();
    format!("[cluster]\nmembers = [{}]\n", list.join(", "))
}

#[test]
fn nothing_configured_is_one_node_on_port_5000() {
    let config = load(None, [], &[]).expect("defaults are valid").config;
    assert_eq!(config.raw.http.listen, "0.0.0.0:5000");
    assert_eq!((config.copies, config.write_copies), (1, 1));
}

#[test]
fn copies_follow_the_number_of_members() {
    for (nodes, copies, write_copies) in [
        (1, 1, 1),
        (2, 2, 1),
        (3, 3, 2),
        (4, 3, 2),
        (5, 3, 3),
        (7, 4, 4),
    ] {
        let config = from_text(&members(nodes)).expect("valid");
        assert_eq!(
            (config.copies, config.write_copies),
            (copies, write_copies),
            "{nodes} nodes"
        );
    }
}

#[test]
fn unsafe_copies_are_refused_unless_asked_for() {
    let weak = format!("{}[replication]\nwrite_copies = 1\n", members(3));
    let error = from_text(&weak)
        .expect_err("W=1 of 3 loses data with one node")
        .to_string();
    assert!(error.contains("allow_weak_durability"), "{error}");
    from_text(&format!("{weak}allow_weak_durability = true\n")).expect("accepted when asked for");
    let unavailable = format!("{}[replication]\nwrite_copies = 3\n", members(3));
    from_text(&unavailable).expect_err("W=3 of 3 stops with one node down");
    let many = format!("{}[replication]\ncopies = 4\n", members(3));
    from_text(&many).expect_err("four copies on three nodes");
}

#[test]
fn an_unknown_key_is_refused_with_its_line() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("argosy.toml");
    std::fs::write(&path, "[node]\nid = 1\n\n[http]\nlistn = \"x\"\n").expect("written");
    let error = load(Some(&path), [], &[])
        .expect_err("misspelt")
        .to_string();
    assert!(
        error.contains("line 5") && error.contains("listn"),
        "{error}"
    );
}

#[test]
fn environment_beats_file_and_flags_beat_environment() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("argosy.toml");
    std::fs::write(
        &path,
        "[raft]\nheartbeat_ms = 100\n[http]\nlisten = \"127.0.0.1:1\"\n",
    )
    .expect("written");
    let environment = [
        ("ARGOSY__RAFT__HEARTBEAT_MS".to_owned(), "150".to_owned()),
        ("HOME".into(), "/".into()),
    ];
    let flags = [("http", "http.listen", "127.0.0.1:2".to_owned())];
    let loaded = load(Some(&path), environment, &flags).expect("valid");
    assert_eq!(loaded.config.raw.raft.heartbeat_ms, 150);
    assert_eq!(loaded.config.raw.http.listen, "127.0.0.1:2");
    assert_eq!(loaded.sources["http.listen"], Source::Flag("http".into()));
}

#[test]
fn a_wrong_variable_is_named() {
    let environment = [("ARGOSY__RAFT__HARTBEAT_MS".to_owned(), "150".to_owned())];
    let error = load(None, environment, &[])
        .expect_err("misspelt")
        .to_string();
    assert!(error.contains("ARGOSY__RAFT__HARTBEAT_MS"), "{error}");
    let environment = [("ARGOSY__RAFT__HEARTBEAT_MS".to_owned(), "soon".to_owned())];
    load(None, environment, &[]).expect_err("not a number");
}

#[test]
fn a_text_value_that_looks_like_a_number_stays_text() {
    let environment = [("ARGOSY__TELEMETRY__LEVEL".to_owned(), "1".to_owned())];
    assert_eq!(
        load(None, environment, &[])
            .expect("valid")
            .config
            .raw
            .telemetry
            .level,
        "1"
    );
}

#[test]
fn garbage_collection_is_checked() {
    let gc = |text: &str| from_text(&format!("[gc]\n{text}\n"));
    for (text, key) in [
        ("interval_ms = 1", "interval_ms"),
        ("walk_interval_ms = 0", "walk_interval_ms"),
        ("step_budget = 0", "step_budget"),
        ("step_budget = 100000", "step_budget"),
        (
            "untagged = [{ pattern = \"Team/*\", min_age_ms = 1 }]",
            "untagged",
        ),
    ] {
        let error = gc(text).expect_err(text).to_string();
        assert!(error.contains(&format!("gc.{key}")), "{error}");
    }
    let config = gc("grace_ms = 0\nuntagged = [{ pattern = \"ci/*\", min_age_ms = 5 }]");
    let options = config.expect("valid").gc;
    assert_eq!((options.grace_ms, options.untagged[0].min_age_ms), (0, 5));
    for tick_ms in [0, 20_001] {
        let error = from_text(&format!("[raft]\ntick_ms = {tick_ms}\n")).expect_err("refused");
        assert!(error.to_string().contains("raft.tick_ms"), "{error}");
    }
}

/// Every key of every section stands in the example, with its default, and nothing else does.
#[test]
fn the_example_shows_every_key_with_its_default() {
    let path =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/config.example.toml");
    let text = std::fs::read_to_string(path).expect("deploy/config.example.toml");
    let example: toml::Table = toml::from_str(&text).expect("the example parses");
    let defaults = toml::Table::try_from(RawConfig::default()).expect("defaults serialise");
    assert_eq!(example, defaults);
}
