//! A lab: a Kubernetes whose pods are processes, each at an address of its own, all in network and process namespaces that nobody outside
//! reaches and that leave nothing behind.
//!
//! ```text
//!  e2e ──unshare──► e2e, alone in new namespaces: a bridge 10.245.0.1
//!                    ├── etcd, kube-apiserver, kube-controller-manager
//!                    └── Node: each Pod ──► processes in a network namespace at 10.245.0.10 …
//! ```
//!
//! There are no containers and no images: the name of an image says which program of this machine stands for it. Services have no addresses
//! of their own; their names lead to the first ready pod, in one file of hosts.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::Cluster;

mod launch;
mod network;
mod node;
mod probe;

pub use launch::Program;
use node::Node;

/// Which program stands for an image, by a part of the image's name.
pub type Images = BTreeMap<String, Program>;

/// A running lab. It ends with this program, whatever ends that.
#[derive(Debug)]
pub struct Lab {
    pub cluster: Cluster,
    folder: PathBuf,
}

/// This program again, in namespaces of its own, for [`Lab::start`]. Needs root.
pub fn command(args: &[&str]) -> Result<Command> {
    let mut again = Command::new("unshare");
    // All processes of a namespace end with its first.
    again.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    again.arg(std::env::current_exe().context("finding this program")?).args(args);
    Ok(again)
}

impl Lab {
    /// Starts one in `folder`. Only in what [`command`] started: it changes mounts and links.
    pub async fn start(folder: &Path, images: Images) -> Result<Self> {
        std::fs::create_dir_all(folder).context("making a folder")?;
        let hosts = folder.join("hosts");
        std::fs::write(&hosts, "127.0.0.1 localhost\n").context("writing hosts")?;
        network::set_up(&hosts)?;
        let cluster = Cluster::start_for_lab(folder, network::HOST)?;
        let node = Node::new(cluster.client().await?, cluster.kubeconfig(), folder, images)?;
        tokio::spawn(node.run());
        Ok(Self { cluster, folder: folder.to_owned() })
    }

    /// The output of a container so far; empty where there is none.
    pub fn log(&self, namespace: &str, pod: &str, container: &str) -> String {
        std::fs::read_to_string(self.folder.join(format!("{namespace}.{pod}.{container}.log"))).unwrap_or_default()
    }

    /// Where everything that runs writes its output.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Runs a program of the system, and says what it said where it fails.
fn system<A: AsRef<OsStr>>(program: &str, args: &[A]) -> Result<()> {
    let output = Command::new(program).args(args).output().with_context(|| format!("running {program}"))?;
    if !output.status.success() {
        let args: Vec<_> = args.iter().map(|arg| arg.as_ref().to_string_lossy()).collect();
        bail!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Fails where this is not the first process of a namespace, so that nothing of the machine is changed by mistake.
fn ensure_alone() -> Result<()> {
    ensure!(std::process::id() == 1, "a lab is set up in namespaces of its own alone");
    Ok(())
}
