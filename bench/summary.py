"""Who wins each figure of bench/headline, and by what ratio: medians of the rounds, and the ratio of each round with its spread."""
import json
import sys
from pathlib import Path
from statistics import median

# Scenario, metric, what it is called, whether more is better.
FIGURES = [
    ("large", "produce_bytes_per_second", "large batches, one producer: MB/s", 1e-6, True),
    ("large", "broker_cpu_seconds_per_gb", "large batches: CPU seconds of the broker per GB", 1, False),
    ("small", "produce_records_per_second", "100 producers, small keyed records, 100 partitions: records/s", 1, True),
    ("small", "produce_latency_planned_p99_us", "the same: p99 in ms", 1e-3, False),
    ("tail", "consume_latency_planned_p50_us", "tail consume at a quarter of the slower's peak: p50 end to end in ms", 1e-3, False),
    ("tail", "consume_latency_planned_p99_us", "the same: p99 end to end in ms", 1e-3, False),
    ("drain", "consume_bytes_per_second", "cold drain while producing: MB/s", 1e-6, True),
    ("drain-beside", "produce_latency_planned_p99_us", "producing beside the drain: p99 in ms", 1e-3, False),
    ("e2e", "consume_latency_planned_p50_us", "end to end at half of the slower's peak: p50 in ms", 1e-3, False),
    ("e2e", "consume_latency_planned_p99_us", "the same: p99 in ms", 1e-3, False),
    ("e2e", "consume_latency_planned_p999_us", "the same: p99.9 in ms", 1e-3, False),
    ("peak", "peak_burst_latency_planned_p99_us", "a peak of 5x over the base: p99 of the bursts in ms", 1e-3, False),
    ("peak", "peak_ingest_fidelity", "the same: acknowledged of offered", 1, True),
    ("peak", "peak_drain_seconds", "the same: seconds until the backlog is gone", 1, False),
    ("large", "broker_memory_bytes_max", "memory under load: MB", 1e-6, False),
    ("large", "peer:idle_memory_bytes", "memory when idle: MB", 1e-6, False),
    ("large", "peer:start_ms", "start until the first answer: ms", 1, False),
]


def value(result, metric):
    if metric.startswith("peer:"):
        return result["target"]["peer"][metric[5:]]
    values = [m["values"] for m in result["metrics"] if m["name"] == metric]
    return median(values[0]) if values and values[0] else None


def rounds(out, scenario, side):
    runs = {}
    for path in sorted((out / scenario / side).glob("round-*/result.json")):
        runs[path.parent.name] = json.loads(path.read_text())
    return runs


def main(out):
    table, not_valid, lost = [], [], []
    for scenario, metric, name, scale, more in FIGURES:
        ours, theirs = rounds(out, scenario, "forebay"), rounds(out, scenario, "kafka")
        pairs = [(value(ours[r], metric), value(theirs[r], metric)) for r in ours if r in theirs]
        pairs = [(a, b) for a, b in pairs if a is not None and b is not None]
        if not pairs:
            continue
        ratios = [a / b if b else float("inf") for a, b in pairs]
        low, mid, high = min(ratios), median(ratios), max(ratios)
        # A ratio whose spread holds 1 says nothing.
        winner = "even" if low <= 1 <= high else "Forebay" if (mid > 1) == more else "Kafka"
        table.append((name, median(a for a, _ in pairs) * scale, median(b for _, b in pairs) * scale, mid, low, high, winner, len(pairs)))
    for path in sorted(out.glob("*/*/round-*/result.json")):
        result = json.loads(path.read_text())
        where = "/".join(path.parts[-4:-1])
        # The producer beside a drain is ended by a signal when the drain is over.
        if not result["verdict"]["valid"] and "drain-beside" not in where:
            not_valid.append(f"{where}: {'; '.join(result['verdict']['reasons'])}")
        safety = result["verdict"]["safety"]
        if safety and any(safety[kind] for kind in ("lost", "duplicated", "reordered", "corrupt")):
            lost.append(f"{where}: {safety}")
    wide = max(len(row[0]) for row in table)
    print(f"{'':{wide}}  {'Forebay':>10}  {'Kafka':>10}  ratio (spread)          better")
    for name, a, b, mid, low, high, winner, count in table:
        print(f"{name:{wide}}  {a:10.3g}  {b:10.3g}  {mid:5.2f} ({low:.2f} to {high:.2f}) {winner:>12}" + ("" if count >= 5 else f"  ({count} rounds)"))
    for line in not_valid:
        print(f"not valid: {line}")
    for line in lost:
        print(f"RECORDS NOT SAFE: {line}")


main(Path(sys.argv[1]))
