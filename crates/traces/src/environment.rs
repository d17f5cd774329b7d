//! Where traces go, by the variables that OpenTelemetry defines (its specification, "Environment Variable Specification" and "OpenTelemetry
//! Protocol Exporter"). Headers, compression, and what samplers and resources are made of, are read by its own libraries; what these would take
//! for something else without a word, or end the process by, is looked at here.

use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

/// What the environment says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Environment {
    /// For people: without what may stand in a URL that is nobody's to read. Where the variables name none, the protocol's default.
    pub(crate) endpoint: String,
    pub(crate) protocol: Protocol,
    /// Who vouches for the collector, where that is none of those that the system trusts.
    pub(crate) certificate: Option<PathBuf>,
    /// How long the collector may take to answer.
    pub(crate) timeout: Duration,
    pub(crate) batches: Batches,
    /// Whether it says itself what this process is called, of which version it is, and which of several.
    pub(crate) names_the_service: bool,
    pub(crate) names_the_version: bool,
    pub(crate) names_the_instance: bool,
}

/// How spans are gathered before they are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Batches {
    /// So many may wait; more are lost.
    pub(crate) queue: usize,
    /// So many go out at once.
    pub(crate) size: usize,
    /// So long they wait for others.
    pub(crate) delay: Duration,
}

/// How spans are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Grpc,
    HttpProtobuf,
}

const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
const CERTIFICATES: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"];
const TIMEOUTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
const COMPRESSIONS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"];
const SAMPLERS: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];

