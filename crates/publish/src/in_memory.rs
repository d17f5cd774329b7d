//! Publisher and subscriber in one process: the same stream, over a pipe.

use std::io;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Server};

use crate::{Anyone, Publisher};

/// How much may be under way in the pipe, in bytes.
const PIPE: usize = 256 << 10;

impl Publisher {
    /// A way to this publisher for subscribers of the same process. Each connection is a pipe of its own.
    pub fn channel(&self) -> Channel {
        let publisher = self.clone();
        let connector = tower::service_fn(move |_| {
            let (client, server) = tokio::io::duplex(PIPE);
            let incoming = tokio_stream::once(Ok::<_, io::Error>(server));
            let service = publisher.service(Arc::new(Anyone), CancellationToken::new());
            tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
            async move { Ok::<_, io::Error>(hyper_util::rt::TokioIo::new(client)) }
        });
        Endpoint::from_static("http://in.memory").connect_with_connector_lazy(connector)
    }
}
