"""Tasks done side by side, on local processes or a Dask cluster, each kept as soon as it is finished.

A finished task is one file in a folder, so a run that ended early goes on where it stood. Every result is
read back from its JSON text: it is the same value whether it is fresh or kept, here or on a cluster.
"""

import hashlib
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import asdict, is_dataclass
from itertools import islice
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar
from urllib.parse import quote

from tqdm import tqdm

from device.errors import ConfigError
from device.messages.sealing import canonical
from device.plates import write_whole

T = TypeVar("T")
Result = dict[str, Any]
Answer = tuple[str | None, str]
"""The JSON text of a result, or None and why there is none."""
Answers = Generator[tuple[str, Answer], None, None]

_LIBRARIES = ["OMP_NUM", "OPENBLAS_NUM", "MKL_NUM", "TF_NUM_INTRAOP", "TF_NUM_INTEROP"]
ONE_THREAD = {"OPENCV_FOR_THREADS_NUM": "1"} | {f"{name}_THREADS": "1" for name in _LIBRARIES}
"""Environment of a task: tasks share the cores among themselves, and sums keep one order of adding."""
_FAULTS_TOLD = 10
_ANSWERS_WITHIN_S = 10.0
"""Longer than a scheduler in the same building ever takes."""


def run_tasks(
    tasks: Mapping[str, T],
    work: Callable[[T], Result],
    *,
    folder: Path,
    workers: int = 0,
    scheduler: str | None = None,
) -> dict[str, Result]:
    """Return the result of each task, in their order; what `folder` holds already is not done again.

    Parameters
    ----------
    tasks : mapping of str to T
        Tasks by name: plain values or records of them. A task that changed is done again.
    work : callable
        Function at the top of a module, which a worker imports; its result is JSON values. It must not depend
        on the other tasks.
    folder : Path
        Where results are kept, made if missing; files of tasks that are not asked for are left alone.
    workers : int
        Processes of this machine, 0 for one a core; with 1 the tasks are done in this process.
    scheduler : str, optional
        Address of a running Dask cluster, such as `tcp://10.0.0.5:8786`, that does them instead.

    Raises
    ------
    ConfigError
        After all others are done, with each task that failed and why; at once where `folder` cannot be
        written, the scheduler does not answer, or a task is no plain value.
    KeyboardInterrupt
        On Ctrl-C, saying how to go on; running tasks are stopped, finished ones are kept.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made ({error.strerror}); expected a writable place") from error
    texts = {key: _task_text(key, task, work) for key, task in tasks.items()}
    found = {key: _read_kept(folder, key, text) for key, text in texts.items()}
    results = {key: result for key, result in found.items() if result is not None}
    left = {key: task for key, task in tasks.items() if key not in results}
    faults: list[str] = []
    bar = tqdm(total=len(tasks), initial=len(results), unit="task", disable=None)
    try:
        with bar, closing(_answers(left, work, workers, scheduler)) as answers:
            for key, (text, why) in answers:
                if text is None:
                    faults.append(f"task {key}: {why}")
                else:
                    results[key] = _keep(folder, key, texts[key], text)
                bar.update()
    except KeyboardInterrupt:
        kept = f"{len(results)} of {len(tasks)} tasks are kept in {folder}"
        raise KeyboardInterrupt(f"{kept}; give the same command again to go on") from None
    if faults:
        more = len(faults) - _FAULTS_TOLD
        head = f"{len(faults)} of {len(tasks)} tasks failed, the others are kept in {folder}"
        rest = [f"and {more} more"] if more > 0 else []
        raise ConfigError(
            [f"{head}; mend these and give the same command again", *faults[:_FAULTS_TOLD], *rest]
        )
    return {key: results[key] for key in tasks}


def _task_text(key: str, task: object, work: Callable[..., Result]) -> str:
    """Return what a kept result must have been made from."""
    try:
        what = json.dumps(task, default=_plain, sort_keys=True)
    except TypeError as error:
        raise ConfigError(f"task {key}: {error}; expected plain values or records of them") from error
    return f"{work.__module__}.{work.__qualname__} {key} {what}"


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"holds a {type(value).__name__}")


def _path_of(folder: Path, key: str) -> Path:
    return folder / f"{quote(key, safe='')}.json"


def _digest(task: str, result: Result) -> str:
    """Return one hash for both, so that a changed task and a damaged file look the same: not done."""
    return hashlib.sha256(canonical({"task": task, "result": result})).hexdigest()


def _read_kept(folder: Path, key: str, task: str) -> Result | None:
    try:
        document = json.loads(_path_of(folder, key).read_bytes())
        result: Result = document["result"]
        return result if document["sha256"] == _digest(task, result) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep(folder: Path, key: str, task: str, text: str) -> Result:
    result: Result = json.loads(text)
    document = {"task": key, "sha256": _digest(task, result), "result": result}
    write_whole(_path_of(folder, key), [json.dumps(document, indent=1, allow_nan=False), "\n"])
    return result


def _answers(
    tasks: Mapping[str, T], work: Callable[[T], Result], workers: int, scheduler: str | None
) -> Answers:
    if not tasks:
        return
    if scheduler is not None:
        yield from _ask_dask(tasks, work, scheduler)
        return
    workers = workers or len(os.sched_getaffinity(0))
    with _one_thread():
        if workers == 1:
            for key, task in tasks.items():
                yield key, _do(work, task)
        else:
            yield from _ask_processes(tasks, work, min(workers, len(tasks)))


def _do(work: Callable[[T], Result], task: T) -> Answer:
    """Return the answer to one task: in any process, the same text."""
    try:
        return json.dumps(work(task), allow_nan=False), ""
    except Exception as error:  # noqa: BLE001  one task's fault, of whatever kind, must not end the others
        return None, f"{type(error).__name__}: {error}"


def _do_there(work: Callable[[T], Result], task: T) -> Answer:
    """Return what `_do` does, in a cluster's worker: its environment is not ours, but its process is."""
    os.environ.update(ONE_THREAD)
    return _do(work, task)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Set the environment of tasks here, where processes started meanwhile inherit it."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _ask_processes(tasks: Mapping[str, T], work: Callable[[T], Result], workers: int) -> Answers:
    left = dict(tasks)
    while left:
        suspects = yield from _ask_pool(left, work, workers)
        for key in suspects:
            # alone, so that no task is given up for the death that another one caused
            died = yield from _ask_pool({key: left.pop(key)}, work, 1)
            if died:
                yield key, (None, "its process died twice; expected it to fit into memory and not to crash")


