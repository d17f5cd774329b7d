//! A chat request for serde, of one shape.

use serde::Deserialize;

/// The fields that the scanner reads, borrowed where that can be.
#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "what is read is what is timed")]
pub(crate) struct Chat<'b> {
    #[serde(borrow)]
    pub(crate) model: std::borrow::Cow<'b, str>,
    #[serde(default)]
    pub(crate) stream: bool,
    #[serde(borrow)]
    pub(crate) messages: Vec<Message<'b>>,
}

#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "what is read is what is timed")]
pub(crate) struct Message<'b> {
    #[serde(borrow)]
    pub(crate) role: std::borrow::Cow<'b, str>,
    #[serde(borrow)]
    pub(crate) content: Vec<Part<'b>>,
}

#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "what is read is what is timed")]
pub(crate) struct Part<'b> {
    #[serde(borrow, rename = "type")]
    pub(crate) kind: std::borrow::Cow<'b, str>,
    #[serde(default, borrow)]
    pub(crate) text: Option<std::borrow::Cow<'b, str>>,
    #[serde(default, borrow)]
    pub(crate) image_url: Option<Url<'b>>,
}

#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "what is read is what is timed")]
pub(crate) struct Url<'b> {
    #[serde(borrow)]
    pub(crate) url: std::borrow::Cow<'b, str>,
}
