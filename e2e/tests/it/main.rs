//! The claims, each a test; a file answers one question. Run by `cargo xtask test`.
//!
//! A harness of its own, because the API server is started once and taken down in the end, whatever the tests do.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use e2e::{Cluster, Options, World};
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

mod bad_input;
mod crds;
mod edges;
mod examples;
mod failures;
mod found;
mod gateways;
mod guide;
mod kubectl;
mod llama;
mod llm_d;
mod managed;
mod manifests;
mod metrics;
mod module;
mod outages;
mod page;
mod plugin;
mod queue;
mod replicas;
mod requests;
mod rights;
mod routing;
mod siege;
mod soak;
mod surface;
mod traces;
mod trust;

/// What tests share: a cluster, and a folder for logs.
pub(crate) struct Shared {
    cluster: Arc<Cluster>,
    folder: tempfile::TempDir,
    runtime: Runtime,
    /// Whoever has the one namespace that the example's manifests name.
    serving: tokio::sync::Mutex<()>,
}

impl Shared {
    /// A world with an empty namespace.
    pub(crate) async fn world(&self) -> Result<World> {
        self.world_with(Options::default()).await
    }

    /// One with every way in.
    pub(crate) async fn world_of_all_ways(&self) -> Result<World> {
        self.world_with(Options { module: true, ..Options::default() }).await
    }

    pub(crate) async fn world_with(&self, options: Options) -> Result<World> {
        World::start(Arc::clone(&self.cluster), self.folder.path(), options).await
    }

