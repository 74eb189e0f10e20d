"""The teacher as Triton's python backend runs it: the same worlds, planner and streams as in our own service.

`model.py` in the model repository only hands this module the backend's API. The settings are those of the service, from
the environment. Tensors come and go as torch tensors through DLPack: outputs made of numpy 2 arrays arrive empty,
without an error.
"""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.dlpack import from_dlpack

from teacher_service.app import make_planner, make_streams, make_teacher
from teacher_service.frames import frames_of
from teacher_service.jobs import Plan
from teacher_service.kserve.tensors import INPUTS, MODEL, OUTPUTS, frame_values, is_last, keeps_rejected, read_request
from world2vlm import telemetry
from world2vlm.errors import World2VLMError
from world2vlm.kserve.backend import CANCEL_POLL_S, failed
from world2vlm.kserve.marks import mark
from world2vlm.kserve.tensors import as_array
from world2vlm.settings import TeacherSettings
from world2vlm.v1 import teacher_pb2


class TeacherModel:
    """A decoupled model: one response for each frame, the last with the final flag.

    Attributes:
        backend: the module `triton_python_backend_utils`, which exists in Triton's stub process only.
    """

    backend: Any

    def initialize(self, args: Mapping[str, str]) -> None:
        """Make the worlds and warm them up; Triton calls it before any request."""
        try:
            settings = TeacherSettings.load()
            telemetry.configure_logging(settings.log_format, settings.log_level)
            teacher = make_teacher(settings)
            teacher.warm()
        except World2VLMError as error:
            raise self.backend.TritonModelException(mark(error)) from error
        self._planner = make_planner(settings, teacher)
        self._streams = make_streams(settings)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="streams", daemon=True)
        self._thread.start()

    def finalize(self) -> None:
        """Stop the work; Triton calls it when the last request has ended."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        with self._streams:
            pass

    def execute(self, requests: Sequence[Any]) -> None:
        """Begin the requests; their responses come from the loop's thread."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                # Now: the request's memory is Triton's.
                values = self._read(request)
            except Exception as error:
                self._end(sender, self._failed(error))
            else:
                asyncio.run_coroutine_threadsafe(self._answer(values, sender), self._loop)

    def _read(self, request: Any) -> dict[str, Any]:
        found = {tensor.name: self.backend.get_input_tensor_by_name(request, tensor.name) for tensor in INPUTS}
        return {name: from_dlpack(given).numpy().copy() for name, given in found.items() if given is not None}

    async def _answer(self, values: Mapping[str, Any], sender: Any) -> None:
        task = asyncio.ensure_future(self._send_frames(values, sender))
        # Never after the final response: the server would ask what is gone, and end.
        while not (await asyncio.wait({task}, timeout=CANCEL_POLL_S))[0]:
            if sender.is_cancelled():
                task.cancel()
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        self._end(sender, task.result() if error is None else self._failed(error))

    async def _send_frames(self, values: Mapping[str, Any], sender: Any) -> Any:
        """Send all frames but the last, which is returned."""
        last = None
        plan = partial(self._plan, values)
        async with aclosing(frames_of(self._streams, plan, keeps_rejected(values))) as frames:
            async for frame in frames:
                last = self._shown(frame)
                if not is_last(frame):
                    sender.send(last)
        return last

    def _plan(self, values: Mapping[str, Any]) -> Plan:
        return self._planner.plan(read_request(MODEL, values))

    def _shown(self, frame: teacher_pb2.Frame) -> Any:
        values = frame_values(frame)
        tensors = [(output.name, np.array(as_array(output, values[output.name]))) for output in OUTPUTS]
        return self.backend.InferenceResponse(
            [self.backend.Tensor.from_dlpack(name, torch.from_numpy(array)) for name, array in tensors]
        )

    def _end(self, sender: Any, response: Any) -> None:
        sender.send(response, flags=self.backend.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def _failed(self, error: BaseException) -> Any:
        return failed(self.backend, error, asyncio.CancelledError, "a trajectory")
