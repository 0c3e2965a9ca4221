//! Servers with certificates that prove nothing. Only these show that every one of them is refused, over TLS from the first
//! octet and after STARTTLS, and that popgate then has sent a handshake and not one octet more. T22, F-18, T082.

use std::{
    fs, iter,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use popgate::{
    gateway::{Route, Routes},
    mail::{Credentials, Proof, Secret},
    net::{Endpoint, tls::Connector},
    upstream::{
        Upstream as _, Verdict,
        imap::{Imap, Security, Settings},
    },
};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, CustomExtension, DnType, ExtendedKeyUsagePurpose, GeneralSubtree,
    IsCa, Issuer, KeyPair, NameConstraints, SanType, date_time_ymd,
};
use rustls::{
    ServerConfig, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream};
use tokio_rustls::TlsAcceptor;

use crate::support::{
    gate::{Gate, Memory, maildrops, upstream, way},
    recorder::{Recorded, Written, handshake_only},
};

const HOST: &str = "imap.example.com";
const ADDRESS: &str = "192.0.2.1";
const PASSWORD: &str = "hunter2";

/// Every certificate, both ways to TLS, both versions of it.
#[tokio::test(start_paused = true)]
async fn no_password_goes_to_a_server_that_does_not_prove_its_name() {
    let (root, old) = (Authority::root("root", |_| {}), Authority::root("old", lasting(2001, 2002)));
    let rows = rows(&root, &old);
    let refused = rows.iter().filter(|row| row.expected.is_err()).count();
    assert!(refused >= 60 && rows.len() - refused >= 10, "{refused} of {}", rows.len());
    let trusted = tempfile::NamedTempFile::new().unwrap();
    let weak = ["rsa1024-root.pem", "sha1-root.pem"].map(|file| fs::read_to_string(fixture(file)).unwrap());
    fs::write(trusted.path(), [&root.pem, &old.pem, &weak[0], &weak[1]].map(String::as_str).concat()).unwrap();
    let connector = Connector::new(Some(trusted.path())).unwrap();
    let mut faults = Vec::new();
    for row in &rows {
        for security in [Security::Implicit, Security::StartTls] {
            for version in [&TLS12, &TLS13] {
                let server = Server { security, tls: row.shown.config(version), heard: Mutex::default() };
                if let Err(fault) = judged(row, Arc::new(server), &connector).await {
                    faults.push(format!("{}, {security:?}, {:?}: {fault}", row.name, version.version));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Whether popgate makes of a row what it must.
async fn judged(row: &Row, server: Arc<Server>, connector: &Connector) -> Result<(), String> {
    let security = server.security;
    let written = Written::default();
    let imap = || {
        let endpoint = Endpoint { host: row.host.into(), port: 993 };
        let server = Arc::clone(&server);
        let serve = move |line| drop(tokio::spawn(Arc::clone(&server).serve(line)));
        let dial = Recorded { written: Arc::clone(&written), capacity: 1 << 14, serve };
        Imap::new(Settings { security, endpoint, ..upstream() }, Arc::new(dial), Some(connector.clone()))
    };
    let gate = Gate::to(Routes::new(Some(Route::new(way(Memory::Nothing, imap()), maildrops())), None));
    let mut client = gate.connect();
    client.hear().await;
    client.ask("USER tim").await;
    let reply = client.ask(&format!("PASS {PASSWORD}")).await.unwrap_or_default();
    client.leave().await;
    let heard = String::from_utf8_lossy(&server.heard.lock().unwrap()).into_owned();
    let sent = std::mem::take(&mut *written.lock().unwrap());
    let Err(why) = row.expected else {
        // AHRpbQBodW50ZXIy is what SASL PLAIN makes of both. That it is found here shows that it would be found.
        let told = heard.contains("AHRpbQBodW50ZXIy") && handshake_only(&sent).is_err();
        return if told && reply.starts_with("-ERR [AUTH]") { Ok(()) } else { Err(format!("{reply}, {heard}")) };
    };
    handshake_only(&sent)?;
    if reply != "-ERR [SYS/PERM] mailbox cannot be opened, contact the administrator" || !heard.is_empty() {
        return Err(format!("{reply}, {heard}"));
    }
    if security == Security::StartTls {
        return Ok(());
    }
    let proof = Proof::Password(Secret::new(PASSWORD.into()));
    let fault = imap().open(&Arc::new(Credentials::new("tim".into(), proof))).await.err().ok_or("opened")?;
    let text = fault.to_string();
    let plain = text.len() <= 500 && text.bytes().all(|octet| matches!(octet, b' '..=b'~'));
    match fault.verdict == Verdict::Lasting && text.contains(why) && plain {
        true => Ok(()),
        false => Err(format!("{:?}: {text:?}", fault.verdict)),
    }
}

/// A certificate as a server shows it.
struct Row {
    name: &'static str,
    /// As popgate is configured.
    host: &'static str,
    /// What the log says of one that is refused.
    expected: Result<(), &'static str>,
    shown: Shown,
}

/// All of them.
fn rows(root: &Authority, old: &Authority) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut good = |name, host, shown| rows.push(Row { name, host, expected: Ok(()), shown });
    good("good", HOST, root.issue(|_| {}));
    good("good, by wildcard", HOST, root.issue(named(["*.example.com"])));
    good("good, among other names", HOST, root.issue(named(["pop.example.com", HOST, "example.org"])));
    good("good, in capitals", HOST, root.issue(named(["IMAP.EXAMPLE.COM"])));
    good("good, an address's", ADDRESS, root.issue(named([ADDRESS])));
    good("good, an address's of version 6", "2001:db8::7", root.issue(named(["2001:db8::7"])));
    good("good, a name with other letters", "xn--bcher-kva.example", root.issue(named(["xn--bcher-kva.example"])));
    good("good, by an intermediate", HOST, root.below(|_| {}).issue(|_| {}));
    good("good, within name constraints", HOST, root.below(permitting(dns("example.com"))).issue(|_| {}));
    // An anchor is a name and a key (RFC 5280 §6.1.1); its own dates mean nothing.
    good("good, of an authority that is trusted although it expired", HOST, old.issue(|_| {}));
    good("good, for servers and clients", HOST, {
        use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
        root.issue(|params| params.extended_key_usages = vec![ClientAuth, ServerAuth])
    });
    good("good, with an unknown extension that is not critical", HOST, root.issue(extended(UNKNOWN, b"\x05\0", false)));
    good("good, with more certificates than are needed", HOST, {
        let mut shown = root.issue(|_| {});
        shown.chain.extend(Authority::root("by the way", |_| {}).below(|_| {}).chain);
        shown
    });

    let mut bad = |name, why, host, shown| rows.push(Row { name, host, expected: Err(why), shown });
    // Time.
    bad("expired", "expired", HOST, root.issue(lasting(2001, 2002)));
    bad("not yet valid", "not valid yet", HOST, root.issue(lasting(2999, 3000)));
    bad("valid until before it is valid", "Expired", HOST, root.issue(lasting(3000, 2001)));
    bad("of an intermediate that expired", "expired", HOST, root.below(lasting(2001, 2002)).issue(|_| {}));
    bad("of an intermediate of the future", "not valid yet", HOST, root.below(lasting(2999, 3000)).issue(|_| {}));

    // Whose word it is.
    bad("of itself", "UnknownIssuer", HOST, self_signed(IsCa::NoCa));
    bad(
        "of itself, as an authority",
        "CaUsedAsEndEntity",
        HOST,
        self_signed(IsCa::Ca(BasicConstraints::Unconstrained)),
    );
    bad("of an unknown authority", "UnknownIssuer", HOST, Authority::root("stranger", |_| {}).issue(|_| {}));
    bad(
        "of an unknown authority of the same name",
        "BadSignature",
        HOST,
        Authority::root("root", |_| {}).issue(|_| {}),
    );
    bad("of an unknown authority that is sent along", "UnknownIssuer", HOST, {
        let stranger = Authority::root("stranger", |_| {});
        let mut shown = stranger.issue(|_| {});
        shown.chain.push(stranger.certificate);
        shown
    });
    bad("without its intermediate", "UnknownIssuer", HOST, {
        let mut shown = root.below(|_| {}).issue(|_| {});
        shown.chain.truncate(1);
        shown
    });
    bad("with another intermediate", "BadSignature", HOST, {
        let mut shown = root.below(|_| {}).issue(|_| {});
        shown.chain.truncate(1);
        shown.chain.extend(root.below(|_| {}).chain);
        shown
    });
    bad(
        "an authority's own",
        "CaUsedAsEndEntity",
        HOST,
        root.issue(|params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }),
    );
    bad(
        "of one that is no authority",
        "EndEntityUsedAsCa",
        HOST,
        root.below(|params| params.is_ca = IsCa::NoCa).issue(|_| {}),
    );
    bad("of one that says it is no authority", "EndEntityUsedAsCa", HOST, {
        root.below(|params| params.is_ca = IsCa::ExplicitNoCa).issue(|_| {})
    });
    bad("of an authority below one that may have none", "PathLenConstraintViolated", HOST, {
        root.below(|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))).below(|_| {}).issue(|_| {})
    });
    bad("of authorities too deep", "MaximumPathDepthExceeded", HOST, {
        iter::repeat_n((), 10).fold(root.below(|_| {}), |above, ()| above.below(|_| {})).issue(|_| {})
    });
    bad("in a maze of authorities of one name", "MaximumPathBuildCallsExceeded", HOST, maze());

    // Whose it is.
    for (name, names) in [
        ("another host's", &["imap.example.org"][..]),
        ("its parent's", &["example.com"]),
        ("a child's", &["a.imap.example.com"]),
        ("its neighbour's", &["pop.example.com", "smtp.example.com"]),
        ("with the name in another's", &["imap.example.com.example.org"]),
        ("of a name that ends in it", &["ximap.example.com"]),
        ("a wildcard's of a higher level", &["*.com"]),
        ("a wildcard's of a lower level", &["*.imap.example.com"]),
        ("a wildcard's of all levels", &["*"]),
        ("a wildcard's of two levels", &["*.*.com"]),
        ("a wildcard's within a label, at its end", &["im*.example.com"]),
        ("a wildcard's within a label, at its start", &["*ap.example.com"]),
        ("a wildcard's that is not the first label", &["imap.*.com"]),
        ("an address's", &[ADDRESS]),
        ("with a dot at the end", &["imap.example.com."]),
        ("with a dot at the start", &[".imap.example.com"]),
        ("with a space behind", &["imap.example.com "]),
        ("of a name that looks like it", &["xn--imp-7cd.example.com"]),
        ("of no name", &[]),
    ] {
        bad(name, "not valid for", HOST, root.issue(named(names.iter().copied())));
    }
    for (name, why, inner) in [
        ("with a NUL behind the name", "not valid for name", &b"\x82\x11imap.example.com\0"[..]),
        ("with a NUL and another's name behind it", "not valid for name", b"\x82\x1dimap.example.com\0.example.org"),
        ("of a name that looks like it, in UTF-8", "not valid for name", b"\x82\x11im\xd0\xb0p.example.com"),
        ("with the name as a mail address", "not valid for name", b"\x81\x10imap.example.com"),
        ("with the name as a URI", "not valid for name", b"\x86\x10imap.example.com"),
        ("with a name that is cut", "BadEncoding", b"\x82\x7fimap.example.com"),
        ("with an empty name", "not valid for name", b"\x82\0"),
        ("with an address of five octets", "not valid for name", b"\x87\x05\xc0\0\x02\x01\0"),
        (
            "with a name that would write into the log",
            "not valid for name",
            b"\x82\x14x\r\nERROR\x1b[31m\xe2\x80\xae.com",
        ),
    ] {
        let names = [&[0x30, u8::try_from(inner.len()).unwrap()], inner].concat();
        bad(name, why, HOST, root.issue(raw_names(&names)));
    }
    bad(
        "named in its subject alone",
        "not valid for any names",
        HOST,
        root.issue(|params| {
            params.subject_alt_names.clear();
            params.distinguished_name.push(DnType::CommonName, HOST);
        }),
    );
    bad(
        "another host's, named right in its subject",
        "not valid for name",
        HOST,
        root.issue(|params| {
            named(["imap.example.org"])(params);
            params.distinguished_name.push(DnType::CommonName, HOST);
        }),
    );
    bad("another address's", "not valid for name", ADDRESS, root.issue(named(["192.0.2.2"])));
    bad(
        "an address's as a name",
        "not valid for name",
        ADDRESS,
        root.issue(|params| {
            params.subject_alt_names = vec![SanType::DnsName(ADDRESS.try_into().unwrap())];
        }),
    );
    bad(
        "an address's by wildcard",
        "not valid for name",
        ADDRESS,
        root.issue(|params| {
            params.subject_alt_names = vec![SanType::DnsName("*.0.2.1".try_into().unwrap())];
        }),
    );
    bad("the address's in version 6", "not valid for name", ADDRESS, root.issue(named(["::ffff:192.0.2.1"])));
    bad("a name's where an address is configured", "not valid for name", ADDRESS, root.issue(|_| {}));

    // What its authority may speak for.
    bad(
        "outside permitted names",
        "NameConstraintViolation",
        HOST,
        root.below(permitting(dns("example.org"))).issue(|_| {}),
    );
    bad(
        "within excluded names",
        "NameConstraintViolation",
        HOST,
        root.below(excluding(dns("example.com"))).issue(|_| {}),
    );
    bad("within excluded names, one level up", "NameConstraintViolation", HOST, {
        root.below(excluding(dns("example.com"))).below(|_| {}).issue(|_| {})
    });
    // RUSTSEC-2026-0099.
    bad("a wildcard's, beyond permitted names", "NameConstraintViolation", HOST, {
        root.below(permitting(dns("pop.example.com"))).issue(named(["*.example.com"]))
    });
    bad("with one name more than is permitted", "NameConstraintViolation", HOST, {
        root.below(permitting(dns("example.com"))).issue(named([HOST, "example.org"]))
    });
    let net = GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([10, 0, 0, 0], 8));
    bad("outside permitted addresses", "NameConstraintViolation", ADDRESS, {
        root.below(permitting(net)).issue(named([ADDRESS]))
    });

    // What it is for.
    use ExtendedKeyUsagePurpose::{ClientAuth, CodeSigning, EmailProtection};
    for (name, purpose) in [("for clients", ClientAuth), ("for mail", EmailProtection), ("for programs", CodeSigning)] {
        let only = |params: &mut CertificateParams| params.extended_key_usages = vec![purpose.clone()];
        bad(name, "extended key usage", HOST, root.issue(only));
    }
    bad("of an authority for clients", "extended key usage", HOST, {
        root.below(|params| params.extended_key_usages = vec![ClientAuth]).issue(|_| {})
    });
    bad("with an unknown extension that is critical", "UnsupportedCriticalExtension", HOST, {
        root.issue(extended(UNKNOWN, b"\x05\0", true))
    });
    bad("of an authority with such an extension", "UnsupportedCriticalExtension", HOST, {
        root.below(extended(UNKNOWN, b"\x05\0", true)).issue(|_| {})
    });

    // Its octets.
    bad("with another key", "BadSignature", HOST, Shown { key: root.issue(|_| {}).key, ..root.issue(|_| {}) });
    bad(
        "signed falsely",
        "BadSignature",
        HOST,
        root.issue(|_| {}).mangled(|der| {
            let last = der.len() - 1;
            der[last] ^= 1;
        }),
    );
    bad(
        "changed after it was signed",
        "BadSignature",
        HOST,
        root.issue(named(["imap.example.net"])).mangled(|der| {
            let at = der.windows(16).position(|name| name == b"imap.example.net").unwrap();
            der[at..at + 16].copy_from_slice(HOST.as_bytes());
        }),
    );
    bad("of an intermediate that is signed falsely", "BadSignature", HOST, {
        let mut shown = root.below(|_| {}).issue(|_| {});
        shown.chain[1] = mangled(&shown.chain[1], |der| {
            let last = der.len() - 1;
            der[last] ^= 1;
        });
        shown
    });
    bad("with an octet too many", "BadEncoding", HOST, root.issue(|_| {}).mangled(|der| der.push(0)));
    bad("cut off", "BadEncoding", HOST, root.issue(|_| {}).mangled(|der| der.truncate(100)));
    bad("of no octets", "BadEncoding", HOST, root.issue(|_| {}).mangled(Vec::clear));
    bad(
        "that is none",
        "BadEncoding",
        HOST,
        root.issue(|_| {}).mangled(|der| *der = b"-----BEGIN CERTIFICATE".to_vec()),
    );
    bad("that is nested too deep", "BadEncoding", HOST, root.issue(|_| {}).mangled(|der| *der = nested()));
    bad("that is not there", "no certificates", HOST, Shown { chain: Vec::new(), ..root.issue(|_| {}) });

    // Weak cryptography; `openssl ca` made these.
    for (name, why, file) in [
        ("of an authority with 1,024 bits", "BadSignature", "rsa1024.pem"),
        ("signed by way of SHA-1", "UnsupportedSignatureAlgorithm", "sha1.pem"),
    ] {
        let key = PrivateKeyDer::from_pem_file(fixture("leaf.key")).unwrap();
        let chain = vec![CertificateDer::from_pem_file(fixture(file)).unwrap()];
        bad(name, why, HOST, Shown { chain, key });
    }
    rows
}

fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> impl FnOnce(&mut CertificateParams) {
    let names = names.into_iter().map(|name| match name.parse::<IpAddr>() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) => SanType::DnsName(name.try_into().unwrap()),
    });
    let names = names.collect();
    |params| params.subject_alt_names = names
}

fn lasting(from: i32, to: i32) -> impl FnOnce(&mut CertificateParams) {
    move |params| (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1))
}

fn dns(name: &str) -> GeneralSubtree {
    GeneralSubtree::DnsName(name.into())
}

fn permitting(tree: GeneralSubtree) -> impl FnOnce(&mut CertificateParams) {
    let constraints = NameConstraints { permitted_subtrees: vec![tree], excluded_subtrees: Vec::new() };
    |params| params.name_constraints = Some(constraints)
}

fn excluding(tree: GeneralSubtree) -> impl FnOnce(&mut CertificateParams) {
    let constraints = NameConstraints { permitted_subtrees: Vec::new(), excluded_subtrees: vec![tree] };
    |params| params.name_constraints = Some(constraints)
}

fn extended(identifier: &[u64], content: &[u8], critical: bool) -> impl FnOnce(&mut CertificateParams) {
    let mut extension = CustomExtension::from_oid_content(identifier, content.to_vec());
    extension.set_criticality(critical);
    |params| params.custom_extensions.push(extension)
}

