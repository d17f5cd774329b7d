//! The machines that images are for, and how what they hold is built and tried out on another.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail, ensure};

use crate::run::{output, run};

/// What images are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Architecture {
    Amd64,
    Arm64,
}

impl Architecture {
    pub(super) fn here() -> Result<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Ok(Self::Amd64),
            "aarch64" => Ok(Self::Arm64),
            other => bail!("images are for amd64 and arm64; this machine is {other}: name one with --architecture"),
        }
    }

    /// As images call it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// As Rust calls it.
    pub(super) const fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// What compiles C for it, and links, on another machine.
    pub(super) const fn compiler(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-linux-gnu-gcc",
            Self::Arm64 => "aarch64-linux-gnu-gcc",
        }
    }

    /// What runs its programs on another machine.
    const fn emulator(self) -> &'static str {
        match self {
            Self::Amd64 => "qemu-x86_64-static",
            Self::Arm64 => "qemu-aarch64-static",
        }
    }

    /// Fails with what is to be installed first.
    pub(super) fn is_ready(self, compiler: &str) -> Result<()> {
        let target = self.target();
        let sysroot = output(Command::new("rustc").arg("--print=sysroot"))?;
        ensure!(
            Path::new(sysroot.trim()).join("lib/rustlib").join(target).is_dir(),
            "Rust's standard library for {target} is not installed: `rustup target add {target}`"
        );
        let is_there = Command::new(compiler).arg("--version").output().is_ok_and(|output| output.status.success());
        let package = compiler.replace('_', "-").split_once("-linux").map(|(cpu, _)| format!("gcc-{cpu}-linux-gnu"));
        ensure!(is_there, "{compiler} is not installed (Debian: {})", package.unwrap_or_default());
        Ok(())
    }

    /// Runs what was built for another machine, and the demo's tour, where something here can.
    pub(super) fn try_out(self, root: &Path, binaries: &[PathBuf], demo: &Path) -> Result<()> {
        let emulator = self.emulator();
        if Command::new(emulator).arg("--version").output().is_err() {
            crate::say(&format!("not tried out: there is no {emulator} here (Debian: qemu-user-static)"));
            return Ok(());
        }
        for binary in binaries {
            let version = output(Command::new(emulator).arg(binary).arg("--version"))?;
            ensure!(version.contains(env!("CARGO_PKG_VERSION")), "{} says that it is {version:?}", binary.display());
        }
        let mut tour = Command::new(emulator);
        tour.arg(demo).args(["demo", "--once"]).current_dir(root);
        run(&format!("the demo's tour on {}, emulated", self.as_str()), &mut tour)
    }
}
