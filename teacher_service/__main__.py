"""`python -m teacher_service`: one teacher service, configured by `WORLD2VLM_*` and `world2vlm.toml`."""

import sys

from teacher_service.app import run
from world2vlm.errors import World2VLMError
from world2vlm.settings import TeacherSettings


def main() -> int:
    """Serve; return 2 where the settings or the port are bad."""
    try:
        run(TeacherSettings.load())
    except World2VLMError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
