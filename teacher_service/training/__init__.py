"""How the geometric world's small networks were made: `python -m teacher_service.training depth`, `… inpaint`."""
