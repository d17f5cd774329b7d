//! What goes to the picker. Reports are in no hurry: each would wake a thread and cost a write by itself, and goes with the next question, or
//! soon.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::Stream;
use tokio::sync::Notify;

use crate::proto::FromReader;

/// Messages of one stream, on their way.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: Mutex<VecDeque<FromReader>>,
    /// Something is to go at once, or nothing more comes.
    hurry: Notify,
    /// Requests that may have something to report.
    under_way: AtomicUsize,
    closed: AtomicBool,
}

/// Longest that a report waits.
const SOON: Duration = Duration::from_millis(10);

impl Outbox {
    /// Of a request that is under way from now on.
    pub(crate) fn question(&self, message: FromReader) {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        self.push(message);
        self.hurry.notify_one();
    }

    pub(crate) fn report(&self, message: FromReader) {
        self.push(message);
    }

    /// A request has nothing more to report.
    pub(crate) fn over(&self) {
        // After its last report was pushed.
        self.under_way.fetch_sub(1, Ordering::Release);
    }

    /// The stream ends.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.hurry.notify_one();
    }

    fn push(&self, message: FromReader) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(message);
    }

    fn take(&self) -> VecDeque<FromReader> {
        std::mem::take(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All messages, as they come, until it is closed.
    pub(crate) fn messages(self: Arc<Self>) -> impl Stream<Item = FromReader> + Send + 'static {
        futures::stream::unfold((self, VecDeque::new()), async |(outbox, mut taken)| {
            loop {
                if let Some(message) = taken.pop_front() {
                    return Some((message, (outbox, taken)));
                }
                if outbox.closed.load(Ordering::Acquire) {
                    return None;
                }
                let may_report = outbox.under_way.load(Ordering::Acquire) > 0;
                taken = outbox.take();
                if !taken.is_empty() {
                    continue;
                }
                if may_report {
                    let _ = tokio::time::timeout(SOON, outbox.hurry.notified()).await;
                } else {
                    outbox.hurry.notified().await;
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _};

    use super::*;

    fn message(number: u64) -> FromReader {
        FromReader { number, message: None }
    }

    #[tokio::test(start_paused = true)]
    async fn reports_go_with_the_next_question_or_soon_and_none_is_lost() {
        let outbox = Arc::new(Outbox::default());
        let mut messages = Box::pin(Arc::clone(&outbox).messages());
        assert!(messages.next().now_or_never().is_none());
        outbox.question(message(1));
        assert_eq!(messages.next().await.unwrap().number, 1);
        outbox.report(message(2));
        outbox.question(message(3));
        assert_eq!([messages.next().await.unwrap().number, messages.next().await.unwrap().number], [2, 3]);
        let began = tokio::time::Instant::now();
        assert!(messages.next().now_or_never().is_none());
        outbox.report(message(4));
        outbox.over();
        outbox.over();
        assert_eq!(messages.next().await.unwrap().number, 4);
        assert!(began.elapsed() <= SOON + Duration::from_millis(1), "{:?}", began.elapsed());
        outbox.close();
        assert!(messages.next().await.is_none());
    }
}
