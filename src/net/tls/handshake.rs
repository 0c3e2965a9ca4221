//! What becomes known of a handshake with a server: what was agreed on, and the certificate that was shown, accepted or
//! not. For people who ask why a line does or does not come about; nothing is decided by it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use rustls::{
    CommonState, DigitallySignedStruct, ProtocolVersion, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use x509_cert::{
    der::Decode,
    ext::pkix::{SubjectAltName, name::GeneralName},
};

/// A handshake, as far as it went.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Handshake {
    /// The version of TLS, such as `TLS 1.3`; of a handshake that failed it is not known.
    pub version: Option<&'static str>,
    /// The cipher suite by its name in IANA's registry, likewise.
    pub cipher: Option<String>,
    /// The certificate that the server showed as its own, whatever was made of it; `None` if it showed none that can be
    /// read.
    pub certificate: Option<Certificate>,
}

/// What a certificate says (RFC 5280 §4.1.2). Nothing in it is true unless the handshake succeeded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Certificate {
    /// Whose it is, in the form of RFC 4514.
    pub subject: String,
    /// Who vouches for it, likewise.
    pub issuer: String,
    /// The names and addresses that it is for.
    pub names: Vec<String>,
    /// Until when it is good.
    pub not_after: SystemTime,
}

impl Certificate {
    /// Whole days from `now` until it expires; negative once it has.
    pub fn days_left(&self, now: SystemTime) -> i64 {
        let days = |days| i64::try_from(days).unwrap_or(i64::MAX);
        match self.not_after.duration_since(now) {
            Ok(left) => days(left.as_secs() / DAY),
            Err(past) => -days(past.duration().as_secs().div_ceil(DAY)),
        }
    }

    fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let certificate = x509_cert::Certificate::from_der(der).ok()?;
        let body = certificate.tbs_certificate();
        let names = body.get_extension::<SubjectAltName>().ok().flatten().map(|(_, names)| names.0).unwrap_or_default();
        Some(Self {
            subject: body.subject().to_string(),
            issuer: body.issuer().to_string(),
            names: names.iter().filter_map(name).collect(),
            not_after: SystemTime::UNIX_EPOCH + body.validity().not_after.to_unix_duration(),
        })
    }
}

/// Looks on while somebody else decides about the server's certificate.
#[derive(Debug)]
pub(super) struct Witness {
    judge: Arc<dyn ServerCertVerifier>,
    seen: Arc<Mutex<Handshake>>,
}

/// What a witness has seen so far.
#[derive(Clone, Debug, Default)]
pub struct Testimony(Arc<Mutex<Handshake>>);

impl Testimony {
    /// The handshake, `None` if there was none.
    pub fn handshake(&self) -> Option<Handshake> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (seen != Handshake::default()).then_some(seen)
    }

    pub(super) fn witness(&self, judge: Arc<dyn ServerCertVerifier>) -> Witness {
        Witness { judge, seen: self.0.clone() }
    }

    /// The handshake succeeded.
    pub(super) fn note(&self, line: &CommonState) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.version = line.protocol_version().and_then(|version| match version {
            ProtocolVersion::TLSv1_3 => Some("TLS 1.3"),
            ProtocolVersion::TLSv1_2 => Some("TLS 1.2"),
            other => other.as_str(),
        });
        let cipher = line.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
        // rustls has its own names for those of TLS 1.3.
        seen.cipher = cipher.map(|name| name.replacen("TLS13_", "TLS_", 1));
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).certificate = Certificate::read(end_entity);
        self.judge.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.judge.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.judge.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.judge.supported_verify_schemes()
    }
}

/// The names by which servers are reached; others are for other uses.
fn name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.to_string()),
        GeneralName::IpAddress(address) => match address.as_bytes() {
            [a, b, c, d] => Some(Ipv4Addr::new(*a, *b, *c, *d).to_string()),
            long => <[u8; 16]>::try_from(long).ok().map(|octets| IpAddr::V6(Ipv6Addr::from(octets)).to_string()),
        },
        _ => None,
    }
}

const DAY: u64 = 24 * 60 * 60;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn a_certificate_is_read() {
        let mut made =
            CertificateParams::new(["imap.example.com".to_owned(), "192.0.2.1".to_owned(), "::1".to_owned()]).unwrap();
        made.distinguished_name = DistinguishedName::new();
        made.distinguished_name.push(DnType::CountryName, "DE");
        made.distinguished_name.push(DnType::OrganizationName, "Post, Amt\u{1b}[31m");
        made.not_after = date_time_ymd(2031, 2, 3);
        let made = made.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let read = Certificate::read(made.der()).unwrap();
        assert_eq!(read.subject, "O=Post\\, Amt\\1b[31m,C=DE");
        assert_eq!(read.issuer, read.subject);
        assert_eq!(read.names, ["imap.example.com", "192.0.2.1", "::1"]);
        let expiry = SystemTime::UNIX_EPOCH + Duration::from_secs(1_927_843_200);
        assert_eq!(read.not_after, expiry);
        for (before, after, days) in
            [(3 * DAY, 0, 3), (DAY + 1, 0, 1), (DAY - 1, 0, 0), (0, 0, 0), (0, 1, -1), (0, DAY, -1), (0, DAY + 1, -2)]
        {
            let now = expiry - Duration::from_secs(before) + Duration::from_secs(after);
            assert_eq!(read.days_left(now), days, "{before} {after}");
        }
        assert_eq!(Certificate::read(&CertificateDer::from_slice(b"\x30\x03abc")), None);
    }
}
