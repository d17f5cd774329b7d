//! Flags of the reference endpoint picker (`lwepp` of the Gateway API Inference Extension 1.6) and of llm-d's, so that a chart that starts
//! one of those can start this one.
//!
//! Each is one of three: it does here what it does there; or it has no effect, and the log says so; or, where it is about security and
//! cannot be obeyed, it is refused in words.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::builder::{ArgAction, BoolishValueParser};
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use daemon::{LogArgs, LogFormat};

/// Flags that do here what they do there. `--pool-name` and `--pool-namespace` are other names of `--pool` and `--namespace`.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Flags of other endpoint pickers")]
pub struct ReferenceFlags {
    /// The port of --ext-proc-listen.
    #[arg(long)]
    grpc_port: Option<u16>,

    /// The port of --health-listen.
    #[arg(long)]
    grpc_health_port: Option<u16>,

    /// The port of --admin-listen.
    #[arg(long)]
    metrics_port: Option<u16>,

    /// Speak only TLS (true) or only plain text (false) to gateways. Both when absent.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub(crate) secure_serving: Option<bool>,

    /// A folder with tls.crt and tls.key, instead of --tls-cert and --tls-key.
    #[arg(long, conflicts_with_all = ["tls_cert", "tls_key"], value_parser = path)]
    pub(crate) cert_path: Option<PathBuf>,

    /// The oldest accepted TLS version: VersionTLS12 or VersionTLS13. Older ones are never accepted.
    #[arg(long)]
    tls_min_version: Option<String>,

    /// --scrape-interval by another name.
    #[arg(long, value_parser = humantime::parse_duration)]
    pub(crate) refresh_metrics_interval: Option<Duration>,

    /// Choose among all endpoints, whichever the gateway allows.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    disable_endpoint_subset_filter: Option<bool>,

    /// Lets clients of conformance suites choose endpoints by the header `test-epp-endpoint-selection`.
    #[arg(long)]
    pub(crate) test_endpoint_selection: bool,

    /// Show metrics under the names that llm-d's had before September 2026 as well: inference_objective_*, inference_pool_*,
    /// inference_extension_*.
    #[arg(long)]
    pub(crate) legacy_metrics: bool,

    /// The kubeconfig of a picker that runs without a controller. Defaults to the pod's service account.
    #[arg(long, value_parser = path)]
    pub kubeconfig: Option<PathBuf>,

    /// The labels of model servers, as name=value,name=value: a pool without an InferencePool, for a picker that runs without a controller.
    #[arg(long, requires = "endpoint_target_ports", conflicts_with = "pool")]
    pub endpoint_selector: Option<String>,

    /// The ports of the pods that --endpoint-selector selects.
    #[arg(long, value_delimiter = ',', requires = "endpoint_selector")]
    pub endpoint_target_ports: Vec<u16>,

    #[arg(long, hide = true)]
    pool_group: Option<String>,

    #[arg(long, hide = true)]
    zap_encoder: Option<String>,

    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    tracing: Option<bool>,

    #[arg(long, hide = true)]
    zap_log_level: Option<String>,

    #[arg(long, short = 'v', hide = true, allow_negative_numbers = true)]
    v: Option<i64>,

    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    metrics_endpoint_auth: Option<bool>,

    #[arg(long, hide = true)]
    metrics_client_ca_file: Option<String>,

    #[arg(long, hide = true)]
    metrics_cert_dir: Option<String>,

    #[arg(long, hide = true)]
    tls_cipher_suites: Option<String>,

    #[command(flatten)]
    without_effect: WithoutEffect,
}

/// A path, or nothing: charts write flags that are empty where a value has none.
#[expect(clippy::unnecessary_wraps, reason = "the form of a parser")]
fn path(text: &str) -> Result<PathBuf, std::convert::Infallible> {
    Ok(text.into())
}

/// Flags that have no effect here, those that were given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct WithoutEffect(Vec<&'static str>);

/// Whether a flag stands alone or has a value.
#[derive(Clone, Copy)]
enum Form {
    Switch,
    Value,
}

/// What they would set there either is so here in any case, or is not there to be set.
const WITHOUT_EFFECT: [(&str, Form); 25] = {
    use Form::{Switch, Value};
    [
        ("health-checking", Switch),
        ("zap-devel", Switch),
        ("zap-stacktrace-level", Value),
        ("zap-time-encoding", Value),
        ("ha-enable-leader-election", Switch),
        ("grpc-max-recv-msg-size", Value),
        ("grpc-max-send-msg-size", Value),
        ("enable-grpc-stream-metrics", Switch),
        ("emit-endpoint-scores", Switch),
        ("refresh-prometheus-metrics-interval", Value),
        ("metrics-staleness-threshold", Value),
        ("model-server-metrics-port", Value),
        ("model-server-metrics-scheme", Value),
        ("model-server-metrics-path", Value),
        ("model-server-metrics-https-insecure-skip-verify", Switch),
        ("enable-multi-engine", Switch),
        ("engine-label-key", Value),
        ("total-queued-requests-metric", Value),
        ("total-running-requests-metric", Value),
        ("kv-cache-usage-percentage-metric", Value),
        ("lora-info-metric", Value),
        ("cache-info-metric", Value),
        ("enable-pprof", Switch),
        ("enable-cert-reload", Switch),
        ("allow-experimental-plugins", Switch),
    ]
};

