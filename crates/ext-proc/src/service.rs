//! The gRPC service: drives one exchange for each stream.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use director::{BodyTimeouts, RequestHandler};
use futures::Stream;
use routing::Draw;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::{Request, Response, Status, Streaming};

use crate::exchange::Exchange;
use crate::metered::{Meter, Metered};
use crate::proto::external_processor_server::{ExternalProcessor, ExternalProcessorServer};
use crate::proto::{ProcessingRequest, ProcessingResponse};

/// How the edge answers.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Name fallbacks after the destination. Off by default: agentgateway refuses every request that is answered so.
    pub fallbacks: bool,
    /// Choose among all endpoints, whichever the gateway allows.
    pub ignore_subset: bool,
    /// Let clients select endpoints by the header `test-epp-endpoint-selection`, as conformance suites do. Never where strangers ask.
    pub test_selection: bool,
    /// How long a body may take before it is given up. Envoy has no such limit of its own in full duplex.
    pub body: BodyTimeouts,
    /// Most streams at once; one more is refused with an error of gRPC's own, since nobody says yet what it is about.
    pub max_streams: usize,
}

/// The external processor.
#[derive(Debug, Clone)]
pub struct ExtProc {
    handler: Arc<RequestHandler>,
    options: Options,
    under_way: TaskTracker,
    streams: Arc<Semaphore>,
}

/// Largest message that is taken. Envoy sends up to its listener's buffer limit at once: 1 MiB by default, 16 MB were seen.
const MAX_MESSAGE_BYTES: usize = 32 << 20;

impl ExtProc {
    /// `under_way` holds each request from its stream's first message to its end: what a port that stops waits for.
    pub fn new(handler: Arc<RequestHandler>, options: Options, under_way: TaskTracker) -> Self {
        let streams = Arc::new(Semaphore::new(options.max_streams.min(Semaphore::MAX_PERMITS)));
        Self { handler, options, under_way, streams }
    }

    /// The gRPC service.
    pub fn service(self) -> Metered<ExternalProcessorServer<Self>> {
        let budget = self.handler.budget.clone();
        let server = ExternalProcessorServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Metered::new(server, budget)
    }
}

#[tonic::async_trait]
impl ExternalProcessor for ExtProc {
    type ProcessStream = Pin<Box<dyn Stream<Item = Result<ProcessingResponse, Status>> + Send>>;

    async fn process(
        &self,
        request: Request<Streaming<ProcessingRequest>>,
    ) -> Result<Response<Self::ProcessStream>, Status> {
        let stream = Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
            let limit = self.options.max_streams;
            Status::resource_exhausted(format!(
                "{limit} requests are in flight, as many as this picker takes (--max-streams)"
            ))
        })?;
        let meter = request.extensions().get::<Meter>().cloned();
        let conversation = Conversation {
            handler: Arc::clone(&self.handler),
            messages: request.into_inner(),
            exchange: Exchange::new(Arc::clone(&self.handler), self.options),
            options: self.options,
            began: tokio::time::Instant::now(),
            last: tokio::time::Instant::now(),
            meter,
            pending: VecDeque::new(),
            ended: None,
            is_over: false,
            _stream: stream,
            _under_way: self.under_way.token(),
        };
        // Driven by whoever reads the answers: when the gateway hangs up, this is dropped, and the request in flight with it.
        Ok(Response::new(Box::pin(futures::stream::unfold(conversation, Conversation::next))))
    }
}

struct Conversation {
    handler: Arc<RequestHandler>,
    messages: Streaming<ProcessingRequest>,
    exchange: Exchange,
    options: Options,
    began: tokio::time::Instant,
    /// When its last message came.
    last: tokio::time::Instant,
    meter: Option<Meter>,
    pending: VecDeque<ProcessingResponse>,
    /// When the exchange ended, if its gateway is still there.
    ended: Option<tokio::time::Instant>,
    /// Nothing more comes; what is pending is the end.
    is_over: bool,
    _stream: OwnedSemaphorePermit,
    _under_way: TaskTrackerToken,
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.exchange.closed(Instant::now);
    }
}

impl Conversation {
    async fn next(mut self) -> Option<(Result<ProcessingResponse, Status>, Self)> {
        loop {
            if let Some(answer) = self.pending.pop_front() {
                return Some((Ok(answer), self));
            }
            if self.is_over {
                return None;
            }
            self.exchange.sent();
            let message = if self.exchange.is_reading() {
                let next = match self.exchange.body() {
                    Some(held) => self.options.body.next(self.began.elapsed(), self.last.elapsed(), held),
                    None => self.options.body.next_of_nothing(self.began.elapsed(), self.last.elapsed()),
                };
                match next {
                    Ok(wait) => match tokio::time::timeout(wait, self.messages.message()).await {
                        Ok(message) => message,
                        // Looked at once more.
                        Err(_) => continue,
                    },
                    Err(why) => {
                        self.pending.push_back(self.exchange.give_up(why));
                        continue;
                    }
                }
            } else if self.exchange.has_ended() {
                // A gateway ends the stream when it has the answer.
                let until = *self.ended.get_or_insert_with(tokio::time::Instant::now) + self.options.body.stall;
                match tokio::time::timeout_at(until, self.messages.message()).await {
                    Ok(message) => message,
                    Err(_) => return None,
                }
            } else {
                self.messages.message().await
            };
            match message {
                Ok(Some(message)) => {
                    if let Some(meter) = &self.meter {
                        meter.decoded();
                    }
                    self.last = tokio::time::Instant::now();
                    let draw = Draw::new(fastrand::u64(..));
                    self.pending.extend(self.exchange.on(message, Instant::now, draw));
                    if let Some((question, authorization)) = self.exchange.question() {
                        let search = self.handler.find_owner(question, authorization).await;
                        self.pending.extend(self.exchange.answered(search, Instant::now));
                    }
                }
                // The gateway is done with the request, or is gone; or there is no room for its next message.
                Ok(None) | Err(_) => match self.meter.as_ref().and_then(Meter::refused) {
                    Some(why) if self.exchange.is_reading() => {
                        self.is_over = true;
                        self.pending.push_back(self.exchange.give_up(why));
                    }
                    _ => return None,
                },
            }
        }
    }
}
