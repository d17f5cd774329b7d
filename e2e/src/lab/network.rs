//! The lab's network and file system: a bridge for pods, and places that pods may mount on.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::{ensure_alone, system};

const BRIDGE: &str = "pods";

/// The lab's own address, where its API server is.
pub(super) const HOST: &str = "10.245.0.1";

/// A pod's network.
#[derive(Debug)]
pub(super) struct PodNetwork {
    pub(super) ip: Ipv4Addr,
    name: String,
}

/// Makes the bridge, and gives this program's own view of the machine a `/run` and a `/var` that may be written to and a hosts file.
pub(super) fn set_up(hosts: &Path) -> Result<()> {
    ensure_alone()?;
    let ip = |args: &str| system("ip", &args.split(' ').collect::<Vec<_>>());
    ip("link set lo up")?;
    ip(&format!("link add {BRIDGE} type bridge"))?;
    ip(&format!("addr add {HOST}/24 dev {BRIDGE}"))?;
    ip(&format!("link set {BRIDGE} up"))?;
    system("mount", &["-t", "tmpfs", "tmpfs", "/run"])?;
    for folder in ["/run/var/upper", "/run/var/work"] {
        std::fs::create_dir_all(folder).context("making a folder")?;
    }
    let layers = "lowerdir=/var,upperdir=/run/var/upper,workdir=/run/var/work";
    system("mount", &["-t", "overlay", "overlay", "-o", layers, "/var"])?;
    system("mount", &["--bind", &hosts.display().to_string(), "/etc/hosts"])
}

impl PodNetwork {
    /// A namespace with one address on the bridge.
    pub(super) fn make(ip: Ipv4Addr) -> Result<Self> {
        let name = format!("pod-{}", ip.octets()[3]);
        let run = |args: &str| system("ip", &args.split(' ').collect::<Vec<_>>());
        run(&format!("netns add {name}"))?;
        run(&format!("link add {name} type veth peer name eth0 netns {name}"))?;
        run(&format!("link set {name} master {BRIDGE} up"))?;
        run(&format!("-n {name} addr add {ip}/24 dev eth0"))?;
        run(&format!("-n {name} link set eth0 up"))?;
        run(&format!("-n {name} link set lo up"))?;
        run(&format!("-n {name} route add default via {HOST}"))?;
        Ok(Self { ip, name })
    }

    /// What `nsenter` calls it.
    pub(super) fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    pub(super) fn remove(&self) -> Result<()> {
        system("ip", &["netns", "del", &self.name])
    }
}
