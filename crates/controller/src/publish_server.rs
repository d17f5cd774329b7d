//! The port for pickers, which takes connections while this replica leads and refuses them otherwise.
//!
//! A standby does not listen, so that whoever tries is refused at once and goes on to the next replica. All
//! pickers are thus connected to the one replica that writes status, and what it says of them (`Programmed`) is of all of them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use daemon::tls::Versions;
use daemon::{ConnectionLimit, Incoming, Speaks};
use kube::Client;
use publish::{Anyone, Authorizer, Publisher};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::ca::{self, Issued};
use crate::lease::Term;
use crate::service_accounts::ServiceAccounts;
use crate::status::within;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// How long to wait before the authority is asked for again.
const RETRY: Duration = Duration::from_secs(1);

/// How long a port of ours may take to become free again.
const REBIND: Duration = Duration::from_secs(5);

/// How often it is asked for meanwhile.
const REBIND_RETRY: Duration = Duration::from_millis(50);

/// How long pickers may take to notice the end of their streams.
const GOODBYE: Duration = Duration::from_secs(1);

/// By what a controller proves itself to pickers.
#[derive(Debug, Clone)]
pub(crate) enum Keys {
    /// Not at all.
    None,
    /// Files, and the authority that vouches for them, where pickers are to be told of it.
    Files(Arc<ServerConfig>, Option<PathBuf>),
    /// An authority of our own, in a Secret of this namespace, and certificates for these names.
    Own { namespace: String, names: Vec<String> },
}

/// A port. It is bound from the start, so that one that cannot be had is told at once, and listened at in terms of ours.
#[derive(Debug)]
pub(crate) struct Port {
    held: Option<TcpSocket>,
    address: SocketAddr,
}

/// What pickers talk to.
pub(crate) struct PublishServer {
    pub(crate) client: Client,
    pub(crate) publisher: Publisher,
    pub(crate) keys: Keys,
    pub(crate) port: Port,
    pub(crate) accounts: ServiceAccounts,
    /// Tells the certificate that vouches for us.
    pub(crate) certificate: watch::Sender<Option<String>>,
}

impl Port {
    pub(crate) fn bind(address: SocketAddr) -> Result<Self> {
        let held = bind(address)?;
        let address = held.local_addr().context("--listen: asking for the port")?;
        Ok(Self { held: Some(held), address })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    async fn listen(&mut self) -> Result<TcpListener> {
        let given_up = Instant::now() + REBIND;
        let held = loop {
            match self.held.take().map_or_else(|| bind(self.address), Ok) {
                Ok(held) => break held,
                Err(error) if Instant::now() >= given_up => return Err(error),
                // The listener of the term before goes when its task does.
                Err(_) => tokio::time::sleep(REBIND_RETRY).await,
            }
        };
        held.listen(BACKLOG).with_context(|| format!("--listen: cannot listen on {}", self.address))
    }
}

fn bind(address: SocketAddr) -> Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.context("--listen: making a socket")?;
    // A port whose connections of before are still winding down may be taken again.
    socket.set_reuseaddr(true).context("--listen: setting SO_REUSEADDR")?;
    socket.bind(address).with_context(|| format!("--listen: cannot bind {address}"))?;
    Ok(socket)
}

impl PublishServer {
    /// Serves pickers in every term of ours. Ends only by failing.
    pub(crate) async fn run(mut self, mut terms: watch::Receiver<Term>) -> Result<()> {
        let terms_of = terms.clone();
        loop {
            if terms.wait_for(Option::is_some).await.is_err() {
                // The candidacy is over, and the process ends with it.
                return std::future::pending().await;
            }
            let until = CancellationToken::new();
            let over = async {
                let _gone = terms.wait_for(Option::is_none).await;
                until.cancel();
                Ok(())
            };
            // A port that fails ends the process at once: a leader that takes no pickers would look well and keep others from leading.
            let during = terms_of.clone();
            tokio::try_join!(self.serve(until.clone(), during), over)?;
        }
    }

    async fn serve(&mut self, until: CancellationToken, terms: watch::Receiver<Term>) -> Result<()> {
        let credentials = until.run_until_cancelled(self.credentials(&terms)).await;
        let Some((speaks, authorizer)) = credentials else { return Ok(()) };
        self.publisher.renumber(publish::revision_of_the_clock());
        let incoming = Incoming::new(daemon::Port::new(self.port.listen().await?, ConnectionLimit::default()), speaks);
        let serve = Server::builder()
            .http2_keepalive_interval(Some(Duration::from_secs(10)))
            .add_service(self.publisher.service(authorizer, until.clone()))
            .serve_with_incoming_shutdown(incoming, until.cancelled());
        tracing::info!("accepting pickers");
        tokio::select! {
            ended = serve => ended.context("serving pickers"),
            () = async { until.cancelled().await; tokio::time::sleep(GOODBYE).await } => Ok(()),
            () = self.tell_authority_again() => Ok(()),
        }
    }

    /// Reads the authority's file again and again, as the certificate is: both are replaced while we run. Never ends.
    async fn tell_authority_again(&self) {
        let Keys::Files(_, Some(authority)) = &self.keys else { return std::future::pending().await };
        loop {
            tokio::time::sleep(daemon::tls::LOOK).await;
            if let Some(certificate) = read_authority(authority) {
                self.certificate.send_if_modified(|told| told.replace(certificate.clone()) != Some(certificate));
            }
        }
    }

    async fn credentials(&self, terms: &watch::Receiver<Term>) -> (Speaks, Arc<dyn Authorizer>) {
        let tokens = || Arc::new(self.accounts.clone());
        match &self.keys {
            Keys::None => (Speaks::Plain, Arc::new(Anyone)),
            Keys::Files(config, authority) => {
                self.certificate.send_replace(authority.as_deref().and_then(read_authority));
                (Speaks::Tls(Arc::clone(config)), tokens())
            }
            Keys::Own { namespace, names } => loop {
                let made = async {
                    let authority =
                        within(terms, ca::CertificateAuthority::load_or_make(&self.client, namespace)).await?;
                    self.certificate.send_replace(Some(authority.certificate.clone()));
                    daemon::tls::server_config(Arc::new(Issued::new(authority, names.clone())), Versions::default())
                };
                match made.await {
                    Ok(config) => break (Speaks::Tls(config), tokens()),
                    Err(error) => {
                        tracing::error!(error = format!("{error:#}"), "not accepting pickers: no CA available");
                        tokio::time::sleep(RETRY).await;
                    }
                }
            },
        }
    }
}

/// The authority to tell pickers of; the log says why there is none.
fn read_authority(file: &Path) -> Option<String> {
    std::fs::read_to_string(file)
        .inspect_err(|error| {
            tracing::error!(file = %file.display(), %error, "cannot read --tls-ca, so it is not published to pickers");
        })
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_port_that_cannot_be_had_again_ends_the_process_rather_than_lead_without_pickers() {
        // Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = Port { held: None, address: taken.local_addr().unwrap() };
        let (certificate, _) = watch::channel(None);
        let accounts = ServiceAccounts::new(client.clone());
        let publish_server =
            PublishServer { client, publisher: Publisher::new(1), keys: Keys::None, port, accounts, certificate };
        let (_leads, terms) = watch::channel(Some(Instant::now() + Duration::from_hours(1)));
        let failed =
            tokio::time::timeout(Duration::from_mins(1), publish_server.run(terms)).await.expect("it does not hang");
        assert!(format!("{:#}", failed.unwrap_err()).starts_with("--listen: cannot bind 127.0.0.1:"));
    }
}