/// A subjectAltName in octets.
fn raw_names(der: &[u8]) -> impl FnOnce(&mut CertificateParams) {
    let extend = extended(&[2, 5, 29, 17], der, false);
    |params| {
        params.subject_alt_names.clear();
        extend(params);
    }
}

/// An extension that nobody knows.
const UNKNOWN: &[u64] = &[1, 3, 6, 1, 4, 1, 32473, 1];

/// Sequences in sequences, as deep as a length of two octets allows.
fn nested() -> Vec<u8> {
    let mut der = Vec::new();
    for depth in 0_u16..8_000 {
        let length = (depth * 4).to_be_bytes();
        der.splice(0..0, [0x30, 0x82, length[0], length[1]]);
    }
    der
}

/// A certificate whose issuer may be any of 30, and theirs any of 30 (RUSTSEC-2023-0053).
fn maze() -> Shown {
    let mut maze: Vec<Authority> = vec![Authority::root("maze", |_| {})];
    while maze.len() < 30 {
        let next = maze.last().unwrap().below(|params| params.distinguished_name.push(DnType::CommonName, "maze"));
        maze.push(next);
    }
    let mut shown = maze[29].issue(|_| {});
    shown.chain.truncate(1);
    shown.chain.extend(maze.into_iter().map(|authority| authority.certificate));
    shown
}

