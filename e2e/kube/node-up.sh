#!/usr/bin/env bash
# A whole small cluster with one real node, in a network namespace of its own: API server, controllers, scheduler, containerd,
# kubelet, kube-proxy. Pod and service addresses can be reached from here. Prints the KUBECONFIG path. Needs root.
# usage: node-up.sh DIR IMAGE.tar ...      one of them is localhost/pause:1; stop it with: node-down.sh DIR
# Debian packages: containerd runc containernetworking-plugins nftables iproute2 (kubectl for node-down.sh)
#   NODE_ROOT  where those lie if they are only unpacked (dpkg-deb -x), default / ;  NODE_NS, NODE_NET  to run several
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export KUBE_BIN=${KUBE_BIN:-${XDG_CACHE_HOME:-$HOME/.cache}/thalamus/kube}
mkdir -p "${1:?DIR}"; d=$(cd "$1" && pwd); n=$d/node; shift
r=${NODE_ROOT:-}; r=${r%/}; ns=${NODE_NS:-kube} net=${NODE_NET:-10.244.0}
"$here/kube-build.sh"
mkdir -p "$n"/{cni,run,kubelet,logs,plugins}
echo "$ns" >"$n/ns"

# The namespace is the node ($net.1 on the pods' bridge); this side is one more host on that bridge ($net.2).
in="nsenter --net=/run/netns/$ns" # not `ip netns exec`: that one mounts a new /sys, without the cgroups
ip netns add "$ns"
ip link add "$ns-host" type veth peer name host netns "$ns"
ip addr add "$net.2/24" dev "$ns-host"; ip link set "$ns-host" up
$in bash -ec "ip link set lo up; ip link add pods type bridge; ip addr add $net.1/24 dev pods; ip link set pods up
  ip link set host master pods up; ip route add default via $net.2; sysctl -qw net.ipv4.ip_forward=1"
ip route add 10.96.0.0/16 via "$net.1" || echo "service addresses stay unreachable from outside: another cluster has the route" >&2

KUBE_ADDR=$net.2 KUBE_CM=1 KUBE_SCHED=1 KUBE_APISERVER_FLAGS=--kubelet-preferred-address-types=InternalIP "$here/kube-up.sh" "$d"

cat >"$n/cni/10-pods.conflist" <<JSON
{"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "bridge", "bridge": "pods", "hairpinMode": true, "ipam": {"type": "host-local",
 "dataDir": "$n/ipam", "ranges": [[{"subnet": "$net.0/24", "gateway": "$net.1", "rangeStart": "$net.10"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
JSON
cat >"$n/containerd.toml" <<TOML
version = 2
root = "$n/root"
state = "$n/run/state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing"]
[grpc]
  address = "$n/run/c.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  disable_apparmor = true
  disable_tcp_service = true
  restrict_oom_score_adj = true # without CAP_SYS_RESOURCE no process may lower its score, and every sandbox would fail
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$r/usr/lib/cni"
    conf_dir = "$n/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = "$r/usr/sbin/runc"
      Root = "$n/run/runc"
TOML
for c in /sys/fs/cgroup/*/; do # a cgroup root of its own, or two kubelets end one another's pods
  [ -e "$c/tasks" ] || continue
  mkdir -p "$c/$ns"
  for f in cpuset.mems cpuset.cpus; do [ ! -e "$c/$f" ] || cat "$c/$f" >"$c/$ns/$f"; done
done
cat >"$n/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /$ns
containerRuntimeEndpoint: unix://$n/run/c.sock
address: $net.1
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
failSwapOn: false
makeIPTablesUtilChains: false
enforceNodeAllocatable: []
evictionHard: {memory.available: "1Mi", nodefs.available: "0%", imagefs.available: "0%"}
imageGCHighThresholdPercent: 100
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
resolvConf: ""
podLogsDir: $n/logs
volumePluginDir: $n/plugins
healthzPort: 0
YAML
spawn() { local name=$1; shift; setsid nohup $in "$@" >"$n/$name.log" 2>&1 </dev/null & echo $! >"$n/$name.pid"; }
export PATH=$r/usr/bin:$r/usr/sbin:$PATH
[ -z "$r" ] || export LD_LIBRARY_PATH=$r/usr/lib/x86_64-linux-gnu
spawn containerd containerd --config "$n/containerd.toml"
for _ in $(seq 100); do ctr -a "$n/run/c.sock" version >/dev/null 2>&1 && break; sleep 0.1; done
for t in "$@"; do ctr -a "$n/run/c.sock" -n k8s.io images import "$t" >/dev/null; done
spawn kubelet "$KUBE_BIN/kubelet" --config "$n/kubelet.yaml" --kubeconfig "$d/kubeconfig" --root-dir "$n/kubelet" \
  --node-ip "$net.1" --hostname-override node1 --cert-dir "$n/pki"
spawn kube-proxy "$KUBE_BIN/kube-proxy" --kubeconfig "$d/kubeconfig" --hostname-override node1 --proxy-mode nftables \
  --cluster-cidr "$net.0/24" --conntrack-max-per-core 0
