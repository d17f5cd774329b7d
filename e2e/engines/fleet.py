"""Several vLLM servers on CPU that share what takes longest to start: vLLM is imported once, and forked for each.

    python fleet.py LOGS SERVERS.json

SERVERS.json is a list of servers, {"model": PATH, "port": N, "args": ["--served-model-name", "m", …]}. What they print
is in LOGS/vllm-PORT.log; if one ends by itself, the end of that is shown, and the others go on. A line of JSON on
standard input, such as {"port": N, "args": […]}, kills the server of that port and starts it anew: as the line says,
and where it says nothing, as before.

All of them end with this process, however that ends. It replaces how vLLM starts its engine (it would import all of
itself anew) and how it looks at a model's class (in a process of its own); both are internals of the release that
requirements.txt names.
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
import traceback
from importlib import import_module
from pathlib import Path

os.environ |= {
    "CUDA_VISIBLE_DEVICES": "",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TORCH_COMPILE_DISABLE": "1",  # some is compiled even with --enforce-eager, when first asked for: that takes 20 s
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # or the executor named below is not taken
    "VLLM_NO_USAGE_STATS": "1",
}
os.environ.pop("VLLM_CPU_KVCACHE_SPACE", None)  # it would outweigh --kv-cache-memory-bytes

COMMON = [
    "--host", "127.0.0.1", "--dtype", "bfloat16", "--enforce-eager", "--distributed-executor-backend", "uni",
    "--block-size", "32", "--kv-cache-memory-bytes", str(16 << 20),
]  # fmt: skip


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
    gc.freeze()  # or the first collection in each child would copy what they share


def ask_kernel() -> None:
    """For this process and for all that are forked from it."""
    libc = ctypes.CDLL(None)
    if platform.machine() == "x86_64":
        # Where there is AMX, vLLM's attention uses it, and Linux kills by SIGILL what uses its tile registers and has
        # not asked to. vLLM does not ask. Torch does, but not before it multiplies matrices that are worth it: a prompt
        # of one token, if it came first, was an engine's last. This is arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA);
        # where there is no AMX, it fails and changes nothing.
        libc.syscall(158, 0x1023, 18)
    # prctl(PR_SET_PDEATHSIG): servers end with this process, and their engines, which are processes too, with them.
    os.register_at_fork(after_in_child=lambda: libc.prctl(1, signal.SIGKILL))


def start(server: dict, log: Path) -> int:
    if child := os.fork():
        return child
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.argv = ["vllm", *COMMON, "--model", server["model"], "--port", str(server["port"]), *server["args"]]
        from vllm.entrypoints.launchers.api_server.entry import main

        main()
    except BaseException:
        traceback.print_exc()
    os._exit(1)


def main() -> None:
    logs, file = map(Path, sys.argv[1:])
    os.environ["TMPDIR"] = str(logs)  # servers are killed, and leave their sockets behind
    orders = json.loads(file.read_text())
    share()
    ask_kernel()
    servers, children = {}, {}
    lines = open(0, "rb", buffering=0)  # or lines would wait in a buffer, where select does not see them
    while orders or children or lines:
        for order in orders:
            port = order["port"]
            if child := children.get(port):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            servers[port] = servers.get(port, {"args": []}) | order
            children[port] = start(servers[port], logs / f"vllm-{port}.log")
        orders = []
        if select.select([lines] if lines else [], [], [], 0.2)[0]:
            if line := lines.readline():
                orders.append(json.loads(line))
            else:
                lines = None
        for port, child in list(children.items()):
            if os.waitpid(child, os.WNOHANG)[0]:
                del children[port]
                last = (logs / f"vllm-{port}.log").read_text(errors="replace").splitlines()[-20:]
                print(f"vLLM on port {port} ended; its log ends with:", *last, sep="\n", file=sys.stderr, flush=True)


main()
