//! Tables and deltas as protobuf, there and back. An update is decoded whole or not at all.

use std::sync::Arc;
use std::time::Duration;

use routing::{
    AppProtocol, Capability, Criticality, Endpoint, Format, Found, FoundModel, HostPattern, Known, Limits, MediaPolicy,
    MediaRule, MediaSource, Modality, ModalitySet, Model, ModelName, Operation, OperationSet, PoolName, PoolPolicy,
    Rewrite, RoutingTable, Target, UnsafeFeature,
};

use crate::{Delta, EndpointKey, PoolHead, proto};

/// The newest schema that this build understands. Raise it when a field is added that narrows what is allowed, and not where a model server would refuse
/// the rest itself (what was found, limits); say in [`schema_of_model`] or
/// [`schema_of_endpoint`] what needs it: readers that would miss it are not sent what has it.
pub const SCHEMA: u32 = 2;

/// What every reader understands.
const OLDEST: u32 = 1;

/// Largest message either end takes. Ten thousand endpoints are about 1 MB, and what was found of each adds some 200 bytes a model.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// A resource that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    #[error("the update needs schema {needs}, and this picker supports up to {SCHEMA}; upgrade the picker")]
    Schema { needs: u32 },
    #[error("endpoint {name:?} of pool {pool:?}: {address:?} is not an ip:port")]
    Address { pool: String, name: String, address: String },
    #[error("{kind} without a name")]
    Nameless { kind: &'static str },
    #[error("model {model:?} has no target")]
    NoTarget { model: String },
    #[error("{kind} {name:?}: unknown {field} {value}")]
    UnknownValue { kind: &'static str, name: String, field: &'static str, value: i32 },
}

// === What needs which schema ===

fn schema_of(delta: &Delta) -> u32 {
    let models = delta.models.values().map(|model| schema_of_model(model));
    models.chain(delta.endpoints.values().map(schema_of_endpoint)).max().unwrap_or(OLDEST)
}

/// 2 brought operations, and limits on what media is rather than how much.
fn schema_of_model(model: &Model) -> u32 {
    let rules = model.media.rules.values().any(|rule| {
        let MediaRule { max_pixels, min_side, max_seconds, formats, https_only, .. } = rule;
        max_pixels.is_some() || min_side.is_some() || max_seconds.is_some() || !formats.is_empty() || *https_only
    });
    let operations = model.targets.iter().any(|target| target.capability.declares_operations());
    if rules || operations { 2 } else { OLDEST }
}

fn schema_of_endpoint(endpoint: &Endpoint) -> u32 {
    if endpoint.capability.is_some_and(Capability::declares_operations) { 2 } else { OLDEST }
}

/// A table without what needs a newer schema, and the names of what was left out.
pub(crate) fn understood(table: Arc<RoutingTable>, schema: u32) -> (Arc<RoutingTable>, Vec<String>) {
    if schema >= SCHEMA {
        return (table, Vec::new());
    }
    let mut less = RoutingTable::clone(&table);
    let mut left_out = Vec::new();
    less.models.retain(|name, model| {
        let stays = schema_of_model(model) <= schema;
        if !stays {
            left_out.push(format!("model {name:?}"));
        }
        stays
    });
    for (pool_name, pool) in &mut less.pools {
        if pool.endpoints.values().any(|endpoint| schema_of_endpoint(endpoint) > schema) {
            Arc::make_mut(pool).endpoints.retain(|name, endpoint| {
                let stays = schema_of_endpoint(endpoint) <= schema;
                if !stays {
                    left_out.push(format!("endpoint {name:?} of pool {pool_name:?}"));
                }
                stays
            });
        }
    }
    if left_out.is_empty() { (table, left_out) } else { (Arc::new(less), left_out) }
}

// === Domain to wire ===

pub(crate) fn encode(revision: u64, snapshot: bool, delta: &Delta) -> proto::Update {
    proto::Update {
        revision,
        snapshot,
        schema: schema_of(delta),
        pools: delta.pools.iter().map(|(name, head)| encode_pool(name, head)).collect(),
        endpoints: delta.endpoints.iter().map(|(key, endpoint)| encode_endpoint(key, endpoint)).collect(),
        models: delta.models.iter().map(|(name, model)| encode_model(name, model)).collect(),
        removed_pools: delta.removed_pools.iter().map(ToString::to_string).collect(),
        removed_endpoints: delta.removed_endpoints.iter().map(encode_key).collect(),
        removed_models: delta.removed_models.iter().map(ToString::to_string).collect(),
        elsewhere: delta.elsewhere.iter().map(|(model, pools)| encode_elsewhere(model, pools)).collect(),
        removed_elsewhere: delta.removed_elsewhere.iter().map(ToString::to_string).collect(),
        hash_key: delta.hash_key,
        // Said by the session that sends it.
        hears_contradictions: false,
    }
}

