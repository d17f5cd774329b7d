//! The life of a request: read, route, filter, score, dispatch, or say why not.
//!
//! ```text
//!  edge ──head──► RequestHandler ──► Transaction ◄──feed── bytes
//!                                        │ finish(bound, caller, clock, draw)      one table, one instant, one draw
//!                                        ▼
//!         Step: find an owner │ wait for room │ answer this │ dispatch that ──► Plan: attempts in order, why
//!                                                                      RunningAttempt ◄── what happens, from the edge
//!                                                                          │
//!                                        Director: table, board ◄──────────┘
//! ```
//!
//! Invariants:
//! - a decision is made at one instant from one table; who waits does so between two steps, and goes on from where it was;
//! - nothing here opens a socket, sets a timer, logs or has metrics: whoever wants to know of requests is an [`Observer`], of single ones a
//!   [`Tracer`];
//! - every edge makes the same decision, because there is one call to make it; what it does with bodies and connections is its own.

mod adapters;
mod attempt;
mod backlog;
mod board;
mod body;
mod body_timeouts;
mod budget;
mod cached;
mod code;
mod content;
mod density;
mod dispatch;
mod exhausted;
mod explain;
mod handler;
mod head;
mod life;
mod owners;
mod planning;
mod policy;
mod queue;
mod refusals;
mod rejection;
mod reply;
mod snapshot;
mod splices;
mod steering;
mod trace;
mod transaction;
mod usage;
mod waiting;

pub use adapters::AdaptersRead;
pub use attempt::{AttemptReport, Ending, RunningAttempt};
pub use board::{EndpointId, EndpointState, Reading, SILENT_AFTER, STALE_AFTER, STUCK_AFTER};
pub use body::HeldBody;
pub use body_timeouts::BodyTimeouts;
pub use budget::{Budget, Reservation};
pub use cached::MOST_CACHED;
pub use code::Code;
pub use dispatch::{Attempt, Dispatch, EstimatedTokens, HeaderChanges, MAX_ATTEMPTS, Plan, Why};
pub use explain::{Considered, Explanation};
pub use handler::{Observer, OtherPaths, RequestHandler, Settled, caller};
pub use head::{DESTINATION, Head, MAX_HEAD};
pub use life::{Asked, Outcome, RequestReport};
pub use owners::{OwnerFinder, Owners, Search};
pub use policy::{MediaRefusal, RefusalCause};
pub use queue::{QueueLimits, Timer};
pub use refusals::{Contradiction, MAX_REFUSAL, REFUSAL_LASTS, Refusal};
pub use rejection::{Dialect, NoRoom, Rejection};
pub use reply::{DROPPED_REASON, Reply};
pub use snapshot::{Director, KnownEndpoint};
pub use steering::STEERING_HEADERS;
pub use trace::{AttemptTrace, Decision, Left, RequestTrace, TRACEPARENT, TRACESTATE, Trace, TraceParent, Tracer};
pub use transaction::{Bound, OwnerQuestion, Step, Transaction};
pub use usage::Usage;
pub use waiting::Waiting;
