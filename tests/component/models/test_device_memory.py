"""How full the GPU is that translates; torch is asked for a device only where the process works with one."""

import torch

import models
from models.translators import devices


def test_without_a_gpu_in_use_there_is_no_memory_to_tell_of():
    assert devices.memory() is None
    assert models.device_memory() is None


def test_the_gpu_that_was_chosen_is_asked_from_whatever_thread(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _number: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: (100 - number, 100))
    monkeypatch.setitem(devices._used, "gpu", 0)
    devices.use_gpu(3)
    assert models.device_memory() == (3, 100)