fn encode_pool(name: &PoolName, head: &PoolHead) -> proto::Pool {
    let app_protocol = match head.app_protocol {
        AppProtocol::Http => proto::AppProtocol::Http,
        AppProtocol::H2c => proto::AppProtocol::H2c,
    };
    let rewrite = |rewrite: &Rewrite| proto::Rewrite { name: rewrite.name.to_string(), weight: rewrite.weight };
    let rule = |(model, to): (&str, &[Rewrite])| proto::RewriteRule {
        model: model.to_owned(),
        to: to.iter().map(rewrite).collect(),
    };
    let any = Some(("", &*head.policy.rewrite_any)).filter(|(_, to)| !to.is_empty());
    let rules = head.policy.rewrites.iter().map(|(model, to)| (&**model, &**to)).chain(any);
    let priorities = head.policy.priorities.iter();
    proto::Pool {
        name: name.to_string(),
        app_protocol: app_protocol.into(),
        priorities: priorities
            .map(|(objective, priority)| proto::Priority { objective: objective.to_string(), priority: *priority })
            .collect(),
        rewrites: rules.map(rule).collect(),
    }
}

fn encode_elsewhere(model: &ModelName, pools: &[PoolName]) -> proto::Elsewhere {
    proto::Elsewhere { model: model.to_string(), pools: pools.iter().map(ToString::to_string).collect() }
}

fn encode_key(key: &EndpointKey) -> proto::EndpointKey {
    proto::EndpointKey { pool: key.pool.to_string(), name: key.name.to_string() }
}

fn encode_endpoint(key: &EndpointKey, endpoint: &Endpoint) -> proto::Endpoint {
    proto::Endpoint {
        key: Some(encode_key(key)),
        address: endpoint.address.to_string(),
        uid: endpoint.uid.to_string(),
        capability: endpoint.capability.map(encode_capability),
        found: endpoint.found.as_deref().map(encode_found),
    }
}

fn encode_found(found: &Found) -> proto::Found {
    let operations = |all: OperationSet| proto::Operations {
        all: all.iter().map(|operation| encode_operation(operation).into()).collect(),
    };
    let model = |(name, model): (&ModelName, &FoundModel)| proto::FoundModel {
        name: name.to_string(),
        parent: model.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        input: Some(encode_known(model.input)),
        output: Some(encode_known(model.output)),
        operations: model.operations.map(operations),
        limits: encode_limits(model.limits),
    };
    proto::Found {
        engine: found.engine.clone().unwrap_or_default(),
        version: found.version.clone().unwrap_or_default(),
        models: found.models.iter().map(model).collect(),
        any_name: found.any_name,
    }
}

fn encode_known(known: Known) -> proto::Known {
    proto::Known { yes: encode_modalities(known.yes()), no: encode_modalities(known.no()) }
}

fn encode_modalities(set: ModalitySet) -> Vec<i32> {
    set.iter().map(|modality| encode_modality(modality).into()).collect()
}

/// None where nothing is limited.
fn encode_limits(limits: Limits) -> Option<proto::Limits> {
    let most =
        |modality| Some(proto::Items { modality: encode_modality(modality).into(), most: limits.items(modality)? });
    let items = Modality::ALL.into_iter().filter_map(most).collect();
    (limits != Limits::NONE).then(|| proto::Limits { context_tokens: limits.context(), items })
}

fn encode_model(name: &ModelName, model: &Model) -> proto::Model {
    let criticality = match model.criticality {
        Criticality::Standard => proto::Criticality::Standard,
        Criticality::Critical => proto::Criticality::Critical,
        Criticality::Sheddable => proto::Criticality::Sheddable,
    };
    let target = |target: &Target| proto::Target {
        name: target.name.to_string(),
        pool: target.pool.to_string(),
        capability: Some(encode_capability(target.capability)),
        weight: target.weight,
        family: target.family.map(|family| family.as_str().to_owned()).unwrap_or_default(),
        limits: encode_limits(target.limits),
    };
    proto::Model {
        name: name.to_string(),
        criticality: criticality.into(),
        targets: model.targets.iter().map(target).collect(),
        media: model.media.rules.iter().map(|(modality, rule)| encode_rule(*modality, rule)).collect(),
        allowed_unsafe_features: model.media.allowed.iter().map(|feature| feature.as_str().to_owned()).collect(),
        write_uuids: model.media.writes_uuids,
        created: model.created,
        first_byte_timeout_seconds: model.first_byte_timeout.map_or(0, |limit| {
            // A limit of nothing is none, and one below a second is one of a second.
            u32::try_from(limit.as_secs().max(1)).unwrap_or(u32::MAX)
        }),
    }
}

