"""A PEP 517 backend without dependencies that builds a wheel of the module ``ash``."""

import zipfile
from pathlib import Path

WHEEL = "ash-1.0-py3-none-any.whl"
METADATA = "Metadata-Version: 2.1\nName: ash\nVersion: 1.0\n"
TAGS = "Wheel-Version: 1.0\nGenerator: ash\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def build_wheel(
    wheel_directory: str, config_settings: object = None, metadata_directory: object = None
) -> str:
    del config_settings, metadata_directory
    files = {
        "ash.py": Path("ash.py").read_text(),
        "ash-1.0.dist-info/METADATA": METADATA,
        "ash-1.0.dist-info/WHEEL": TAGS,
    }
    record = "".join(f"{name},,\n" for name in (*files, "ash-1.0.dist-info/RECORD"))
    with zipfile.ZipFile(Path(wheel_directory, WHEEL), "w") as wheel:
        for name, text in {**files, "ash-1.0.dist-info/RECORD": record}.items():
            wheel.writestr(name, text)
    return WHEEL
