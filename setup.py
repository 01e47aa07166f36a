"Packaging: every field comes from settings.ini, and the addresses from pyproject.toml; nothing is written twice."

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_namespace_packages, setup

here = Path(__file__).parent
parser = ConfigParser(delimiters=["="])
parser.read(here / "settings.ini", encoding="utf-8")
cfg = parser["DEFAULT"]

suffix = "_requirements"
extras = {
    key.removesuffix(suffix).replace("_", "-"): value.split()
    for key, value in cfg.items()
    if key.endswith(suffix)
}
for name in ("plot", "train", "hub", "lora", "track", "remote", "openai", "curate"):
    extras["dev"] += extras[name]

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    author_email=cfg["author_email"],
    license=cfg["license"],
    keywords=cfg["keywords"].split(),
    classifiers=[line.strip() for line in cfg["classifiers"].splitlines() if line.strip()],
    packages=find_namespace_packages(  # folders of data alone are packages too
        include=["dart_math_nb", "dart_math_nb.*"], exclude=["*.__pycache__"]
    ),
    package_data={  # dart_math_nb/recipes is a link to recipes/, so that an editable install has them too
        "dart_math_nb": [
            "py.typed",
            "demo/checkpoints/*/*",
            "evaluate/paper.json",
            "recipes/*.yaml",
            "recipes/*/*",
        ]
    },
    python_requires=f">={cfg['min_python']}",
    install_requires=cfg["requirements"].split(),
    extras_require=extras,
    entry_points={
        "console_scripts": cfg["console_scripts"].split(),
        "nbdev": [f"{cfg['lib_name']}={cfg['lib_name']}._modidx:d"],
    },
)
