//! The soak: pods, models and pools come and go, replicas of controller and picker are killed, the API server stands still, and a client
//! asks all the time. No answer may be wrong, and none may be lost that somebody stood ready to give.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use serde_json::json;

use crate::soak::life::{Life, PICKER};
use crate::{Answer, Client, Cluster, eventually};

mod life;

/// How long, and which of all possible lives.
#[derive(Debug, Clone, Copy)]
pub struct Soak {
    pub length: Duration,
    /// It goes on until more answers than this were relied on, but no longer than four times as long: how many they are hangs on what happens.
    pub relies_on: u64,
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    pub requests: u64,
    pub answered: u64,
    /// Asked while somebody stood ready all the time, so that nothing but an answer would do.
    pub relied_on: u64,
    /// Refused while nobody stood ready, as it should be.
    pub refused: u64,
    /// Asked again elsewhere, because the picker that was asked died.
    pub asked_again: u64,
    pub deeds: BTreeMap<&'static str, u64>,
}

/// How long something must have stood before it may be relied on. Tables stand still while nobody leads: a leader dies, its lease runs out, the
/// API server stands still for six seconds, the next leader dies, and a picker has to find the third.
const SETTLED: Duration = Duration::from_secs(30);

const POOLS: u32 = 4;
const MODELS: u32 = 6;
const CLIENTS: usize = 4;

/// Who stands behind a model, and since when.
#[derive(Debug, Default)]
struct Truth {
    models: BTreeMap<String, Declared>,
    /// Models that are no more, and since when.
    gone: BTreeMap<String, Instant>,
    pods: BTreeMap<String, Standing>,
}

#[derive(Debug, Clone)]
struct Declared {
    pool: u32,
    since: Instant,
}

/// Who may answer for a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entitled {
    Nobody,
    /// The servers of this pool.
    Pool(u32),
}

#[derive(Debug, Clone)]
struct Standing {
    pool: u32,
    /// Ready, and since when.
    ready: Option<Instant>,
}

/// What all tasks share.
#[derive(Debug, Default)]
struct Shared {
    truth: Mutex<Truth>,
    stop: AtomicBool,
    requests: AtomicU64,
    answered: AtomicU64,
    relied_on: AtomicU64,
    refused: AtomicU64,
    asked_again: AtomicU64,
}

impl Shared {
    fn truth(&self) -> MutexGuard<'_, Truth> {
        self.truth.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Truth {
    /// Who may answer, where that has stood for long enough for every picker to know.
    fn entitled(&self, model: &str) -> Option<Entitled> {
        match self.models.get(model) {
            Some(declared) => settled(declared.since).then_some(Entitled::Pool(declared.pool)),
            None => self.gone.get(model).filter(|since| settled(**since)).map(|_| Entitled::Nobody),
        }
    }

    /// Whether somebody stands ready to answer, and has for long enough to be relied on.
    fn reliable(&self, model: &str) -> bool {
        self.models.get(model).is_some_and(|declared| {
            let mut pods = self.pods.values().filter(|pod| pod.pool == declared.pool);
            settled(declared.since) && pods.any(|pod| pod.ready.is_some_and(settled))
        })
    }
}

fn settled(since: Instant) -> bool {
    since.elapsed() >= SETTLED
}

/// Pools of odd numbers take text alone.
fn takes_images(pool: u32) -> bool {
    pool.is_multiple_of(2)
}

impl Soak {
    /// Runs it in a cluster that it may kill, and tells `progress` of it now and then. Fails with the first answer that is wrong or lost.
    pub async fn run(self, cluster: Arc<Cluster>, folder: &Path, progress: impl Fn(&str)) -> Result<Summary> {
        let mut life = Life::begin(cluster, folder, self.seed).await?;
        let clients = life.clients();
        let asking: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let rng = Rng::with_seed(self.seed.wrapping_add(number as u64 + 1));
                tokio::spawn(ask(Arc::clone(&life.shared), clients.clone(), rng))
            })
            .collect();
        let (began, mut told) = (Instant::now(), Instant::now());
        let lived = loop {
            let lasts = if life.summary().relied_on > self.relies_on { self.length } else { 4 * self.length };
            if began.elapsed() >= lasts || asking.iter().any(tokio::task::JoinHandle::is_finished) {
                break Ok(());
            }
            if let Err(error) = life.deed().await {
                break Err(error);
            }
            if told.elapsed() > Duration::from_secs(10) {
                told = Instant::now();
                progress(&format!("{:>5} s  {}", began.elapsed().as_secs(), life.summary().line()));
            }
        };
        life.shared.stop.store(true, Ordering::Relaxed);
        life.api_server_goes_on();
        for client in asking {
            client.await.context("a client panicked")??;
        }
        lived?;
        // Whatever happened, it ends well.
        life.until_settled().await.context("after all")?;
        life.until_tables_are_true().await?;
        for part in ["service", "deployment", "networkpolicy", "serviceaccount"] {
            eventually("the managed picker is whole", async || life.world.object(part, PICKER).map(drop)).await?;
        }
        Ok(life.summary())
    }
}

