//! A picker that reads nothing: it names one server after the other and sends every byte back as it comes. Nobody who speaks ext_proc in full
//! duplex can cost less; most of what it costs is Envoy's.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use ext_proc::ExternalProcessorServer;
use ext_proc::proto::body_mutation::Mutation;
use ext_proc::proto::external_processor_server::ExternalProcessor;
use ext_proc::proto::processing_request::Request as Asked;
use ext_proc::proto::processing_response::Response as Answer;
use ext_proc::proto::{
    BodyMutation, BodyResponse, CommonResponse, HeadersResponse, HttpBody, ProcessingRequest, ProcessingResponse,
    StreamedBodyResponse,
};
use futures::{Stream, StreamExt as _};
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use tonic_health::ServingStatus;

#[derive(Debug)]
struct Echo {
    servers: [SocketAddr; 2],
    turn: Arc<AtomicUsize>,
}

/// Serves until it is killed. Says where on standard error, as a picker does.
pub async fn echo(servers: [SocketAddr; 2]) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("envoy.service.ext_proc.v3.ExternalProcessor", ServingStatus::Serving).await;
    eprintln!(r#"{{"message":"echo started","ext_proc":"{address}"}}"#);
    let service = ExternalProcessorServer::new(Echo { servers, turn: Arc::default() });
    // As of our own port, so that the same is compared.
    let server = Server::builder().max_concurrent_streams(Some(1024)).initial_connection_window_size(Some(2 << 20));
    let server = { server }.add_service(health).add_service(service);
    Ok(server.serve_with_incoming(TcpListenerStream::new(listener)).await?)
}

#[tonic::async_trait]
impl ExternalProcessor for Echo {
    type ProcessStream = Pin<Box<dyn Stream<Item = Result<ProcessingResponse, Status>> + Send>>;

    async fn process(
        &self,
        request: Request<Streaming<ProcessingRequest>>,
    ) -> Result<Response<Self::ProcessStream>, Status> {
        let (servers, turn) = (self.servers, Arc::clone(&self.turn));
        let answers = request.into_inner().filter_map(move |message| {
            let answer = message.map(|message| answer(message, || servers[turn.fetch_add(1, Ordering::Relaxed) % 2]));
            std::future::ready(answer.transpose())
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

fn answer(message: ProcessingRequest, server: impl Fn() -> SocketAddr) -> Option<ProcessingResponse> {
    let response = match message.request? {
        Asked::RequestHeaders(_) => {
            let response = Answer::RequestHeaders(HeadersResponse { response: Some(CommonResponse::default()) });
            let dynamic_metadata = Some(metadata(&server().to_string()));
            return Some(ProcessingResponse { dynamic_metadata, response: Some(response) });
        }
        Asked::RequestBody(HttpBody { body, end_of_stream }) => {
            let piece = StreamedBodyResponse { body, end_of_stream };
            let body_mutation = Some(BodyMutation { mutation: Some(Mutation::StreamedResponse(piece)) });
            let response = Some(CommonResponse { body_mutation, ..CommonResponse::default() });
            Answer::RequestBody(BodyResponse { response })
        }
        Asked::ResponseHeaders(_) => {
            Answer::ResponseHeaders(HeadersResponse { response: Some(CommonResponse::default()) })
        }
        Asked::RequestTrailers(_) | Asked::ResponseBody(_) | Asked::ResponseTrailers(_) => return None,
    };
    Some(ProcessingResponse { dynamic_metadata: None, response: Some(response) })
}

/// Where Envoy looks for the destination.
fn metadata(destination: &str) -> Struct {
    let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
    let inner = Struct { fields: [("x-gateway-destination-endpoint".to_owned(), text(destination))].into() };
    let outer = Value { kind: Some(Kind::StructValue(inner)) };
    Struct { fields: [("envoy.lb".to_owned(), outer)].into() }
}
