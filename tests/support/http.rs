//! Questions to the administrator's port, and its numbers as a strict reader of Prometheus' text format understands them.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
};

/// The status and the text that GET gives for a path, on this port of 127.0.0.1.
pub(crate) fn get(port: u16, path: &str) -> (u16, String) {
    let mut line = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    line.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
    let answer = all(&mut line).unwrap();
    let (head, text) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.strip_prefix("HTTP/1.1 ").unwrap().split(' ').next().unwrap();
    (status.parse().unwrap(), text.to_owned())
}

/// All that comes until the other end closes the line.
pub(crate) fn all(line: &mut TcpStream) -> io::Result<String> {
    let mut all = String::new();
    line.read_to_string(&mut all).map(|_| all)
}

/// What has been counted, by name and label as they are written. Each number has a sentence on what it is, and a type;
/// what only grows is called so.
pub(crate) fn metrics(port: u16) -> BTreeMap<String, u64> {
    let (status, text) = get(port, "/metrics");
    assert_eq!(status, 200);
    assert!(text.ends_with('\n'), "{text}");
    let (mut found, mut helped, mut family) = (BTreeMap::new(), "", "");
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, sentence) = help.split_once(' ').unwrap();
            assert!(sentence.len() > 20 && sentence.ends_with('.') && !sentence.contains('\\'), "{line}");
            helped = name;
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, helped, "{line}");
            assert_eq!(kind, if name.ends_with("_total") { "counter" } else { "gauge" }, "{line}");
            family = name;
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let labels = name.strip_prefix(family).unwrap();
            let is_one = labels.strip_prefix('{').and_then(|labels| labels.strip_suffix("\"}")?.split_once("=\""));
            let word = |text: &str| !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_lowercase());
            assert!(labels.is_empty() || is_one.is_some_and(|(label, value)| word(label) && word(value)), "{line}");
            assert!(found.insert(name.to_owned(), value.parse().unwrap()).is_none(), "{line} stands there twice");
        }
    }
    found
}
