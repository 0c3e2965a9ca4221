//! Configurations as administrators write them: what the program itself says about wrong ones, word for word, which layer
//! wins, and whether the manual is true. Catches messages that name the wrong place.

use std::{
    ffi::OsString,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use popgate::{
    config::{CommandLine, Config, Upstream},
    gateway::{Lock, Seen},
    upstream::imap::{Deleted, OnDelete, Security},
};
use tempfile::TempDir;

/// Where the cases are, and how they are written.
const WRONG: &str = include_str!("config/wrong.txt");

#[test]
fn what_is_said_about_wrong_configurations() {
    let directory = certificates();
    let cases: Vec<_> = WRONG.split("\n\n# ").skip(1).collect();
    assert!(cases.len() > 40, "{}", cases.len());
    for case in cases {
        let lines = |start| case.lines().filter_map(move |line| line.strip_prefix(start));
        let toml = case.lines().skip(1).take_while(|line| !line.starts_with('$')).map(str::trim_start);
        fs::write(directory.path().join("popgate.toml"), toml.collect::<Vec<_>>().join("\n")).unwrap();
        let (before, arguments) = lines("$ ").next().unwrap().split_once("popgate ").unwrap();
        let environment = before.split_whitespace().map(|variable| variable.split_once('=').unwrap());
        let arguments: Vec<_> = arguments.split_whitespace().collect();
        let output = popgate(directory.path(), &arguments, environment);
        let said: Vec<_> = lines("! ").collect();
        assert_eq!(String::from_utf8(output.stderr).unwrap(), format!("popgate: {}\n", said.join("\n\n")), "{case}");
        assert_eq!(output.status.code(), Some(2), "{case}");
        assert!(output.stdout.is_empty(), "{case}");
    }
}

#[test]
fn a_port_in_use_is_a_wrong_configuration() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("pop3://{}", taken.local_addr().unwrap());
    let arguments = ["serve", "--listen", &url, "--upstream", "imap://127.0.0.1"];
    let output = popgate(Path::new("."), &arguments, []);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains(&format!("popgate: cannot listen on {}: ", taken.local_addr().unwrap())), "{text}");
}

/// A container of nothing but popgate has none.
#[test]
fn root_certificates_are_needed_for_tls_alone() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("pop3://{}", taken.local_addr().unwrap());
    let none = [("SSL_CERT_FILE", "/nowhere"), ("SSL_CERT_DIR", "/nowhere")];
    for (upstream, said) in [
        // All is well but for the port.
        ("imap://127.0.0.1", "popgate: cannot listen on "),
        ("imaps://127.0.0.1", "popgate: no root certificates: "),
        ("imap+starttls://127.0.0.1", "popgate: no root certificates: "),
    ] {
        let output = popgate(Path::new("."), &["serve", "--listen", &listen, "--upstream", upstream], none);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(said), "{upstream}: {text}");
    }
}

#[test]
fn usage() {
    for (arguments, code, standard_output, standard_error) in [
        (&[][..], 2, "", "Usage: popgate <COMMAND>"),
        (&["frob"], 2, "", "unrecognized subcommand 'frob'"),
        (&["serve", "--port", "110"], 2, "", "unexpected argument '--port'"),
        (&["--help"], 0, "Usage: popgate <COMMAND>", ""),
        (&["--version"], 0, concat!("popgate ", env!("CARGO_PKG_VERSION"), " (TLS by aws-lc-rs)"), ""),
    ] {
        let output = popgate(Path::new("."), arguments, []);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        for (text, expected) in [(output.stdout, standard_output), (output.stderr, standard_error)] {
            let text = String::from_utf8(text).unwrap();
            assert!(text.contains(expected) && text.is_empty() == expected.is_empty(), "{arguments:?}: {text}");
        }
    }
}

