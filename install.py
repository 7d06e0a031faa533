"""Run by the WebUI before it starts. It brings what the extension needs; a very old one may lack a package."""

import launch

NEEDED = ("filelock", "safetensors", "tqdm")

for package in NEEDED:
    if not launch.is_installed(package):
        launch.run_pip(f"install {package}", f"{package}, which Embedding Estimate needs")
