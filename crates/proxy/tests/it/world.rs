//! A proxy before model servers that do what a test says, over real sockets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use director::{AttemptReport, BodyTimeouts, Contradiction, Director, Observer, Plan, Rejection, RequestHandler};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use proxy::{Cors, Options, Proxy};
use routing::{AppProtocol, Capability, Endpoint, Modality, ModalitySet, Model, Pool, RoutingTable, Target};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A model server that does with each connection what a test says.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Server {
    /// `serve` is given each connection, and its number.
    pub(crate) async fn start<S, F>(serve: S) -> Self
    where
        S: Fn(TcpStream, usize) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, counted.fetch_add(1, Ordering::Relaxed)));
            }
        });
        Self { address, connections }
    }

    /// One that reads each request and answers it with these bytes, again and again.
    pub(crate) async fn answering(answer: &'static str) -> Self {
        Self::start(move |mut stream, _| async move {
            while request(&mut stream).await.is_some() {
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        })
        .await
    }

    /// An address at which nobody listens.
    pub(crate) async fn nowhere() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// Reads the head of a request and as much of its body as it announces; none where the connection ends before.
pub(crate) async fn request(stream: &mut TcpStream) -> Option<String> {
    let head = head(stream).await?;
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await.ok()?;
    Some(head + &String::from_utf8_lossy(&body))
}

/// Reads the head of a request, byte by byte.
pub(crate) async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

/// Closes a connection so that its other end is told by a reset.
pub(crate) fn reset(stream: TcpStream) {
    #[expect(deprecated, reason = "to linger for no time at all does not block")]
    stream.set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

/// What the proxy told of requests, in order.
#[derive(Debug, Default, Clone)]
pub(crate) struct Told(Arc<Mutex<Vec<String>>>);

impl Observer for Told {
    fn failed(&self, _: &Plan, rejection: &Rejection) {
        self.0.lock().unwrap().push(format!("failed: {}", rejection.code().as_str()));
    }

    fn contradicted(&self, contradiction: &Contradiction<'_>) {
        let (id, refused) = (contradiction.endpoint, contradiction.refused);
        let refused = if refused.is_empty() { String::new() } else { refused.to_string() };
        self.0.lock().unwrap().push(format!("contradicted: {}/{} {refused}", id.pool, id.name));
    }

    fn attempted(&self, report: &AttemptReport<'_>) {
        self.0.lock().unwrap().push(report.ending.as_str().to_owned());
    }
}

/// A proxy for the model `m`: text in pool `text`, text and pictures in pool `vision`, each at some addresses.
pub(crate) struct World {
    pub(crate) address: SocketAddr,
    pub(crate) handler: Arc<RequestHandler>,
    told: Told,
    client: Client<HttpConnector, Full<Bytes>>,
    _stop: tokio_util::sync::DropGuard,
}

/// What a client got: an answer, and why its body ended before its end, if it did.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    pub(crate) broke: bool,
}

impl World {
    pub(crate) async fn new(text: &[SocketAddr]) -> Self {
        Self::with(text, &[], AppProtocol::Http, None).await
    }

    pub(crate) async fn with(
        text: &[SocketAddr],
        vision: &[SocketAddr],
        app_protocol: AppProtocol,
        first_byte_timeout: Option<Duration>,
    ) -> Self {
        let director = Director::new(Instant::now());
        director.replace_table(1, Arc::new(table(text, vision, app_protocol)));
        let told = Told::default();
        let handler = RequestHandler::new(Arc::new(director), "serving");
        let handler = Arc::new(RequestHandler { observer: Arc::new(told.clone()), ..handler });
        let options = Options {
            body: BodyTimeouts { stall: Duration::from_secs(30), whole: Duration::from_secs(30) },
            connect_timeout: Duration::from_secs(2),
            first_byte_timeout,
            cors: Cors::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(proxy::serve(
            daemon::Port::new(listener, daemon::ConnectionLimit::default()),
            Proxy::new(Arc::clone(&handler), options, TaskTracker::new()),
            stop.clone(),
        ));
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { address, handler, told, client, _stop: stop.drop_guard() }
    }

    /// What was told since the last time.
    pub(crate) fn told(&self) -> Vec<String> {
        std::mem::take(&mut *self.told.0.lock().unwrap())
    }

    pub(crate) async fn chat(&self) -> Answer {
        self.post(r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#.into()).await
    }

    pub(crate) async fn post(&self, body: Bytes) -> Answer {
        let request = Request::post(format!("http://{}/v1/chat/completions", self.address))
            .header("content-type", "application/json")
            .body(Full::new(body))
            .unwrap();
        self.send(request).await
    }

    /// A request must have an answer, whatever it is: none at all fails the test.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let answer = tokio::time::timeout(Duration::from_secs(30), self.client.request(request));
        let (parts, mut body) = answer.await.expect("in time").expect("an answer").into_parts();
        let (mut bytes, mut broke) = (Vec::new(), false);
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => bytes.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Err(_) => broke = true,
            }
        }
        let body = String::from_utf8(bytes).unwrap();
        Answer { status: parts.status, headers: parts.headers, body, broke }
    }
}

impl Answer {
    /// The code of an error of ours.
    pub(crate) fn code(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        body["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

fn table(text: &[SocketAddr], vision: &[SocketAddr], app_protocol: AppProtocol) -> RoutingTable {
    let pool = |addresses: &[SocketAddr]| {
        let endpoint = |(place, address): (usize, &SocketAddr)| {
            (format!("pod-{place}").into(), Endpoint::new(*address, "u".into()))
        };
        let endpoints = addresses.iter().enumerate().map(endpoint).collect();
        Arc::new(Pool { app_protocol, endpoints, ..Pool::default() })
    };
    let target = |pool: &str, input: ModalitySet| {
        Target::new(format!("{pool}-model"), pool, Capability::new(input, ModalitySet::TEXT))
    };
    let targets = vec![target("text", ModalitySet::TEXT), target("vision", ModalitySet::TEXT.with(Modality::Image))];
    let model = Model::new(targets);
    RoutingTable {
        models: BTreeMap::from([("m".into(), Arc::new(model))]),
        pools: BTreeMap::from([("text".into(), pool(text)), ("vision".into(), pool(vision))]),
        ..RoutingTable::default()
    }
}
