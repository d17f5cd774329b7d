#!/bin/sh
# A plain Envoy as the data plane of istiod, without Istio's own agent: what that would write as bootstrap is written here, from the pod's
# environment. ENVOY is the program.
until getent hosts istiod.istio-system.svc >/dev/null; do sleep 0.3; done # or it would wait a minute before it asks again
cat >"$HOME/bootstrap.yaml" <<YAML
node:
  id: router~$INSTANCE_IP~$POD_NAME.$POD_NAMESPACE~$POD_NAMESPACE.svc.cluster.local
  cluster: $GATEWAY.$POD_NAMESPACE
  metadata: {NAMESPACE: $POD_NAMESPACE, NAME: $POD_NAME, CLUSTER_ID: Kubernetes, ISTIO_VERSION: 1.31.0, WORKLOAD_NAME: $GATEWAY-istio,
    INSTANCE_IPS: $INSTANCE_IP, LABELS: {gateway.networking.k8s.io/gateway-name: $GATEWAY}}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 15000}}}
dynamic_resources:
  ads_config: {api_type: GRPC, transport_api_version: V3, set_node_on_first_message_only: true, grpc_services: [{envoy_grpc: {cluster_name: istiod}}]}
  lds_config: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 0s}
  cds_config: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 0s}
static_resources:
  clusters:
  - name: istiod
    type: STRICT_DNS
    connect_timeout: 1s
    dns_lookup_family: V4_ONLY
    respect_dns_ttl: false
    dns_refresh_rate: 2s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment:
      cluster_name: istiod
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: istiod.istio-system.svc, port_value: 15010}}}}]}]
YAML
exec "$ENVOY" -c "$HOME/bootstrap.yaml" --disable-hot-restart --concurrency 1 -l warning
