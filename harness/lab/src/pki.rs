//! Certificates: one authority per lab, kept in memory, that dies with it.

use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::error::Error;

/// The lab's authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Certificate(error.to_string())
}

impl Authority {
    /// Makes a new one.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new() -> Result<Self, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "udn-lab");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.self_signed(&key).map_err(failed)?;
        Ok(Self { pem: certificate.pem(), certificate: certificate.der().clone(), issuer: Issuer::new(params, key) })
    }

    /// The authority's certificate.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    fn issue(
        &self,
        name: &str,
        also: &[String],
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
        let mut params = CertificateParams::new(also).map_err(failed)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok((vec![certificate.der().clone(), self.certificate.clone()], key))
    }

    /// A server that answers to `names` and `addresses`, for holders of a certificate of this authority or of those in `pem`.
    ///
    /// # Errors
    /// When `pem` is not readable, or the server's certificate cannot be made.
    pub fn server_for_clients_of(
        &self,
        pem: &str,
        names: &[&str],
        addresses: &[IpAddr],
    ) -> Result<ServerConfig, Error> {
        let mut roots = self.roots()?;
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            roots.add(certificate.map_err(failed)?).map_err(failed)?;
        }
        self.server_for(roots, names, addresses)
    }

    fn roots(&self) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).map_err(failed)?;
        Ok(roots)
    }

    /// A server that answers to `names` and `addresses`, for anybody.
    ///
    /// # Errors
    /// When the certificate cannot be made.
    pub fn server(&self, names: &[&str], addresses: &[IpAddr]) -> Result<ServerConfig, Error> {
        let (chain, key) = self.server_identity(names, addresses)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(failed)?;
        builder.with_no_client_auth().with_single_cert(chain, key).map_err(failed)
    }

    /// A server that answers to `names` and `addresses`, for holders of a certificate of this authority.
    ///
    /// # Errors
    /// When the certificate cannot be made.
    pub fn private_server(&self, names: &[&str], addresses: &[IpAddr]) -> Result<ServerConfig, Error> {
        self.server_for_clients_of("", names, addresses)
    }

    fn server_for(&self, clients: RootCertStore, names: &[&str], addresses: &[IpAddr]) -> Result<ServerConfig, Error> {
        let (chain, key) = self.server_identity(names, addresses)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(clients), provider.clone());
        let verifier = verifier.build().map_err(failed)?;
        let builder =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(failed)?;
        builder.with_client_cert_verifier(verifier).with_single_cert(chain, key).map_err(failed)
    }

    fn server_identity(
        &self,
        names: &[&str],
        addresses: &[IpAddr],
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
        let also: Vec<String> =
            names.iter().map(|name| (*name).to_owned()).chain(addresses.iter().map(ToString::to_string)).collect();
        self.issue(names.first().copied().unwrap_or("udn-lab"), &also, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client named `name` that trusts this authority.
    ///
    /// # Errors
    /// When the certificate cannot be made.
    pub fn client(&self, name: &str) -> Result<ClientConfig, Error> {
        let (chain, key) = self.issue(name, &[], ExtendedKeyUsagePurpose::ClientAuth)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(failed)?;
        builder.with_root_certificates(self.roots()?).with_client_auth_cert(chain, key).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;
    use rustls::{ClientConnection, ServerConnection};

    use super::*;

    /// Hands bytes to and fro until both sides are done or one refuses.
    fn handshake(server: ServerConfig, client: ClientConfig, name: &'static str) -> Result<(), rustls::Error> {
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        let mut client = ClientConnection::new(Arc::new(client), ServerName::try_from(name).unwrap()).unwrap();
        for _ in 0..10 {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).unwrap();
            let mut from = bytes.as_slice();
            while !from.is_empty() {
                server.read_tls(&mut from).unwrap();
                server.process_new_packets()?;
            }
            let mut bytes = Vec::new();
            server.write_tls(&mut bytes).unwrap();
            let mut from = bytes.as_slice();
            while !from.is_empty() {
                client.read_tls(&mut from).unwrap();
                client.process_new_packets()?;
            }
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        Ok(())
    }

    #[test]
    fn a_kubelet_lets_in_only_whom_its_authority_knows() {
        let (ours, other) = (Authority::new().unwrap(), Authority::new().unwrap());
        let address: IpAddr = "172.18.0.3".parse().unwrap();
        let kubelet = || ours.private_server(&["ovn-worker"], &[address]).unwrap();
        handshake(kubelet(), ours.client("api-server").unwrap(), "172.18.0.3").unwrap();
        handshake(kubelet(), other.client("stranger").unwrap(), "172.18.0.3").unwrap_err();
        handshake(kubelet(), ours.client("api-server").unwrap(), "172.18.0.4").unwrap_err();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let nameless = builder.with_root_certificates(ours.roots().unwrap()).with_no_client_auth();
        handshake(kubelet(), nameless, "172.18.0.3").unwrap_err();
        let open_to = |pem: &str| ours.server_for_clients_of(pem, &["ovn-worker"], &[address]).unwrap();
        let theirs = |name: &str| {
            // Whoever signed the client's certificate, it is our server that the client expects.
            let (chain, key) = other.issue(name, &[], ExtendedKeyUsagePurpose::ClientAuth).unwrap();
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
            builder.with_root_certificates(ours.roots().unwrap()).with_client_auth_cert(chain, key).unwrap()
        };
        handshake(open_to(other.pem()), theirs("api-server"), "172.18.0.3").unwrap();
        handshake(open_to(""), theirs("api-server"), "172.18.0.3").unwrap_err();
    }
}
