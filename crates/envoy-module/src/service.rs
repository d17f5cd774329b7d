//! What all requests of a process share: tables, load, metrics. Started once for the same flags, however often Envoy loads them anew.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use anyhow::{Context as _, Result};
use ask::Asker;
use clap::Parser as _;
use director::{BodyTimeouts, RequestHandler};
use picker::Picker;
use tokio::runtime::{Builder, Runtime};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::abi::{self, Event, Waker};
use crate::flags::Flags;

/// A picker without ports for requests, on a thread of its own.
#[derive(Debug)]
pub(crate) struct Service {
    handler: Arc<RequestHandler>,
    stop: CancellationToken,
    body_timeouts: BodyTimeouts,
    waiting: Arc<Waiting>,
    /// None only while this is dropped, and where Envoy merely looks whether the configuration is sound.
    runtime: Option<Runtime>,
    decides: Decides,
}

/// Who decides where requests go.
#[derive(Debug)]
enum Decides {
    Nobody,
    Here {
        _picker: Box<Picker>,
    },
    /// A picker elsewhere.
    Asked(Asker),
}

/// The requests whose bodies are waited for.
#[derive(Debug, Default)]
struct Waiting {
    last: AtomicU64,
    all: Mutex<HashMap<u64, Waker>>,
}

/// A place among them; given up when it is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    waiting: Arc<Waiting>,
    number: u64,
}

/// Something that is done beside the workers, until this is dropped.
#[derive(Debug)]
pub(crate) struct Task(Option<AbortHandle>);

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// How often they are looked at.
const TICK: Duration = Duration::from_secs(1);

/// By their flags.
static RUNNING: Mutex<Option<HashMap<String, Weak<Service>>>> = Mutex::new(None);

impl Service {
    /// The one of these flags, which are the picker's own, with blanks between.
    pub(crate) fn of(flags: &str) -> Result<Arc<Self>> {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let running = running.get_or_insert_default();
        running.retain(|_, service| service.strong_count() > 0);
        if let Some(service) = running.get(flags).and_then(Weak::upgrade) {
            return Ok(service);
        }
        let service = Arc::new(Self::start(flags)?);
        running.insert(flags.to_owned(), Arc::downgrade(&service));
        Ok(service)
    }

    fn start(flags: &str) -> Result<Self> {
        let flags = Flags::try_parse_from(std::iter::once("thalamus").chain(flags.split_whitespace()))
            .context("filter_config holds the flags of thalamus-picker, or --ask")?;
        let way = flags.way()?;
        let args = flags.picker;
        let (stop, body_timeouts, waiting) =
            (CancellationToken::new(), args.body_timeouts(), Arc::<Waiting>::default());
        if abi::only_validates() {
            let director = Arc::new(director::Director::new(std::time::Instant::now()));
            let handler = Arc::new(RequestHandler::new(director, &args.scope().namespace));
            return Ok(Self { handler, stop, body_timeouts, waiting, runtime: None, decides: Decides::Nobody });
        }
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("thalamus")
            .enable_all()
            .build()
            .context("starting a thread")?;
        let in_the_runtime = runtime.enter();
        let (handler, decides) = if let Some(way) = way {
            let asker = Asker::start(move || way.connect_lazy(), stop.clone());
            let handler = args.embed_reader(asker.connected(), &stop)?;
            runtime.spawn(keep_hash_key(asker.clone(), Arc::clone(&handler)));
            (handler, Decides::Asked(asker))
        } else {
            let picker = Box::new(args.embed(&stop)?);
            (Arc::clone(picker.handler()), Decides::Here { _picker: picker })
        };
        drop(in_the_runtime);
        runtime.spawn(tick(Arc::clone(&waiting), stop.clone()));
        Ok(Self { handler, stop, body_timeouts, waiting, runtime: Some(runtime), decides })
    }

    pub(crate) fn handler(&self) -> &Arc<RequestHandler> {
        &self.handler
    }

    /// The way to the picker that decides, where it is not in this process.
    pub(crate) fn asker(&self) -> Option<&Asker> {
        match &self.decides {
            Decides::Asked(asker) => Some(asker),
            Decides::Here { .. } | Decides::Nobody => None,
        }
    }

    pub(crate) fn body_timeouts(&self) -> BodyTimeouts {
        self.body_timeouts
    }

    /// Wakes a request now and then, for as long as the answer is kept.
    pub(crate) fn watch(&self, waker: Waker) -> Watch {
        let number = self.waiting.last.fetch_add(1, Ordering::Relaxed);
        self.waiting.lock().insert(number, waker);
        Watch { waiting: Arc::clone(&self.waiting), number }
    }

    /// Does something beside the workers, for as long as the answer is kept.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Task {
        Task(self.runtime.as_ref().map(|runtime| runtime.spawn(task).abort_handle()))
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Waker>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.waiting.lock().remove(&self.number);
    }
}

/// Tells prompts apart by the key of whichever picker is asked.
async fn keep_hash_key(asker: Asker, handler: Arc<RequestHandler>) {
    let mut connected = asker.connected();
    loop {
        handler.director.set_hash_key(asker.hash_key());
        if connected.changed().await.is_err() {
            return;
        }
    }
}

async fn tick(waiting: Arc<Waiting>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(TICK);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        waiting.lock().values().for_each(|waker| waker.wake(Event::Tick));
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(runtime) = self.runtime.take() {
            // Envoy's thread must not wait for ours.
            runtime.shutdown_background();
        }
    }
}
