"""Several vLLM servers on CPU that share what takes longest to start, which is importing vLLM: imported once, forked for each.

    python fleet.py MODEL LOGS PORT…

Ends with all of them when it is told to. It replaces how vLLM starts its engine (it would import all of itself anew) and how it looks at a model's
class (in a process of its own); both are internals of the release that requirements.txt names.
"""

import multiprocessing
import os
import signal
import sys
import traceback

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


def share() -> None:
    import transformers
    import vllm.entrypoints.launchers.api_server.entry  # noqa: F401
    import vllm.model_executor.models.qwen2_vl  # noqa: F401
    import vllm.v1.engine.async_llm  # noqa: F401
    import vllm.v1.engine.core  # noqa: F401
    import vllm.v1.executor.uniproc_executor  # noqa: F401
    import vllm.v1.worker.cpu_worker  # noqa: F401
    from vllm.model_executor.models import registry

    _ = transformers.Qwen2VLProcessor, transformers.AutoProcessor, transformers.AutoTokenizer
    registry._run_in_subprocess = lambda look: look()
    context = multiprocessing.get_context
    multiprocessing.get_context = lambda method=None: context("fork")


def serve(model: str, log: str, port: str) -> None:
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = [
        "vllm", "--model", model, "--served-model-name", "m", "--host", "127.0.0.1", "--port", port,
        "--dtype", "bfloat16", "--enforce-eager", "--distributed-executor-backend", "uni",
        "--max-model-len", "32768", "--block-size", "32", "--kv-cache-memory-bytes", str(16 << 20),
    ]  # fmt: skip
    from vllm.entrypoints.launchers.api_server.entry import main

    main()


def main() -> None:
    model, logs, *ports = sys.argv[1:]
    share()
    children = []
    for port in ports:
        child = os.fork()
        if child == 0:
            try:
                serve(model, os.path.join(logs, f"vllm-{port}.log"), port)
            except BaseException:
                traceback.print_exc()
            os._exit(1)
        children.append(child)

    def end(*_) -> None:
        for child in children:
            try:
                os.killpg(child, signal.SIGKILL)
            except ProcessLookupError:
                pass
        sys.exit()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    for child in children:
        os.waitpid(child, 0)


main()
