//! What it costs to take names that h2 refuses: requests of 1 KB over ext_proc, with the connection laid before h2 and without it, in rounds that
//! take turns. `cargo bench -p picker --bench tolerance` prints CPU of the serving thread for each request, and the ratio.

#![expect(clippy::print_stdout, clippy::cast_precision_loss, reason = "a bench is an edge, and prints figures")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::{Buf as _, BufMut as _, Bytes};
use daemon::{Incoming, Speaks};
use director::{Director, RequestHandler};
use futures::StreamExt as _;
use routing::{Endpoint, Pool, RoutingTable};
use tokio_util::task::TaskTracker;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Server};
use tonic::{Request, Status};

/// Requests of a round, and how many are under way at once on each connection.
const REQUESTS: usize = 8000;
const AT_ONCE: usize = 16;
const ROUNDS: usize = 9;

fn main() {
    let (with, without) = (RunningPicker::start(true), RunningPicker::start(false));
    let client = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (mut costs, mut ratios) = ([Vec::new(), Vec::new()], Vec::new());
    for round in 0..=ROUNDS {
        let spent = [&with, &without].map(|picker| {
            let before = picker.cpu();
            client.block_on(ask(picker.address));
            (picker.cpu() - before) / REQUESTS as f64
        });
        // The first round warms up.
        if round > 0 {
            costs.iter_mut().zip(spent).for_each(|(costs, spent)| costs.push(spent));
            ratios.push(spent[0] / spent[1]);
        }
    }
    let [with, without] = costs.map(median);
    println!("CPU of the picker for a request of 1 KB, median of {ROUNDS} rounds of {REQUESTS}:");
    println!("  without  {without:6.2} us");
    println!("  with     {with:6.2} us");
    println!("  ratio    {:6.3}   (aim: at most 1.02)", median(ratios));
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A picker on a thread of its own.
struct RunningPicker {
    address: SocketAddr,
    thread: u32,
}

impl RunningPicker {
    fn start(tolerant: bool) -> Self {
        let (sender, started) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
                let thread = std::fs::read_link("/proc/thread-self").expect("Linux");
                let thread = thread.file_name().and_then(|id| id.to_str()?.parse().ok()).expect("a thread's number");
                let address = listener.local_addr().expect("bound");
                sender.send(Self { address, thread }).expect("somebody waits");
                let minutes = Duration::from_mins(5);
                let options = ext_proc::Options {
                    fallbacks: false,
                    ignore_subset: false,
                    test_selection: false,
                    body: director::BodyTimeouts { stall: minutes, whole: minutes },
                    max_streams: 100,
                };
                let router = Server::builder()
                    .add_service(ext_proc::ExtProc::new(handler(), options, TaskTracker::new()).service());
                if tolerant {
                    router
                        .serve_with_incoming(Incoming::new(
                            daemon::Port::new(listener, daemon::ConnectionLimit::default()),
                            Speaks::Plain,
                        ))
                        .await
                        .expect("it serves");
                } else {
                    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
                    router.serve_with_incoming(incoming).await.expect("it serves");
                }
            });
        });
        started.recv().expect("it starts")
    }

    /// Microseconds on a core so far.
    fn cpu(&self) -> f64 {
        let said = std::fs::read_to_string(format!("/proc/self/task/{}/schedstat", self.thread)).expect("Linux");
        let nanoseconds: f64 = said.split(' ').next().and_then(|first| first.parse().ok()).expect("a number");
        nanoseconds / 1000.0
    }
}

fn handler() -> Arc<RequestHandler> {
    let endpoint = Endpoint::new(([10, 0, 0, 1], 8000).into(), "".into());
    let pool = Pool { endpoints: [("pod-0".into(), endpoint)].into(), ..Pool::default() };
    let director = Director::new(Instant::now());
    let table = RoutingTable { pools: [("pool".into(), Arc::new(pool))].into(), ..RoutingTable::default() };
    director.replace_table(1, Arc::new(table));
    Arc::new(RequestHandler::new(Arc::new(director), "serving"))
}

/// A gateway's requests over one connection, each to the end of its response.
async fn ask(address: SocketAddr) {
    let channel =
        Channel::from_shared(format!("http://{address}")).expect("a URL").connect().await.expect("it listens");
    let messages = [request_headers(), request_body(), response_headers()];
    futures::stream::iter(0..REQUESTS)
        .for_each_concurrent(AT_ONCE, |_| {
            let mut grpc = tonic::client::Grpc::new(channel.clone());
            let messages = messages.clone();
            async move {
                grpc.ready().await.expect("the connection lives");
                let path = http::uri::PathAndQuery::from_static("/envoy.service.ext_proc.v3.ExternalProcessor/Process");
                let request = Request::new(futures::stream::iter(messages));
                let mut answers = grpc.streaming(request, path, Raw).await.expect("it answers").into_inner();
                while answers.message().await.expect("the stream lives").is_some() {}
            }
        })
        .await;
}

/// A field of a protobuf message that has a length.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    let mut length = content.len();
    while length >= 0x80 {
        bytes.push(u8::try_from(length & 0x7f).unwrap_or(0) | 0x80);
        length >>= 7;
    }
    bytes.push(u8::try_from(length).unwrap_or(0));
    bytes.extend_from_slice(content);
    bytes
}

fn headers(all: &[(&str, &str)], ends: bool) -> Vec<u8> {
    let one = |(key, value): &(&str, &str)| field(1, &[field(1, key.as_bytes()), field(3, value.as_bytes())].concat());
    let map: Vec<u8> = all.iter().flat_map(one).collect();
    [field(1, &map), if ends { vec![3 << 3, 1] } else { Vec::new() }].concat()
}

/// As Envoy sends them, full duplex in the request alone.
fn request_headers() -> Bytes {
    let all = headers(
        &[
            (":authority", "chat.example.com"),
            (":path", "/v1/chat/completions"),
            (":method", "POST"),
            (":scheme", "http"),
            ("user-agent", "OpenAI/Python 2.1.0"),
            ("content-type", "application/json"),
            ("authorization", "Bearer sk-0123456789abcdef"),
            ("x-request-id", "8f2c6f0e-3f0c-4c6b-9f39-0a4c2f0d7a11"),
        ],
        false,
    );
    [field(2, &all), field(11, &[1 << 3, 4])].concat().into()
}

fn request_body() -> Bytes {
    let text = "What is the capital of a country whose name begins with F? ".repeat(16);
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{text}"}}]}}"#);
    field(4, &[field(1, body.as_bytes()), vec![2 << 3, 1]].concat()).into()
}

fn response_headers() -> Bytes {
    field(3, &headers(&[(":status", "200"), ("content-type", "application/json")], true)).into()
}

/// Messages as they are.
#[derive(Debug, Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
