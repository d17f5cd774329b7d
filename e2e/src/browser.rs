//! A real Chromium without a window, told what to do over its DevTools protocol.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::Method;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::{Client, Process, eventually};

/// One tab of a browser of its own. It ends with it.
#[derive(Debug)]
pub struct Browser {
    _process: Process,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    asked: u64,
    /// What the page wrote on its console as an error.
    pub errors: Vec<String>,
}

impl Browser {
    /// Opens a page.
    pub async fn open(program: &Path, folder: &Path, url: &str) -> Result<Self> {
        let profile = folder.join("profile");
        let args = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--remote-debugging-port=0",
            "--window-size=1280,1600",
            &format!("--user-data-dir={}", profile.display()),
            "about:blank",
        ]
        .map(ToOwned::to_owned);
        std::fs::create_dir_all(folder).context("making a folder for a browser")?;
        let process = Process::start(folder, "chromium", program, &args, &[])?;
        let port = eventually("the browser listens", async || {
            let said = std::fs::read_to_string(profile.join("DevToolsActivePort")).with_context(|| process.tail())?;
            Ok(said.lines().next().context("no port")?.parse::<u16>()?)
        })
        .await?;
        let devtools = Client::new(SocketAddr::from(([127, 0, 0, 1], port)));
        let tab = devtools.send(Method::PUT, &format!("/json/new?{url}"), &[], Bytes::new()).await?.json();
        let socket = tab["webSocketDebuggerUrl"].as_str().with_context(|| format!("no tab: {tab}"))?;
        let (socket, _) = tokio_tungstenite::connect_async(socket).await.context("talking to the browser")?;
        let mut browser = Self { _process: process, socket, asked: 0, errors: Vec::new() };
        for domain in ["Runtime.enable", "Log.enable", "Page.enable"] {
            browser.command(domain, json!({})).await?;
        }
        Ok(browser)
    }

    /// What an expression of JavaScript comes to; a promise is waited for.
    pub async fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let said = self.command("Runtime.evaluate", asked).await?;
        ensure!(said["exceptionDetails"].is_null(), "{expression}: {}", said["exceptionDetails"]);
        Ok(said["result"]["value"].clone())
    }

    /// A key, as somebody presses it.
    pub async fn press(&mut self, key: &str) -> Result<()> {
        let (text, code) = match key {
            "Enter" => ("\r", 13),
            "Tab" => ("\t", 9),
            _ => (key, 0),
        };
        let down = json!({"type": "keyDown", "key": key, "text": text, "windowsVirtualKeyCode": code});
        self.command("Input.dispatchKeyEvent", down).await?;
        self.command("Input.dispatchKeyEvent", json!({"type": "keyUp", "key": key, "windowsVirtualKeyCode": code}))
            .await?;
        Ok(())
    }

    /// As somebody sees it who likes it dark, or light.
    pub async fn prefers(&mut self, scheme: &str) -> Result<()> {
        let feature = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.command("Emulation.setEmulatedMedia", feature).await?;
        Ok(())
    }

    /// The whole page, as a PNG.
    pub async fn screenshot(&mut self) -> Result<Vec<u8>> {
        let shot =
            self.command("Page.captureScreenshot", json!({"format": "png", "captureBeyondViewport": true})).await?;
        BASE64_STANDARD.decode(shot["data"].as_str().context("no picture")?).context("a picture in base64")
    }

    async fn command(&mut self, method: &str, params: Value) -> Result<Value> {
        self.asked += 1;
        let asked = json!({"id": self.asked, "method": method, "params": params});
        self.socket.send(Message::text(asked.to_string())).await.context("talking to the browser")?;
        while let Some(message) = self.socket.next().await {
            let Message::Text(text) = message.context("listening to the browser")? else { continue };
            let said: Value = serde_json::from_str(&text)?;
            if said["id"] == self.asked {
                ensure!(said["error"].is_null(), "{method}: {}", said["error"]);
                return Ok(said["result"].clone());
            }
            match said["method"].as_str() {
                Some("Runtime.exceptionThrown") => self.errors.push(said["params"]["exceptionDetails"].to_string()),
                Some("Log.entryAdded") if said["params"]["entry"]["level"] == "error" => {
                    self.errors.push(said["params"]["entry"]["text"].to_string());
                }
                _ => {}
            }
        }
        bail!("the browser went away")
    }
}
