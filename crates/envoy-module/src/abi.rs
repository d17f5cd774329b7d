//! What of Envoy's interface for dynamic modules is needed (envoy 1.38 to 1.40, `source/extensions/dynamic_modules/abi/abi.h`), written by
//! hand, and the safe side of it.
//!
//! Every callback takes the pointer that Envoy gave to the hook at hand, which is good for as long as the hook runs and on its thread
//! alone: [`Stream`] and [`ConfigContext`] cannot be made elsewhere, and are neither `Send` nor `Sync`.

use std::ffi::c_void;
use std::marker::PhantomData;

/// Bytes that somebody else owns: Envoy's for what it gives, ours for what it is given.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Buffer {
    data: *const u8,
    length: usize,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Header {
    name: Buffer,
    value: Buffer,
}

/// `envoy_dynamic_module_type_http_header_type`.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
enum Headers {
    OfRequest = 0,
    OfResponse = 2,
}

/// `envoy_dynamic_module_type_http_body_type`: what the hook at hand brings, or what was kept of those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Body {
    ReceivedOfRequest = 0,
    KeptOfRequest = 1,
    ReceivedOfResponse = 2,
}

/// `envoy_dynamic_module_type_log_level`, the level of errors.
const ERROR: u32 = 4;

type Pointer = *mut c_void;

unsafe extern "C" {
    fn envoy_dynamic_module_callback_log(level: u32, message: Buffer);
    fn envoy_dynamic_module_callback_is_validation_mode() -> bool;
    fn envoy_dynamic_module_callback_http_get_headers_size(stream: Pointer, of: u32) -> usize;
    fn envoy_dynamic_module_callback_http_get_headers(stream: Pointer, of: u32, into: *mut Header) -> bool;
    fn envoy_dynamic_module_callback_http_set_header(stream: Pointer, of: u32, name: Buffer, value: Buffer) -> bool;
    fn envoy_dynamic_module_callback_http_send_response(
        stream: Pointer,
        status: u32,
        headers: *mut Header,
        count: usize,
        body: Buffer,
        details: Buffer,
    );
    fn envoy_dynamic_module_callback_http_received_buffered_request_body(stream: Pointer) -> bool;
    fn envoy_dynamic_module_callback_http_get_body_size(stream: Pointer, of: u32) -> usize;
    fn envoy_dynamic_module_callback_http_get_body_chunks_size(stream: Pointer, of: u32) -> usize;
    fn envoy_dynamic_module_callback_http_get_body_chunks(stream: Pointer, of: u32, into: *mut Buffer) -> bool;
    fn envoy_dynamic_module_callback_http_append_body(stream: Pointer, to: u32, data: Buffer) -> bool;
    fn envoy_dynamic_module_callback_http_drain_body(stream: Pointer, from: u32, count: usize) -> bool;
    fn envoy_dynamic_module_callback_http_set_buffer_limit(stream: Pointer, limit: u64);
    fn envoy_dynamic_module_callback_http_set_dynamic_metadata_string(
        stream: Pointer,
        namespace: Buffer,
        key: Buffer,
        value: Buffer,
    );
    fn envoy_dynamic_module_callback_http_clear_route_cache(stream: Pointer);
    fn envoy_dynamic_module_callback_http_filter_continue_decoding(stream: Pointer);
    fn envoy_dynamic_module_callback_http_filter_scheduler_new(stream: Pointer) -> Pointer;
    fn envoy_dynamic_module_callback_http_filter_scheduler_commit(scheduler: Pointer, event: u64);
    fn envoy_dynamic_module_callback_http_filter_scheduler_delete(scheduler: Pointer);
}

/// A request, for as long as one hook runs.
#[derive(Debug)]
pub(crate) struct Stream<'h> {
    pointer: Pointer,
    hook: PhantomData<&'h mut c_void>,
}

/// Why a request is woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Event {
    /// It may take too long.
    Tick = 1,
    /// What was asked for it is answered.
    Answer = 2,
}

/// Wakes the worker of a request from another thread: [`crate::hooks`] is called there, if the request is still there.
#[derive(Debug)]
pub(crate) struct Waker(Pointer);

