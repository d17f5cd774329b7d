//! All the servers of a large cluster at once, as after a start of the controller.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router};
use probe::{Failure, Pace, Probed, Prober};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::at;

const SERVERS: u16 = 1000;

/// How many questions each server is at, beyond its list, and to how many servers there were any at once.
#[derive(Debug, Default)]
struct Questions(Mutex<(BTreeMap<String, usize>, usize)>);

impl Questions {
    /// Counts one for as long as it takes.
    async fn answer(&self, uri: &Uri, headers: &HeaderMap) -> Response {
        if uri.path() == "/v1/models" {
            return Json(json!({"object": "list", "data": [{"id": "m", "max_model_len": 64}]})).into_response();
        }
        let server = headers["host"].to_str().unwrap();
        {
            let (at, most) = &mut *self.0.lock().unwrap();
            *at.entry(server.to_owned()).or_default() += 1;
            *most = at.len().max(*most);
        }
        // The others have time to come.
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        let (at, _) = &mut *self.0.lock().unwrap();
        let left = at.get_mut(server).unwrap();
        *left -= 1;
        if *left == 0 {
            at.remove(server);
        }
        StatusCode::NOT_FOUND.into_response()
    }
}

/// Each has its turn, and no more than some dozens are asked at once.
#[tokio::test]
async fn a_thousand_servers_are_asked_some_at_a_time() {
    daemon::raise_file_limit();
    // Time stands still, for as long as something blocks (tokio, `time::pause`): nobody is late, however busy the machine is.
    tokio::time::pause();
    let (_until_the_end, ended) = std::sync::mpsc::channel::<()>();
    tokio::task::spawn_blocking(move || ended.recv());
    let questions = Arc::new(Questions::default());
    let counted = Arc::clone(&questions);
    let router =
        Router::new().fallback(move |uri: Uri, headers: HeaderMap| async move { counted.answer(&uri, &headers).await });
    // One process that answers at every address of this machine.
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await });

    let prober = Prober::new(None).unwrap();
    let (tell, mut told) = mpsc::channel::<(SocketAddr, Result<Probed, Failure>)>(64);
    let seldom = Pace { glance: Duration::from_mins(10), whole: Duration::from_mins(10) };
    let mut asked = BTreeSet::new();
    for number in 0..SERVERS {
        let [high, low] = number.to_be_bytes();
        let address = SocketAddr::from(([127, 1, high, low], port));
        asked.insert(address);
        let (watched, own, tell) = (at(address), prober.clone(), tell.clone());
        tokio::spawn(async move { own.watch(&watched, seldom, &tell, |said| (address, said)).await });
    }
    while !asked.is_empty() {
        let (address, said) = told.recv().await.unwrap();
        let came = said.unwrap_or_else(|failure| panic!("{address} {failure}"));
        assert!(came.found.models.contains_key("m"), "{address}: {came:?}");
        assert!(asked.remove(&address), "{address} is told of twice");
    }
    let (_, most) = *questions.0.lock().unwrap();
    assert!((2..=32).contains(&most), "{most} servers were asked at once");
}
