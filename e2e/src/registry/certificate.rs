//! Certificates for servers on this machine, each from an authority of its own.

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// A certificate for `127.0.0.1` and `localhost`, all of it PEM.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The authority's certificate: what clients have to trust.
    pub authority: String,
    /// The server's certificate.
    pub chain: String,
    /// The server's key.
    pub key: String,
}

impl Certificate {
    /// Makes an authority, and a certificate from it.
    pub fn new() -> Result<Self> {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, "an authority of this test");
        let authority_key = KeyPair::generate()?;
        let authority_pem = authority.self_signed(&authority_key)?.pem();
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate()?;
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let certificate = CertificateParams::new(names)?.signed_by(&key, &issuer)?;
        Ok(Self { authority: authority_pem, chain: certificate.pem(), key: key.serialize_pem() })
    }
}
