//! Whether the cluster has the Gateway API: where it has, a gateway says of each pool that it is attached to it.

use std::time::Duration;

use kube::Client;
use tokio::sync::watch;

use super::AGAIN;

/// How often to look: it is installed once, and seldom taken away.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// After so many failures in a row statuses do not wait for it any more.
const TRIES: u32 = 3;

/// Looks for the kind HTTPRoute, from now on; nothing until that is known. Asks for what every account may ask (the ClusterRole
/// `system:discovery`).
pub fn gateways(client: Client) -> watch::Receiver<Option<bool>> {
    let (known, told) = watch::channel(None);
    tokio::spawn(async move {
        let mut failures = 0;
        while !known.is_closed() {
            let there = has_routes(&client).await.map_err(|error| {
                failures += 1;
                // Said once: it may stay so for long.
                if failures == TRIES {
                    tracing::warn!(%error, "cannot tell whether the Gateway API is installed; assuming that it is not");
                }
            });
            match there {
                Ok(there) => {
                    failures = 0;
                    known.send_if_modified(|known| known.replace(there) != Some(there));
                }
                Err(()) if failures == TRIES => {
                    known.send_if_modified(|known| {
                        let is_news = known.is_none();
                        known.get_or_insert(false);
                        is_news
                    });
                }
                Err(()) => {}
            }
            let wait = if (1..TRIES).contains(&failures) { AGAIN } else { LOOK_AGAIN };
            tokio::time::sleep(wait).await;
        }
    });
    told
}

async fn has_routes(client: &Client) -> kube::Result<bool> {
    match client.list_api_group_resources("gateway.networking.k8s.io/v1").await {
        Ok(there) => Ok(there.resources.iter().any(|kind| kind.kind == "HTTPRoute")),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::answer;

    #[tokio::test(start_paused = true)]
    async fn it_is_looked_for_until_it_is_known_and_then_now_and_again() {
        let mut answers =
            [(500, json!({})), (404, json!({})), (200, resources("HTTPRoute")), (200, resources("Gateway"))]
                .into_iter();
        let service = tower::service_fn(move |_: http::Request<kube::client::Body>| {
            let (status, object) = answers.next().unwrap_or((404, json!({})));
            std::future::ready(answer(status, &object))
        });
        let mut knows = gateways(Client::new(service, "default"));
        let start = tokio::time::Instant::now();
        let mut told = Vec::new();
        for _ in 0..3 {
            knows.changed().await.unwrap();
            told.push((*knows.borrow_and_update(), start.elapsed()));
        }
        let after = |seconds| Duration::from_secs(seconds);
        assert_eq!(told, [(Some(false), after(1)), (Some(true), after(31)), (Some(false), after(61))]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_never_says_holds_up_nobody_for_long() {
        let service =
            tower::service_fn(move |_: http::Request<kube::client::Body>| std::future::ready(answer(403, &json!({}))));
        let mut told = gateways(Client::new(service, "default"));
        let start = tokio::time::Instant::now();
        told.changed().await.unwrap();
        assert_eq!((*told.borrow(), start.elapsed()), (Some(false), 2 * AGAIN));
    }

    fn resources(kind: &str) -> serde_json::Value {
        let one = json!({"name": "x", "singularName": "", "namespaced": true, "kind": kind, "verbs": []});
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "gateway.networking.k8s.io/v1", "resources": [one]})
    }
}
