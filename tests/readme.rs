//! The README's commands and configuration, tried as they are written there: what a newcomer types first must work.

use std::{fs, process::Command};

use tempfile::TempDir;

use crate::support::{
    dovecot::{Dovecot, PASSWORD},
    pop3::Pop3,
    process, row,
    serve::Popgate,
};

#[test]
fn its_commands_and_its_configuration_work() {
    const TEST: &str = "readme::its_commands_and_its_configuration_work";
    let readme = fs::read_to_string("README.md").unwrap();
    // The published package has no .ci.
    let ci = fs::read_to_string(".ci/run").ok();
    let Some(curl) = process::find("curl") else { return row::skip(TEST, "curl is not installed") };
    let Some(dovecot) = Dovecot::start(TEST) else { return };
    let message = b"Subject: one\r\n\r\n";
    dovecot.imap("alice").append(message);

    // Only what differs from machine to machine is replaced: the IMAP server, and ports that may be taken.
    let server = format!("imaps://localhost:{}", dovecot.imaps_port);
    let ca = dovecot.ca().display().to_string();
    let directory = TempDir::new().unwrap();
    let configuration = directory.path().join("popgate.toml");
    let [toml] = &blocks(&readme, "toml")[..] else { panic!("the README should have one configuration") };
    let toml = toml.replace("imaps://imap.example.com", &server);
    let toml = toml.replace("0.0.0.0:995", "127.0.0.1:0").replace("0.0.0.0:110", "127.0.0.1:0");
    fs::write(&configuration, toml).unwrap();
    for (from, to) in dovecot.identity().iter().zip(["fullchain.pem", "privkey.pem"]) {
        fs::copy(from, directory.path().join(to)).unwrap();
    }

    let mut running = None;
    let mut asked = Vec::new();
    for line in blocks(&readme, "sh").iter().flat_map(|block| block.lines()) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["target/release/popgate", ref arguments @ ..] => {
                let arguments: Vec<String> = arguments
                    .iter()
                    .map(|argument| match *argument {
                        "pop3://127.0.0.1:1110" => "pop3://127.0.0.1:0".to_owned(),
                        "imaps://imap.example.com" => server.clone(),
                        "popgate.toml" => configuration.display().to_string(),
                        argument => argument.to_owned(),
                    })
                    .chain(["--upstream-ca".to_owned(), ca.clone()])
                    .collect();
                let popgate = Popgate::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
                assert_eq!(popgate.pop3("alice", PASSWORD).command("STAT"), "+OK 1 16", "{line}");
                running = Some(popgate);
            }
            ["curl", "--user", "alice", url] => {
                let port = running.as_ref().unwrap().port;
                let url = url.replace("127.0.0.1:1110", &format!("127.0.0.1:{port}"));
                let output = Command::new(&curl).args(["--user", &format!("alice:{PASSWORD}"), &url]).output().unwrap();
                assert!(output.status.success(), "{line}");
                asked.push(output.stdout);
            }
            _ => {
                let step = format!("step {line}");
                assert!(ci.as_ref().is_none_or(|ci| ci.lines().any(|line| line == step)), "CI does not run {line:?}");
            }
        }
    }
    assert_eq!(asked, [&b"1 16\r\n"[..], message]);
    // The one with the configuration file is still there, and it has a certificate.
    let capabilities = Pop3::connect(running.unwrap().port).list("CAPA");
    assert!(capabilities.contains(&"STLS".to_owned()), "{capabilities:?}");
}

/// The fenced blocks of one language.
fn blocks(markdown: &str, language: &str) -> Vec<String> {
    let opening = format!("```{language}\n");
    markdown.split(&opening).skip(1).map(|after| after.split("```").next().unwrap_or_default().to_owned()).collect()
}