/// Who issues certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    /// What a server shows of it and those above it: all but the root.
    chain: Vec<CertificateDer<'static>>,
}

impl Authority {
    fn root(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let made = params.self_signed(&key).unwrap();
        let (certificate, pem) = (made.der().clone(), made.pem());
        Self { issuer: Issuer::new(params, key), certificate, pem, chain: Vec::new() }
    }

    /// An authority of which this one says that it is one.
    fn below(&self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, format!("intermediate {}", self.chain.len() + 1));
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let made = params.signed_by(&key, &self.issuer).unwrap();
        let (certificate, pem) = (made.der().clone(), made.pem());
        let chain = iter::once(&certificate).chain(&self.chain).cloned().collect();
        Self { issuer: Issuer::new(params, key), certificate, pem, chain }
    }

    /// A certificate for the host, but for what is changed.
    fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> Shown {
        let mut params = CertificateParams::default();
        named([HOST])(&mut params);
        params.distinguished_name.push(DnType::CommonName, "a server");
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let chain = iter::once(&certificate).chain(&self.chain).cloned().collect();
        Shown { chain, key: key.serialize_der().try_into().unwrap() }
    }
}

fn self_signed(is_ca: IsCa) -> Shown {
    let mut params = CertificateParams::default();
    named([HOST])(&mut params);
    params.is_ca = is_ca;
    params.distinguished_name.push(DnType::CommonName, "itself");
    let key = KeyPair::generate().unwrap();
    let chain = vec![params.self_signed(&key).unwrap().der().clone()];
    Shown { chain, key: key.serialize_der().try_into().unwrap() }
}

