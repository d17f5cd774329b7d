//! What Envoy calls. Each hook comes back with what it was told to keep: a configuration, a filter.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::abi::{Buffer, Event, Stream, log_error};
use crate::filter::{BodyStatus, Filter, HeadStatus, respond_broken};
use crate::flags::unquoted;
use crate::service::Service;

type Pointer = *mut c_void;

/// What 1.40 expects. Another one gets a warning there, and 1.38 and 1.39 expect others.
const ABI: &CStr = c"v0.2.0";

/// The filter's configuration.
struct Config(Arc<Service>);

/// Runs a hook; should it panic, `otherwise` is what becomes of the request.
fn guarded<R>(hook: &str, otherwise: impl FnOnce() -> R, run: impl FnOnce() -> R) -> R {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        log_error(&format!("thalamus: panic in {hook}: {}", said(&*panic)));
        otherwise()
    })
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// The request is lost, and says so.
fn broken(stream: Pointer) {
    // SAFETY: a hook was called with the pointer, and runs.
    respond_broken(&mut unsafe { Stream::new(stream) });
}

/// Lets a filter take what a hook brings; none where Envoy calls one hook from within another, as it does while an answer of ours goes out:
/// nothing is left to do for the request then.
///
/// # Safety
///
/// `filter` must be one that [`envoy_dynamic_module_on_http_filter_new`] gave to Envoy, and `stream` what Envoy called the hook at hand with.
unsafe fn at_hand<R>(
    filter: Pointer,
    stream: Pointer,
    take: impl FnOnce(&mut Filter, &mut Stream<'_>) -> R,
) -> Option<R> {
    // SAFETY: the caller vouches for it. Nothing but shared references to it are ever made.
    let filter = unsafe { &*filter.cast::<RefCell<Filter>>() };
    // SAFETY: likewise.
    let mut stream = unsafe { Stream::new(stream) };
    filter.try_borrow_mut().ok().map(|mut filter| take(&mut filter, &mut stream))
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_program_init() -> *const c_char {
    ABI.as_ptr()
}

/// `config` holds the picker's flags. Null refuses the configuration.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_config_new(
    _context: Pointer,
    _name: Buffer,
    config: Buffer,
) -> Pointer {
    guarded("config_new", std::ptr::null_mut, || {
        // SAFETY: it lives until the hook returns.
        let flags = unquoted(unsafe { config.bytes() });
        match Service::of(&flags) {
            Ok(service) => Box::into_raw(Box::new(Config(service))).cast(),
            Err(error) => {
                log_error(&format!("thalamus: {error:#}"));
                std::ptr::null_mut()
            }
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_config_destroy(config: Pointer) {
    // SAFETY: it came from `config_new`, and Envoy is done with it.
    let config = unsafe { Box::from_raw(config.cast::<Config>()) };
    guarded("config_destroy", || (), || drop(config));
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_new(config: Pointer, _stream: Pointer) -> Pointer {
    guarded("filter_new", std::ptr::null_mut, || {
        // SAFETY: Envoy keeps a configuration for as long as its filters.
        let Config(service) = unsafe { &*config.cast::<Config>() };
        Box::into_raw(Box::new(RefCell::new(Filter::new(service)))).cast()
    })
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_destroy(filter: Pointer) {
    // SAFETY: it came from `filter_new`, and Envoy is done with it.
    let filter = unsafe { Box::from_raw(filter.cast::<RefCell<Filter>>()) };
    guarded("destroy", || (), || drop(filter));
}

/// Asks the filter what becomes of the request: `stop`, where it cannot say.
fn ask<R: Copy>(
    hook: &str,
    this: Pointer,
    stream: Pointer,
    stop: R,
    of: impl FnOnce(&mut Filter, &mut Stream<'_>) -> R,
) -> R {
    let otherwise = || {
        broken(stream);
        stop
    };
    // SAFETY: both are what the hook was called with.
    guarded(hook, otherwise, || unsafe { at_hand(this, stream, of) }.unwrap_or(stop))
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_request_headers(stream: Pointer, this: Pointer, ends: bool) -> u32 {
    let of = |filter: &mut Filter, stream: &mut Stream<'_>| filter.request_headers(stream, ends);
    ask("request_headers", this, stream, HeadStatus::Stop, of) as u32
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_request_body(stream: Pointer, this: Pointer, ends: bool) -> u32 {
    let of = |filter: &mut Filter, stream: &mut Stream<'_>| filter.request_body(stream, ends);
    ask("request_body", this, stream, BodyStatus::StopAndForget, of) as u32
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_request_trailers(stream: Pointer, this: Pointer) -> u32 {
    ask("request_trailers", this, stream, HeadStatus::Stop, Filter::request_trailers) as u32
}

/// Somebody woke the request: [`crate::abi::Waker`].
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_scheduled(stream: Pointer, this: Pointer, event: u64) {
    let Some(event) = Event::of(event) else { return };
    let goes_on = ask("scheduled", this, stream, false, |filter, stream| filter.woken(stream, event));
    if goes_on {
        // SAFETY: a hook was called with the pointer, and runs. Other hooks may be called from here: the filter is not borrowed any more.
        unsafe { Stream::new(stream) }.go_on();
    }
}

/// Tells the filter of something that nothing is answered to.
fn tell(hook: &str, this: Pointer, stream: Pointer, of: impl FnOnce(&mut Filter, &Stream<'_>)) {
    guarded(
        hook,
        || (),
        || {
            // SAFETY: both are what the hook was called with.
            unsafe { at_hand(this, stream, |filter, stream| of(filter, stream)) };
        },
    );
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_response_headers(stream: Pointer, this: Pointer, ends: bool) -> u32 {
    tell("response_headers", this, stream, |filter, stream| filter.response_headers(stream, ends));
    HeadStatus::Continue as u32
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_response_body(stream: Pointer, this: Pointer, ends: bool) -> u32 {
    tell("response_body", this, stream, |filter, stream| filter.response_body(stream, ends));
    BodyStatus::Continue as u32
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_response_trailers(stream: Pointer, this: Pointer) -> u32 {
    tell("response_trailers", this, stream, |filter, _| filter.response_ended());
    HeadStatus::Continue as u32
}

/// Envoy answers the client itself, because of what happened between it and the model server.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_local_reply(
    stream: Pointer,
    this: Pointer,
    _status: u32,
    details: Buffer,
    _reset: bool,
) -> u32 {
    tell("local_reply", this, stream, |filter, _| {
        // SAFETY: the details live until the hook returns.
        let details = unsafe { details.bytes() };
        filter.local_reply(&String::from_utf8_lossy(details));
    });
    0
}

/// The request is over, however it ended.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_stream_complete(stream: Pointer, this: Pointer) {
    tell("stream_complete", this, stream, |filter, _| filter.completed());
}

/// There is nothing to say by route.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_per_route_config_new(_name: Buffer, _config: Buffer) -> Pointer {
    log_error("thalamus: the filter takes no configuration by route");
    std::ptr::null_mut()
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_per_route_config_destroy(_config: Pointer) {}

// Envoy looks for these when it loads a filter, and calls none of them: nothing here asks for what they tell.

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_config_scheduled(_: Pointer, _: Pointer, _: u64) {}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_http_callout_done(
    _: Pointer,
    _: Pointer,
    _: u64,
    _: u32,
    _: Pointer,
    _: usize,
    _: Pointer,
    _: usize,
) {
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_headers(
    _: Pointer,
    _: Pointer,
    _: u64,
    _: Pointer,
    _: usize,
    _: bool,
) {
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_data(
    _: Pointer,
    _: Pointer,
    _: u64,
    _: Pointer,
    _: usize,
    _: bool,
) {
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_trailers(
    _: Pointer,
    _: Pointer,
    _: u64,
    _: Pointer,
    _: usize,
) {
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_complete(_: Pointer, _: Pointer, _: u64) {}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_reset(_: Pointer, _: Pointer, _: u64, _: u32) {}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark(_: Pointer, _: Pointer) {
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark(_: Pointer, _: Pointer) {}
