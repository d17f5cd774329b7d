//! The reader's end: one stream to a picker for all requests, made anew when it is lost.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use director::{Ending, Refusal, Rejection};
use http::StatusCode;
use prost::Message as _;
use request::{IdSeeker, OwnedKind};
use routing::ModalitySet;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::outbox::Outbox;
use crate::proto::decisions_client::DecisionsClient;
use crate::proto::from_picker::Message as Heard;
use crate::proto::from_reader::Message as Said;
use crate::proto::report::Report as What;
use crate::proto::{self, End, FromPicker, FromReader, Report};
use crate::wire::{self, Answer, Question, Undecodable};
use crate::{HASH_KEY, MAX_QUESTION, UNSEEN};

/// Asks a picker. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Asker(Arc<Connection>);

/// The way to the picker that is asked now.
#[derive(Debug)]
struct Connection {
    current: Mutex<Option<Session>>,
    connected: watch::Sender<bool>,
    hash_key: AtomicU64,
}

/// What is told of a question.
pub type Told = Result<Answer, Rejection>;

/// A request that the picker knows of. It counts at an endpoint until this says how it ended, or is dropped.
#[derive(Debug)]
pub struct Asked {
    session: Session,
    number: u64,
    status: Option<StatusCode>,
    first_byte: bool,
    seeker: Option<IdSeeker>,
    /// What the request carries.
    input: ModalitySet,
    refusal: Option<Refusal>,
    /// Whether the picker may count something for it.
    is_known: bool,
}

/// One stream.
#[derive(Debug, Clone)]
struct Session {
    outbox: Arc<Outbox>,
    waiting: Arc<Waiting>,
}

/// The questions that are not answered yet. Their number is bounded by whoever asks: each is a request whose body is held.
#[derive(Default)]
struct Waiting {
    last: AtomicU64,
    all: Mutex<Option<HashMap<u64, Waits>>>,
}

struct Waits {
    /// Bytes of the body.
    bytes: u64,
    told: Box<dyn FnOnce(Told) + Send>,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let waiting = self.lock().as_ref().map_or(0, HashMap::len);
        f.debug_struct("Waiting").field("questions", &waiting).finish_non_exhaustive()
    }
}

/// Largest answer that is taken: a list of thousands of models.
const MAX_ANSWER: usize = 64 << 20;

/// How long to wait before the next try to reach a picker, at least, and at most twice as long.
const WAIT: Duration = Duration::from_millis(300);

// === impl Asker ===

impl Asker {
    /// Connects in the runtime at hand over what `connect` gives, and again whenever the stream is lost, until `stop` is cancelled.
    pub fn start(connect: impl Fn() -> Channel + Send + 'static, stop: CancellationToken) -> Self {
        let connection = Arc::new(Connection {
            current: Mutex::new(None),
            connected: watch::Sender::new(false),
            hash_key: AtomicU64::default(),
        });
        let kept = Arc::clone(&connection);
        tokio::spawn(async move {
            let keep = kept.keep(connect);
            stop.run_until_cancelled(keep).await;
            if let Some(session) = lock(&kept.current).take() {
                session.close();
            }
        });
        Self(connection)
    }

    /// Whether there is a picker to ask.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.0.connected.subscribe()
    }

    /// By what key the picker tells prompts apart; 0 before there was one.
    pub fn hash_key(&self) -> u64 {
        self.0.hash_key.load(Ordering::Relaxed)
    }

    /// Asks, and calls `told` with the answer on whatever thread it comes, or with the reason why none will. The picker counts the request for
    /// as long as the result is kept.
    pub fn ask(&self, question: Question, told: impl FnOnce(Told) + Send + 'static) -> Result<Asked, Rejection> {
        let session = lock(&self.0.current).clone().ok_or(Rejection::NobodyToAsk)?;
        let (bytes, input) = (question.request.bytes, question.request.requires.input);
        let question = proto::Question::from(question);
        if question.encoded_len() > MAX_QUESTION {
            return Err(Rejection::TooMuchToAsk { limit: MAX_QUESTION });
        }
        let number = session.waiting.last.fetch_add(1, Ordering::Relaxed);
        let waits = Waits { bytes, told: Box::new(told) };
        match &mut *session.waiting.lock() {
            Some(all) => all.insert(number, waits),
            None => return Err(Rejection::NobodyToAsk),
        };
        session.outbox.question(FromReader { number, message: Some(Said::Question(question)) });
        Ok(Asked {
            session,
            number,
            status: None,
            first_byte: false,
            seeker: None,
            input,
            refusal: None,
            is_known: true,
        })
    }
}

// === impl Connection ===

impl Connection {
    async fn keep(self: &Arc<Self>, connect: impl Fn() -> Channel) {
        loop {
            match open(connect()).await {
                Ok((session, answers, hash_key)) => {
                    self.hash_key.store(hash_key, Ordering::Relaxed);
                    tracing::info!("there is a picker to ask");
                    *lock(&self.current) = Some(session.clone());
                    self.connected.send_replace(true);
                    match listen(answers, &session).await {
                        Some(answers) => {
                            tracing::info!("the picker that is asked is leaving; another one is looked for");
                            let connection = Arc::clone(self);
                            tokio::spawn(async move {
                                listen(answers, &session).await;
                                connection.lose(&session);
                            });
                        }
                        None => self.lose(&session),
                    }
                }
                Err(status) => tracing::warn!(reason = cause(&status), "no picker to ask"),
            }
            tokio::time::sleep(WAIT.mul_f64(1.0 + fastrand::f64())).await;
        }
    }