fn encode_capability(capability: Capability) -> proto::Capability {
    let limited = capability.operations != OperationSet::ALL;
    let named = capability.operations.iter().filter(|_| limited);
    proto::Capability {
        input: encode_modalities(capability.input),
        output: encode_modalities(capability.output),
        limited,
        operations: named.map(|operation| encode_operation(operation).into()).collect(),
    }
}

/// Each operation with its word on the wire.
const OPERATIONS: [(Operation, proto::Operation); Operation::ALL.len()] = [
    (Operation::ChatCompletions, proto::Operation::ChatCompletions),
    (Operation::Completions, proto::Operation::Completions),
    (Operation::Responses, proto::Operation::Responses),
    (Operation::Messages, proto::Operation::Messages),
    (Operation::Embeddings, proto::Operation::Embeddings),
    (Operation::Pooling, proto::Operation::Pooling),
    (Operation::Classify, proto::Operation::Classify),
    (Operation::Score, proto::Operation::Score),
    (Operation::Rerank, proto::Operation::Rerank),
    (Operation::Transcriptions, proto::Operation::Transcriptions),
    (Operation::Translations, proto::Operation::Translations),
    (Operation::Speech, proto::Operation::Speech),
    (Operation::ImageGenerations, proto::Operation::ImageGenerations),
    (Operation::ImageEdits, proto::Operation::ImageEdits),
    (Operation::Videos, proto::Operation::Videos),
    (Operation::Realtime, proto::Operation::Realtime),
    (Operation::Tokenize, proto::Operation::Tokenize),
    (Operation::Generate, proto::Operation::Generate),
    (Operation::Other, proto::Operation::Other),
];

fn encode_operation(operation: Operation) -> proto::Operation {
    let found = OPERATIONS.iter().find(|(one, _)| *one == operation);
    found.map_or(proto::Operation::Unknown, |(_, wire)| *wire)
}

fn decode_operation(operation: i32) -> Option<Operation> {
    OPERATIONS.iter().find(|(_, wire)| i32::from(*wire) == operation).map(|(operation, _)| *operation)
}

fn encode_modality(modality: Modality) -> proto::Modality {
    match modality {
        Modality::Text => proto::Modality::Text,
        Modality::Image => proto::Modality::Image,
        Modality::Audio => proto::Modality::Audio,
        Modality::Video => proto::Modality::Video,
        Modality::Embedding => proto::Modality::Embedding,
    }
}

fn encode_rule(modality: Modality, rule: &MediaRule) -> proto::MediaRule {
    let only = |source| rule.sources.contains(&source) && !rule.sources.contains(&other(source));
    proto::MediaRule {
        modality: encode_modality(modality).into(),
        max_items: rule.max_items,
        max_item_bytes: rule.max_item_bytes,
        inline_only: only(MediaSource::Inline),
        url_only: only(MediaSource::Url),
        allowed_hosts: rule.allowed_hosts.iter().map(|host| host.as_str().to_owned()).collect(),
        immutable_hosts: rule.immutable_hosts.iter().map(|host| host.as_str().to_owned()).collect(),
        max_pixels: rule.max_pixels,
        min_side: rule.min_side,
        max_seconds: rule.max_seconds,
        formats: rule.formats.iter().map(|format| format.as_str().to_owned()).collect(),
        https_only: rule.https_only,
    }
}

fn other(source: MediaSource) -> MediaSource {
    match source {
        MediaSource::Inline => MediaSource::Url,
        MediaSource::Url => MediaSource::Inline,
    }
}

// === Wire to domain ===

