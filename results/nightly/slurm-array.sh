#!/bin/sh
# One plan over eight nodes, then joined; to be submitted by somebody who may mount:
#   array=$(sbatch --parsable slurm-array.sh run) && sbatch --dependency=afterany:$array --array=1 slurm-array.sh join
# What follows `run` goes to `punchbench run`: slurm-array.sh run --fs ext4,xfs
# A node that failed is run again alone, with the same words after `run`: sbatch --array=3 slurm-array.sh run
#SBATCH --job-name=punchbench
#SBATCH --array=1-8
#SBATCH --nodes=1 --exclusive
#SBATCH --time=04:00:00
set -eu

# As many as in --array above, whichever of them this job has.
: "${PUNCHBENCH_SHARDS:=8}"
: "${PUNCHBENCH_RESULTS:=$PWD/punchbench-shards}"

step=${1:-run}
[ $# -eq 0 ] || shift
status=0

case "$step" in
run)
    punchbench run --seed 7 --shard "$SLURM_ARRAY_TASK_ID/$PUNCHBENCH_SHARDS" \
        --out "$PUNCHBENCH_RESULTS/shard-$SLURM_ARRAY_TASK_ID" "$@" || status=$?
    # An unexpected result (1) is a result; so is a shard in which nothing could be exercised (4).
    [ "$status" -eq 0 ] || [ "$status" -eq 1 ] || [ "$status" -eq 4 ]
    ;;
join)
    # Fails if a shard or a trial is missing, or there twice; what there is, is reported all the same. What an
    # earlier join made goes: `merge` overwrites nothing.
    rm -rf "$PUNCHBENCH_RESULTS/whole"
    punchbench merge "$PUNCHBENCH_RESULTS"/shard-* --out "$PUNCHBENCH_RESULTS/whole" || status=$?
    punchbench report "$PUNCHBENCH_RESULTS/whole" --output "$PUNCHBENCH_RESULTS/report.html"
    exit "$status"
    ;;
*)
    echo "usage: $0 run [OPTION OF punchbench run]... | join" >&2
    exit 2
    ;;
esac