impl ReferenceFlags {
    /// The addresses for ext_proc, health and admin, with the ports that were given.
    pub(crate) fn ports(&self, [ext_proc, health, admin]: [SocketAddr; 3]) -> [SocketAddr; 3] {
        let with = |mut address: SocketAddr, port: Option<u16>| {
            address.set_port(port.unwrap_or(address.port()));
            address
        };
        [with(ext_proc, self.grpc_port), with(health, self.grpc_health_port), with(admin, self.metrics_port)]
    }

    /// Those that were given and mean nothing here.
    pub(crate) fn without_effect(&self) -> &[&'static str] {
        &self.without_effect.0
    }

    /// Fails on what asks for more security than there is, and on another kind of pool.
    pub(crate) fn check(&self) -> Result<()> {
        let is_set = |value: &Option<String>| value.as_deref().is_some_and(|value| !value.is_empty());
        if self.metrics_endpoint_auth == Some(true)
            || is_set(&self.metrics_client_ca_file)
            || is_set(&self.metrics_cert_dir)
        {
            bail!(
                "--metrics-endpoint-auth, --metrics-client-ca-file and --metrics-cert-dir: the admin port does not authenticate anyone; set \
                 --metrics-endpoint-auth=false, and restrict access with a NetworkPolicy"
            );
        }
        if is_set(&self.tls_cipher_suites) {
            bail!(
                "--tls-cipher-suites: cipher suites cannot be chosen; rustls's defaults for TLS 1.2 and 1.3 are used"
            );
        }
        if let Some(group) = self.pool_group.as_deref().filter(|group| *group != "inference.networking.k8s.io") {
            bail!("--pool-group {group}: only pools of inference.networking.k8s.io are supported");
        }
        self.tls_1_3_alone().map(drop)
    }

    /// Whether TLS 1.2 is not to be spoken.
    pub(crate) fn tls_1_3_alone(&self) -> Result<bool> {
        match self.tls_min_version.as_deref() {
            None | Some("" | "VersionTLS10" | "VersionTLS11" | "VersionTLS12") => Ok(false),
            Some("VersionTLS13") => Ok(true),
            Some(other) => bail!("--tls-min-version {other:?}: expected VersionTLS12 or VersionTLS13"),
        }
    }

    /// Whether the chart says itself that anybody may read metrics: other pickers ask for a token unless told otherwise.
    pub fn leaves_metrics_open(&self) -> bool {
        self.metrics_endpoint_auth == Some(false)
    }

    /// Whether spans may go to a collector, where the environment names one.
    pub(crate) fn allows_traces(&self) -> bool {
        self.tracing != Some(false)
    }

    pub(crate) fn ignores_subset(&self) -> bool {
        self.disable_endpoint_subset_filter == Some(true)
    }

    /// What their flags for logging ask for, where ours were left at their defaults.
    pub(crate) fn log(&self, ours: &LogArgs) -> LogArgs {
        let mut log = ours.clone();
        let verbosity = self
            .v
            .unwrap_or(0_i64)
            .max(self.zap_log_level.as_deref().and_then(|level| level.parse().ok()).unwrap_or(0));
        if log.log == "info" {
            match self.zap_log_level.as_deref() {
                Some("debug") => "debug".clone_into(&mut log.log),
                Some(level @ ("error" | "panic")) => level.replace("panic", "error").clone_into(&mut log.log),
                // Their debug begins with 4, and -v 2 is their default.
                _ if verbosity >= 4 => "debug".clone_into(&mut log.log),
                _ => {}
            }
        }
        if self.zap_encoder.as_deref() == Some("json") {
            log.log_format = LogFormat::Json;
        }
        log
    }
}

// === impl WithoutEffect ===

impl Args for WithoutEffect {
    fn augment_args(command: Command) -> Command {
        command.args(WITHOUT_EFFECT.map(|(name, form)| {
            let flag = Arg::new(name).long(name).hide(true);
            match form {
                Form::Switch => flag.num_args(0..=1).require_equals(true).default_missing_value("true"),
                Form::Value => flag.num_args(1).action(ArgAction::Append),
            }
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for WithoutEffect {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let names = WITHOUT_EFFECT.into_iter().map(|(name, _)| name);
        Ok(Self(names.filter(|name| matches.contains_id(name)).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
