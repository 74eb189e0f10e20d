"""Worlds that live in a process and an environment of their own, behind the teacher's own gRPC contract."""

from teacher_service.remote.launch import Launch, WorkerOptions
from teacher_service.remote.making import Model, worker_folder
from teacher_service.remote.process import WorkerProcess
from teacher_service.remote.world import RemoteWorld

__all__ = ["Launch", "Model", "RemoteWorld", "WorkerOptions", "WorkerProcess", "worker_folder"]
