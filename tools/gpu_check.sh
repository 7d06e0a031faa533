#!/usr/bin/env bash
# All checks that want a GPU, in about ten minutes. From a checkout with the extra "dev" installed, on a machine with an
# NVIDIA GPU of 16 GB or more:
#
#     tools/gpu_check.sh [FOLDER]
#
# What each part prints goes to FOLDER (gpu-check) as a file of its own; its last line is the exit code. A part that
# fails or takes too long leaves the others to run, and the script ends with 1.
set -uo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python}
folder=${1:-gpu-check}
failed=0
mkdir -p "$folder"

"$python" -c 'import torch; print(torch.__version__, torch.cuda.get_device_name())' | tee "$folder/machine.txt" || exit 1

part() { # NAME SECONDS COMMAND...
    local name=$1 seconds=$2 began=$SECONDS
    shift 2
    timeout "$seconds" "$@" > "$folder/$name.txt" 2>&1
    local code=$?
    echo "exit code $code" >> "$folder/$name.txt"
    echo "$name: exit code $code after $((SECONDS - began)) s"
    [ $code -eq 0 ] || failed=1
}

part contract 180 "$python" -m pytest -m "" -k cuda tests/hosts/standalone/test_contract.py
for precision in fp32 fp16 bf16; do # the figures are to be equal within 0.02
    part "figures-$precision" 60 "$python" -m embedding_estimate estimate "(red:1.5) circle" --device cuda \
        --dtype "$precision" --measure Full --json --overwrite --name "gpu-$precision" --out "$folder/embeddings"
done
part step-sd15 60 "$python" -m benchmarks.step_cost --shape sd15 --latent 64 --device cuda --json
part cost-sd15 90 "$python" -m benchmarks.cost --models sd15 --parts Attention --tokens 8 --prompt-tokens 16 \
    --latents 64 --steps 80 --sampling-steps 6 --measure Quick --device cuda --json
part cost-sdxl 120 "$python" -m benchmarks.cost --models sdxl --parts Attention --tokens 8 --prompt-tokens 16 \
    --latents 128 --steps 80 --sampling-steps 6 --measure Quick --device cuda --json
part memory-sdxl 90 "$python" -m benchmarks.memory --shape sdxl --latent 128 --jobs image,Attention,U-Net --device cuda --json
exit $failed