#[test]
fn later_layers_win() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let url = "imaps://one.example";
    let one = file("one.toml", &format!("[upstream]\nurl = \"{url}\"\nmailbox = \"one\"\n[limits]\nsessions = 1\n"));
    let two = file("two.toml", "[limits]\nsessions = 2\n[maildrop]\nseen = \"retr\"\nlock = \"gateway\"\n");
    let environment = [("POPGATE_LIMITS__SESSIONS", "3"), ("POPGATE_MAILDROP__SEEN", "never"), ("POPGATE_PORT", "x")];
    let command_line = CommandLine {
        listen: vec!["pop3://[::1]:2110".into(), "pop3://127.0.0.1:2110".into()],
        upstream: Some("imap+starttls://two.example:1143".into()),
        set: vec!["limits.sessions=4".into()],
        ..CommandLine::default()
    };

    let config = load(&[&one], &[], &CommandLine::default());
    let upstream = config.upstream.unwrap();
    assert_eq!((config.limits.sessions, upstream.server.mailbox.as_str()), (1, "one"));
    assert_eq!((config.limits.sessions_per_address, upstream.maildrops.seen), (64, Seen::Quit));
    assert_eq!(upstream.server.security, Security::Implicit);
    assert_eq!(upstream.server.endpoint.to_string(), "one.example:993");

    let config = load(&[&one, &two], &[], &CommandLine::default());
    let Upstream { server, maildrops, .. } = config.upstream.unwrap();
    assert_eq!((config.limits.sessions, server.mailbox.as_str()), (2, "one"));
    assert_eq!((maildrops.seen, maildrops.lock), (Seen::Retr, Lock::Gateway));
    assert_eq!(load(&[&two, &one], &[], &CommandLine::default()).limits.sessions, 1);

    let config = load(&[&one, &two], &environment, &CommandLine::default());
    let maildrops = config.upstream.unwrap().maildrops;
    assert_eq!((config.limits.sessions, maildrops.seen, maildrops.lock), (3, Seen::Never, Lock::Gateway));

    let config = load(&[&one, &two], &environment, &command_line);
    let Upstream { server, maildrops, .. } = config.upstream.unwrap();
    assert_eq!((config.limits.sessions, maildrops.seen, maildrops.lock), (4, Seen::Never, Lock::Gateway));
    assert_eq!(server.security, Security::StartTls);
    assert_eq!(server.endpoint.to_string(), "two.example:1143");
    assert_eq!(maildrops.upstream, "two.example:1143");
    let listeners: Vec<_> = config.listeners.iter().map(|listener| listener.endpoint.to_string()).collect();
    assert_eq!(listeners, ["[::1]:2110", "127.0.0.1:2110"]);
}

#[test]
fn paths_count_from_the_file_that_they_stand_in() {
    let directory = certificates();
    let file = directory.path().join("popgate.toml");
    fs::write(&file, "[tls]\ncertificate = \"fullchain.pem\"\nkey = \"privkey.pem\"\n").unwrap();
    let tls = load(&[&file], &[], &upstream("imaps://imap.example.com")).tls.unwrap();
    assert_eq!(tls.certificate, directory.path().join("fullchain.pem"));
    assert_eq!(tls.key, directory.path().join("privkey.pem"));
}

#[test]
fn what_is_dangerous_or_surprising_is_listed() {
    let config = load(&[], &[], &upstream("imap://localhost"));
    assert!(config.dangerous.is_empty() && config.warnings.is_empty());

    let mut command_line = upstream("imap://192.0.2.1");
    command_line.set =
        ["upstream.dangerous_plaintext=true", "maildrop.uidl=uid", "login.failure_delay=300ms"].map(Into::into).into();
    let config = load(&[], &[], &command_line);
    assert_eq!(config.dangerous, ["upstream.dangerous_plaintext"]);
    assert_eq!(config.warnings.len(), 1);
    assert!(config.warnings[0].starts_with("maildrop.uidl: unique ids without {uidvalidity}"), "{:?}", config.warnings);
    assert_eq!(config.gateway.failure_delay, Duration::from_millis(300));

    command_line.set.push("login.dangerous_plaintext_from_anywhere=true".into());
    command_line.set.push("login.plaintext_from=0.0.0.0/0,::/0".into());
    let config = load(&[], &[], &command_line);
    assert_eq!(config.dangerous, ["login.dangerous_plaintext_from_anywhere", "upstream.dangerous_plaintext"]);
    assert_eq!(config.gateway.plaintext_from.len(), 2);
}

/// Where some of the clients that a port is for cannot log in, or may not be able to, that is said; where none can, nothing
/// is started (see the wrong ones).
#[test]
fn ports_without_tls_that_are_not_for_everybody_are_listed() {
    for (listen, plaintext_from, warned) in [
        ("pop3://0.0.0.0:110", "127.0.0.0/8", true),
        ("pop3://[::]:110", "127.0.0.1", true),
        ("pop3://pop.example.com:110", "127.0.0.0/8,::1", true),
        ("pop3://localhost:110", "::1", false),
        ("pop3://127.0.0.2:110", "127.0.0.2", false),
        ("pop3://127.0.0.1:110", "127.0.0.2", false),
        ("pop3://[::1]:110", "::1", false),
        ("pop3://0.0.0.0:110", "127.0.0.0/8,192.168.0.0/16", false),
        ("pop3://[::]:110", "192.168.0.0/16", false),
        ("pop3://192.168.0.1:110", "192.168.0.0/16", false),
        ("pop3://[fd00::1]:110", "127.0.0.0/8,fd00::/8", false),
    ] {
        let mut command_line = upstream("imap://localhost");
        command_line.listen.push(listen.into());
        command_line.set.push(format!("login.plaintext_from={plaintext_from}"));
        let warnings = load(&[], &[], &command_line).warnings;
        let expected = format!(
            "listen.url: from other machines nobody can log in at {listen}: there is no TLS, and login.plaintext_from has \
             none of their networks"
        );
        assert_eq!(warnings, if warned { vec![expected] } else { Vec::new() }, "{listen} {plaintext_from}");
    }
}

