//! Where traces go, by the variables that OpenTelemetry defines (its specification, "Environment Variable Specification" and "OpenTelemetry
//! Protocol Exporter"). Those that say how (samplers, batches, headers, timeouts, compression) are read by its own libraries.

use std::path::PathBuf;

/// What the environment says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Environment {
    /// As it is written, for people; where the variables name none, the protocol's default.
    pub(crate) endpoint: String,
    pub(crate) protocol: Protocol,
    /// Who vouches for the collector, where that is none of those that the system trusts.
    pub(crate) certificate: Option<PathBuf>,
    /// Whether it says itself what this process is called.
    pub(crate) names_the_service: bool,
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
        let resource = set("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
        Ok(Some(Self {
            endpoint: endpoint.unwrap_or_else(default),
            protocol,
            certificate: first(CERTIFICATES).map(PathBuf::from),
            names_the_service: set("OTEL_SERVICE_NAME").is_some()
                || resource.split(',').any(|pair| pair.trim().starts_with("service.name=")),
        }))
    }

    pub(crate) fn is_https(&self) -> bool {
        self.endpoint.trim().get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"))
    }
}

/// By the port, or the path, that OTLP over HTTP has.
fn is_for_http(endpoint: &str) -> bool {
    let endpoint = endpoint.trim().trim_end_matches('/');
    endpoint.ends_with(":4318") || endpoint.ends_with("/v1/traces")
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
