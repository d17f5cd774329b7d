//! The gRPC service: drives one exchange for each stream.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use director::{BodyTimeouts, RequestHandler};
use futures::Stream;
use routing::Draw;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::{Request, Response, Status, Streaming};

use crate::exchange::Exchange;
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
}

/// The external processor.
#[derive(Debug, Clone)]
pub struct ExtProc {
    handler: Arc<RequestHandler>,
    options: Options,
    under_way: TaskTracker,
}

/// Largest message that is taken. Envoy sends up to its listener's buffer limit at once: 1 MiB by default, 16 MB were seen.
const MAX_MESSAGE_BYTES: usize = 32 << 20;

impl ExtProc {
    /// `under_way` holds each request from its stream's first message to its end: what a port that stops waits for.
    pub fn new(handler: Arc<RequestHandler>, options: Options, under_way: TaskTracker) -> Self {
        Self { handler, options, under_way }
    }

    /// The gRPC service.
    pub fn service(self) -> ExternalProcessorServer<Self> {
        ExternalProcessorServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}

#[tonic::async_trait]
impl ExternalProcessor for ExtProc {
    type ProcessStream = Pin<Box<dyn Stream<Item = Result<ProcessingResponse, Status>> + Send>>;

    async fn process(
        &self,
        request: Request<Streaming<ProcessingRequest>>,
    ) -> Result<Response<Self::ProcessStream>, Status> {
        let conversation = Conversation {
            handler: Arc::clone(&self.handler),
            messages: request.into_inner(),
            exchange: Exchange::new(Arc::clone(&self.handler), self.options),
            options: self.options,
            began: tokio::time::Instant::now(),
            pending: VecDeque::new(),
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
    pending: VecDeque<ProcessingResponse>,
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
            self.exchange.sent();
            let message = if self.exchange.is_reading() {
                let message = match self.options.body.next(self.began.elapsed()) {
                    Ok((wait, why)) => tokio::time::timeout(wait, self.messages.message()).await.map_err(|_| why),
                    Err(why) => Err(why),
                };
                match message {
                    Ok(message) => message,
                    Err(why) => {
                        self.pending.push_back(self.exchange.give_up(why));
                        continue;
                    }
                }
            } else {
                self.messages.message().await
            };
            match message {
                Ok(Some(message)) => {
                    let draw = Draw::new(fastrand::u64(..));
                    self.pending.extend(self.exchange.on(message, Instant::now, draw));
                    if let Some((question, authorization)) = self.exchange.question() {
                        let search = self.handler.find_owner(question, authorization).await;
                        self.pending.extend(self.exchange.answered(search, Instant::now));
                    }
                }
                // The gateway is done with the request, or is gone.
                Ok(None) | Err(_) => return None,
            }
        }
    }
}
