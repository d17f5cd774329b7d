//! Does `docs/serving-multimodal-models.md` work when it is followed?

use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::{eventually, kubectl, root};
use thalamus::manifests::Objects;

use crate::Shared;

/// Runs each `sh` block of the guide in order, in a shell of its own, with the gateway's address where the guide has the user set it.
/// Blocks marked `sh no-run` install things that are not here (images, a gateway of the user's).
pub(crate) async fn every_command_of_the_guide_works(shared: &Shared) -> Result<()> {
    let guide =
        std::fs::read_to_string(root().join("docs/serving-multimodal-models.md")).context("reading the guide")?;
    let (mut world, _serving) = shared.serving_world().await?;
    let path = std::env::join_paths(
        [std::path::Path::new(kubectl().get_program()).parent().unwrap_or_else(|| "".as_ref()).to_owned()]
            .into_iter()
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    )?;
    let blocks = blocks(&guide);
    ensure!(blocks.len() >= 6, "the guide has {} blocks to run", blocks.len());
    let mut pods_run = false;
    for (command, expected) in blocks {
        let run = async || {
            let output = Command::new("sh")
                .args(["-euc", command])
                .current_dir(root())
                .env("PATH", &path)
                .env("KUBECONFIG", shared.cluster().kubeconfig())
                .env("GATEWAY", format!("http://{}", world.gateway.address()))
                .output()
                .context("running sh")?;
            let said =
                format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            ensure!(output.status.success(), "{command}\n{said}");
            for line in expected.lines().filter(|line| !line.trim().is_empty()) {
                ensure!(flat(&said).contains(&flat(line)), "{command}\nsaid\n{said}\nwhere the guide has\n{line}");
            }
            Ok(())
        };
        eventually("the guide's command does what the guide says", run).await?;
        if !pods_run && command.contains("-k manifests/examples/multimodal") {
            // What the Deployments' controller and a kubelet would do.
            world.apply_example(&root().join("manifests/examples/multimodal")).await?;
            pods_run = true;
        }
    }
    ensure!(pods_run, "the guide never applies the example");
    ensure!(
        !Objects::read(&root().join("manifests/examples/multimodal"))?.pools.is_empty(),
        "the example holds no pool"
    );
    Ok(())
}

/// Each block to run, with the `text` block that follows it, if one does, as what it is to say.
fn blocks(guide: &str) -> Vec<(&str, &str)> {
    let mut blocks: Vec<(&str, &str)> = Vec::new();
    let mut after_command = false;
    for fenced in guide.split("\n```").collect::<Vec<_>>().chunks(2).filter_map(|pair| pair.get(1)) {
        let (kind, content) = fenced.split_once('\n').unwrap_or((fenced, ""));
        match kind {
            "sh" => blocks.push((content, "")),
            "text" if after_command => {
                if let Some(last) = blocks.last_mut() {
                    last.1 = content;
                }
            }
            _ => {}
        }
        after_command = kind == "sh";
    }
    blocks
}

/// Without what changes from run to run: ages, and how wide columns are.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