impl Summary {
    pub fn line(&self) -> String {
        let deeds: Vec<String> = self.deeds.iter().map(|(what, times)| format!("{what} {times}")).collect();
        format!(
            "{} requests: {} answered ({} had to be), {} refused, {} asked again; {}",
            self.requests,
            self.answered,
            self.relied_on,
            self.refused,
            self.asked_again,
            deeds.join(", ")
        )
    }
}

/// Asks pickers in turn, until it is told to stop or an answer is not what it should be.
async fn ask(shared: Arc<Shared>, pickers: Vec<Client>, mut rng: Rng) -> Result<()> {
    while !shared.stop.load(Ordering::Relaxed) {
        let model = format!("m{}", rng.u32(..MODELS));
        let image = rng.bool();
        let content = if image {
            json!([{"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}])
        } else {
            json!("hello")
        };
        let body = json!({"model": model, "messages": [{"role": "user", "content": content}]});
        // What stood before the request and stands after it stood while it was under way.
        let (relied_on, entitled) = {
            let truth = shared.truth();
            (truth.reliable(&model), truth.entitled(&model))
        };
        let first = rng.usize(..pickers.len());
        let mut answer = None;
        for again in 0..40 {
            match pickers[(first + again) % pickers.len()].chat(&body).await {
                // A picker that has just started has no table yet; it says so, and another has.
                Ok(one) if one.json()["error"]["code"] != "not_ready" => {
                    answer = Some(one);
                    break;
                }
                _ => {
                    shared.asked_again.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        let answer = answer.context("no picker answers: both were never away together for two seconds")?;
        let (stood, entitled) = {
            let truth = shared.truth();
            (relied_on && truth.reliable(&model), entitled.filter(|_| truth.entitled(&model) == entitled))
        };
        judge(&shared, &model, image, &answer, stood, entitled)?;
    }
    Ok(())
}

/// Whether an answer is right, given whether somebody stood ready all the time, and who might answer all the time.
fn judge(
    shared: &Shared,
    model: &str,
    image: bool,
    answer: &Answer,
    stood: bool,
    entitled: Option<Entitled>,
) -> Result<()> {
    shared.requests.fetch_add(1, Ordering::Relaxed);
    shared.relied_on.fetch_add(u64::from(stood), Ordering::Relaxed);
    let code = answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned();
    let says = || format!("{model}{}: {}", if image { " with an image" } else { "" }, answer.shown());
    match (answer.status, &*code) {
        (200, _) => {
            // Pods of a pool serve its target alone, and refuse what they do not take: the name says whose answer it is.
            let server = answer.server().context("an answer names its server")?;
            let pool = server.strip_prefix("pool").and_then(|rest| rest.split('-').next()?.parse().ok());
            let pool: u32 = pool.with_context(|| format!("{server} is in no pool"))?;
            ensure!(!image || takes_images(pool), "an image was answered by {server}, which takes none");
            let is_entitled = entitled.is_none_or(|entitled| entitled == Entitled::Pool(pool));
            ensure!(is_entitled, "{server} answered for {model}, for which {entitled:?} may");
            let target = answer.json()["model"].as_str().unwrap_or_default().to_owned();
            ensure!(target == format!("t{pool}"), "{server} answered as {target}");
            shared.answered.fetch_add(1, Ordering::Relaxed);
        }
        (400, "unsupported_modality") if image => {
            let truth = shared.truth();
            let taken = truth.models.get(model).is_some_and(|declared| takes_images(declared.pool));
            ensure!(!(stood && taken), "{}: it takes images", says());
            shared.refused.fetch_add(1, Ordering::Relaxed);
        }
        (404, "model_not_found") | (503, "no_endpoint" | "endpoint_unreachable") => {
            ensure!(!stood, "{}: somebody stood ready", says());
            shared.refused.fetch_add(1, Ordering::Relaxed);
        }
        _ => bail!("{}: nobody should say so", says()),
    }
    Ok(())
}
