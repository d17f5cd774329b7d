use super::*;

impl Ecosystem {
    /// One of each.
    pub(in crate::metrics) fn sample(&self) {
        let Self {
            names: _,
            requests,
            errors,
            running,
            seconds,
            first_byte_seconds,
            request_bytes,
            response_bytes,
            input_tokens,
            output_tokens,
            cached_tokens,
            seconds_a_token,
            seconds_between_tokens,
            rewrites,
            scheduler_seconds: _,
            scheduler_attempts,
            poll_errors,
            flow_control,
            queue_seconds,
            pools,
        } = self;
        let name: Arc<str> = "x".into();
        let model = || Arc::clone(&name);
        let labels = RequestLabels { model_name: model(), target_model_name: model(), fairness_id: "", priority: 0 };
        drop(requests.get_or_create(&labels));
        drop(running.get_or_create(&labels));
        drop(errors.get_or_create(&ErrorLabels { request: labels.clone(), error_code: "x" }));
        drop(first_byte_seconds.get_or_create(&FirstByteLabels { request: labels.clone(), streaming: "true" }));
        for family in [
            seconds,
            request_bytes,
            response_bytes,
            input_tokens,
            output_tokens,
            cached_tokens,
            seconds_a_token,
            seconds_between_tokens,
        ] {
            drop(family.get_or_create(&labels));
        }
        let flow = FlowLabels { outcome: "Dispatched", priority: 0, inference_pool: model() };
        drop(flow_control.get_or_create(&flow));
        let queued = QueueLabels { request: labels.clone(), outcome: "Dispatched", inference_pool: model() };
        drop(queue_seconds.get_or_create(&queued));
        let rewrite = RewriteLabels { model_rewrite_name: model(), model_name: model(), target_model: model() };
        drop(rewrites.get_or_create(&rewrite));
        drop(scheduler_attempts.get_or_create(&SchedulerLabels { status: "success", target_model_name: model() }));
        drop(poll_errors.get_or_create(&SourceLabels { source_type: "metrics" }));
        let Pools { ready, queue, running, kv_cache, endpoint_queue, endpoint_requests, saturation, waiting } = pools;
        let pool = PoolLabels { name: model() };
        drop(ready.get_or_create(&pool));
        for averages in [queue, running, kv_cache] {
            averages.set(&pool, [1.0].into_iter());
        }
        drop(endpoint_queue.get_or_create(&EndpointLabels { name: model(), model_server_endpoint: model() }));
        drop(endpoint_requests.get_or_create(&InFlightLabels {
            endpoint_name: model(),
            namespace: model(),
            producer_name: "thalamus",
            fairness_id: "",
            priority: "",
        }));
        drop(saturation.get_or_create(&SaturationLabels { inference_pool: model(), stage: "effective" }));
        drop(waiting.get_or_create(&WaitingLabels {
            fairness_id: "",
            priority: "",
            inference_pool: model(),
            model_name: "",
            target_model_name: "",
        }));
    }
}
