//! `/v1/realtime`: says who it is, and sends every frame back.

use axum::extract::ws::{Message, WebSocket};
use serde_json::json;

pub(crate) async fn talk(mut socket: WebSocket, server: String, model: String) {
    let created = json!({"type": "session.created", "session": {"model": model}, "sim": {"server": server}});
    if socket.send(Message::Text(created.to_string().into())).await.is_err() {
        return;
    }
    while let Some(Ok(frame)) = socket.recv().await {
        let sent = match frame {
            Message::Text(_) | Message::Binary(_) => socket.send(frame).await,
            // Pings are answered below us.
            Message::Ping(_) | Message::Pong(_) => Ok(()),
            Message::Close(_) => return,
        };
        if sent.is_err() {
            return;
        }
    }
}
