//! Questions and answers as protobuf, there and back. A question is read whole or not at all.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use director::{Dialect, HeaderChanges, Plan, Rejection, Reply};
use http::{HeaderName, HeaderValue, StatusCode};
use media::{Facts, Identity, MediaUrl, Scheme, UrlFault};
use request::{
    InferenceRequest, MediaItem, ModelSpan, NameEncoding, Owned, OwnedKind, PartPath, Piece, Placeholders, Prompt,
    Resource, Splice, UnsafeFeatureAt, UuidAt,
};
use routing::{Format, MediaSource, Modality, ModalitySet, Operation, Requirement, Unfit, UnsafeFeature};

use crate::proto;

/// A request that was read, and what else its decision hangs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    pub request: InferenceRequest,
    /// Path and query. Goes out only where nothing is known of the path.
    pub path: String,
    /// The pool that the gateway's route leads to.
    pub pool: Option<String>,
    /// See [`director::caller`]. Goes out only with names for media that are the client's own.
    pub caller: Option<Vec<u8>>,
    /// As it stands in the head. Goes out only where a model server may have to be asked.
    pub authorization: Option<String>,
    pub dialect: Dialect,
}

/// What the picker says.
#[derive(Debug)]
pub enum Answer {
    Dispatch(Instruction),
    /// The client is answered this; the word says why.
    Reply(Reply, String),
}

/// Where a request goes, and what changes in it.
#[derive(Debug)]
pub struct Instruction {
    pub address: SocketAddr,
    pub headers: HeaderChanges,
    pub splices: Vec<Splice>,
    /// What the answer may say that its model server made.
    pub makes: Option<OwnedKind>,
}

