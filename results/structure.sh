#!/usr/bin/env bash
# The structure story: every condition of Tables 2 and 4, from prepared data to its row in the table.
#   bash results/structure.sh             at full size: the 17k of data_prep/distill17k.yaml, made before
#   bash results/structure.sh rehearsal   at CPU size, three seeds (make rehearsal-structure)
# Behind either: options of python -m results.sweep. --plan tells steps, hours and cost of the whole sweep
# first; --only correct,shuffle67; --slots 0,1,2,3 4,5,6,7 runs two conditions side by side on eight GPUs.
# Started again, it skips what is scored and goes on with what was cut off.
# TRACES, WRONG and SOLUTIONS name other files of right traces, wrong traces and written solutions.
set -euo pipefail
cd "$(dirname "$0")/.."
plan=no
case " $* " in *" --plan "*) plan=yes ;; esac

if [ "${1:-}" = rehearsal ]; then
    shift
    export HF_HUB_OFFLINE=1
    folder=data/rehearsal_structure
    for seed in 0 1 2; do
        [ -e $folder/s$seed/manifest.json ] && continue
        rm -rf $folder/s$seed # cut off before its manifest
        python -m data_prep.rehearsal_structure --out $folder/source$seed --traces 1000 --seed $seed
        python -m data_prep.structure $folder/source$seed/train.jsonl --out $folder/s$seed \
            --wrong $folder/source$seed/wrong.jsonl --tokenizer data_prep/rehearsal_base
    done
    [ -e data/rehearsal/manifest.json ] || python -m data_prep.rehearsal --out data/rehearsal
    python -m results.sweep recipes/rehearsal_structure.yaml $folder/s{0,1,2} "$@"
    [ $plan = yes ] && exit
    # the untrained model sampled: 32 answers a problem; goes on if it was cut off
    python eval.py recipes/rehearsal_base.yaml eval.n=32 eval.temperature=0.5 eval.top_p=0.8 \
        --run-name rehearsal_structure_bestof
    python -m results.tables
    exit
fi

folder=data/structure traces=${TRACES:-data/distill17k/train.jsonl}
if [ ! -e $folder/manifest.json ]; then
    if [ $plan = yes ] && [ ! -e "$traces" ]; then
        echo "$traces is not there yet: one condition by assumed lengths, of nineteen that are no longer"
        exec python train.py recipes/structure32b.yaml data.path=NovaSky-AI/Sky-T1_data_17k \
            data.max_samples=4618 --plan --gpus recipes/hardware/8gpu_fsdp2.yaml
    fi
    [ -e data/structure_right.jsonl ] || python -m data_prep.distill subset "$traces" \
        --kind math --verdict right --count 4618 --out data/structure_right.jsonl
    rm -rf $folder # cut off before its manifest
    python -m data_prep.structure data/structure_right.jsonl --out $folder --workers "$(nproc)" \
        --wrong "${WRONG:-data/distill17k/wrong.jsonl}" ${SOLUTIONS:+--solutions "$SOLUTIONS"}
fi
python -m results.sweep recipes/structure32b.yaml $folder \
    --launch "accelerate launch --config_file recipes/hardware/8gpu_fsdp2.yaml" "$@"
[ $plan = yes ] && exit
python eval.py recipes/base32b.yaml # the untrained model, the first row; goes on if it was cut off
python -m results.tables
