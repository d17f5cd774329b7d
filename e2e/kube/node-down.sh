#!/usr/bin/env bash
# Ends what node-up.sh started in DIR: the pods, each process by its pid, the namespace, and the folder.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
d=$(cd "${1:?DIR}" && pwd); n=$d/node; ns=$(cat "$n/ns") || exit 1
r=${NODE_ROOT:-}; r=${r%/}; PATH=$r/usr/bin:$r/usr/sbin:$PATH
pid() { local p; p=$(cat "$n/$1.pid" 2>/dev/null) && grep -qs "$1" "/proc/$p/comm" && echo "$p"; }
k="${KUBE_BIN:-${XDG_CACHE_HOME:-$HOME/.cache}/thalamus/kube}/kubectl --kubeconfig $d/kubeconfig --request-timeout 5s"
"$here/kube-down.sh" "$d" kube-controller-manager # or they would make the pods anew
$k delete pods -A --all --grace-period=1 --timeout=20s >/dev/null 2>&1 # the kubelet takes down their networks too
for x in kube-proxy kubelet; do p=$(pid $x) && kill -9 "$p"; done
c="ctr -a $n/run/c.sock -n k8s.io"
for t in $($c containers ls -q 2>/dev/null); do $c tasks delete -f "$t"; $c containers delete "$t"; done >/dev/null 2>&1
p=$(pid containerd) && kill "$p" && sleep 0.3
"$here/kube-down.sh" "$d" kube-scheduler kube-apiserver etcd
awk -v n="$n/" 'index($2, n) == 1 {print $2}' /proc/mounts | sort -r | xargs -r -n1 umount -l
ip netns del "$ns"; ip link del "$ns-host" 2>/dev/null
find /sys/fs/cgroup -depth -type d -path "/sys/fs/cgroup/*/$ns*" -exec rmdir {} + 2>/dev/null
rm -rf "$d"