/// Why a message cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    #[error("unknown {field} {word:?}: the other end is newer")]
    Unknown { field: &'static str, word: String },
    #[error("no {0}")]
    Missing(&'static str),
    #[error("{0} is out of its bounds")]
    OutOfBounds(&'static str),
}

type Decoded<T> = Result<T, Undecodable>;

// === Questions ===

impl Question {
    /// As it goes out.
    pub fn encoded(self) -> Vec<u8> {
        prost::Message::encode_to_vec(&proto::Question::from(self))
    }

    /// As the picker reads it; fails where it cannot, or must not.
    pub fn decoded(bytes: &[u8]) -> Result<Self, Undecodable> {
        let question: proto::Question =
            prost::Message::decode(bytes).map_err(|_| Undecodable::OutOfBounds("the message"))?;
        question.try_into()
    }
}

impl From<Question> for proto::Question {
    fn from(question: Question) -> Self {
        let Question { request, path, pool, caller, authorization, dialect } = question;
        let names_media = request.media.iter().any(|item| matches!(item.uuid, Some(UuidAt::Given(_))));
        let is_owned = request.resource.owned_by_one().is_some() || request.follows.is_some();
        let InferenceRequest {
            resource,
            model,
            requires,
            media,
            unsafe_features,
            placeholders,
            names_output,
            stream,
            follows,
            model_span,
            bytes,
            objective,
            flow,
            is_batch,
            prompt,
        } = request;
        let words = |set: ModalitySet| set.iter().map(|modality| modality.as_str().to_owned()).collect();
        let features = unsafe_features.into_iter().map(|UnsafeFeatureAt { feature, at }| proto::UnsafeFeature {
            feature: feature.as_str().to_owned(),
            at: at.to_string(),
        });
        let placeholders =
            placeholders.iter().map(|(text, count)| proto::Placeholder { text: text.to_owned(), count: count.into() });
        Self {
            path: if resource == Resource::Unknown { path } else { String::new() },
            resource: Some(proto::Resource { resource: Some(resource_out(resource)) }),
            model,
            operation: requires.operation.as_str().to_owned(),
            input: words(requires.input),
            output: words(requires.output),
            media: media.into_iter().map(item_out).collect(),
            unsafe_features: features.collect(),
            placeholders: placeholders.collect(),
            names_output,
            stream,
            follows: follows.map(owned_out),
            model_span: model_span.map(|ModelSpan { range, encoding }| proto::ModelSpan {
                range: Some(range_out(range)),
                in_form: encoding == NameEncoding::Form,
            }),
            bytes,
            objective,
            pool,
            caller: caller.filter(|_| names_media).map(Into::into),
            authorization: authorization.filter(|_| is_owned),
            anthropic: dialect == Dialect::Anthropic,
            prompt: Some(prompt_out(prompt)),
            flow,
            is_batch,
        }
    }
}

impl TryFrom<proto::Question> for Question {
    type Error = Undecodable;

    fn try_from(question: proto::Question) -> Decoded<Self> {
        let proto::Question {
            resource,
            model,
            operation,
            input,
            output,
            media,
            unsafe_features,
            placeholders,
            names_output,
            stream,
            follows,
            model_span,
            bytes,
            objective,
            path,
            pool,
            caller,
            authorization,
            anthropic,
            prompt,
            flow,
            is_batch,
        } = question;
        let operation = known("operation", &Operation::ALL, Operation::as_str, &operation)?;
        let resource = resource.and_then(|resource| resource.resource).ok_or(Undecodable::Missing("resource"))?;
        let features = unsafe_features.into_iter().map(|proto::UnsafeFeature { feature, at }| {
            let feature = known("unsafe feature", &UnsafeFeature::ALL, UnsafeFeature::as_str, &feature)?;
            Ok(UnsafeFeatureAt { feature, at: PartPath::new(at) })
        });
        let placeholders = placeholders.into_iter().try_fold(Placeholders::default(), |all, one| {
            let count = u8::try_from(one.count).unwrap_or(u8::MAX);
            all.with(&one.text, count).ok_or_else(|| unknown("placeholder", &one.text))
        })?;
        let model_span = model_span.map(|proto::ModelSpan { range, in_form }| {
            let encoding = if in_form { NameEncoding::Form } else { NameEncoding::Json };
            Ok(ModelSpan { range: range_in(range, bytes)?, encoding })
        });
        let request = InferenceRequest {
            resource: resource_in(resource, operation)?,
            model,
            requires: Requirement::new(operation, modalities(&input)?, modalities(&output)?),
            media: media.into_iter().map(|item| item_in(item, bytes)).collect::<Decoded<_>>()?,
            unsafe_features: features.collect::<Decoded<_>>()?,
            placeholders,
            names_output,
            stream,
            follows: follows.map(owned_in).transpose()?,
            model_span: model_span.transpose()?,
            bytes,
            objective,
            flow,
            is_batch,
            prompt: Prompt::default(),
        };
        // A reader that is older says none: what is no media is text.
        let of_media = request.media.iter().map(|item| item.bytes).fold(0, u64::saturating_add);
        let as_text = || Prompt { rest: bytes.saturating_sub(of_media), ..Prompt::default() };
        let request = InferenceRequest { prompt: prompt.map_or_else(as_text, prompt_in), ..request };
        if !request.is_bounded() {
            return Err(Undecodable::OutOfBounds("a name, or the number of media"));
        }
        let dialect = if anthropic { Dialect::Anthropic } else { Dialect::OpenAi };
        Ok(Self { request, path, pool, caller: caller.map(|caller| caller.to_vec()), authorization, dialect })
    }
}

fn prompt_out(Prompt { pieces, rest, salt, session }: Prompt) -> proto::Prompt {
    use proto::piece::Piece as Out;
    let pieces = pieces.into_iter().map(|piece| match piece {
        Piece::Text { hash, bytes } => Out::Text(proto::Text { hash, bytes }),
        Piece::Media(place) => Out::Media(place),
    });
    proto::Prompt { pieces: pieces.map(|piece| proto::Piece { piece: Some(piece) }).collect(), rest, salt, session }
}

/// A piece of a kind that is not known ends what is: of what stands after it no cache can be asked.
fn prompt_in(proto::Prompt { pieces, rest, salt, session }: proto::Prompt) -> Prompt {
    use proto::piece::Piece as In;
    let known = pieces.into_iter().map_while(|piece| piece.piece);
    let pieces = known.map(|piece| match piece {
        In::Text(proto::Text { hash, bytes }) => Piece::Text { hash, bytes },
        In::Media(place) => Piece::Media(place),
    });
    Prompt { pieces: pieces.collect(), rest, salt, session }
}

fn resource_out(resource: Resource) -> proto::resource::Resource {
    use proto::resource::Resource as Out;
    match resource {
        Resource::Operation(_) => Out::Operation(true),
        Resource::Models { all } => Out::Models(all),
        Resource::Model { id, all } => Out::Model(proto::Model { id, all }),
        Resource::Owned(owned) => Out::Owned(owned_out(owned)),
        Resource::Cancel(owned) => Out::Cancel(owned_out(owned)),
        // The one is refused where it is read.
        Resource::Administrative | Resource::Unknown => Out::Unknown(true),
    }
}

fn resource_in(resource: proto::resource::Resource, operation: Operation) -> Decoded<Resource> {
    use proto::resource::Resource as In;
    Ok(match resource {
        In::Operation(_) => Resource::Operation(operation),
        In::Models(all) => Resource::Models { all },
        In::Model(proto::Model { id, all }) => Resource::Model { id, all },
        In::Owned(owned) => Resource::Owned(owned_in(owned)?),
        In::Cancel(owned) => Resource::Cancel(owned_in(owned)?),
        In::Unknown(_) => Resource::Unknown,
    })
}

fn owned_out(Owned { kind, id }: Owned) -> proto::Owned {
    proto::Owned { kind: kind.as_str().to_owned(), id }
}

fn owned_in(proto::Owned { kind, id }: proto::Owned) -> Decoded<Owned> {
    Ok(Owned { kind: kind_in(&kind)?, id })
}

fn kind_in(word: &str) -> Decoded<OwnedKind> {
    known("kind", &OwnedKind::ALL, OwnedKind::as_str, word)
}

fn item_out(item: MediaItem) -> proto::MediaItem {
    use proto::identity::Identity as Out;
    use proto::media_item::Url;
    let MediaItem { modality, source, bytes, media_type, identity, uuid, facts, broken, is_document, url, at } = item;
    let identity = identity.map(|identity| match identity {
        Identity::Content(hash) => Out::Content(Bytes::copy_from_slice(&hash)),
        Identity::Url(hash) => Out::Url(Bytes::copy_from_slice(&hash)),
        Identity::Named(hash) => Out::Named(Bytes::copy_from_slice(&hash)),
    });
    let url = url.map(|url| match url {
        Ok(MediaUrl { scheme, host, identity, unsigned, .. }) => {
            let bytes = |identity: Identity| {
                let (Identity::Content(hash) | Identity::Url(hash) | Identity::Named(hash)) = identity;
                Bytes::copy_from_slice(&hash)
            };
            let (identity, unsigned) = (bytes(identity), unsigned.map(bytes));
            Url::Sound(proto::Url { https: scheme == Scheme::Https, host, identity, unsigned })
        }
        Err(fault) => Url::Fault(fault.as_str().to_owned()),
    });
    let (uuid_at, uuid_goes_at) = match uuid {
        Some(UuidAt::Given(range)) => (Some(range_out(range)), None),
        Some(UuidAt::Missing(bracket)) => (None, Some(bracket)),
        None => (None, None),
    };
    let Facts { format, bytes: decoded_bytes, size, milliseconds, frames } = facts;
    proto::MediaItem {
        modality: modality.as_str().to_owned(),
        source: source.as_str().to_owned(),
        bytes,
        media_type,
        identity: identity.map(|identity| proto::Identity { identity: Some(identity) }),
        uuid_at,
        uuid_goes_at,
        format: format.map(|format| format.as_str().to_owned()),
        decoded_bytes,
        size: size.map(|(width, height)| proto::Size { width, height }),
        milliseconds,
        frames,
        broken,
        is_document,
        url,
        at: at.to_string(),
    }
}

fn item_in(item: proto::MediaItem, of: u64) -> Decoded<MediaItem> {
    use proto::identity::Identity as In;
    use proto::media_item::Url;
    let hash = |hash: Bytes| <[u8; 32]>::try_from(&*hash).map_err(|_| Undecodable::OutOfBounds("an identity"));
    let identity = item.identity.and_then(|identity| identity.identity).map(|identity| {
        Ok(match identity {
            In::Content(content) => Identity::Content(hash(content)?),
            In::Url(url) => Identity::Url(hash(url)?),
            In::Named(named) => Identity::Named(hash(named)?),
        })
    });
    let url = item.url.map(|url| match url {
        Url::Sound(proto::Url { https, host, identity, unsigned }) => {
            let scheme = if https { Scheme::Https } else { Scheme::Http };
            Ok(Ok(MediaUrl::of_parts(
                scheme,
                host,
                Identity::Url(hash(identity)?),
                unsigned.map(hash).transpose()?.map(Identity::Url),
            )))
        }
        Url::Fault(word) => known("URL fault", &UrlFault::ALL, UrlFault::as_str, &word).map(Err),
    });
    let uuid = match (item.uuid_at, item.uuid_goes_at) {
        (Some(range), _) => Some(UuidAt::Given(range_in(Some(range), of)?)),
        (None, Some(bracket)) if bracket < of => Some(UuidAt::Missing(bracket)),
        (None, Some(_)) => return Err(Undecodable::OutOfBounds("a place for a uuid")),
        (None, None) => None,
    };
    let format = item.format.map(|word| known("format", &Format::ALL, Format::as_str, &word));
    Ok(MediaItem {
        modality: modality(&item.modality)?,
        source: known("source", &MediaSource::ALL, MediaSource::as_str, &item.source)?,
        bytes: item.bytes,
        media_type: item.media_type,
        identity: identity.transpose()?,
        uuid,
        facts: Facts {
            format: format.transpose()?,
            bytes: item.decoded_bytes,
            size: item.size.map(|proto::Size { width, height }| (width, height)),
            milliseconds: item.milliseconds,
            frames: item.frames,
        },
        broken: item.broken,
        is_document: item.is_document,
        url: url.transpose()?,
        at: PartPath::new(item.at),
    })
}

fn range_out(Range { start, end }: Range<u64>) -> proto::Range {
    proto::Range { start, end }
}

/// A range of a body of so many bytes.
fn range_in(range: Option<proto::Range>, of: u64) -> Decoded<Range<u64>> {
    let proto::Range { start, end } = range.ok_or(Undecodable::Missing("range"))?;
    if start <= end && end <= of { Ok(start..end) } else { Err(Undecodable::OutOfBounds("a range")) }
}

fn modalities(words: &[String]) -> Decoded<ModalitySet> {
    words.iter().map(|word| modality(word)).collect()
}

fn modality(word: &str) -> Decoded<Modality> {
    known("modality", &Modality::ALL, Modality::as_str, word)
}

fn known<T: Copy>(field: &'static str, all: &[T], as_str: fn(T) -> &'static str, word: &str) -> Decoded<T> {
    all.iter().copied().find(|one| as_str(*one) == word).ok_or_else(|| unknown(field, word))
}

fn unknown(field: &'static str, word: &str) -> Undecodable {
    Undecodable::Unknown { field, word: word.chars().take(64).collect() }
}

// === Answers ===

/// The first attempt of a plan: a reader makes no other.
pub(crate) fn dispatch_out(plan: &Plan) -> proto::Dispatch {
    let first = plan.first();
    let set = plan.headers.set.iter().filter_map(|(name, value)| {
        Some(proto::Header { name: name.as_str().to_owned(), value: value.to_str().ok()?.to_owned() })
    });
    let splices = first
        .splices
        .iter()
        .map(|Splice { range, with }| proto::Splice { range: Some(range_out(range.clone())), with: with.clone() });
    proto::Dispatch {
        address: first.address.to_string(),
        set: set.collect(),
        splices: splices.collect(),
        makes: plan.makes.map(|kind| kind.as_str().to_owned()),
    }
}

pub(crate) fn reply_out(reply: &Reply, code: &str) -> proto::Reply {
    proto::Reply {
        status: reply.status.as_u16().into(),
        retry_after_seconds: reply.retry_after.map(|after| after.as_secs()),
        allow: reply.allow.clone(),
        dropped: reply.dropped.map(str::to_owned),
        body: reply.body.clone(),
        code: code.to_owned(),
    }
}

pub(crate) fn rejection_out(rejection: &Rejection, dialect: Dialect) -> proto::Reply {
    reply_out(&rejection.reply(dialect), rejection.code().as_str())
}

/// Of a request whose body has so many bytes.
pub(crate) fn dispatch_in(dispatch: proto::Dispatch, of: u64) -> Decoded<Answer> {
    let proto::Dispatch { address, set, splices, makes } = dispatch;
    let address = address.parse().map_err(|_| Undecodable::OutOfBounds("the address"))?;
    let set = set.into_iter().map(|proto::Header { name, value }| {
        let bad = || Undecodable::OutOfBounds("a header");
        let name = HeaderName::try_from(name).map_err(|_| bad())?;
        Ok((name, HeaderValue::try_from(value).map_err(|_| bad())?))
    });
    let splices =
        splices.into_iter().map(|proto::Splice { range, with }| Ok(Splice { range: range_in(range, of)?, with }));
    let splices = splices.collect::<Decoded<Vec<_>>>()?;
    if !splices.is_sorted_by(|one, next| one.range.end <= next.range.start) {
        return Err(Undecodable::OutOfBounds("the order of splices"));
    }
    let headers = HeaderChanges { set: set.collect::<Decoded<_>>()? };
    let makes = makes.map(|word| kind_in(&word)).transpose()?;
    Ok(Answer::Dispatch(Instruction { address, headers, splices, makes }))
}

pub(crate) fn reply_in(reply: proto::Reply) -> Decoded<Answer> {
    let proto::Reply { status, retry_after_seconds, allow, dropped, body, code } = reply;
    let status = u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok());
    let status = status.ok_or(Undecodable::OutOfBounds("a status"))?;
    let retry_after = retry_after_seconds.map(Duration::from_secs);
    // A word of a newer picker is not passed on.
    let dropped = dropped.and_then(|word| Reply::DROPPED.into_iter().find(|known| *known == word));
    Ok(Answer::Reply(Reply { status, retry_after, allow, dropped, body }, code))
}

pub(crate) fn unfit_out(unfit: Unfit) -> proto::Unfit {
    let unfit = match unfit {
        Unfit::TextOnly => proto::unfit::Unfit::TextOnly(true),
        Unfit::Items { modality, most } => {
            proto::unfit::Unfit::Items(proto::MostItems { modality: modality.as_str().to_owned(), most })
        }
        Unfit::Length { context } => proto::unfit::Unfit::Length(proto::Length { context }),
    };
    proto::Unfit { unfit: Some(unfit) }
}

/// None where a newer reader knows of more.
pub(crate) fn unfit_in(unfit: proto::Unfit) -> Option<Unfit> {
    Some(match unfit.unfit? {
        proto::unfit::Unfit::TextOnly(_) => Unfit::TextOnly,
        proto::unfit::Unfit::Items(proto::MostItems { modality, most }) => {
            Unfit::Items { modality: self::modality(&modality).ok()?, most }
        }
        proto::unfit::Unfit::Length(proto::Length { context }) => Unfit::Length { context },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_endpoint_does_not_take_passes_and_what_is_not_known_is_nothing() {
        let items = |modality| Unfit::Items { modality, most: 2 };
        let all = Modality::ALL.map(items).into_iter();
        let lengths = [None, Some(8)].map(|context| Unfit::Length { context });
        for unfit in all.chain(lengths).chain([Unfit::TextOnly]) {
            assert_eq!(unfit_in(unfit_out(unfit)), Some(unfit));
        }
        assert_eq!(unfit_in(proto::Unfit { unfit: None }), None);
        let items = proto::MostItems { modality: "smell".into(), most: 0 };
        assert_eq!(unfit_in(proto::Unfit { unfit: Some(proto::unfit::Unfit::Items(items)) }), None);
    }
}
