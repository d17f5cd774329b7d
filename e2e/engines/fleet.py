"""Several vLLM servers on CPU that share what takes longest to start, which is importing vLLM: imported once, forked for each.

    python fleet.py LOGS SERVERS.json

SERVERS.json is a list of servers, {"model": PATH, "port": N, "args": ["--served-model-name", "m", …]}. What they print is in LOGS/vllm-PORT.log, and the
end of it is shown if one ends by itself; the others go on. A line such as {"port": N, "args": […]} on standard input kills the server of that port and
starts it anew with what the line says, and else as before.

All of them end with this process, however it ends. It replaces how vLLM starts its engine (it would import all of itself anew) and how it looks at a
model's class (in a process of its own); both are internals of the release that requirements.txt names.
"""

import ctypes
import gc
import json
import multiprocessing
import os
import platform
import select
import signal
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path

os.environ |= {
    "CUDA_VISIBLE_DEVICES": "",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # or the executor named below is not taken
    "VLLM_NO_USAGE_STATS": "1",
}
os.environ.pop("VLLM_CPU_KVCACHE_SPACE", None)  # it would outweigh --kv-cache-memory-bytes

COMMON = [
    "--host", "127.0.0.1", "--dtype", "bfloat16", "--enforce-eager", "--distributed-executor-backend", "uni",
    "--block-size", "32", "--kv-cache-memory-bytes", str(16 << 20),
]  # fmt: skip
# Between two starts, in seconds: many at once on few cores are all late.
APART = float(os.environ.get("APART", "2"))
libc = ctypes.CDLL(None)


def share() -> None:
    import transformers
    import vllm.entrypoints.launchers.api_server.entry  # noqa: F401
    import vllm.v1.engine.async_llm  # noqa: F401
    import vllm.v1.engine.core  # noqa: F401
    import vllm.v1.executor.uniproc_executor  # noqa: F401
    import vllm.v1.worker.cpu_worker  # noqa: F401
    from vllm.model_executor.models import registry

    for model in ("qwen2", "qwen2_vl", "qwen2_audio", "qwen2_5_omni_thinker", "whisper"):
        import_module(f"vllm.model_executor.models.{model}")
    for kind in ("Auto", "Qwen2VL", "Qwen2Audio", "Qwen2_5Omni", "Whisper"):
        getattr(transformers, f"{kind}Processor")
    registry._run_in_subprocess = lambda look: look()
    context = multiprocessing.get_context
    multiprocessing.get_context = lambda method=None: context("fork")


def prepare() -> None:
    """Says to the kernel what holds for this process and all that are forked from it."""
    if platform.machine() == "x86_64":
        # Where there is AMX, vLLM attends with it. Its tiles are large registers that Linux lets no process use that has not asked, and what has not dies of
        # SIGILL; vLLM does not ask. arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA): without AMX it fails, and nothing is lost.
        libc.syscall(158, 0x1023, 18)
    # An engine is a process of its own: prctl(PR_SET_PDEATHSIG) ends it with its server, and servers with the fleet.
    os.register_at_fork(after_in_child=lambda: libc.prctl(1, signal.SIGKILL))
    gc.freeze()  # or collecting garbage writes to all that is shared


def start(server: dict, logs: str, wait: float = 0) -> int:
    if child := os.fork():
        return child
    try:
        port = str(server["port"])
        output = os.open(log(logs, port), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        time.sleep(wait)
        sys.argv = ["vllm", *COMMON, "--model", server["model"], "--port", port, *server.get("args", [])]
        from vllm.entrypoints.launchers.api_server.entry import main

        main()
    except BaseException:
        traceback.print_exc()
    os._exit(1)


def log(logs: str, port: object) -> Path:
    return Path(logs, f"vllm-{port}.log")


def main() -> None:
    logs, file = sys.argv[1:]
    servers = {server["port"]: server for server in json.loads(Path(file).read_text())}
    share()
    prepare()
    children = {port: start(server, logs, APART * number) for number, (port, server) in enumerate(servers.items())}
    orders = open(0, "rb", buffering=0)  # a line that is there is not in a buffer, where select does not see it
    while children or orders:
        if select.select([orders] if orders else [], [], [], 0.2)[0]:
            if order := orders.readline():
                order = json.loads(order)
                port = order["port"]
                if child := children.get(port):
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
                servers[port] |= order
                children[port] = start(servers[port], logs)
            else:
                orders = None
        for port, child in list(children.items()):
            if os.waitpid(child, os.WNOHANG)[0]:
                del children[port]
                last = log(logs, port).read_text(errors="replace").splitlines()[-20:]
                print(f"vLLM on port {port} ended; its log ends with:", *last, sep="\n", file=sys.stderr, flush=True)


main()