/// What a server shows, and the key that it signs with.
struct Shown {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Shown {
    /// With other octets in its own certificate.
    fn mangled(mut self, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        self.chain[0] = mangled(&self.chain[0], change);
        self
    }

    fn config(&self, version: &'static SupportedProtocolVersion) -> Arc<ServerConfig> {
        let key = aws_lc_rs::sign::any_supported_type(&self.key).unwrap();
        let shown = Arc::new(Always(Arc::new(CertifiedKey::new(self.chain.clone(), key))));
        let config = ServerConfig::builder_with_protocol_versions(&[version]);
        Arc::new(config.with_no_client_auth().with_cert_resolver(shown))
    }
}

fn mangled(certificate: &CertificateDer<'_>, change: impl FnOnce(&mut Vec<u8>)) -> CertificateDer<'static> {
    let mut der = certificate.to_vec();
    change(&mut der);
    der.into()
}

/// Shows one certificate, whatever it is and whosever the key.
#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

fn fixture(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates").join(file)
}

/// A server that offers everything, believes nobody, and remembers what it heard behind the handshake or instead of it.
struct Server {
    security: Security,
    tls: Arc<ServerConfig>,
    heard: Mutex<Vec<u8>>,
}

impl Server {
    async fn serve(self: Arc<Self>, line: DuplexStream) {
        let mut line = BufReader::new(line);
        if self.security == Security::StartTls {
            line.write_all(b"* OK [CAPABILITY IMAP4rev1 STARTTLS SASL-IR AUTH=PLAIN] ready\r\n").await.unwrap();
            let mut command = String::new();
            line.read_line(&mut command).await.unwrap();
            let tag = command.split(' ').next().unwrap();
            line.write_all(format!("{tag} OK begin\r\n").as_bytes()).await.unwrap();
        }
        match TlsAcceptor::from(self.tls.clone()).accept(line).into_fallible().await {
            Ok(line) => {
                let mut line = BufReader::new(line);
                let greeting = b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready\r\n";
                if self.security == Security::Implicit && line.write_all(greeting).await.is_err() {
                    return;
                }
                while let Some(command) = self.hear(&mut line).await {
                    let tag = command.split(' ').next().unwrap();
                    let answer = match command.contains("CAPABILITY") {
                        true => format!("* CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN\r\n{tag} OK done\r\n"),
                        false => format!("{tag} NO [AUTHENTICATIONFAILED] who are you\r\n"),
                    };
                    if line.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
            // Clients of TLS 1.3 say behind the handshake what they think of a certificate, and what else they have to say.
            Err((_, mut line)) => while self.hear(&mut line).await.is_some() {},
        }
    }

    /// One line, remembered.
    async fn hear(&self, line: &mut (impl AsyncBufRead + Unpin)) -> Option<String> {
        let mut octets = Vec::new();
        line.read_until(b'\n', &mut octets).await.ok().filter(|count| *count > 0)?;
        self.heard.lock().unwrap().extend(&octets);
        Some(String::from_utf8_lossy(&octets).into_owned())
    }
}
