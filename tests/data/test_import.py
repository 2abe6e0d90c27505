from __future__ import annotations

import subprocess
import sys


def test_importing_brings_in_no_reader_library() -> None:
    code = "import sys, lasem.data; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"pyarrow", "PIL", "sklearn"} & set(loaded)