impl Environment {
    /// None where nobody wants traces: no collector is named, or they are switched off. `variable` gives what a variable is set to.
    pub(crate) fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, String> {
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let first = |names: [&str; 2]| names.into_iter().find_map(set);
        let is = |name: &str, value: &str| set(name).is_some_and(|said| said.trim().eq_ignore_ascii_case(value));
        let endpoint = first(ENDPOINTS);
        let is_wanted = endpoint.is_some() || is("OTEL_TRACES_EXPORTER", "otlp");
        if !is_wanted || is("OTEL_TRACES_EXPORTER", "none") || is("OTEL_SDK_DISABLED", "true") {
            return Ok(None);
        }
        if let Some(exporter) = set("OTEL_TRACES_EXPORTER").filter(|exporter| exporter.trim() != "otlp") {
            return Err(format!("OTEL_TRACES_EXPORTER={exporter} is none that there is here: set otlp, or none"));
        }
        let protocol = match first(PROTOCOLS).as_deref().map(str::trim) {
            Some("grpc") => Protocol::Grpc,
            Some("http/protobuf") => Protocol::HttpProtobuf,
            Some(other) => {
                return Err(format!(
                    "OTEL_EXPORTER_OTLP_PROTOCOL={other} is no protocol that there is here: set grpc or http/protobuf"
                ));
            }
            // The specification would have HTTP. Those who come from llm-d name a collector's port for gRPC, and no protocol.
            None if endpoint.as_deref().is_some_and(is_for_http) => Protocol::HttpProtobuf,
            None => Protocol::Grpc,
        };
        let default = || match protocol {
            Protocol::Grpc => "http://localhost:4317".to_owned(),
            Protocol::HttpProtobuf => "http://localhost:4318".to_owned(),
        };
        if let Some(compression) = first(COMPRESSIONS).filter(|said| !["gzip", "none"].contains(&said.trim())) {
            return Err(format!("OTEL_EXPORTER_OTLP_COMPRESSION={compression} is none that there is here: set gzip"));
        }
        check_sampler(set("OTEL_TRACES_SAMPLER"), set("OTEL_TRACES_SAMPLER_ARG"))?;
        let number = |names: [&'static str; 2], default: u64, from: u64, to: u64| match first(names) {
            None => Ok(default),
            Some(said) => {
                let number = said.trim().parse().ok().filter(|number| (from..=to).contains(number));
                number.ok_or_else(|| format!("{}={said}: set a number from {from} to {to}", names[1]))
            }
        };
        let size = |name, default| {
            number([name; 2], default, 1, 65_536).map(|number| usize::try_from(number).unwrap_or(usize::MAX))
        };
        let queue = size("OTEL_BSP_MAX_QUEUE_SIZE", 2048)?;
        let batches = Batches {
            queue,
            size: size("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)?.min(queue),
            delay: Duration::from_millis(number(["OTEL_BSP_SCHEDULE_DELAY"; 2], 5000, 10, 600_000)?),
        };
        let resource = set("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
        let names = |key: &str| {
            resource.split(',').filter_map(|pair| pair.split_once('=')).any(|(known, _)| known.trim() == key)
        };
        Ok(Some(Self {
            endpoint: shown(&endpoint.unwrap_or_else(default))?,
            protocol,
            certificate: first(CERTIFICATES).map(PathBuf::from),
            timeout: Duration::from_millis(number(TIMEOUTS, 10_000, 1, 600_000)?),
            batches,
            names_the_service: set("OTEL_SERVICE_NAME").is_some() || names("service.name"),
            names_the_version: names("service.version"),
            names_the_instance: names("service.instance.id"),
        }))
    }

    pub(crate) fn is_https(&self) -> bool {
        self.endpoint.starts_with("https://")
    }
}

/// By the port, or the path, that OTLP over HTTP has.
fn is_for_http(endpoint: &str) -> bool {
    let is_for_traces = |uri: &Uri| uri.path().trim_end_matches('/').ends_with("/v1/traces");
    endpoint.trim().parse().is_ok_and(|uri: Uri| uri.port_u16() == Some(4318) || is_for_traces(&uri))
}

/// A URL without the user, the password and the query that may stand in it.
fn shown(endpoint: &str) -> Result<String, String> {
    let uri = endpoint.trim().parse::<Uri>().ok();
    let uri = uri.filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")));
    // What cannot be read is not shown: it may be a secret in the wrong place.
    let uri = uri.ok_or("OTEL_EXPORTER_OTLP_ENDPOINT is no URL: set http://HOST:4317, or https://")?;
    let port = uri.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    let path = uri.path().trim_end_matches('/');
    Ok(format!("{}://{}{port}{path}", uri.scheme_str().unwrap_or_default(), uri.host().unwrap_or_default()))
}

/// Whatever else is said, OpenTelemetry's library takes for "all of them".
fn check_sampler(sampler: Option<String>, argument: Option<String>) -> Result<(), String> {
    let Some(sampler) = sampler else { return Ok(()) };
    if !SAMPLERS.contains(&&*sampler) {
        return Err(format!(
            "OTEL_TRACES_SAMPLER={sampler:?} is none that there is here: set {}",
            SAMPLERS.join(", or ")
        ));
    }
    let ratio = argument.as_deref().map(str::parse::<f64>);
    if sampler.ends_with("traceidratio") && !matches!(ratio, Some(Ok(ratio)) if (0.0..=1.0).contains(&ratio)) {
        return Err(format!(
            "OTEL_TRACES_SAMPLER={sampler} needs OTEL_TRACES_SAMPLER_ARG, a number from 0 to 1, not {:?}",
            argument.unwrap_or_default()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(set: &[(&str, &str)]) -> Result<Option<(String, Protocol)>, String> {
        let variable = |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Environment::read(variable).map(|read| read.map(|read| (read.endpoint, read.protocol)))
    }

    #[test]
    fn traces_are_off_until_a_collector_is_named_and_off_where_they_are_switched_off() {
        let named = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:4317");
        for off in [
            &[][..],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")],
            &[("OTEL_SERVICE_NAME", "p")],
            &[named, ("OTEL_SDK_DISABLED", "TRUE")],
            &[named, ("OTEL_TRACES_EXPORTER", "none")],
        ] {
            assert_eq!(read(off), Ok(None), "{off:?}");
        }
        let on = |set: &[(&str, &str)]| read(set).unwrap().unwrap();
        assert_eq!(on(&[named]), ("http://otel:4317".to_owned(), Protocol::Grpc));
        assert_eq!(on(&[("OTEL_TRACES_EXPORTER", "otlp")]), ("http://localhost:4317".to_owned(), Protocol::Grpc));
    }

    #[test]
    fn what_a_library_would_take_for_something_else_is_refused() {
        let named = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:4317");
        let sampler = ("OTEL_TRACES_SAMPLER", "traceidratio");
        for wrong in [
            &[("OTEL_TRACES_SAMPLER", "always_off ")][..],
            &[("OTEL_TRACES_SAMPLER", "nonsense")],
            &[sampler],
            &[sampler, ("OTEL_TRACES_SAMPLER_ARG", "10%")],
            &[sampler, ("OTEL_TRACES_SAMPLER_ARG", "1.5")],
            &[("OTEL_BSP_MAX_QUEUE_SIZE", "18446744073709551615")],
            &[("OTEL_BSP_MAX_QUEUE_SIZE", "0")],
            &[("OTEL_BSP_SCHEDULE_DELAY", "0")],
            &[("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd")],
            &[("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")],
        ] {
            let refused = read(&[&[named], wrong].concat()).unwrap_err();
            assert!(refused.contains(wrong.last().unwrap().0), "{wrong:?}: {refused}");
        }
        let right = [named, sampler, ("OTEL_TRACES_SAMPLER_ARG", "0.1"), ("OTEL_BSP_MAX_QUEUE_SIZE", "1")];
        assert!(read(&right).unwrap().is_some());
    }

    #[test]
    fn no_password_is_shown() {
        let shown = |endpoint| read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)]).map(|read| read.unwrap().0);
        assert_eq!(shown("https://me:secret@[::1]:4318/otlp/?key=secret"), Ok("https://[::1]:4318/otlp".to_owned()));
        for wrong in ["otel:4317", "secret", "ftp://secret@otel"] {
            let refused = shown(wrong).unwrap_err();
            assert!(refused.contains("no URL") && !refused.contains("secret"), "{refused}");
        }
    }

    #[test]
    fn the_protocol_is_what_is_said_else_what_the_port_is_for_and_the_signals_own_variables_come_first() {
        for (set, is) in [
            (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:4318")][..], Protocol::HttpProtobuf),
            (&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://otel/v1/traces/")], Protocol::HttpProtobuf),
            (
                &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:4318"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
                Protocol::Grpc,
            ),
            (
                &[
                    ("OTEL_TRACES_EXPORTER", "otlp"),
                    ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
                    ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
                ],
                Protocol::HttpProtobuf,
            ),
        ] {
            assert_eq!(read(set).unwrap().unwrap().1, is, "{set:?}");
        }
        let refused = read(&[("OTEL_TRACES_EXPORTER", "otlp"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")]);
        assert!(refused.unwrap_err().contains("set grpc or http/protobuf"));
        assert!(read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://o"), ("OTEL_TRACES_EXPORTER", "zipkin")]).is_err());
    }
}