/// Reads all of an update, or says of each resource that cannot be read why.
pub(crate) fn decode(update: proto::Update) -> Result<Delta, Vec<Undecodable>> {
    if update.schema > SCHEMA {
        return Err(vec![Undecodable::Schema { needs: update.schema }]);
    }
    let mut bad = Vec::new();
    let delta = Delta {
        pools: collect(update.pools, decode_pool, &mut bad),
        endpoints: collect(update.endpoints, decode_endpoint, &mut bad),
        models: collect(update.models, decode_model, &mut bad),
        removed_pools: update.removed_pools.into_iter().map(Into::into).collect(),
        removed_endpoints: update.removed_endpoints.into_iter().map(decode_key).collect(),
        removed_models: update.removed_models.into_iter().map(Into::into).collect(),
        elsewhere: collect(update.elsewhere, decode_elsewhere, &mut bad),
        removed_elsewhere: update.removed_elsewhere.into_iter().map(Into::into).collect(),
        hash_key: update.hash_key,
    };
    if bad.is_empty() { Ok(delta) } else { Err(bad) }
}

fn collect<P, R, C: FromIterator<R>>(
    all: Vec<P>,
    decode: fn(P) -> Result<R, Undecodable>,
    bad: &mut Vec<Undecodable>,
) -> C {
    all.into_iter().filter_map(|one| decode(one).map_err(|error| bad.push(error)).ok()).collect()
}

fn decode_pool(pool: proto::Pool) -> Result<(PoolName, PoolHead), Undecodable> {
    let app_protocol = match proto::AppProtocol::try_from(pool.app_protocol) {
        Ok(proto::AppProtocol::Http) => AppProtocol::Http,
        Ok(proto::AppProtocol::H2c) => AppProtocol::H2c,
        Err(_) => {
            let value = pool.app_protocol;
            return Err(Undecodable::UnknownValue { kind: "pool", name: pool.name, field: "app protocol", value });
        }
    };
    let mut policy = PoolPolicy {
        priorities: pool.priorities.into_iter().map(|one| (one.objective.into(), one.priority)).collect(),
        ..PoolPolicy::default()
    };
    for rule in pool.rewrites {
        let rewrite = |to: proto::Rewrite| Rewrite { name: to.name.into(), weight: to.weight.max(1) };
        let to: Vec<Rewrite> = rule.to.into_iter().map(rewrite).collect();
        if rule.model.is_empty() {
            policy.rewrite_any = to;
        } else {
            policy.rewrites.insert(rule.model.into(), to);
        }
    }
    Ok((named(&pool.name, "pool")?, PoolHead { app_protocol, policy }))
}

fn decode_elsewhere(elsewhere: proto::Elsewhere) -> Result<(ModelName, Vec<PoolName>), Undecodable> {
    Ok((named(&elsewhere.model, "model")?, elsewhere.pools.into_iter().map(Into::into).collect()))
}

fn decode_key(key: proto::EndpointKey) -> EndpointKey {
    EndpointKey { pool: key.pool.into(), name: key.name.into() }
}

fn decode_endpoint(endpoint: proto::Endpoint) -> Result<(EndpointKey, Endpoint), Undecodable> {
    let key = endpoint.key.unwrap_or_default();
    let Ok(address) = endpoint.address.parse() else {
        return Err(Undecodable::Address { pool: key.pool, name: key.name, address: endpoint.address });
    };
    named::<&str>(&key.name, "endpoint")?;
    let capability = endpoint.capability.as_ref().map(decode_capability);
    let found = endpoint.found.map(|found| Arc::new(decode_found(found)));
    Ok((decode_key(key), Endpoint { address, uid: endpoint.uid.as_str().into(), capability, found }))
}

fn decode_found(found: proto::Found) -> Found {
    let known = |known: Option<proto::Known>| {
        let proto::Known { yes, no } = known.unwrap_or_default();
        Known::new(decode_modalities(&yes), decode_modalities(&no))
    };
    let operations = |all: proto::Operations| all.all.iter().filter_map(|one| decode_operation(*one)).collect();
    let model = |model: proto::FoundModel| {
        let found = FoundModel {
            parent: said(model.parent).map(ModelName::from),
            input: known(model.input),
            output: known(model.output),
            operations: model.operations.map(operations),
            limits: decode_limits(model.limits.as_ref()),
        };
        (model.name.into(), found)
    };
    Found {
        engine: said(found.engine),
        version: said(found.version),
        models: found.models.into_iter().map(model).collect(),
        any_name: found.any_name,
    }
}

fn said(word: String) -> Option<String> {
    Some(word).filter(|word| !word.is_empty())
}

fn decode_limits(limits: Option<&proto::Limits>) -> Limits {
    let Some(limits) = limits else { return Limits::NONE };
    let all = limits.context_tokens.map_or(Limits::NONE, |tokens| Limits::NONE.with_context(tokens));
    limits.items.iter().fold(all, |all, items| match decode_modality(items.modality) {
        Some(modality) => all.with_items(modality, items.most),
        None => all,
    })
}