/// Nobody is asked who they are there.
#[test]
fn an_administrators_port_for_other_machines_is_listed() {
    for (listen, warned) in [
        ("127.0.0.1:9110", false),
        ("localhost:9110", false),
        ("[::1]:9110", false),
        ("0.0.0.0:9110", true),
        ("[::]:9110", true),
        ("popgate.example.com:9110", true),
    ] {
        let mut command_line = upstream("imap://localhost");
        command_line.set.push(format!("admin.listen={listen}"));
        let config = load(&[], &[], &command_line);
        assert_eq!(config.admin.unwrap().to_string(), listen);
        let expected =
            format!("admin.listen: other machines may ask at {listen}, too, and nobody need say who they are");
        assert_eq!(config.warnings, if warned { vec![expected] } else { Vec::new() });
    }
    assert_eq!(load(&[], &[], &upstream("imap://localhost")).admin, None);
}

/// Peers are known by their addresses in IPv4, also where the port is one of IPv6.
#[test]
fn networks_of_ipv4_in_ipv6_are_networks_of_ipv4() {
    let mut command_line = upstream("imap://localhost");
    command_line.set = vec!["login.plaintext_from=::ffff:10.0.0.0/104,::ffff:127.0.0.1,10.0.0.0/24,fd00::/8".into()];
    let networks = load(&[], &[], &command_line).gateway.plaintext_from;
    let networks: Vec<_> = networks.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.0.0.0/8", "127.0.0.1/32", "10.0.0.0/24", "fd00::/8"]);
}

#[test]
fn the_manual_says_what_is_built_in() {
    let manual = root().join("config/popgate.toml");
    let upstream = upstream("imaps://imap.example.com");
    assert_eq!(load(&[&manual], &[], &upstream), load(&[], &[], &upstream));
}

#[test]
fn what_the_manual_comments_out_can_be_used() {
    let directory = certificates();
    let manual = fs::read_to_string(root().join("config/popgate.toml")).unwrap();
    let is_setting = |line: &str| line.starts_with(|first: char| first.is_ascii_lowercase() || first == '[');
    let mut settings = 0;
    let whole = manual.lines().map(|line| match line.strip_prefix('#').filter(|line| is_setting(line)) {
        Some(setting) => {
            settings += 1;
            setting
        }
        None => line,
    });
    let whole = whole.collect::<Vec<_>>().join("\n");
    assert_eq!(settings, 14);
    let file = directory.path().join("popgate.toml");
    fs::write(&file, whole).unwrap();
    let config = load(&[&file], &[], &CommandLine::default());
    let upstream = config.upstream.unwrap();
    assert!(config.tls.is_some() && upstream.ca.is_some() && upstream.server.on_delete.is_some());
    assert_eq!(config.cache.path, Some(directory.path().join("listings")));
    assert_eq!((config.append_domain.as_deref(), config.routes.len()), (Some("example.com"), 1));
    assert_eq!(config.admin.unwrap().to_string(), "127.0.0.1:9110");
}

#[test]
fn the_examples_can_be_used() {
    let expected = [
        ("gmail.toml", "all: imap.gmail.com:993"),
        ("microsoft365.toml", "all: outlook.office365.com:993"),
        ("minimal.toml", "all: imap.example.com:993"),
        ("retro-lan.toml", "all: imap.example.com:993"),
        (
            "several-domains.toml",
            "example.com example.org: imap.example.com:993, xn--mller-kva.example: mail.xn--mller-kva.example:143",
        ),
        ("sidecar.toml", "all: imap.example.com:993"),
    ];
    let directory = fs::read_dir(root().join("config/examples")).unwrap();
    let mut files: Vec<_> = directory.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let found = files.iter().map(|file| {
        let config = load(&[file], &[], &CommandLine::default());
        assert!(config.dangerous.is_empty() && config.warnings.is_empty(), "{file:?}");
        let routes = config.routes.iter().map(|route| {
            let domains: Vec<_> = route.domains.iter().map(ToString::to_string).collect();
            (domains.join(" "), &route.upstream)
        });
        let routes = config.upstream.iter().map(|upstream| ("all".to_owned(), upstream)).chain(routes);
        let routes: Vec<_> = routes.map(|(users, upstream)| format!("{users}: {}", upstream.server.endpoint)).collect();
        (file.file_name().unwrap().to_str().unwrap(), routes.join(", "))
    });
    assert_eq!(found.collect::<Vec<_>>(), expected.map(|(name, routes)| (name, routes.to_owned())));
}