// SAFETY: Envoy locks what the two callbacks touch; they are made for other threads (abi.h, `http_filter_scheduler_commit`).
unsafe impl Send for Waker {}

// === impl Buffer ===

impl Buffer {
    const NOTHING: Self = Self { data: std::ptr::null(), length: 0 };

    fn of(bytes: &[u8]) -> Self {
        Self { data: bytes.as_ptr(), length: bytes.len() }
    }

    /// # Safety
    ///
    /// What it points to must live, and stay as it is, for as long as the result is used.
    pub(crate) unsafe fn bytes<'b>(self) -> &'b [u8] {
        if self.data.is_null() {
            return &[];
        }
        // SAFETY: the caller vouches for it.
        unsafe { std::slice::from_raw_parts(self.data, self.length) }
    }
}

// === impl Stream ===

impl Stream<'_> {
    /// # Safety
    ///
    /// The pointer must be the one that a hook of a request was called with, and the hook must not return while this lives.
    pub(crate) unsafe fn new(pointer: Pointer) -> Self {
        Self { pointer, hook: PhantomData }
    }

    pub(crate) fn request_headers(&self) -> Vec<(&[u8], &[u8])> {
        self.headers(Headers::OfRequest)
    }

    pub(crate) fn response_headers(&self) -> Vec<(&[u8], &[u8])> {
        self.headers(Headers::OfResponse)
    }

    fn headers(&self, of: Headers) -> Vec<(&[u8], &[u8])> {
        let of = of as u32;
        // SAFETY: the pointer is the hook's.
        let count = unsafe { envoy_dynamic_module_callback_http_get_headers_size(self.pointer, of) };
        let mut headers = vec![Header { name: Buffer::NOTHING, value: Buffer::NOTHING }; count];
        // SAFETY: there is room for as many as there are.
        let found = unsafe { envoy_dynamic_module_callback_http_get_headers(self.pointer, of, headers.as_mut_ptr()) };
        if !found {
            return Vec::new();
        }
        let borrowed = headers.iter().map(|header| {
            // SAFETY: good until a header is set, and whoever sets one has the stream for itself.
            let name = unsafe { header.name.bytes() };
            // SAFETY: likewise.
            let value = unsafe { header.value.bytes() };
            (name, value)
        });
        borrowed.collect()
    }

    pub(crate) fn set_request_header(&mut self, name: &str, value: &[u8]) {
        let (name, value) = (Buffer::of(name.as_bytes()), Buffer::of(value));
        // SAFETY: the pointer is the hook's; Envoy copies both.
        unsafe { envoy_dynamic_module_callback_http_set_header(self.pointer, Headers::OfRequest as u32, name, value) };
    }

    /// Each of this name.
    pub(crate) fn remove_request_header(&mut self, name: &str) {
        let (name, none) = (Buffer::of(name.as_bytes()), Buffer::NOTHING);
        // SAFETY: the pointer is the hook's; a null value removes.
        unsafe { envoy_dynamic_module_callback_http_set_header(self.pointer, Headers::OfRequest as u32, name, none) };
    }

    /// Answers the client. Nothing of the request goes on then.
    pub(crate) fn respond(&mut self, status: u16, headers: &[(&str, &str)], body: &[u8], details: &str) {
        let of = |text: &str| Buffer::of(text.as_bytes());
        let mut headers: Vec<Header> =
            headers.iter().map(|(name, value)| Header { name: of(name), value: of(value) }).collect();
        // SAFETY: the pointer is the hook's; Envoy copies what it is given.
        unsafe {
            envoy_dynamic_module_callback_http_send_response(
                self.pointer,
                status.into(),
                headers.as_mut_ptr(),
                headers.len(),
                Buffer::of(body),
                of(details),
            );
        }
    }

    /// Whether what the hook brings of the request's body is what was kept of it: a filter before this one waited for all of it.
    pub(crate) fn brings_what_was_kept(&self) -> bool {
        // SAFETY: the pointer is the hook's.
        unsafe { envoy_dynamic_module_callback_http_received_buffered_request_body(self.pointer) }
    }

    /// How many bytes there are of a body.
    pub(crate) fn body_size(&self, of: Body) -> usize {
        // SAFETY: the pointer is the hook's.
        unsafe { envoy_dynamic_module_callback_http_get_body_size(self.pointer, of as u32) }
    }

    /// A body in the pieces that Envoy holds it in.
    pub(crate) fn body(&self, of: Body) -> Vec<&[u8]> {
        // SAFETY: the pointer is the hook's.
        let count = unsafe { envoy_dynamic_module_callback_http_get_body_chunks_size(self.pointer, of as u32) };
        let mut pieces = vec![Buffer::NOTHING; count];
        // SAFETY: there is room for as many as there are.
        let found =
            unsafe { envoy_dynamic_module_callback_http_get_body_chunks(self.pointer, of as u32, pieces.as_mut_ptr()) };
        if !found {
            return Vec::new();
        }
        // SAFETY: good until the body is changed, and whoever changes it has the stream for itself.
        pieces.into_iter().map(|piece| unsafe { piece.bytes() }).collect()
    }

    /// Something else in the place of a body.
    pub(crate) fn replace_body(&mut self, of: Body, with: &[&[u8]]) {
        let size = self.body_size(of);
        // SAFETY: the pointer is the hook's.
        unsafe { envoy_dynamic_module_callback_http_drain_body(self.pointer, of as u32, size) };
        for piece in with {
            // SAFETY: likewise; Envoy copies the piece.
            unsafe { envoy_dynamic_module_callback_http_append_body(self.pointer, of as u32, Buffer::of(piece)) };
        }
    }

    /// How many bytes of the body may be kept.
    pub(crate) fn set_buffer_limit(&mut self, limit: u64) {
        // SAFETY: the pointer is the hook's.
        unsafe { envoy_dynamic_module_callback_http_set_buffer_limit(self.pointer, limit) };
    }

    pub(crate) fn set_metadata(&mut self, namespace: &str, key: &str, value: &str) {
        let of = |text: &str| Buffer::of(text.as_bytes());
        // SAFETY: the pointer is the hook's; Envoy copies all three.
        unsafe {
            envoy_dynamic_module_callback_http_set_dynamic_metadata_string(
                self.pointer,
                of(namespace),
                of(key),
                of(value),
            );
        }
    }

    /// Routes are chosen anew, by the headers as they are now.
    pub(crate) fn clear_route_cache(&mut self) {
        // SAFETY: the pointer is the hook's.
        unsafe { envoy_dynamic_module_callback_http_clear_route_cache(self.pointer) };
    }

    /// Goes on with a request that was stopped, from a hook that cannot say so by its result.
    pub(crate) fn go_on(&mut self) {
        // SAFETY: the pointer is the hook's.
        unsafe { envoy_dynamic_module_callback_http_filter_continue_decoding(self.pointer) };
    }

    pub(crate) fn waker(&mut self) -> Waker {
        // SAFETY: the pointer is the hook's, and this its worker.
        Waker(unsafe { envoy_dynamic_module_callback_http_filter_scheduler_new(self.pointer) })
    }
}

// === impl Event ===

impl Event {
    pub(crate) fn of(number: u64) -> Option<Self> {
        [Self::Tick, Self::Answer].into_iter().find(|event| *event as u64 == number)
    }
}

// === impl Waker ===

impl Waker {
    pub(crate) fn wake(&self, why: Event) {
        // SAFETY: it is deleted when this is dropped, after the call. Of a request that is gone nobody is woken.
        unsafe { envoy_dynamic_module_callback_http_filter_scheduler_commit(self.0, why as u64) };
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        // SAFETY: nobody else has the pointer.
        unsafe { envoy_dynamic_module_callback_http_filter_scheduler_delete(self.0) };
    }
}

/// Writes an error to Envoy's log.
pub(crate) fn log_error(message: &str) {
    // SAFETY: Envoy copies the message.
    unsafe { envoy_dynamic_module_callback_log(ERROR, Buffer::of(message.as_bytes())) };
}

/// Whether Envoy only looks whether a configuration is sound, and ends.
pub(crate) fn only_validates() -> bool {
    // SAFETY: it takes nothing.
    unsafe { envoy_dynamic_module_callback_is_validation_mode() }
}
