//! A picker that says whatever a test wants it to.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::proto::routing_tables_client::RoutingTablesClient;
use crate::proto::{Ack, FromPicker, Hello, Nack, Update, from_picker};

/// One subscription, by hand.
#[derive(Debug)]
pub struct RawPicker {
    answers: mpsc::Sender<FromPicker>,
    updates: Streaming<Update>,
}

impl RawPicker {
    /// One that understands as much as those did that do not say how much.
    pub async fn subscribe(channel: Channel, name: &str, namespace: &str) -> Self {
        Self::subscribe_with(channel, name, namespace, 0).await
    }

    pub async fn subscribe_with(channel: Channel, name: &str, namespace: &str, schema: u32) -> Self {
        let (answers, to_controller) = mpsc::channel(2);
        let hello = Hello { picker: name.to_owned(), namespace: namespace.to_owned(), pool: String::new(), schema };
        let hello = FromPicker { message: Some(from_picker::Message::Hello(hello)) };
        answers.send(hello).await.expect("the receiver is ours");
        let response = RoutingTablesClient::new(channel).subscribe(ReceiverStream::new(to_controller)).await;
        Self { answers, updates: response.expect("the controller answers").into_inner() }
    }

    /// The next update's revision, and whether it is a snapshot.
    pub async fn next(&mut self) -> (u64, bool) {
        let update = self.updates.message().await.expect("the stream lives").expect("the stream goes on");
        (update.revision, update.snapshot)
    }

    /// Of the next update: its schema, and the names of its models.
    pub async fn next_models(&mut self) -> (u64, u32, Vec<String>) {
        let update = self.updates.message().await.expect("the stream lives").expect("the stream goes on");
        (update.revision, update.schema, update.models.into_iter().map(|model| model.name).collect())
    }

    pub async fn accept(&self, revision: u64) {
        self.say(from_picker::Message::Ack(Ack { revision })).await;
    }

    pub async fn refuse(&self, revision: u64, reason: &str) {
        self.say(from_picker::Message::Nack(Nack { revision, reasons: vec![reason.to_owned()] })).await;
    }

    async fn say(&self, message: from_picker::Message) {
        self.answers.send(FromPicker { message: Some(message) }).await.expect("the stream lives");
    }
}
