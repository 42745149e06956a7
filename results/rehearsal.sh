#!/usr/bin/env bash
# The distill story at CPU size: prepare, score the base, train, score again, write the table.
#   bash results/rehearsal.sh          one run (what `make rehearsal` does)
#   bash results/rehearsal.sh seeds    seeds 1 and 2, and fewer traces, beside it
#   bash results/rehearsal.sh distill  the tuned model as a teacher behind a URL: new questions to a data set
set -euo pipefail
cd "$(dirname "$0")/.."
export HF_HUB_OFFLINE=1

run() { # run NAME [section.key=value ...]: train and score; an earlier run of this name is replaced
    local name=$1
    shift
    rm -rf "outputs/$name"
    accelerate launch --config_file recipes/hardware/cpu.yaml \
        train.py recipes/rehearsal.yaml "$@" --run-name "$name"
    python eval.py recipes/rehearsal.yaml "$@" --run-name "$name"
}

echo "== 1/5 problems and long-CoT traces"
python -m data_prep.rehearsal --out data/rehearsal

if [ "${1:-}" = seeds ]; then
    run rehearsal_s1 train.seed=1
    run rehearsal_s2 train.seed=2
    run rehearsal_n1000 data.max_samples=1000
    run rehearsal_n500 data.max_samples=500
    python -m results.tables
    exit
fi

if [ "${1:-}" = distill ]; then
    [ -e outputs/rehearsal/model ] || bash "$0"
    python -m data_prep.rehearsal --out data/rehearsal --questions 100
    rm -rf outputs/rehearsal/merged data/distill_rehearsal
    python -m longcot.models merge outputs/rehearsal/model outputs/rehearsal/merged
    # One thread: the model is too small for two, which would wait for each other.
    OMP_NUM_THREADS=1 python -m data_prep.distill make data_prep/distill_rehearsal.yaml \
        --transformers outputs/rehearsal/merged
    exit
fi

echo "== 2/5 the base model, untrained"
rm -rf outputs/rehearsal_base
python eval.py recipes/rehearsal_base.yaml
echo "== 3/5 LoRA on the traces, 4/5 the tuned model"
run rehearsal
echo "== 5/5 the difference and the table"
python eval.py compare rehearsal_base rehearsal --level 0.99
python -m results.tables
