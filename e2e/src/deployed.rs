//! Plays the Deployment controller and the kubelet for pickers that our controller deploys: starts the process that a Deployment asks
//! for, with the volumes that its pod would have, and says in the Deployment's status how it is.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{Client, Process, World, binary, eventually};

/// A picker that was started from its Deployment.
#[derive(Debug)]
pub struct Deployed {
    pub process: Process,
    pub admin: Client,
    pub http: Client,
    pub ext_proc: SocketAddr,
}

impl World {
    /// An object as JSON.
    pub fn object(&self, kind: &str, name: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.kubectl(&["get", kind, name, "-o", "json"])?)?)
    }

    /// Starts the picker of a Deployment.
    pub async fn deploy(&self, name: &str) -> Result<Deployed> {
        let deployment =
            eventually(&format!("Deployment {name} is there"), async || self.object("deployment", name)).await?;
        let pod = &deployment["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let folder = self.folder().join(format!("deployed-{name}"));
        std::fs::create_dir_all(&folder).context("making a folder")?;
        self.mount(pod, &folder).await?;

        let ports = ["--ext-proc-listen", "--health-listen", "--http-listen", "--admin-listen"];
        let mut args: Vec<String> = ports.iter().map(|flag| format!("{flag}=127.0.0.1:0")).collect();
        for arg in container["args"].as_array().context("it has arguments")? {
            let arg = arg.as_str().context("an argument is a text")?;
            match arg.split_once('=') {
                Some(("--controller", _)) => args.push(format!("--controller={}", self.controller_url())),
                Some(("--http-listen", _)) => {}
                Some((flag, path)) if path.starts_with("/var/") => {
                    let file = path.rsplit('/').next().unwrap_or_default();
                    args.push(format!("{flag}={}", folder.join(file).display()));
                }
                _ => args.push(arg.to_owned()),
            }
        }
        let env = [("NAMESPACE", &*self.namespace), ("POD_NAME", name)];
        let mut process = Process::start(&folder, name, &binary("thalamus-picker")?, &args, &env)?;
        let said = process.said("picker started").await?;
        let address = |port: &str| Ok::<SocketAddr, anyhow::Error>(said[port].as_str().context("said")?.parse()?);
        Ok(Deployed {
            process,
            admin: Client::new(address("admin")?),
            http: Client::new(address("http")?),
            ext_proc: address("ext_proc")?,
        })
    }

    /// What the kubelet would put into the picker's volumes.
    async fn mount(&self, pod: &Value, folder: &std::path::Path) -> Result<()> {
        let account = pod["serviceAccountName"].as_str().context("it has a service account")?;
        let sources = pod["volumes"][0]["projected"]["sources"].as_array().context("its first volume is projected")?;
        for source in sources {
            if let Some(map) = source["configMap"]["name"].as_str() {
                let certificate = eventually("the ConfigMap is there", async || {
                    let map = self.object("configmap", map)?;
                    Ok(map["data"]["ca.crt"].as_str().context("it holds ca.crt")?.to_owned())
                })
                .await?;
                std::fs::write(folder.join("ca.crt"), certificate)?;
            }
            if let Some(audience) = source["serviceAccountToken"]["audience"].as_str() {
                let token = self.kubectl(&["create", "token", account, "--audience", audience])?;
                std::fs::write(folder.join("token"), token)?;
            }
        }
        Ok(())
    }

    /// Says that a Deployment's pods are all of its newest template and ready, after so many templates.
    pub fn say_complete(&self, name: &str, revision: u32) -> Result<()> {
        let deployment = self.object("deployment", name)?;
        let replicas = deployment["spec"]["replicas"].as_i64().context("it has replicas")?;
        ensure!(replicas > 0, "a Deployment without pods");
        let annotation = format!("deployment.kubernetes.io/revision={revision}");
        self.kubectl(&["annotate", "deployment", name, "--overwrite", &annotation])?;
        let generation = self.object("deployment", name)?["metadata"]["generation"].clone();
        let status = json!({"status": {"observedGeneration": generation, "replicas": replicas, "updatedReplicas": replicas,
            "readyReplicas": replicas, "availableReplicas": replicas}});
        let patch = ["patch", "deployment", name, "--subresource=status", "--type=merge", "-p", &status.to_string()];
        self.kubectl(&patch).map(drop)
    }
}
