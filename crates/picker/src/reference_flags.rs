//! Flags of the reference endpoint picker and of llm-d's, so that a chart that starts one of those can start this one.

use std::net::SocketAddr;

use clap::Args;

/// Flags by the names that other endpoint pickers have for them. `--pool-name` and `--pool-namespace` are other names of `--pool` and
/// `--namespace`.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Flags of other endpoint pickers")]
pub(crate) struct ReferenceFlags {
    /// The port of --ext-proc-listen.
    #[arg(long)]
    grpc_port: Option<u16>,

    /// The port of --health-listen.
    #[arg(long)]
    grpc_health_port: Option<u16>,

    /// The port of --admin-listen.
    #[arg(long)]
    metrics_port: Option<u16>,

    /// Lets clients of conformance suites choose endpoints by the header `test-epp-endpoint-selection`.
    #[arg(long)]
    pub(crate) test_endpoint_selection: bool,

    /// Taken, and of no effect: TLS and plain text are spoken on the same port.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    secure_serving: Option<String>,

    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    health_checking: Option<String>,

    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tracing: Option<String>,

    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    metrics_endpoint_auth: Option<String>,

    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ha_enable_leader_election: Option<String>,

    #[arg(long, hide = true)]
    pool_group: Option<String>,

    #[arg(long, hide = true)]
    zap_encoder: Option<String>,

    #[arg(long, hide = true)]
    zap_log_level: Option<String>,

    #[arg(long, short = 'v', hide = true)]
    v: Option<u8>,

    #[arg(long, hide = true)]
    config_file: Option<String>,

    #[arg(long, hide = true)]
    config_text: Option<String>,
}

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
    pub(crate) fn without_effect(&self) -> Vec<&'static str> {
        let given = [
            ("--secure-serving", self.secure_serving.is_some()),
            ("--health-checking", self.health_checking.is_some()),
            ("--tracing", self.tracing.is_some()),
            ("--metrics-endpoint-auth", self.metrics_endpoint_auth.is_some()),
            ("--ha-enable-leader-election", self.ha_enable_leader_election.is_some()),
            ("--pool-group", self.pool_group.is_some()),
            ("--zap-encoder", self.zap_encoder.is_some()),
            ("--zap-log-level", self.zap_log_level.is_some()),
            ("-v", self.v.is_some()),
            ("--config-file", self.config_file.is_some()),
            ("--config-text", self.config_text.is_some()),
        ];
        given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
    }
}