    /// A world in the namespace that the example's manifests name, emptied, for as long as the guard is held.
    pub(crate) async fn serving_world(&self) -> Result<(World, tokio::sync::MutexGuard<'_, ()>)> {
        let guard = self.serving.lock().await;
        let everything = "pods,inferencepools,inferencemodels,deployments,services";
        self.cluster.kubectl(&["delete", everything, "--all", "--grace-period=0", "--force", "-n", "serving"])?;
        Ok((self.world_with(Options { namespace: "serving".into(), ..Options::default() }).await?, guard))
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Collects tests by their names.
struct Trials {
    shared: Arc<Shared>,
    trials: Vec<Trial>,
}

impl Trials {
    fn add<F>(&mut self, name: &str, test: F)
    where
        F: AsyncFnOnce(&Shared) -> Result<()> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        // Each test runs on a thread of the harness, so its future need not be sent anywhere.
        let run = move || shared.runtime.block_on(test(&shared)).map_err(|error| Failed::from(format!("{error:#}")));
        self.trials.push(Trial::test(name.to_owned(), run));
    }
}

/// Registers the named functions of a module.
macro_rules! claims {
    ($trials:ident, $module:ident: $($test:ident),* $(,)?) => {
        $($trials.add(concat!(stringify!($module), "::", stringify!($test)), $module::$test);)*
    };
}

fn main() -> Result<ExitCode> {
    let mut arguments = Arguments::from_args();
    // Each test has some ten processes; more at once than cores would only make all of them slow.
    arguments.test_threads = arguments.test_threads.or(Some(2));
    // Several crates in the tree could bring a provider; kube asks for the process's default.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::Builder::new().prefix("thalamus-e2e-").tempdir().context("making a folder for logs")?;
    if arguments.list {
        return Ok(ExitCode::SUCCESS);
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("a runtime")?;
    // Listened to before anything starts, so that whatever does is ended.
    let mut interrupt = {
        let _in_the_runtime = runtime.enter();
        signal(SignalKind::interrupt()).context("listening for SIGINT")?
    };
    let cluster = Cluster::start(folder.path())?;
    let shared =
        Arc::new(Shared { cluster: Arc::new(cluster), folder, runtime, serving: tokio::sync::Mutex::default() });

    let (cluster, logs) = (Arc::clone(&shared.cluster), shared.folder().to_owned());
    shared.runtime.spawn(async move {
        if interrupt.recv().await.is_some() {
            e2e::end_all();
            cluster.end();
            // Best effort: a log that stays is better than a run that does not end.
            let _ = std::fs::remove_dir_all(logs);
            std::process::exit(130);
        }
    });

    let mut trials = Trials { shared: Arc::clone(&shared), trials: Vec::new() };
    data_plane(&mut trials);
    seen_by_people(&mut trials);
    control_plane(&mut trials);

    let conclusion = libtest_mimic::run(&arguments, trials.trials);
    // Only a whole run uses every right.
    let whole = arguments.filter.is_none() && arguments.skip.is_empty() && !conclusion.has_failed();
    let rights = match shared.cluster.audit_log().filter(|_| whole) {
        Some(log) => rights::every_right_is_used_and_none_is_missing(&log),
        None => Ok(()),
    };
    // Before its folder goes: the task that waits for an interrupt holds the cluster for longer.
    e2e::end_all();
    shared.cluster.end();
    rights?;
    Ok(conclusion.exit_code())
}

/// What happens to requests.
fn data_plane(trials: &mut Trials) {
    claims!(trials, routing:
        an_applied_model_serves_within_a_second,
        each_modality_goes_to_its_pool_and_all_at_once_to_the_omni_one,
        text_spills_to_the_omni_pool_and_comes_back,
        a_modality_nobody_has_is_refused_and_never_reaches_a_model_server,
        weights_split_as_written,
        a_pod_that_stops_being_ready_gets_nothing_more,
        in_a_mixed_pool_forty_of_forty_images_succeed,
        a_pool_alone_works_as_with_any_picker,
        a_picker_of_one_pool_serves_that_pool,
        the_demos_manifests_behave_the_same_on_a_real_cluster,
    );
    claims!(trials, requests:
        a_20_mb_image_passes_and_arrives_byte_for_byte,
        a_forged_destination_goes_nowhere,
        what_steers_reaches_neither_gateway_nor_server,
        events_stream_as_they_come,
    );
    claims!(trials, failures:
        the_controller_is_killed_and_decisions_go_on,
        a_stuck_model_server_gets_nothing_while_another_lives,
        the_picker_is_killed_and_restarted_under_load,
        a_picker_that_is_told_to_stop_loses_nothing_in_flight,
        a_picker_without_a_table_is_not_ready_and_says_so,
        a_herd_that_waited_for_the_picker_is_served,
        strangers_hold_up_no_end,
        when_nobody_can_be_reached_both_ways_say_so_alike,
    );
    claims!(trials, queue:
        requests_wait_before_full_servers_and_the_critical_go_first,
        a_client_that_leaves_gives_up_its_place,
        the_queue_is_bounded_in_length_and_time,
    );
    claims!(trials, edges:
        a_client_that_hangs_up_is_felt_by_the_model_server,
        the_next_endpoint_is_tried_when_one_cannot_be_reached,
        a_model_servers_refusal_is_the_clients_answer,
        health_is_told_under_every_name_over_tls_and_in_plain_text,
        metrics_tell_what_happened,
    );
    claims!(trials, found:
        what_is_declared_and_not_so_is_said_and_not_believed,
        what_nobody_declares_is_found_listed_and_routed_by_name,
        what_a_server_refuses_goes_to_another_and_has_it_asked_again,
        a_restart_of_the_controller_widens_nothing,
    );
    claims!(trials, examples: one_vision_server, text_and_vision, speech, pictures_and_video);
    claims!(trials, llama:
        it_is_found_out_and_answers_every_kind_of_request,
        what_it_refuses_goes_to_the_other,
    );
    claims!(trials, gateways:
        the_bytes_that_istio_sent_are_answered,
        bodies_that_envoy_keeps_arrive_as_they_were_or_with_another_name,
        h2spec_finds_nothing_that_it_does_not_find_in_h2_itself,
        what_a_gateways_owner_can_mend_stands_in_the_log,
        a_chart_for_another_picker_starts_ours,
        a_pool_may_stand_in_flags_alone,
        where_gateways_are_at_home_nothing_is_taken_from_anybody,
    );
    claims!(trials, module:
        a_name_at_the_beginning_of_a_large_body_is_replaced_over_every_way,
        a_picture_gets_its_name_over_every_way,
        older_envoys_load_the_same_library,
        a_filter_before_it_that_keeps_bodies_changes_nothing,
        a_panic_costs_one_request,
        how_attempts_end_is_known,
        a_picker_that_is_asked_may_go_and_come_back,
        flags_that_cannot_be_read_are_refused_and_sound_ones_start_nothing,
        before_the_first_table_it_says_so,
    );
    claims!(trials, bad_input:
        what_cannot_be_read_is_refused_the_same_way_over_both_edges,
        a_client_that_stalls_is_cut,
        a_body_shorter_than_announced_harms_nobody,
        odd_objects_harm_nobody,
        heads_that_can_be_read_in_two_ways_are_refused,
        bodies_beyond_the_budget_are_refused_for_a_moment,
    );
    claims!(trials, surface:
        the_clients_that_people_use_are_served_through_envoy_and_over_http,
        the_paths_of_engines_are_served,
        what_is_not_known_and_what_manages_servers_never_passes,
        paths_that_nobody_knows_go_where_a_flag_says,
        models_that_nobody_serves_are_listed_when_asked_for,
        a_job_is_gone_with_its_maker,
        a_job_is_found_by_a_picker_that_did_not_see_it_made,
        a_response_is_followed_where_it_was_made,
        a_websocket_flows_both_ways_until_either_side_ends,
        browsers_may_ask_where_a_flag_says_so,
        a_client_that_waits_for_a_nod_gets_it_or_the_refusal,
    );
}

/// What operators look at.
fn seen_by_people(trials: &mut Trials) {
    claims!(trials, metrics:
        requests_tokens_and_pools_are_shown_under_the_names_that_others_read,
        every_panel_and_alert_reads_what_a_prometheus_has,
    );
    claims!(trials, traces:
        a_collector_is_told_where_the_time_of_each_request_went,
        what_fails_is_told_with_its_cause_and_without_a_collector_all_goes_on,
        samplers_and_the_other_protocol_are_those_that_the_environment_names,
    );
    claims!(trials, page: a_person_sees_what_is_served_and_where_a_request_would_go);
}

/// What happens to objects.
fn control_plane(trials: &mut Trials) {
    crds::register(trials);
    manifests::register(trials);
    claims!(trials, llm_d:
        rewrites_and_objectives_are_read_where_their_crds_are,
        rewrites_go_with_their_definition_even_when_nobody_watched,
    );
    claims!(trials, kubectl:
        get_shows_the_truth_at_a_glance,
        a_status_that_somebody_overwrote_is_written_again,
        conflicts_and_missing_pools_are_told,
        entries_of_others_are_never_touched,
        status_is_written_only_when_it_changes,
        explain_reads_well,
        events_tell_what_changed_and_make_no_storm,
        a_picker_that_answers_no_more_is_told_however_busy_the_cluster_is,
        tables_fit_the_terminals_that_people_have,
    );
    claims!(trials, managed:
        a_managed_pool_gets_a_picker_that_serves_it_alone,
        what_others_changed_is_mended_and_what_they_added_stays,
        what_its_owner_took_back_is_left_alone,
        nothing_that_others_made_is_touched,
        a_template_decides_how_pickers_run,
        an_upgrade_replaces_the_pickers_of_one_pool_at_a_time,
        an_upgrade_that_the_api_server_refuses_holds_up_nobody,
        a_template_that_kubernetes_would_refuse_is_told_by_its_field,
        a_pool_that_is_being_deleted_gets_nothing_made_anew,
        a_certificate_of_somebody_else_is_told_on_the_pool,
        a_picker_that_is_renamed_leaves_nothing_behind,
        a_controller_of_one_namespace_needs_rights_in_no_other,
    );
    claims!(trials, outages:
        refusals_silence_and_broken_watches_harm_nobody,
        an_event_that_hangs_holds_up_no_status,
        a_broken_kind_of_another_project_keeps_nobody_from_leading,
        a_replica_that_cannot_list_does_not_lead,
        the_api_server_is_gone_for_longer_than_a_lease,
        an_older_etcd_is_restored_and_the_world_goes_back_with_it,
        crds_may_come_later_and_change,
    );
    claims!(trials, plugin:
        status_is_one_table_and_what_is_wrong,
        explain_tells_tiers_filters_and_scores,
        top_shows_who_is_busy,
        check_needs_no_cluster,
    );
    claims!(trials, replicas:
        a_standby_takes_over_when_the_leader_is_told_to_stop,
        a_leader_that_dies_is_followed_when_its_lease_runs_out,
        a_frozen_leader_writes_nothing_when_it_wakes,
    );
    claims!(trials, soak: no_answer_is_wrong_or_lost_while_everything_comes_and_goes);
    claims!(trials, siege:
        honest_answers_come_while_strangers_try_everything,
        two_hundred_uploads_at_once_stay_within_the_budget,
    );
    claims!(trials, trust:
        a_picker_reads_its_own_scope_and_no_other,
        clear_text_is_refused,
        a_picker_without_a_controller_decides_by_the_table_on_its_disk,
    );
    claims!(trials, guide: every_command_of_the_guide_works);
}
