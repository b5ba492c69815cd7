#!/bin/sh
# One plan over eight nodes, then joined; to be submitted by somebody who may mount:
#   array=$(sbatch --parsable slurm-array.sh run) && sbatch --dependency=afterany:$array --array=1 slurm-array.sh join
#SBATCH --job-name=punchbench
#SBATCH --array=1-8
#SBATCH --nodes=1 --exclusive
#SBATCH --time=04:00:00
set -eu

: "${PUNCHBENCH_RESULTS:=$PWD/punchbench-shards}"

case "${1:-run}" in
run)
    status=0
    punchbench run --scenario '*' --seed 7 --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_MAX" \
        --out "$PUNCHBENCH_RESULTS/shard-$SLURM_ARRAY_TASK_ID" || status=$?
    # An unexpected result (1) is a result; so is a shard in which nothing could be exercised (4).
    [ "$status" -eq 0 ] || [ "$status" -eq 1 ] || [ "$status" -eq 4 ]
    ;;
join)
    # Fails if a shard or a trial is missing, or there twice.
    punchbench merge "$PUNCHBENCH_RESULTS"/shard-* --out "$PUNCHBENCH_RESULTS/whole"
    punchbench report "$PUNCHBENCH_RESULTS/whole" --output "$PUNCHBENCH_RESULTS/report.html"
    ;;
*)
    echo "usage: $0 run|join" >&2
    exit 2
    ;;
esac
