//! What all requests of a process share: tables, load, metrics. Started once for the same flags, however often Envoy loads them anew.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use anyhow::{Context as _, Result};
use clap::Parser as _;
use director::RequestHandler;
use picker::{Args, Picker};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use crate::abi;

/// A picker without ports for requests, on a thread of its own.
#[derive(Debug)]
pub(crate) struct Service {
    handler: Arc<RequestHandler>,
    stop: CancellationToken,
    /// None only while this is dropped, and where Envoy merely looks whether the configuration is sound.
    runtime: Option<Runtime>,
    _picker: Option<Picker>,
}

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
        let args = Args::try_parse_from(std::iter::once("thalamus").chain(flags.split_whitespace()))
            .context("filter_config holds the flags of thalamus-picker")?;
        let stop = CancellationToken::new();
        if abi::only_validates() {
            let director = Arc::new(director::Director::new(std::time::Instant::now()));
            let handler = Arc::new(RequestHandler::new(director, &args.scope().namespace));
            return Ok(Self { handler, stop, runtime: None, _picker: None });
        }
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("thalamus")
            .enable_all()
            .build()
            .context("starting a thread")?;
        let picker = runtime.block_on(args.embed(&stop))?;
        let handler = Arc::clone(picker.handler());
        Ok(Self { handler, stop, runtime: Some(runtime), _picker: Some(picker) })
    }

    pub(crate) fn handler(&self) -> &Arc<RequestHandler> {
        &self.handler
    }

    /// Does something beside the workers.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.runtime {
            runtime.spawn(task);
        }
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