def _ask_pool(
    left: dict[str, T], work: Callable[[T], Result], workers: int
) -> Generator[tuple[str, Answer], None, tuple[str, ...]]:
    """Yield answers and take their tasks out of `left`; return the tasks that ran when a process died."""
    ours = set(multiprocessing.active_children())
    running: dict[Future[Answer], str] = {}
    # TensorFlow does not survive a fork
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_end_with_parent) as pool:
        try:
            waiting = iter(tuple(left))
            while True:
                # no more than run at once: those in a queue would be suspects too
                for key in islice(waiting, workers - len(running)):
                    with _deaf_children():
                        running[pool.submit(_do, work, left[key])] = key
                if not running:
                    return ()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    error = future.exception()
                    if isinstance(error, BrokenProcessPool):
                        raise error
                    key = running.pop(future)
                    del left[key]
                    why = f"{type(error).__name__}: {error}"
                    yield key, (future.result() if error is None else (None, why))
        except BrokenProcessPool:
            return tuple(running.values())
        except (KeyboardInterrupt, GeneratorExit):
            for child in set(multiprocessing.active_children()) - ours:
                child.kill()
            raise


def _exit_after(process: BaseProcess) -> None:
    process.join()
    os._exit(1)


def _end_with_parent() -> None:
    """Let this process end when its parent is killed; by itself it would wait for its next task for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        Thread(target=_exit_after, args=(parent,), daemon=True).start()


@contextmanager
def _deaf_children() -> Iterator[None]:
    """Hold back SIGINT, and for good in a process started meanwhile: Ctrl-C asks us, and we stop it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ask_dask(tasks: Mapping[str, T], work: Callable[[T], Result], scheduler: str) -> Answers:
    try:
        from distributed import Client, as_completed
    except ModuleNotFoundError as missing:
        raise ConfigError(
            f"--scheduler needs the Python module {missing.name!r}, which is not installed; "
            "install nanotox with the extra dask"
        ) from missing
    try:
        client = Client(scheduler, timeout=_ANSWERS_WITHIN_S)
    except (OSError, ValueError) as refusal:
        raise ConfigError(
            f"no Dask scheduler answers at {scheduler} ({refusal}); expected an address such as "
            "tcp://10.0.0.5:8786 of a running cluster"
        ) from refusal
    with client:
        # a task whose worker died is begun again elsewhere by the scheduler, up to its `allowed-failures`
        futures = {client.submit(_do_there, work, task, pure=False): key for key, task in tasks.items()}
        try:
            for future in as_completed(futures):
                error = future.exception()
                why = f"{type(error).__name__}: {error}"
                yield futures[future], (future.result() if error is None else (None, why))
        except CancelledError as lost:
            raise ConfigError(
                f"the Dask scheduler at {scheduler} is gone; finished tasks are kept: start it again and "
                "give the same command"
            ) from lost
        except (KeyboardInterrupt, GeneratorExit):
            client.cancel(list(futures))
            raise