#[test]
fn a_route_is_based_on_the_maildrop_above_and_not_on_the_upstream() {
    let directory = certificates();
    let file = directory.path().join("popgate.toml");
    let text = r#"
        [upstream]
        url = "imap://192.0.2.1"
        ca = "extra-ca.pem"
        mailbox = "Mail"
        strip_domain = true
        dangerous_plaintext = true

        [maildrop]
        uidl = "uid"
        on_delete = "ignore"
        seen = "never"
        deleted = "hide"
        lock = "gateway"

        [[route]]
        domains = ["one.example", "TWO.example"]
        upstream.url = "imaps://one.example"

        [[route]]
        domains = ["three.example"]
        upstream.url = "imap://192.0.2.3"
        upstream.ca = "fullchain.pem"
        upstream.dangerous_plaintext = true
        maildrop.uidl = "stalwart"
        maildrop.seen = "retr"
    "#;
    fs::write(&file, text).unwrap();
    let config = load(&[&file], &[], &upstream("imap://127.0.0.1"));
    let [one, three] = &config.routes[..] else { panic!("{:?}", config.routes) };

    let Upstream { server, ca, maildrops, .. } = config.upstream.as_ref().unwrap();
    assert_eq!((server.endpoint.to_string().as_str(), server.mailbox.as_str()), ("127.0.0.1:143", "Mail"));
    assert_eq!((ca, maildrops.strip_domain), (&Some(directory.path().join("extra-ca.pem")), true));

    let Upstream { server, ca, maildrops, .. } = &one.upstream;
    assert_eq!((server.endpoint.to_string().as_str(), server.mailbox.as_str()), ("one.example:993", "INBOX"));
    assert_eq!((ca, maildrops.strip_domain), (&None, false));
    assert_eq!((server.on_delete, server.deleted), (Some(OnDelete::Ignore), Deleted::Hide));
    assert_eq!((maildrops.unique_ids.to_string().as_str(), maildrops.seen), ("{uid}", Seen::Never));
    assert_eq!(maildrops.lock, Lock::Gateway);

    let Upstream { server, ca, maildrops, .. } = &three.upstream;
    assert_eq!(ca, &Some(directory.path().join("fullchain.pem")));
    assert_eq!((server.on_delete, server.deleted), (Some(OnDelete::Ignore), Deleted::Hide));
    assert_eq!((maildrops.unique_ids.to_string().as_str(), maildrops.seen), ("{uidvalidity}{uid}", Seen::Retr));

    // Each is logged with the place where it is set.
    let dangerous = ["upstream.dangerous_plaintext", "route.upstream.dangerous_plaintext for three.example"];
    assert_eq!(config.dangerous, dangerous);
    let warnings: Vec<_> = config.warnings.iter().map(|warning| warning.split_once(": ").unwrap().0).collect();
    assert_eq!(warnings, ["maildrop.uidl", "route.maildrop.uidl for three.example"]);
}

#[test]
fn with_routes_there_need_be_no_other_upstream() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("popgate.toml");
    let text = "[[route]]\ndomains = [\"one.example\"]\nupstream.url = \"imaps://one.example\"\n";
    fs::write(&file, text).unwrap();
    let config = load(&[&file], &[], &CommandLine::default());
    assert_eq!((config.upstream, config.append_domain), (None, None));
    // The whole manual may stand before it.
    let config = load(&[&root().join("config/popgate.toml"), &file], &[], &CommandLine::default());
    assert_eq!((config.upstream, config.routes.len()), (None, 1));
}

fn load(files: &[&Path], environment: &[(&str, &str)], command_line: &CommandLine) -> Config {
    let files: Vec<PathBuf> = files.iter().map(|&file| file.to_owned()).collect();
    let environment = environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    Config::load(&files, environment, command_line).unwrap_or_else(|error| panic!("{error}"))
}

fn upstream(url: &str) -> CommandLine {
    CommandLine { upstream: Some(url.into()), ..CommandLine::default() }
}

fn popgate<'a>(
    directory: &Path,
    arguments: &[&str],
    environment: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_popgate"));
    command.current_dir(directory).env_clear().envs(environment).args(arguments).output().unwrap()
}

/// A directory with two certificates and their keys.
fn certificates() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (certificate, key) in [("fullchain.pem", "privkey.pem"), ("extra-ca.pem", "other.pem")] {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(directory.path().join(certificate), made.cert.pem()).unwrap();
        fs::write(directory.path().join(key), made.signing_key.serialize_pem()).unwrap();
    }
    directory
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