    /// Nobody is asked over this stream any more.
    fn lose(&self, session: &Session) {
        let mut current = lock(&self.current);
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(&current.waiting, &session.waiting)) {
            *current = None;
            self.connected.send_replace(false);
        }
    }
}

async fn open(channel: Channel) -> Result<(Session, Streaming<FromPicker>, u64), Status> {
    let outbox = Arc::<Outbox>::default();
    let mut client = DecisionsClient::new(channel).max_decoding_message_size(MAX_ANSWER);
    let response = client.ask(Arc::clone(&outbox).messages()).await?;
    // One that is older says none.
    let hash_key = response.metadata().get(HASH_KEY).and_then(|key| u64::from_str_radix(key.to_str().ok()?, 16).ok());
    let session = Session { outbox, waiting: Arc::new(Waiting::open()) };
    Ok((session, response.into_inner(), hash_key.unwrap_or_default()))
}

/// Tells what is answered, until the stream is lost, or the picker is leaving: then it answers on what it was asked.
async fn listen(mut answers: Streaming<FromPicker>, session: &Session) -> Option<Streaming<FromPicker>> {
    loop {
        let (number, heard) = match answers.message().await {
            Ok(Some(FromPicker { number, message })) => (number, message),
            Ok(None) => break,
            Err(status) => {
                tracing::warn!(reason = cause(&status), "the picker that was asked is lost");
                break;
            }
        };
        if let Some(Heard::Leaving(_)) = heard {
            return Some(answers);
        }
        // Whoever asked may be gone.
        let Some(Waits { bytes, told }) = session.waiting.take(number) else { continue };
        let answer = match heard {
            Some(Heard::Dispatch(dispatch)) => wire::dispatch_in(dispatch, bytes),
            Some(Heard::Reply(reply)) => wire::reply_in(reply),
            Some(Heard::Leaving(_)) | None => Err(Undecodable::Missing("answer")),
        };
        told(answer.map_err(|why| not_understood(&why)));
    }
    session.close();
    None
}

/// The last of the chain: tonic's own words are "transport error".
fn cause(status: &Status) -> String {
    let first = std::error::Error::source(status);
    let last = std::iter::successors(first, |error| error.source()).last();
    last.map_or_else(|| status.message().to_owned(), ToString::to_string)
}

fn not_understood(why: &Undecodable) -> Rejection {
    tracing::error!(%why, "an answer of the picker that cannot be read");
    Rejection::NotUnderstood
}

// === impl Session ===

impl Session {
    /// Nothing is asked or answered on it any more.
    fn close(&self) {
        self.outbox.close();
        self.waiting.close();
    }
}

// === impl Waiting ===

impl Waiting {
    fn open() -> Self {
        Self { last: AtomicU64::new(1), all: Mutex::new(Some(HashMap::new())) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<HashMap<u64, Waits>>> {
        lock(&self.all)
    }

    fn take(&self, number: u64) -> Option<Waits> {
        self.lock().as_mut()?.remove(&number)
    }

    /// No answer comes any more.
    fn close(&self) {
        let all = self.lock().take();
        for waits in all.into_iter().flat_map(HashMap::into_values) {
            (waits.told)(Err(Rejection::NobodyToAsk));
        }
    }
}

// === impl Asked ===

impl Asked {
    /// It goes to an endpoint, whose answer may say that it made something of this kind.
    pub fn dispatched(&mut self, makes: Option<OwnedKind>) {
        self.seeker = makes.map(IdSeeker::new);
    }

    /// It goes nowhere: the picker has answered it.
    pub fn answered(mut self) {
        self.is_known = false;
    }

    /// The head of the answer. A bad one is told before its end.
    pub fn head(&mut self, status: StatusCode) {
        self.status = Some(status);
        self.refusal = Refusal::of(status, self.input);
        if !status.is_success() {
            self.seeker = None;
            self.report(What::Head(status.as_u16().into()));
        }
    }

    /// Some of the answer's body.
    pub fn body(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if !self.first_byte {
            self.first_byte = true;
            self.report(What::FirstByte(self.status.map_or(0, |status| status.as_u16().into())));
        }
        if let Some(refusal) = &mut self.refusal {
            refusal.feed(bytes);
        }
        let Some(seeker) = &mut self.seeker else { return };
        seeker.feed(bytes);
        if let Some(made) = seeker.found() {
            self.seeker = None;
            self.report(What::Made(made.id));
        }
    }

    /// The answer has ended well.
    pub fn ended(self) {
        if let Some(unfit) = self.refusal.as_ref().and_then(Refusal::unfit) {
            self.report(What::Unfit(wire::unfit_out(unfit)));
        }
        self.end(Ending::Complete.as_str());
    }

    /// No connection could be made.
    pub fn unreachable(self) {
        self.end(Ending::Unreachable.as_str());
    }

    /// The connection broke.
    pub fn broke_off(self) {
        self.end(Ending::BrokeOff.as_str());
    }

    /// Nothing came for too long.
    pub fn timed_out(self) {
        self.end(Ending::TimedOut.as_str());
    }

    /// The endpoint was not asked.
    pub fn unseen(self) {
        self.end(UNSEEN);
    }

    fn end(mut self, how: &str) {
        self.say_end(how);
        self.is_known = false;
    }

    fn say_end(&self, how: &str) {
        let status = self.status.map(|status| status.as_u16().into());
        self.report(What::End(End { how: how.to_owned(), status }));
    }

    fn report(&self, what: What) {
        let report = Said::Report(Report { report: Some(what) });
        self.session.outbox.report(FromReader { number: self.number, message: Some(report) });
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if self.is_known {
            self.session.waiting.take(self.number);
            self.say_end(Ending::Abandoned.as_str());
        }
        self.session.outbox.over();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each holder leaves it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