fn decode_model(model: proto::Model) -> Result<(ModelName, Arc<Model>), Undecodable> {
    let name = named(&model.name, "model")?;
    let criticality = match proto::Criticality::try_from(model.criticality) {
        Ok(proto::Criticality::Critical) => Criticality::Critical,
        Ok(proto::Criticality::Sheddable) => Criticality::Sheddable,
        // An unknown word is served like everybody.
        Ok(proto::Criticality::Standard) | Err(_) => Criticality::Standard,
    };
    let target = |target: proto::Target| Target {
        name: target.name.into(),
        pool: target.pool.into(),
        capability: decode_capability(&target.capability.unwrap_or_default()),
        weight: target.weight.max(1),
        family: target.family.parse().ok(),
        limits: decode_limits(target.limits.as_ref()),
    };
    let targets: Vec<Target> = model.targets.into_iter().map(target).collect();
    if targets.is_empty() {
        return Err(Undecodable::NoTarget { model: model.name });
    }
    let media = model.media.into_iter().map(|rule| decode_rule(&model.name, &rule)).collect::<Result<_, _>>()?;
    let known = |name: &String| UnsafeFeature::ALL.into_iter().find(|feature| feature.as_str() == name);
    let allowed = model.allowed_unsafe_features.iter().filter_map(known).collect();
    let media = MediaPolicy { rules: media, allowed, writes_uuids: model.write_uuids };
    let seconds = Some(model.first_byte_timeout_seconds).filter(|seconds| *seconds > 0);
    let first_byte_timeout = seconds.map(|seconds| Duration::from_secs(seconds.into()));
    Ok((name, Arc::new(Model { criticality, created: model.created, first_byte_timeout, targets, media })))
}

fn decode_capability(capability: &proto::Capability) -> Capability {
    let operations = if capability.limited {
        capability.operations.iter().filter_map(|operation| decode_operation(*operation)).collect()
    } else {
        OperationSet::ALL
    };
    let (input, output) = (decode_modalities(&capability.input), decode_modalities(&capability.output));
    Capability { input, output, operations }
}

/// A modality of tomorrow is skipped: nobody asks for it today.
fn decode_modalities(all: &[i32]) -> ModalitySet {
    all.iter().filter_map(|modality| decode_modality(*modality)).collect()
}

fn decode_modality(modality: i32) -> Option<Modality> {
    match proto::Modality::try_from(modality).ok()? {
        proto::Modality::Unknown => None,
        proto::Modality::Text => Some(Modality::Text),
        proto::Modality::Image => Some(Modality::Image),
        proto::Modality::Audio => Some(Modality::Audio),
        proto::Modality::Video => Some(Modality::Video),
        proto::Modality::Embedding => Some(Modality::Embedding),
    }
}

/// A rule narrows, so one that is not understood refuses the update.
fn decode_rule(model: &str, rule: &proto::MediaRule) -> Result<(Modality, MediaRule), Undecodable> {
    let unknown =
        || Undecodable::UnknownValue { kind: "model", name: model.to_owned(), field: "modality", value: rule.modality };
    let modality = decode_modality(rule.modality).ok_or_else(unknown)?;
    let sources = match (rule.inline_only, rule.url_only) {
        (true, false) => vec![MediaSource::Inline],
        (false, true) => vec![MediaSource::Url],
        _ => Vec::new(),
    };
    let allowed_hosts = rule.allowed_hosts.iter().map(|host| HostPattern::new(host)).collect();
    let formats: Vec<Format> = rule.formats.iter().filter_map(|format| format.parse().ok()).collect();
    if formats.is_empty() && !rule.formats.is_empty() {
        let value = i32::try_from(rule.formats.len()).unwrap_or(i32::MAX);
        return Err(Undecodable::UnknownValue { kind: "model", name: model.to_owned(), field: "format", value });
    }
    let rule = MediaRule {
        max_items: rule.max_items,
        max_item_bytes: rule.max_item_bytes,
        max_pixels: rule.max_pixels,
        min_side: rule.min_side,
        max_seconds: rule.max_seconds,
        formats,
        sources,
        allowed_hosts,
        immutable_hosts: rule.immutable_hosts.iter().map(|host| HostPattern::new(host)).collect(),
        https_only: rule.https_only,
    };
    Ok((modality, rule))
}

fn named<'n, N: From<&'n str>>(name: &'n str, kind: &'static str) -> Result<N, Undecodable> {
    if name.is_empty() { Err(Undecodable::Nameless { kind }) } else { Ok(name.into()) }
}
