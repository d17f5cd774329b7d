//! The gRPC service: drives one exchange for each stream.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use director::{BodyTimeouts, Budget, RequestHandler, Reservation, TRACEPARENT};
use futures::Stream;
use metered::{Meter, Metered};
use routing::Draw;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::{Request, Response, Status, Streaming};

use crate::exchange::Exchange;
use crate::proto::external_processor_server::{ExternalProcessor, ExternalProcessorServer};
use crate::proto::processing_request::Request as Asked;
use crate::proto::{HttpBody, ProcessingRequest, ProcessingResponse};

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
    /// Most streams at once, and of one gateway the half, once half of them are taken; one more is refused with an error of gRPC's own,
    /// since nobody says yet what it is about.
    pub max_streams: usize,
}

/// The external processor.
#[derive(Debug, Clone)]
pub struct ExtProc {
    handler: Arc<RequestHandler>,
    options: Options,
    under_way: TaskTracker,
    /// Of a stream each.
    streams: Budget,
}

/// Largest message that is taken beyond the largest body: in mode BUFFERED a gateway sends all of it at once.
const MAX_MESSAGE_BESIDE_BODY: u64 = 1 << 20;

impl ExtProc {
    /// `under_way` holds each request from its stream's first message to its end: what a port that stops waits for.
    pub fn new(handler: Arc<RequestHandler>, options: Options, under_way: TaskTracker) -> Self {
        let streams = Budget::new(options.max_streams as u64);
        Self { handler, options, under_way, streams }
    }

    /// The gRPC service.
    pub fn service(self) -> Metered<ExternalProcessorServer<Self>> {
        let budget = self.handler.budget.clone();
        let largest = self.handler.limits.max_body_bytes.saturating_add(MAX_MESSAGE_BESIDE_BODY);
        let largest = usize::try_from(largest).unwrap_or(usize::MAX);
        let server =
            ExternalProcessorServer::new(self).max_decoding_message_size(largest).max_encoding_message_size(largest);
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
        let peer = request.extensions().get::<SocketAddr>().map(SocketAddr::ip);
        let stream = self.streams.take(peer, 1).map_err(|_| {
            let limit = self.options.max_streams;
            Status::resource_exhausted(format!(
                "as many requests are under way as this picker takes (--max-streams={limit}), or half of them from this gateway"
            ))
        })?;
        let meter = request.extensions().get::<Meter>().cloned();
        let parent = request.metadata().get(TRACEPARENT.as_str()).and_then(|parent| parent.to_str().ok());
        let parent = parent.map(str::to_owned);
        let conversation = Conversation {
            handler: Arc::clone(&self.handler),
            messages: request.into_inner(),
            exchange: Exchange::new(Arc::clone(&self.handler), self.options, parent),
            options: self.options,
            began: tokio::time::Instant::now(),
            last: tokio::time::Instant::now(),
            meter,
            pending: VecDeque::new(),
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
    /// Nothing more comes; what is pending is the end.
    is_over: bool,
    _stream: Reservation,
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
            if self.is_over || self.exchange.is_answered() {
                return None;
            }
            self.exchange.sent();
            let message = if self.exchange.is_reading() {
                let began = self.began.elapsed();
                let (last, came) = if self.exchange.waits_for_a_kept_body() {
                    (Duration::ZERO, u64::MAX)
                } else {
                    (self.last.elapsed(), self.meter.as_ref().map_or(u64::MAX, Meter::came))
                };
                match self.options.body.next(began, last, came, &self.handler.budget) {
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
                // The gateway ends the stream when it has passed on the answer.
                match tokio::time::timeout_at(self.last + self.options.body.stall, self.messages.message()).await {
                    Ok(message) => message,
                    Err(_) => return None,
                }
            } else {
                self.messages.message().await
            };
            match message {
                Ok(Some(mut message)) => {
                    if let Some(meter) = &self.meter {
                        let length = meter.decoded();
                        keep_the_body_alone(&mut message, length);
                    }
                    self.last = tokio::time::Instant::now();
                    let draw = Draw::new(fastrand::u64(..));
                    self.pending.extend(self.exchange.on(message, Instant::now, draw));
                    if let Some((step, authorization)) = self.exchange.unsettled() {
                        let settled = self.handler.settle(step, authorization, None, Instant::now).await;
                        self.pending.extend(self.exchange.settled(settled));
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

/// A body stands in the bytes of its whole message and would keep all of them, whatever stands beside it.
fn keep_the_body_alone(message: &mut ProcessingRequest, length: usize) {
    if let Some(Asked::RequestBody(HttpBody { body, .. }) | Asked::ResponseBody(HttpBody { body, .. })) =
        &mut message.request
        && body.len() < length / 2
    {
        *body = Bytes::copy_from_slice(body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_does_not_keep_what_stands_beside_it() {
        let bytes = Bytes::from(vec![b'x'; 1 << 20]);
        let body_of = |size: usize| {
            let body = HttpBody { body: bytes.slice(..size), end_of_stream: true };
            let mut message =
                ProcessingRequest { request: Some(Asked::RequestBody(body)), ..ProcessingRequest::default() };
            keep_the_body_alone(&mut message, bytes.len());
            match message.request {
                Some(Asked::RequestBody(body)) => body.body,
                other => unreachable!("{other:?}"),
            }
        };
        assert_eq!(body_of(1 << 20).as_ptr(), bytes.as_ptr(), "it is nearly all of it");
        let small = body_of(100_000);
        assert_eq!(small.len(), 100_000);
        assert_ne!(small.as_ptr(), bytes.as_ptr());
    }
}
