#!/usr/bin/env bash
# glm-mini from real data, with one command that may be interrupted and repeated; all of it lies under runs/glm-mini.
#   recipes/glm-mini/train.sh DATA [pretrain.yaml | pretrain-gpu.yaml] [key=value ...]
# DATA holds NAME.train.jsonl.gz of poems, wiki_zh, articles_zh, wiki_en, sentiment, topics, qa, summaries, dialogues.
set -euo pipefail
cd "$(dirname "$0")/../.."
data=$1 recipe=recipes/glm-mini/${2:-pretrain.yaml}
shift $(($# > 1 ? 2 : 1))
glmkit=${GLMKIT:-.venv/bin/glmkit} python=${PYTHON:-.venv/bin/python} out=runs/glm-mini
row_length=320

[ -d $out/corpus ] || $python recipes/glm-mini/data.py "$data" $out/corpus
[ -d $out/vocabulary ] || $python recipes/glm-mini/vocabulary.py $out/corpus/vocabulary.jsonl $out/vocabulary
# The corpus repeats small texts on purpose.
[ -f $out/data/report.json ] || $glmkit prepare $out/corpus/text.jsonl -o $out/data -t $out/vocabulary \
  --valid-ratio 0.001 --set data.steps.duplicates=false --overwrite
prepare_task() { # name, file, held-out share
  [ -f $out/tasks/"$1"/report.json ] || $glmkit prepare "$2" --task "$1" -o $out/tasks/"$1" -t $out/vocabulary \
    --max-length $row_length --valid-ratio "$3" --overwrite
}
prepare_task sentiment "$data/sentiment.train.jsonl.gz" 0.04  # enough to calibrate on
for pair in topics:topics qa:qa summary:summaries dialogue:dialogues; do
  prepare_task "${pair%%:*}" "$data/${pair##*:}.train.jsonl.gz" 0.005
done
prepare_task poem $out/corpus/poem.jsonl 0.004
prepare_task article $out/corpus/article.jsonl 0.01
[ -f $out/tasks/span/report.json ] || $glmkit prepare $out/corpus/span.jsonl --task qa -o $out/tasks/span -t $out/vocabulary \
  --max-length $row_length --valid-ratio 0.005 --overwrite
$glmkit pretrain "$recipe" "$@"
