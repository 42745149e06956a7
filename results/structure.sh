#!/usr/bin/env bash
# The structure story: every condition of Tables 2 and 4, from prepared data to its row in the table.
#   bash results/structure.sh             at full size, on the data sets of recipes/structure32b.yaml's header
#   bash results/structure.sh rehearsal   at CPU size, three seeds (make rehearsal-structure)
# Behind either: options of python -m results.sweep. --plan tells steps, hours and cost of the whole sweep
# first; --only correct,shuffle67; --slots 0,1,2,3 4,5,6,7 runs two conditions side by side on eight GPUs.
# Started again, it skips what is scored and goes on with what was cut off.
# TRACES, WRONG and SOLUTIONS name other files of right traces, wrong traces and written solutions.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "${1:-}" = rehearsal ]; then
    shift
    export HF_HUB_OFFLINE=1
    folder=data/rehearsal_structure
    for seed in 0 1 2; do
        [ -e $folder/s$seed/manifest.json ] && continue
        python -m data_prep.rehearsal_structure --out $folder/source$seed --traces 1000 --seed $seed
        python -m data_prep.structure $folder/source$seed/train.jsonl --out $folder/s$seed \
            --wrong $folder/source$seed/wrong.jsonl --tokenizer data_prep/rehearsal_base
    done
    [ -e data/rehearsal/test.jsonl ] || python -m data_prep.rehearsal --out data/rehearsal
    python -m results.sweep recipes/rehearsal_structure.yaml $folder/s{0,1,2} "$@"
    bestof=(eval.n=32 eval.temperature=0.5 eval.top_p=0.8)
    case " $* " in *" --plan "*) exit ;; esac
    [ -e outputs/rehearsal_structure_bestof ] ||
        python eval.py recipes/rehearsal_base.yaml "${bestof[@]}" --run-name rehearsal_structure_bestof
    python -m results.tables
    exit
fi

if [ ! -e data/structure/manifest.json ]; then
    python -m data_prep.distill subset "${TRACES:-data/distill17k/train.jsonl}" --kind math --verdict right \
        --out data/structure_right.jsonl
    python -m data_prep.structure data/structure_right.jsonl --out data/structure --workers "$(nproc)" \
        --wrong "${WRONG:-data/distill17k/wrong.jsonl}" ${SOLUTIONS:+--solutions "$SOLUTIONS"}
fi
python -m results.sweep recipes/structure32b.yaml data/structure \
    --launch "accelerate launch --config_file recipes/hardware/8gpu_fsdp2.yaml" "$@"
case " $* " in *" --plan "*) exit ;; esac
python -m results.tables
