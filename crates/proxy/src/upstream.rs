//! The way to model servers: connections that are kept, and what their failures tell of whether a request was seen.

mod connection;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{Extensions, Method, Request, Response, Uri};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::{HttpConnector, capture_connection};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use routing::AppProtocol;
use tower_service::Service;

use crate::upload::Upload;
use connection::{Connection, Course, Fate, Unheard};

/// Clients for both ways in which model servers speak. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Upstream {
    http1: Client<Connector, Upload>,
    h2c: Client<Connector, Upload>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No connection could be made.
    Unreachable(Error),
    /// The connection was kept from an earlier request, and the server closed it before it can have read this one.
    Unseen(Error),
    /// The server closed the connection before the whole request went out: it cannot have begun.
    Cut(Error),
    /// The server may have worked on the request.
    BrokeOff(Error),
}

/// Makes connections whose course is known.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    http: HttpConnector,
    unheard: Unheard,
}

/// Of an answer; some servers and their proxies send more than the usual hundred.
const MAX_HEADERS: usize = 512;

/// Below the 5 s after which uvicorn closes: a request had better not be written into a connection that is closing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

impl Upstream {
    pub(crate) fn new(connect_timeout: Duration) -> Self {
        let client = |h2c| {
            let mut connector = HttpConnector::new();
            connector.set_connect_timeout(Some(connect_timeout));
            connector.set_nodelay(true);
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_TIMEOUT)
                .http2_only(h2c)
                .http1_max_headers(MAX_HEADERS)
                .build(Connector { http: connector, unheard: if h2c { Unheard::Dropped } else { Unheard::Waits } })
        };
        Self { http1: client(false), h2c: client(true) }
    }

    pub(crate) async fn send(
        &self,
        protocol: AppProtocol,
        mut request: Request<Upload>,
    ) -> Result<Response<Incoming>, Failure> {
        let client = match protocol {
            AppProtocol::Http => &self.http1,
            AppProtocol::H2c => &self.h2c,
        };
        let harmless = is_harmless(request.method());
        let connection = capture_connection(&mut request);
        let begun = Instant::now();
        client.request(request).await.map_err(|error| {
            if error.is_connect() {
                return Failure::Unreachable(error);
            }
            let mut extras = Extensions::new();
            if let Some(connected) = &*connection.connection_metadata() {
                connected.get_extras(&mut extras);
            }
            let fate = extras.get::<Arc<Course>>().map_or(Fate::Sent, |course| course.fate(begun));
            match (protocol, fate) {
                // Of many requests on one connection nobody knows more.
                (AppProtocol::H2c, _) if harmless || is_refused_stream(&error) => Failure::Unseen(error),
                // Closed as soon as it was made: as good as refused.
                (AppProtocol::Http, Fate::Unbegun) => Failure::Unreachable(error),
                (AppProtocol::Http, Fate::Unseen) => Failure::Unseen(error),
                (AppProtocol::Http, Fate::Stale) if harmless => Failure::Unseen(error),
                (AppProtocol::Http, Fate::Cut) => Failure::Cut(error),
                (AppProtocol::Http, Fate::Stale | Fate::Sent) | (AppProtocol::H2c, _) => Failure::BrokeOff(error),
            }
        })
    }
}

/// Whether a request may be made twice without harm (RFC 9110, section 9.2.1).
fn is_harmless(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// The server says that it did nothing with it (RFC 9113, section 8.7).
fn is_refused_stream(error: &Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(h2) = cause.downcast_ref::<h2::Error>() {
            return h2.reason() == Some(h2::Reason::REFUSED_STREAM);
        }
        source = cause.source();
    }
    false
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Connection>;
    type Error = <HttpConnector as Service<Uri>>::Error;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<Connection>, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.http.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, unheard) = (self.http.call(uri), self.unheard);
        Box::pin(async move { Ok(TokioIo::new(Connection::new(connecting.await?.into_inner(), unheard))) })
    }
}
